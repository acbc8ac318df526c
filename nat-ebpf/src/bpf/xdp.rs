//! The XDP host: a frame in one piece, before the kernel has made a socket buffer of it.
//!
//! Only what can be finished here is touched: a flow that exists, a neighbour that is resolved, a
//! way out whose driver takes redirected frames. Headers stand at fixed offsets (other frames are
//! left to TC), so each access is one compare with the end of the frame.

use super::{Maps, maps, stages, sum, words};
use crate::{
    headers::{ETHERNET, Headers, Transport},
    packet::{Journey, NextHop, OptionsEdit, Packet, Route},
    path::{self, Admission, Outcome},
    refusal, rewrite,
    tables::Tables,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    helpers::generated::bpf_xdp_load_bytes,
    programs::XdpContext,
};
use nat_common::{
    checksum::{Delta, Sum},
    counter::Counter,
    flow::{Rewrite, Zone},
    layout::Stage,
    punt::PuntHeader,
    reason::Reason,
    session::Side,
};

/// Bit of an Ethernet address that is a group's (IEEE 802.3 section 3.2.3).
const GROUP: u8 = 1;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;

/// Chunks that are summed up here; a longer segment without checksum is left to TC.
const CHUNKS: u32 = 8;

/// A frame at the XDP hook. `SUMS`: here checksums are summed up that were left to a device.
pub struct XdpPacket<const SUMS: bool> {
    context: XdpContext,
    /// Where the frame begins and ends: no helper that is called here moves it.
    start: usize,
    end: usize,
    /// The transport checksum was left to a device: only the pseudo-header is in it.
    unsummed: bool,
}

