//! The way of fragments to the wire: a raw socket, by an interface that is given.
//!
//! Invariant: what is sent here leaves by that interface or not at all. The data plane has found it on the
//! side that the flow is for, so the guard on the way out need not look at it again.
#![allow(unsafe_code, reason = "an option of the socket that no crate has")]

use std::{io, net::SocketAddrV4, os::fd::AsRawFd as _};

use nat_common::layout::MARK;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent::send::{ends, send_by};

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
        let [_, destination] = ends(packet).ok_or(io::ErrorKind::InvalidInput)?;
        send_by(&self.0, ifindex, packet, SocketAddrV4::new(destination, 0))
    }
}
