//! The way back to the wire: raw sockets whose packets carry their own IP header.
//!
//! Invariant: what is sent of IPv4 is marked, so that the guard on the way out knows it as
//! translated; of IPv6, which is not, nothing needs that. Sending never waits: a full queue is a lost
//! packet, which TCP repeats.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd as _,
};

use nat_common::layout::AGENT_MARK;
use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};
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

    /// Sends a packet to the destination in its header; by the interface with that number, where one
    /// is named.
    ///
    /// # Errors
    /// [`SendError::TooBig`] where cutting it helps.
    pub fn send(&self, packet: &[u8], uplink: Option<u32>) -> Result<(), SendError> {
        let Some([_, destination]) = ends(packet) else {
            return Err(SendError::Refused(io::ErrorKind::InvalidInput.into()));
        };
        let address = SocketAddrV4::new(destination, 0);
        told(match uplink {
            None => self.socket.send_to(packet, &SockAddr::from(address)).map(drop),
            Some(index) => send_by(&self.socket, index, packet, address),
        })
    }

    /// The same for a packet of IPv6.
    ///
    /// # Errors
    /// See [`RawSender::send`].
    pub fn send6(&self, packet: &[u8]) -> Result<(), SendError> {
        let (Some([_, destination]), Some(six)) = (ends6(packet), &self.six) else {
            return Err(SendError::Refused(io::ErrorKind::InvalidInput.into()));
        };
        let address = SocketAddrV6::new(destination, 0, 0, 0);
        told(six.send_to(packet, &SockAddr::from(address)).map(drop))
    }
}

fn told(sent: io::Result<()>) -> Result<(), SendError> {
    sent.map_err(|error| match error.raw_os_error() {
        Some(libc::EMSGSIZE) => SendError::TooBig,
        _ => SendError::Refused(error),
    })
}

/// Sends a packet with its own header by the interface with that number, or not at all.
///
/// # Errors
/// What the kernel says.
pub fn send_by(socket: &Socket, index: u32, packet: &[u8], to: SocketAddrV4) -> io::Result<()> {
    let way = libc::in_pktinfo {
        ipi_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
        ipi_spec_dst: libc::in_addr { s_addr: 0 },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(packet)],
        &[ControlMessage::Ipv4PacketInfo(&way)],
        MsgFlags::empty(),
        Some(&SockaddrIn::from(to)),
    )?;
    Ok(())
}

/// The address that the kernel takes for what this machine sends there (RFC 6724). No packet is sent.
///
/// # Errors
/// What the kernel says: there may be no way.
pub fn source6(to: Ipv6Addr) -> io::Result<Ipv6Addr> {
    // Any port: only a socket that is connected has an address.
    const DISCARD: u16 = 9;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect((to, DISCARD))?;
    match socket.local_addr()?.ip() {
        IpAddr::V6(own) => Ok(own),
        IpAddr::V4(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Source and destination of a packet of IPv6.
pub fn ends6(packet: &[u8]) -> Option<[Ipv6Addr; 2]> {
    let address = |at: usize| {
        let bytes = packet.get(at..)?.first_chunk::<16>()?;
        Some(Ipv6Addr::from(*bytes))
    };
    Some([address(8)?, address(24)?])
}

/// Source and destination of a packet.
pub fn ends(packet: &[u8]) -> Option<[Ipv4Addr; 2]> {
    let address = |at: usize| {
        let bytes = packet.get(at..)?.first_chunk::<4>()?;
        Some(Ipv4Addr::from(*bytes))
    };
    Some([address(12)?, address(16)?])
}
