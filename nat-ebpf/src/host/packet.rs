//! A frame in memory, and what the kernel would know of it: routes, sockets, redirects.

use crate::{
    headers::{Headers, TCP_CHECKSUM, Transport},
    packet::{Journey, NextHop, OptionsEdit, Packet, Route},
    six::Course,
};
use nat_common::{
    checksum::{Delta, Sum},
    flow::Rewrite,
    harmless,
    port::Endpoint,
    punt::{MAX_PACKET, PuntHeader},
    reason::Reason,
    session::Side,
    six::Address6,
    tcp_options,
};
use std::collections::{HashMap, HashSet};

const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
/// Bit of an Ethernet address that is a group's.
const GROUP: u8 = 1;
/// Longest segment whose missing checksum the XDP host computes.
const MAX_SUMMED: usize = 4096;
/// The longest ICMP message that TC sums up.
const MAX_MESSAGE: usize = 1536;

/// What stands in the transport checksum of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum.
    Complete,
    /// The sum of the pseudo-header, for a device to finish (`CHECKSUM_PARTIAL`). The XDP host sees
    /// that from the frame alone, as the kernel's does.
    LeftToDevice,
}

/// A route of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Network, and bits of its prefix.
    pub network: ([u8; 4], u32),
    /// What becomes of packets to it. A neighbour that is all zero stands for the destination.
    pub route: Route,
    /// Longest packet that leaves this way, from the IPv4 header on.
    pub mtu: usize,
}

/// What the kernel knows beside the tables.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Routes; the longest prefix counts, and what has none is unreachable.
    pub routes: Vec<HostRoute>,
    /// Routes of IPv6: network, bits of its prefix, and where they lead; as above.
    pub routes6: Vec<(Address6, u32, Course)>,
    /// The MTU of all of these; 0 where the kernel does not say.
    pub mtu6: u32,
    /// Interfaces that packets with a public address leave by, as in the map of that name.
    pub uplinks: HashMap<[u8; 4], u32>,
    /// Sockets of the gateway by their local end.
    pub sockets: HashSet<Endpoint>,
    /// Interfaces that XDP may redirect to.
    pub redirects: HashSet<u32>,
    /// Whether the ring buffer to the agent is full.
    pub ring_full: bool,
    /// Whether it has no room for copies.
    pub ring_fills: bool,
}

impl World {
    fn uplink(&self, public: [u8; 4]) -> Option<u32> {
        self.uplinks.get(&public).copied()
    }

    /// By the uplink where it has a route, else by whichever.
    fn route(&self, journey: &Journey, length: usize) -> Route {
        let out = |route: &HostRoute| match route.route {
            Route::Forward(hop, _) => Some(hop.ifindex) == self.uplink(journey.public),
            Route::Local | Route::TooBig | Route::Unreachable => false,
        };
        match self.route_among(out, journey.dst, length) {
            Route::Unreachable => self.route_among(|_| true, journey.dst, length),
            route => route,
        }
    }

    fn route_among(
        &self,
        among: impl Fn(&HostRoute) -> bool,
        dst: [u8; 4],
        length: usize,
    ) -> Route {
        let address = u32::from_be_bytes(dst);
        let found = self
            .routes
            .iter()
            .filter(|route| among(route))
            .filter(|route| {
                let (network, bits) = route.network;
                let differ = address ^ u32::from_be_bytes(network);
                differ.checked_shr(32 - bits).unwrap_or(0) == 0
            })
            .max_by_key(|route| route.network.1);
        match found.map(|found| (found.route, found.mtu)) {
            None => Route::Unreachable,
            Some((Route::Forward(..), mtu)) if length > mtu => Route::TooBig,
            Some((Route::Forward(hop, _), mtu)) if hop.neighbour == [0; 4] => {
                Route::Forward(NextHop { neighbour: dst, ..hop }, mtu as u32)
            }
            Some((Route::Forward(hop, _), mtu)) => Route::Forward(hop, mtu as u32),
            Some((route, _)) => route,
        }
    }
}

/// A frame at a hook: `COMPLETE` as TC sees it, else as XDP does.
#[derive(Clone, Debug)]
pub struct HostPacket<'a, const COMPLETE: bool> {
    /// The frame, from the Ethernet header on.
    pub frame: Vec<u8>,
    /// Number of the interface it arrived on.
    pub ifindex: u32,
    /// VLAN identifier that was taken off it; 0 is none.
    pub tag: u16,
    /// What stands in its transport checksum.
    pub checksum: Checksum,
    /// Whether it is addressed to another station on the same wire.
    pub is_overheard: bool,
    /// Payload of each packet that a GSO super-packet is cut to as it leaves; 0 for any other.
    pub gso_size: usize,
    /// What was handed to the agent.
    pub punted: Vec<(PuntHeader, Vec<u8>)>,
    pub(super) world: &'a World,
    unsummed: bool,
}