/// The program on an interface of `zone`.
#[inline(always)]
pub fn ingress(context: XdpContext, zone: Zone) -> u32 {
    let mut packet = XdpPacket::<false>::new(context);
    let outcome = path::ingress(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for packets that are not as most are.
#[inline(always)]
pub fn rare(context: XdpContext, zone: Zone) -> u32 {
    let mut packet = XdpPacket::<true>::new(context);
    let outcome = path::rare(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

#[inline(always)]
fn finish<const SUMS: bool>(
    mut packet: XdpPacket<SUMS>,
    outcome: Result<Outcome, Reason>,
    zone: Zone,
) -> u32 {
    match outcome {
        Ok(Outcome::Forward(hop)) => {
            if let Some(link) = hop.link
                && rewrite::link(&mut packet, link).is_ok()
            {
                Maps.count(Counter::Xdp);
                return XDP_REDIRECT;
            }
            Maps.count_drop(Reason::WriteFailed);
            XDP_DROP
        }
        Ok(Outcome::Rare) => stages::go_xdp(&packet.context, stages::rare(zone)),
        Ok(Outcome::Unknown) => match zone {
            Zone::Inside => stages::go_xdp(&packet.context, Stage::InsideNew),
            Zone::Outside => XDP_PASS,
        },
        // TC counts what it does with it.
        Ok(
            Outcome::Stack
            | Outcome::Punted
            | Outcome::Control
            | Outcome::Opens
            | Outcome::Fragment
            | Outcome::Refused,
        ) => XDP_PASS,
        Err(reason) => {
            Maps.count_drop(reason);
            XDP_DROP
        }
    }
}

/// The program for packets from inside without a flow.
#[inline(always)]
pub fn inside_new(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::<true>::new(context);
    match path::admit(&mut packet, &mut Maps, Zone::Inside) {
        Ok(Admission::Flow) => stages::go_xdp(&packet.context, Stage::InsideRare),
        Ok(Admission::Stack | Admission::Local | Admission::Error) => XDP_PASS,
        // TC tells its sender, if it finds no room either, and counts it.
        Err(reason) if refusal::is_told(&mut Maps, reason, 0) => XDP_PASS,
        Err(reason) => {
            Maps.count_drop(reason);
            XDP_DROP
        }
    }
}

impl<const SUMS: bool> XdpPacket<SUMS> {
    #[inline(always)]
    fn new(context: XdpContext) -> Self {
        let (start, end) = (context.data(), context.data_end());
        Self { context, start, end, unsummed: false }
    }

    /// Where the bytes at a constant offset are, if the frame reaches so far.
    #[inline(always)]
    fn at(&self, at: usize, length: usize) -> Option<usize> {
        if self.start + at + length > self.end {
            return None;
        }
        Some(self.start + at)
    }

    /// Sums up a whole segment, once its headers are rewritten and its checksum is zero.
    #[inline(always)]
    fn sum(&self, headers: &Headers, rewrite: &Rewrite) -> Option<Sum> {
        let segment = headers.segment() as u32;
        let (src, dst) = (rewrite.src(), rewrite.dst());
        let sum = Sum::ZERO.pseudo_header(src, dst, headers.protocol, segment as u16);
        sum::of::<CHUNKS>(segment, sum, |at, to, length| {
            // SAFETY: the program's context; the helper checks the frame, and the area has room.
            unsafe {
                bpf_xdp_load_bytes(self.context.ctx, headers.transport as u32 + at, to, length)
            }
        })
    }
}

impl<const SUMS: bool> Packet for XdpPacket<SUMS> {
    const COMPLETE: bool = false;

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    /// XDP and super-packets exclude one another.
    #[inline(always)]
    fn is_super(&self) -> bool {
        false
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn is_foreign(&self) -> bool {
        // A tag is still in the frame, where the type is not IPv4. Frames to several stations say so
        // in their first bit; those to another one a NIC drops unless it is promiscuous. (The whole
        // header is read: the verifier does not follow the check of a single byte.)
        self.read::<ETHERNET>(0).is_ok_and(|[first, ..]| first & GROUP != 0)
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        // SAFETY: checked against the end of the frame.
        self.at(at, N).map(|bytes| unsafe { *(bytes as *const [u8; N]) }).ok_or(Reason::Truncated)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
        let place = self.at(at, N).ok_or(Reason::WriteFailed)?;
        // SAFETY: checked against the end of the frame.
        unsafe { *(place as *mut [u8; N]) = bytes };
        Ok(())
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], Reason> {
        let start = self.at(at, N * 4).ok_or(Reason::Truncated)?;
        // SAFETY: checked against the end of the frame.
        Ok(unsafe { words::load(start) })
    }

    #[inline(always)]
    fn set_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), Reason> {
        let start = self.at(at, N * 4).ok_or(Reason::WriteFailed)?;
        // SAFETY: checked against the end of the frame.
        unsafe { words::store(start, words) };
        Ok(())
    }

    #[inline(always)]
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
        let field = if SUMS && self.unsummed {
            self.write(at, [0, 0])?;
            self.sum(headers, rewrite).ok_or(Reason::WriteFailed)?.field()
        } else if is_udp && headers.checksum == 0 {
            // Without a checksum (RFC 768), and so it stays.
            return Ok(());
        } else {
            addresses.and(rest).apply(headers.checksum)
        };
        let field = if is_udp && field == 0 { 0xffff } else { field };
        self.write(at, field.to_ne_bytes())
    }

    #[inline(always)]
    fn is_sound(&self, _headers: &Headers) -> bool {
        true
    }

    #[inline(always)]
    fn longest(&self, headers: &Headers) -> u32 {
        headers.length as u32
    }

    #[inline(always)]
    fn route(&self, headers: &Headers, journey: &Journey) -> Route {
        let Some(lookup) = maps::FIB_SCRATCH.get_ptr_mut(0) else {
            return Route::Unreachable;
        };
        let length = headers.length as u16;
        // SAFETY: this CPU's own value, and the program's context.
        unsafe { (*lookup).ask(self.context.as_ptr(), headers, length, self.ifindex(), journey) }
    }

    #[inline(always)]
    fn narrow_way(&self, _headers: &Headers, _journey: &Journey) -> Option<(NextHop, u32)> {
        // What is to be cut is left to TC.
        None
    }

    #[inline(always)]
    fn can_finish(&mut self, headers: &Headers, hop: &NextHop) -> bool {
        if hop.link.is_none() {
            return false;
        }
        if matches!(headers.kind, Transport::Tcp | Transport::Udp) {
            // A sender on this machine leaves the checksum to a device that never sees the frame.
            // The one in 65,536 that looks so by chance is summed up anew as well, which is right.
            let segment = headers.segment();
            let pseudo =
                Sum::ZERO.pseudo_header(headers.src, headers.dst, headers.protocol, segment as u16);
            self.unsummed = headers.checksum == pseudo.folded()
                && !(headers.kind == Transport::Udp && headers.checksum == 0);
            if self.unsummed && (!SUMS || segment > (CHUNKS * sum::CHUNK) as usize) {
                return false;
            }
        }
        maps::REDIRECTS.redirect(hop.ifindex, 0).is_ok()
    }

    #[inline(always)]
    fn has_socket(&self, _headers: &Headers) -> bool {
        false
    }

    #[inline(always)]
    fn has_connection(&self, _headers: &Headers) -> bool {
        false
    }

    #[inline(always)]
    fn is_harmless(&mut self, _headers: &Headers, _side: Side) -> bool {
        false
    }

    #[inline(always)]
    fn punt(&mut self, _header: PuntHeader, _at: usize) -> Result<bool, Reason> {
        // Never asked: control connections are left to TC before this.
        Err(Reason::AlgTooLong)
    }

    #[inline(always)]
    fn window_scale(&mut self, _at: usize, _length: usize) -> u8 {
        // Never asked: a SYN is left to TC before this.
        0
    }

    #[inline(always)]
    fn edit_options<E: OptionsEdit>(
        &mut self,
        _at: usize,
        _length: usize,
        _edit: E,
    ) -> Result<Delta, Reason> {
        // Never asked: control connections are left to TC before this.
        Err(Reason::WriteFailed)
    }
}
