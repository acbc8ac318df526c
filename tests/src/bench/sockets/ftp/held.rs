//! How long a PORT line is on its way through the gateway: one packet socket sees it leave the
//! client, another one sees it leave the gateway, and one clock stamps both.
//!
//! Invariant: what is given back was rewritten, where the gateway translates at all.

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
        setsockopt, socket, sockopt,
    },
    sys::time::TimeSpec,
};

use super::super::super::topology::{CLIENT, Topology};
use crate::{frame::Frame, netns::Namespace};

/// Of each frame: headers with options, and a line.
const SEEN: usize = 256;

/// The two packet sockets.
#[derive(Debug)]
pub(super) struct Watch {
    client: OwnedFd,
    gateway: OwnedFd,
}

impl Watch {
    /// Sees everything from here on.
    pub(super) fn start(topology: &Topology) -> Result<Self> {
        Ok(Self { client: tap(&topology.client)?, gateway: tap(&topology.gateway)? })
    }

    /// Lets go of what has been seen.
    pub(super) fn forget(&self) -> Result<()> {
        port_lines(&self.client)?;
        port_lines(&self.gateway).map(drop)
    }

    /// From client to wire, for the one PORT line that passed since the last look. With `translated`
    /// it has to name another address outside than inside.
    pub(super) fn held(&self, translated: bool) -> Result<Duration> {
        // The gateway sees it come and go; what leaves is what it sees last.
        let first = port_lines(&self.client)?.into_iter().next();
        let last = port_lines(&self.gateway)?.pop();
        let (sent, line) = first.context("no PORT line left the client")?;
        let (left, rewritten) = last.context("no PORT line reached the gateway")?;
        let [a, b, c, d] = CLIENT.octets();
        let own = format!("PORT {a},{b},{c},{d},");
        ensure!(line.starts_with(&own), "the client said `{line}`");
        ensure!(
            rewritten.starts_with(&own) != translated,
            "what left the gateway last was `{rewritten}`"
        );
        left.checked_sub(sent).context("a line left the gateway before it left the client")
    }
}

/// A socket to which the kernel shows what every device of a namespace sends and receives.
fn tap(namespace: &Namespace) -> Result<OwnedFd> {
    let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
    let tap = namespace
        .enter(|| socket(family, SockType::Raw, flags, SockProtocol::EthAll))?
        .with_context(|| format!("open a packet socket in {}", namespace.name()))?;
    setsockopt(&tap, sockopt::ReceiveTimestampns, &true).context("ask for time stamps")?;
    Ok(tap)
}

/// Every PORT line that a socket has seen since it was asked last, and when.
fn port_lines(tap: &OwnedFd) -> Result<Vec<(Duration, String)>> {
    let mut lines = Vec::new();
    let mut bytes = [0; SEEN];
    let mut control = nix::cmsg_space!(TimeSpec);
    loop {
        let mut room = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let (length, stamp) =
            match recvmsg::<()>(tap.as_raw_fd(), &mut room, Some(&mut control), flags) {
                Ok(message) => {
                    (message.bytes, stamp(message.cmsgs().context("read a time stamp")?))
                }
                Err(Errno::EAGAIN) => return Ok(lines),
                Err(error) => return Err(error).context("read from a packet socket"),
            };
        let frame = Frame::parse(&bytes[..length]);
        let payload = frame.ipv4.and_then(|ip| ip.tcp).map(|tcp| tcp.payload).unwrap_or_default();
        if payload.starts_with(b"PORT ") {
            let line = String::from_utf8_lossy(&payload).trim_end().to_owned();
            lines.push((stamp.context("a frame without a time stamp")?, line));
        }
    }
}

fn stamp(mut messages: impl Iterator<Item = ControlMessageOwned>) -> Option<Duration> {
    messages.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    })
}
