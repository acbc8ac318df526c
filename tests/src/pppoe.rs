//! PPP over Ethernet (RFC 2516) in user space, as not every kernel has it: the packets of a TUN device in
//! frames on an Ethernet link, and at the other end of that link likewise.
//!
//! ```text
//!   ppp0 (TUN) <-> thread, packet socket == Ethernet == packet socket, thread <-> isp0 (TUN)
//! ```
//!
//! What PPP would settle by LCP and IPCP is settled: both ends have their addresses and the MTU.
//!
//! Invariant: a packet is taken from a frame only if that is of the session and as section 4 has it.

use std::{
    ffi::c_int,
    io::Read as _,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind},
};
use socket2::{Domain, Protocol, Socket, Type};
use tappers::Tun;

use crate::{link::End, netns::Namespace, tun};

/// EtherType of the discovery stage.
pub const DISCOVERY: u16 = 0x8863;
/// EtherType of the session stage.
pub const SESSION: u16 = 0x8864;
/// What a frame of 1,500 bytes takes of a packet (section 7).
pub const MTU: u16 = 1492;
/// Bytes before the IPv4 packet in a frame: of Ethernet, of PPPoE, and the protocol of PPP.
pub const HEADERS: usize = ETHERNET + 6 + 2;

const ETHERNET: usize = 14;
/// Version 1, type 1.
const VERSION_TYPE: u8 = 0x11;
/// IPv4 in PPP (RFC 1332 section 4).
const IPV4: u16 = 0x0021;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Codes of the discovery stage, in their order: PADI, PADO, PADR, PADS.
const CODES: [u8; 4] = [0x09, 0x07, 0x19, 0x65];
/// Of the session stage.
const DATA: u8 = 0;
/// An empty Service-Name: any service (appendix A).
const ANY_SERVICE: [u8; 4] = [1, 1, 0, 0];

/// A frame that does not come within this is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// So often a thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// An Ethernet device and frames of one EtherType on it, behind everything that is attached to the device.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    own: [u8; 6],
}

impl Wire {
    /// Opens `device` for frames of this type.
    pub fn open(namespace: &Namespace, device: &str, ethertype: u16) -> Result<Self> {
        let opened = namespace.enter(|| -> Result<Self> {
            let protocol = Protocol::from(c_int::from(ethertype.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            let link = link_address(device)?;
            // The address names no protocol, so the socket keeps its own (packet(7)).
            bind(socket.as_raw_fd(), &link)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Self { socket, own: link.addr().context("no link address")? })
        })?;
        opened.with_context(|| format!("open a packet socket on {device} of {}", namespace.name()))
    }

    /// The device's link address.
    #[must_use]
    pub const fn own(&self) -> [u8; 6] {
        self.own
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("send a frame").map(drop)
    }

    /// The next frame.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut frame = vec![0; 1 << 16];
        let length = (&self.socket).read(&mut frame).context("wait for a frame")?;
        frame.truncate(length);
        Ok(frame)
    }
}

fn link_address(device: &str) -> Result<LinkAddr> {
    let mut named = getifaddrs()?.filter(|it| it.interface_name == device);
    let found = named.find_map(|it| it.address?.as_link_addr().copied());
    found.context("no such device")
}

/// One end of a line: the device that has the packets, and the one that its frames leave by, which may
/// live elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Made with the line, a device without Ethernet header.
    pub end: End<'a>,
    /// What it is carried on.
    pub ethernet: (&'a Namespace, &'a str),
}