impl<'a, const COMPLETE: bool> HostPacket<'a, COMPLETE> {
    /// A frame that arrives on `ifindex`, with its checksum, without a tag, not to be cut.
    pub fn new(frame: Vec<u8>, ifindex: u32, world: &'a World) -> Self {
        Self {
            frame,
            ifindex,
            tag: 0,
            checksum: Checksum::Complete,
            is_overheard: false,
            gso_size: 0,
            punted: Vec::new(),
            world,
            unsummed: false,
        }
    }

    /// `bpf_l4_csum_replace` with a sum (net/core/filter.c): what a device is to finish has only the
    /// pseudo-header in it, and takes no notice of the rest.
    pub(super) fn replace(
        &mut self,
        at: usize,
        delta: Delta,
        of_pseudo_header: bool,
        is_udp: bool,
    ) -> Option<()> {
        if delta == Delta::NONE {
            return Some(());
        }
        let field: &mut [u8; 2] = self.frame.get_mut(at..at + 2)?.try_into().ok()?;
        let old = u16::from_ne_bytes(*field);
        if is_udp && old == 0 {
            return Some(());
        }
        let new = match self.checksum {
            Checksum::Complete => fold(0xffff_0000 | u32::from(!old), delta) ^ 0xffff,
            Checksum::LeftToDevice if of_pseudo_header => fold(u32::from(old), delta),
            Checksum::LeftToDevice => old,
        };
        let new = if is_udp && new == 0 { 0xffff } else { new };
        *field = new.to_ne_bytes();
        Some(())
    }

    /// As the XDP host does it.
    fn update(
        &mut self,
        headers: &Headers,
        rewrite: &Rewrite,
        at: usize,
        delta: Delta,
    ) -> Option<()> {
        let is_udp = headers.kind == Transport::Udp;
        let field = if self.unsummed {
            self.frame.get_mut(at..at + 2)?.fill(0);
            let end = headers.transport + headers.segment();
            let segment = self.frame.get(headers.transport..end)?;
            Sum::ZERO
                .pseudo_header(
                    rewrite.src(),
                    rewrite.dst(),
                    headers.protocol,
                    headers.segment() as u16,
                )
                .bytes(segment)
                .field()
        } else if is_udp && headers.checksum == 0 {
            return Some(());
        } else {
            delta.apply(headers.checksum)
        };
        let field = if is_udp && field == 0 { 0xffff } else { field };
        self.frame.get_mut(at..at + 2)?.copy_from_slice(&field.to_ne_bytes());
        Some(())
    }
}

/// `csum_fold(csum_add(sum, delta))`, not complemented.
fn fold(sum: u32, delta: Delta) -> u16 {
    let (low, carry) = sum.overflowing_add(delta.raw());
    Sum::from_raw(low + u32::from(carry)).folded()
}

