//! A host that is only a wire: it sends packets as they are and sees all that come, and no kernel
//! answers in its name.
//!
//! Invariant: the device of the host has no address, so its kernel knows of nothing that arrives; and the
//! gateway knows the link address of the host for good, so it asks nobody.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
        setsockopt, socket, sockopt,
    },
};

use crate::netns::Namespace;

/// Bytes of frames that may wait to be received.
const BUFFER: usize = 64 << 20;
const LINK_HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Length of an IPv6 header.
const HEADER6: usize = 40;

/// One end.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    /// Ethertype of its packets.
    kind: [u8; 2],
    /// Link header of what is sent.
    header: Vec<u8>,
}

impl Wire {
    /// Takes over `device` of a host whose gateway has the device `to`, and has known it as `address`.
    pub fn new(
        host: &Namespace,
        device: &str,
        address: impl Into<IpAddr>,
        (gateway, to): (&Namespace, &str),
    ) -> Result<Self> {
        let address = address.into();
        host.ip(&format!("address flush dev {device}"))?;
        if address.is_ipv6() {
            // Else the kernel has addresses of the link, and forwards what is for others.
            host.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
        }
        let here = link_address(host, device)?;
        gateway.ip(&format!("neighbour replace {address} lladdr {here} dev {to} nud permanent"))?;
        Self::beside(host, device, address.is_ipv6(), (gateway, to))
    }

    /// One beside the kernel of `host`, which keeps its addresses and answers in its own name: it sends for
    /// IPv6 or IPv4 in anybody's.
    pub fn beside(
        host: &Namespace,
        device: &str,
        is_ipv6: bool,
        (gateway, to): (&Namespace, &str),
    ) -> Result<Self> {
        let [here, there] = [link_address(host, device)?, link_address(gateway, to)?];
        let open = || {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            bind(socket.as_raw_fd(), &here).map(|()| socket)
        };
        let socket = host.enter(open)?.with_context(|| format!("open a socket on {device}"))?;
        let kind = if is_ipv6 { IPV6 } else { IPV4 };
        let ends = [there, here].map(|end| end.addr().unwrap_or_default());
        Ok(Self { socket, kind, header: [ends.as_flattened(), &kind].concat() })
    }

    /// Sends an IP packet, or what passes for one.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let frame = [&self.header, packet].concat();
        send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).context("send a frame")?;
        Ok(())
    }

    /// The next packet of its family that has come, without its link header and what pads its frame.
    pub fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 1 << 16];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error).context("receive a frame"),
            };
            let (header, packet) = frame[..length].split_at(LINK_HEADER.min(length));
            if header.ends_with(&self.kind) {
                // Where the length stands, and what it leaves out.
                let (at, more) = if self.kind == IPV6 { (4, HEADER6) } else { (2, 0) };
                let total = packet.get(at..at + 2).map_or(0, |total| {
                    usize::from(u16::from_be_bytes([total[0], total[1]])) + more
                });
                return Ok(Some(packet[..total.min(packet.len())].to_vec()));
            }
        }
    }
}

/// Link address of a device; one to bind to.
fn link_address(namespace: &Namespace, device: &str) -> Result<LinkAddr> {
    let all = namespace.enter(|| getifaddrs().map(Iterator::collect::<Vec<_>>))?;
    let mut own =
        all.context("list the devices")?.into_iter().filter(|it| it.interface_name == device);
    own.find_map(|it| it.address?.as_link_addr().copied())
        .with_context(|| format!("no {device} in {}", namespace.name()))
}
