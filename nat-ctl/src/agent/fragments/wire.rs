//! The way of fragments to the wire: a raw socket, by an interface that is given.
//!
//! Invariant: what is sent here leaves by that interface or not at all. The data plane has found it on the
//! side that the flow is for, so the guard on the way out need not look at it again.
#![allow(unsafe_code, reason = "an option of the socket that no crate has")]

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use nat_common::layout::MARK;
use nix::{
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};
use socket2::{Domain, Protocol, Socket, Type};

/// IP_NODEFRAG of include/uapi/linux/in.h: conntrack must not put together what leaves in pieces.
const IP_NODEFRAG: libc::c_int = 22;

/// The socket.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the kernel says; CAP_NET_RAW and CAP_NET_ADMIN are needed.
    pub fn open() -> io::Result<Self> {
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.set_header_included_v4(true)?;
        socket.set_mark(MARK)?;
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is the socket's, and the value an int that lives during the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                IP_NODEFRAG,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// Sends a packet to the destination in its header, by this interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, packet: &[u8], ifindex: u32) -> io::Result<()> {
        let destination = packet.get(16..).and_then(|rest| rest.first_chunk::<4>());
        let &destination = destination.ok_or(io::ErrorKind::InvalidInput)?;
        let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::from(destination), 0));
        let way = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            self.0.as_raw_fd(),
            &[IoSlice::new(packet)],
            &[ControlMessage::Ipv4PacketInfo(&way)],
            MsgFlags::empty(),
            Some(&address),
        )?;
        Ok(())
    }
}