impl<const COMPLETE: bool> Packet for HostPacket<'_, COMPLETE> {
    const COMPLETE: bool = COMPLETE;

    fn length(&self) -> usize {
        self.frame.len()
    }

    fn is_super(&self) -> bool {
        self.gso_size != 0
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn is_foreign(&self) -> bool {
        let to_group = self.frame.first().is_some_and(|first| first & GROUP != 0);
        to_group || COMPLETE && (self.tag != 0 || self.is_overheard)
    }

    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        let bytes = self.frame.get(at..at + N).ok_or(Reason::Truncated)?;
        bytes.try_into().map_err(|_| Reason::Truncated)
    }

    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
        self.frame.get_mut(at..at + N).ok_or(Reason::WriteFailed)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], Reason> {
        let bytes = self.frame.get(at..at + N * 4).ok_or(Reason::Truncated)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().map_err(|_| Reason::Truncated)?);
        }
        Ok(words)
    }

    fn set_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), Reason> {
        let bytes = self.frame.get_mut(at..at + N * 4).ok_or(Reason::WriteFailed)?;
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(())
    }

    fn update_checksum(
        &mut self,
        headers: &Headers,
        rewrite: &Rewrite,
        addresses: Delta,
        rest: Delta,
    ) -> Result<(), Reason> {
        let at = headers.transport
            + match headers.kind {
                Transport::Tcp => TCP_CHECKSUM,
                Transport::Udp => UDP_CHECKSUM,
                _ => ICMP_CHECKSUM,
            };
        let is_udp = headers.kind == Transport::Udp;
        let done = if COMPLETE {
            self.replace(at, addresses, true, is_udp)
                .and_then(|()| self.replace(at, rest, false, is_udp))
        } else {
            self.update(headers, rewrite, at, addresses.and(rest))
        };
        done.ok_or(Reason::WriteFailed)
    }

    fn is_sound(&self, headers: &Headers) -> bool {
        let length = headers.segment();
        let message = self.frame.get(headers.transport..headers.transport + length);
        let is_right = |message| Sum::ZERO.bytes(message).folded() == u16::MAX;
        !COMPLETE || length > MAX_MESSAGE || message.is_some_and(is_right)
    }

    fn longest(&self, headers: &Headers) -> u32 {
        match self.gso_size {
            0 => headers.length as u32,
            size => (headers.header_length() + size) as u32,
        }
    }

    fn route(&self, headers: &Headers, journey: &Journey) -> Route {
        match self.world.route(journey, self.longest(headers) as usize) {
            Route::Forward(hop, mtu) if COMPLETE => {
                Route::Forward(NextHop { link: None, ..hop }, mtu)
            }
            route => route,
        }
    }

    fn narrow_way(&self, headers: &Headers, journey: &Journey) -> Option<(NextHop, u32)> {
        let Route::TooBig = self.world.route(journey, self.longest(headers) as usize) else {
            return None;
        };
        match self.world.route(journey, 0) {
            Route::Forward(hop, mtu) if COMPLETE => Some((NextHop { link: None, ..hop }, mtu)),
            _ => None,
        }
    }

    fn can_finish(&mut self, headers: &Headers, hop: &NextHop) -> bool {
        if COMPLETE {
            return true;
        }
        if hop.link.is_none() {
            return false;
        }
        if matches!(headers.kind, Transport::Tcp | Transport::Udp) {
            let segment = headers.segment();
            let pseudo =
                Sum::ZERO.pseudo_header(headers.src, headers.dst, headers.protocol, segment as u16);
            self.unsummed = headers.checksum == pseudo.folded()
                && !(headers.kind == Transport::Udp && headers.checksum == 0);
            if self.unsummed && segment > MAX_SUMMED {
                return false;
            }
        }
        self.world.redirects.contains(&hop.ifindex)
    }

    fn has_socket(&self, headers: &Headers) -> bool {
        let local = Endpoint::new(headers.protocol, headers.dst, headers.dport);
        COMPLETE && self.world.sockets.contains(&local)
    }

    fn has_connection(&self, _headers: &Headers) -> bool {
        // The sockets of this world only listen.
        false
    }

    fn is_harmless(&mut self, headers: &Headers, side: Side) -> bool {
        let (at, length) = (headers.transport + headers.tcp.length, headers.payload());
        let mut line = [0; harmless::LONGEST];
        let payload = self.frame.get(at..at + length);
        let (Some(payload), Some(room)) = (payload, line.get_mut(..length)) else { return false };
        room.copy_from_slice(payload);
        COMPLETE && harmless::is_harmless(side, &line, length)
    }

    fn punt(&mut self, header: PuntHeader, at: usize) -> Result<bool, Reason> {
        if !COMPLETE || header.length() == 0 || header.length() > MAX_PACKET {
            return Err(Reason::AlgTooLong);
        }
        let packet = self.frame.get(at..at + header.length()).ok_or(Reason::Truncated)?;
        let is_segment = header.is_segment();
        if self.world.ring_full || self.world.ring_fills && !is_segment {
            return Err(if is_segment { Reason::AlgRingFull } else { Reason::FragmentsFull });
        }
        let header = match header.is_copy() && self.world.ring_fills {
            true => header.at_line(),
            false => header,
        };
        self.punted.push((header, packet.to_vec()));
        Ok(header.is_copy())
    }

    fn window_scale(&mut self, at: usize, length: usize) -> u8 {
        let mut area = [0; tcp_options::BUFFER];
        match self.frame.get(at..at + length) {
            Some(options) if COMPLETE && length <= tcp_options::MAX_OPTIONS => {
                area[..length].copy_from_slice(options);
                tcp_options::window_scale(&area, length)
            }
            _ => 0,
        }
    }

    fn edit_options<E: OptionsEdit>(
        &mut self,
        at: usize,
        length: usize,
        mut edit: E,
    ) -> Result<Delta, Reason> {
        if !COMPLETE {
            return Err(Reason::WriteFailed);
        }
        if length == 0 || length > tcp_options::MAX_OPTIONS {
            return Err(Reason::BadHeader);
        }
        let options = self.frame.get_mut(at..at + length).ok_or(Reason::Truncated)?;
        let mut area = [0; tcp_options::BUFFER];
        area[..length].copy_from_slice(options);
        let before = Sum::ZERO.bytes(&area).folded();
        edit.edit(&mut area, length);
        let after = Sum::ZERO.bytes(&area).folded();
        if before == after {
            return Ok(Delta::NONE);
        }
        options.copy_from_slice(&area[..length]);
        Ok(Delta::NONE.word(before.to_ne_bytes(), after.to_ne_bytes()))
    }
}