/// Two ends and, once it was dialled, a session between them.
pub struct Line<'a> {
    sides: [Side<'a>; 2],
    devices: [Arc<Tun>; 2],
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<'a> Line<'a> {
    /// Makes the devices of both ends and brings them up: who dials, and who answers.
    pub fn new(near: Side<'a>, far: Side<'a>) -> Result<Self> {
        let sides = [near, far];
        let devices = [tun::make(near.end)?, tun::make(far.end)?];
        for Side { end, .. } in sides {
            for address in end.addresses {
                end.namespace.ip(&format!("address add {address} dev {}", end.name))?;
            }
            end.namespace.ip(&format!("link set {} mtu {MTU} up", end.name))?;
        }
        Ok(Self { sides, devices, is_over: Arc::default(), threads: vec![] })
    }

    /// Makes a session of this number by the four steps of section 5, and carries packets from then on.
    pub fn dial(&mut self, session: u16) -> Result<()> {
        let open = |ethertype| -> Result<[Wire; 2]> {
            let [near, far] =
                self.sides.map(|side| Wire::open(side.ethernet.0, side.ethernet.1, ethertype));
            Ok([near?, far?])
        };
        let peers = discover(&open(DISCOVERY)?, session)?;
        for ((wire, device), peer) in open(SESSION)?.into_iter().zip(&self.devices).zip(peers) {
            let carrier = Arc::new(Carrier {
                wire,
                peer,
                session,
                device: Arc::clone(device),
                is_over: Arc::clone(&self.is_over),
            });
            carrier.wire.socket.set_read_timeout(Some(LOOK)).context("limit reads")?;
            let same = Arc::clone(&carrier);
            self.threads.push(thread::spawn(move || carrier.send_packets()));
            self.threads.push(thread::spawn(move || same.take_packets()));
        }
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for Side { end, .. } in self.sides {
            // Whoever reads from a device that is gone gets an error.
            let _ = end.namespace.ip(&format!("link delete {}", end.name));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The discovery stage: each end learns the address of the other one. In the order of [`Line::new`].
fn discover([near, far]: &[Wire; 2], session: u16) -> Result<[[u8; 6]; 2]> {
    let mut peers = [BROADCAST, BROADCAST];
    for (step, code) in CODES.into_iter().enumerate() {
        let (from, to, [ours, theirs]) = match step % 2 {
            0 => (near, far, [0, 1]),
            _ => (far, near, [1, 0]),
        };
        // Only the last one names the session (section 5.4).
        let number = if step == 3 { session } else { 0 };
        from.send(&frame([peers[ours], from.own], DISCOVERY, code, number, &ANY_SERVICE))?;
        let arrived = to.receive().with_context(|| format!("step {step} of the discovery"))?;
        let (code_seen, number_seen, tags) = read(&arrived).context("a frame of the discovery")?;
        ensure!((code_seen, number_seen) == (code, number), "not step {step}: {arrived:02x?}");
        ensure!(tags.starts_with(&ANY_SERVICE), "other tags: {tags:02x?}");
        peers[theirs] =
            *arrived.get(6..).and_then(|rest| rest.first_chunk()).context("a source")?;
    }
    Ok(peers)
}

/// One end of a session.
struct Carrier {
    wire: Wire,
    peer: [u8; 6],
    session: u16,
    device: Arc<Tun>,
    is_over: Arc<AtomicBool>,
}

impl Carrier {
    /// Until the device is gone.
    fn send_packets(&self) {
        let mut payload = vec![0; 1 << 16];
        payload[..2].copy_from_slice(&IPV4.to_be_bytes());
        while let Ok(length) = self.device.recv(&mut payload[2..]) {
            let packet = &payload[..2 + length];
            let frame = frame([self.peer, self.wire.own], SESSION, DATA, self.session, packet);
            // A link that is down takes none.
            let _sent = self.wire.send(&frame);
        }
    }

    fn take_packets(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok(frame) = self.wire.receive() else { continue };
            let Some((DATA, session, payload)) = read(&frame) else { continue };
            if session == self.session
                && let Some(packet) = payload.strip_prefix(&IPV4.to_be_bytes())
            {
                // A device that is down takes none.
                let _sent = self.device.send(packet);
            }
        }
    }
}

/// A frame of section 4 from one address to another (`[to, from]`).
#[must_use]
pub fn frame(
    addresses: [[u8; 6]; 2],
    ethertype: u16,
    code: u8,
    session: u16,
    payload: &[u8],
) -> Vec<u8> {
    // No packet of a device is near 64 KB.
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut frame = addresses.concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend([VERSION_TYPE, code]);
    frame.extend(session.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Code, session and payload of a frame, without what Ethernet has padded it with.
#[must_use]
pub fn read(frame: &[u8]) -> Option<(u8, u16, &[u8])> {
    let [VERSION_TYPE, code, s0, s1, l0, l1, rest @ ..] = frame.get(ETHERNET..)? else {
        return None;
    };
    let payload = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
    Some((*code, u16::from_be_bytes([*s0, *s1]), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_without_its_padding_and_not_where_it_is_cut() {
        let mut bytes = frame([BROADCAST, [2; 6]], DISCOVERY, CODES[0], 0, &ANY_SERVICE);
        assert_eq!(bytes[12..], [0x88, 0x63, 0x11, 0x09, 0, 0, 0, 4, 1, 1, 0, 0]);
        bytes.resize(60, 0);
        assert_eq!(read(&bytes), Some((CODES[0], 0, &ANY_SERVICE[..])));
        assert_eq!(read(&bytes[..21]), None);
        bytes[14] = 0x45;
        assert_eq!(read(&bytes), None);
    }
}
