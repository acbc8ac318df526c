//! The way back to the wire: raw sockets whose packets carry their own IP header.
//!
//! Invariant: what is sent of IPv4 is marked, so that the guard on the way out knows it as
//! translated; of IPv6, which is not, nothing needs that. Sending never waits: a full queue is a lost packet, which TCP repeats.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use nat_common::layout::AGENT_MARK;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// IPPROTO_RAW: the kernel takes the header as it is (raw(7)).
const IPPROTO_RAW: i32 = 255;

/// Why a packet was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Larger than the MTU of the way out.
    #[error("the packet is larger than the MTU of the way out")]
    TooBig,
    /// Anything else that the kernel says.
    #[error("{0}")]
    Refused(io::Error),
}

/// Sends packets with the addresses that are in them.
#[derive(Debug)]
pub struct RawSender {
    socket: Socket,
    /// None where the kernel has no IPv6.
    six: Option<Socket>,
}

impl RawSender {
    /// Opens the socket in the network namespace of this thread.
    ///
    /// # Errors
    /// What the kernel says; CAP_NET_RAW and CAP_NET_ADMIN are needed.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
        socket.set_nonblocking(true)?;
        socket.set_header_included_v4(true)?;
        socket.set_mark(AGENT_MARK)?;
        // A socket of IPPROTO_RAW receives nothing, so its receive buffer costs nothing.
        let six = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
        let six = six.and_then(|six| six.set_nonblocking(true).map(|()| six)).ok();
        Ok(Self { socket, six })
    }

    /// Sends a packet to the destination in its header.
    ///
    /// # Errors
    /// [`SendError::TooBig`] where cutting it helps.
    pub fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        let destination = packet.get(16..).and_then(|rest| rest.first_chunk::<4>());
        let Some(&destination) = destination else {
            return Err(SendError::Refused(io::ErrorKind::InvalidInput.into()));
        };
        send(&self.socket, packet, SocketAddrV4::new(Ipv4Addr::from(destination), 0).into())
    }

    /// The same for a packet of IPv6.
    ///
    /// # Errors
    /// See [`RawSender::send`].
    pub fn send6(&self, packet: &[u8]) -> Result<(), SendError> {
        let destination = packet.get(24..).and_then(|rest| rest.first_chunk::<16>());
        let (Some(&destination), Some(six)) = (destination, &self.six) else {
            return Err(SendError::Refused(io::ErrorKind::InvalidInput.into()));
        };
        let address = SocketAddrV6::new(Ipv6Addr::from(destination), 0, 0, 0);
        send(six, packet, address.into())
    }
}

fn send(socket: &Socket, packet: &[u8], to: SocketAddr) -> Result<(), SendError> {
    match socket.send_to(packet, &SockAddr::from(to)) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => Err(SendError::TooBig),
        Err(error) => Err(SendError::Refused(error)),
    }
}
