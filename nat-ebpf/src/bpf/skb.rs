//! A packet at the TC hooks: a socket buffer, which may be a super-packet with its checksum left to a
//! device.
//!
//! Its fixed headers are read and written in place, in the linear part; checksums, options and payload
//! go through helpers, which know of devices and of the other parts.

use super::{barrier, global, maps, sum, words};
use crate::{
    headers::{ETHERNET, Headers, IPV6, Transport},
    packet::{Journey, NextHop, OptionsEdit, Packet, Route},
    rewrite,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP,
        BPF_RB_NO_WAKEUP, bpf_redir_neigh,
    },
    helpers::generated::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_ringbuf_output,
        bpf_ringbuf_query, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skc_lookup_tcp,
    },
    programs::TcContext,
};
use core::{mem::MaybeUninit, ptr};
use nat_common::{
    checksum::Delta,
    flow::Rewrite,
    harmless, layout,
    punt::{MAX_PACKET, PuntHeader},
    reason::Reason,
    session::Side,
    tcp_options,
};

const AF_INET: u32 = 2;
/// The longest transport header that is read, without options: TCP's.
const MAX_FIXED: usize = 20;
/// Offset of the transport header of a packet without IP options.
const TRANSPORT: usize = ETHERNET + 20;
const VLAN_ID: u32 = 0x0fff;
// include/uapi/linux/if_packet.h; 2 is multicast.
const PACKET_BROADCAST: u32 = 1;
const PACKET_OTHERHOST: u32 = 3;
const PACKET_LOOPBACK: u32 = 5;
/// What every interface takes (RFC 791 section 3.2).
const LEAST_MTU: u16 = 68;
/// `BPF_F_CURRENT_NETNS` of include/uapi/linux/bpf.h.
const CURRENT_NETNS: u64 = -1i64 as u64;
/// `BPF_TCP_ESTABLISHED` of include/uapi/linux/bpf.h.
const TCP_ESTABLISHED: u32 = 1;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;

/// A number that is below `ROOM`, a power of two, as the verifier of 6.1 sees it too: what it has learnt
/// by a comparison is lost where the compiler has put the number on the stack before that.
#[inline(always)]
fn bounded<const ROOM: usize>(number: u64) -> u32 {
    const { assert!(ROOM.is_power_of_two()) };
    (barrier(number) & (ROOM as u64 - 1)) as u32
}

/// A socket buffer at a TC hook.
pub struct TcPacket(TcContext);

impl TcPacket {
    #[inline(always)]
    fn skb(&self) -> *mut aya_ebpf::bindings::__sk_buff {
        self.0.skb.skb
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> &TcContext {
        &self.0
    }

    /// The packet, its headers in the linear part of the buffer, where they are read and written
    /// without helpers: the call of one costs more than all that is done with what it gives.
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        let linear = context.data_end() - context.data();
        let length = context.len();
        if linear < TRANSPORT + MAX_FIXED && linear < length as usize {
            let most = (TRANSPORT + MAX_FIXED) as u32;
            // SAFETY: the program's context. Where it fails the next read does.
            unsafe {
                bpf_skb_pull_data(context.skb.skb, if length < most { length } else { most })
            };
        }
        Self(context)
    }

    /// Whether it is IPv6, which the kernel has looked at. What the gateway itself sends to a group comes
    /// back to it on the same interface, without an Ethernet header: that is none.
    #[inline(always)]
    pub fn is_six(&self) -> bool {
        // SAFETY: the program's context.
        unsafe {
            (*self.skb()).protocol == u16::from_ne_bytes(IPV6).into()
                && (*self.skb()).pkt_type != PACKET_LOOPBACK
        }
    }

    /// Where the bytes at an offset of the headers of a packet without IP options are.
    #[inline(always)]
    fn header(&self, at: usize, length: usize) -> Option<usize> {
        // A constant in either case: the verifier follows those.
        if at == TRANSPORT { self.linear(TRANSPORT, length) } else { self.linear(at, length) }
    }

    #[inline(always)]
    fn linear(&self, at: usize, length: usize) -> Option<usize> {
        let start = self.0.data();
        if start + at + length > self.0.data_end() {
            return None;
        }
        Some(start + at)
    }

    /// Loads TCP options into this CPU's area; gives it, and their length as the verifier knows it.
    ///
    /// # Errors
    /// [`Reason::BadHeader`], [`Reason::Truncated`].
    #[inline(always)]
    fn options(
        &self,
        at: usize,
        length: usize,
    ) -> Result<(&'static mut [u8; tcp_options::BUFFER], u32), Reason> {
        let last = barrier((length as u64).wrapping_sub(1));
        if last > tcp_options::MAX_OPTIONS as u64 - 1 {
            return Err(Reason::BadHeader);
        }
        let length = bounded::<{ tcp_options::BUFFER }>(last) + 1;
        let area = maps::OPTIONS_SCRATCH.get_ptr_mut(0).ok_or(Reason::WriteFailed)?;
        // SAFETY: this CPU's own value, which nobody else has while the program runs; the helper writes
        // at most MAX_OPTIONS bytes into it.
        unsafe {
            if bpf_skb_load_bytes(self.0.as_ptr(), at as u32, area.cast(), length) != 0 {
                return Err(Reason::Truncated);
            }
            Ok((&mut *area, length))
        }
    }

    /// Sends it to a neighbour. Where the agent has not given its link address the kernel resolves
    /// it if need be, and keeps it fresh.
    #[inline(always)]
    pub fn send(&mut self, hop: &NextHop) -> i32 {
        self.0.set_mark(layout::MARK);
        if let Some(link) = hop.link
            && rewrite::link(self, link).is_ok()
        {
            // SAFETY: no memory is involved.
            return unsafe { bpf_redirect(hop.ifindex, 0) } as i32;
        }
        // SAFETY: integers only.
        let mut neighbour: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        neighbour.nh_family = AF_INET;
        neighbour.__bindgen_anon_1.ipv4_nh = u32::from_ne_bytes(hop.neighbour);
        // SAFETY: the record lives until the helper has copied it.
        unsafe {
            bpf_redirect_neigh(
                hop.ifindex,
                &raw mut neighbour,
                size_of::<bpf_redir_neigh>() as i32,
                0,
            ) as i32
        }
    }

    /// State of the socket of the gateway itself that waits for the packet; a UDP socket that is
    /// connected says established.
    #[inline(always)]
    fn socket_state(&self, headers: &Headers) -> Option<u32> {
        let [a, b] = headers.sport.to_wire();
        let [c, d] = headers.dport.to_wire();
        // `struct bpf_sock_tuple`, its IPv4 part: addresses, then ports, as on the wire.
        let mut tuple = [
            u32::from_ne_bytes(headers.src),
            u32::from_ne_bytes(headers.dst),
            u32::from_ne_bytes([a, b, c, d]),
        ];
        let size = size_of_val(&tuple) as u32;
        let tuple = (&raw mut tuple).cast();
        // SAFETY: the record lives during the call; a socket that was found is given back at once.
        unsafe {
            let socket = match headers.kind {
                Transport::Tcp => {
                    bpf_skc_lookup_tcp(self.0.as_ptr(), tuple, size, CURRENT_NETNS, 0)
                }
                _ => bpf_sk_lookup_udp(self.0.as_ptr(), tuple, size, CURRENT_NETNS, 0),
            };
            if socket.is_null() {
                return None;
            }
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            Some(state)
        }
    }
}

impl Packet for TcPacket {
    const COMPLETE: bool = true;

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn is_super(&self) -> bool {
        // SAFETY: the program's context.
        unsafe { (*self.skb()).gso_size != 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.skb()).ifindex }
    }

    #[inline(always)]
    fn is_foreign(&self) -> bool {
        // SAFETY: the program's context. The kernel has moved the tag out of the frame by now, and
        // compared its destination with the interface's address. (On the way out the packet's type
        // says PACKET_OUTGOING, or what it was on its way in.)
        unsafe {
            (*self.skb()).vlan_present != 0 && (*self.skb()).vlan_tci & VLAN_ID != 0
                || matches!((*self.skb()).pkt_type, PACKET_BROADCAST..=PACKET_OTHERHOST)
        }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        if at <= TRANSPORT {
            let start = self.header(at, N).ok_or(Reason::Truncated)?;
            // SAFETY: checked against the end of the linear part.
            return Ok(unsafe { *(start as *const [u8; N]) });
        }
        self.read_far(at)
    }

    #[inline(always)]
    fn read_far<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes N bytes or fails.
        unsafe {
            let to = bytes.as_mut_ptr().cast();
            if bpf_skb_load_bytes(self.0.as_ptr(), at as u32, to, N as u32) != 0 {
                return Err(Reason::Truncated);
            }
            Ok(bytes.assume_init())
        }
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
        // Neither way sums anything up: whoever writes here changes a checksum by as much.
        if at <= TRANSPORT {
            let place = self.header(at, N).ok_or(Reason::WriteFailed)?;
            // SAFETY: checked against the end of the linear part, which is not shared: the kernel
            // sees to that before a program that writes (bpf_unclone_prologue).
            unsafe { *(place as *mut [u8; N]) = bytes };
            return Ok(());
        }
        let from = (&raw const bytes).cast();
        // SAFETY: the helper reads N bytes.
        match unsafe { bpf_skb_store_bytes(self.skb(), at as u32, from, N as u32, 0) } {
            0 => Ok(()),
            _ => Err(Reason::WriteFailed),
        }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], Reason> {
        if at <= TRANSPORT {
            let start = self.header(at, N * 4).ok_or(Reason::Truncated)?;
            // SAFETY: checked against the end of the linear part.
            return Ok(unsafe { words::load(start) });
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes all of them or fails.
        unsafe {
            let to = words.as_mut_ptr().cast();
            if bpf_skb_load_bytes(self.0.as_ptr(), at as u32, to, N as u32 * 4) != 0 {
                return Err(Reason::Truncated);
            }
            Ok(words.assume_init())
        }
    }

    #[inline(always)]
    fn set_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), Reason> {
        if at <= TRANSPORT {
            let start = self.header(at, N * 4).ok_or(Reason::WriteFailed)?;
            // SAFETY: checked against the end of the linear part; see `write`.
            unsafe { words::store(start, words) };
            return Ok(());
        }
        let from = (&raw const words).cast();
        // SAFETY: the helper reads all of them.
        match unsafe { bpf_skb_store_bytes(self.skb(), at as u32, from, N as u32 * 4, 0) } {
            0 => Ok(()),
            _ => Err(Reason::WriteFailed),
        }
    }

    #[inline(always)]
    fn update_checksum(
        &mut self,
        headers: &Headers,
        _rewrite: &Rewrite,
        addresses: Delta,
        rest: Delta,
    ) -> Result<(), Reason> {
        let (at, zero) = match headers.kind {
            Transport::Tcp => (TCP_CHECKSUM, 0),
            Transport::Udp => (UDP_CHECKSUM, BPF_F_MARK_MANGLED_0 as u64),
            _ => (ICMP_CHECKSUM, 0),
        };
        let at = (headers.transport + at) as u32;
        // SAFETY: the helpers check the offset.
        let failed = unsafe {
            // The pseudo-header counts for a device that is to finish the checksum, the rest does
            // not: it will sum that up itself. The flag says which is which.
            (addresses != Delta::NONE
                && bpf_l4_csum_replace(
                    self.skb(),
                    at,
                    0,
                    addresses.raw() as u64,
                    BPF_F_PSEUDO_HDR as u64 | zero,
                ) != 0)
                || (rest != Delta::NONE
                    && bpf_l4_csum_replace(self.skb(), at, 0, rest.raw() as u64, zero) != 0)
        };
        if failed { Err(Reason::WriteFailed) } else { Ok(()) }
    }

    #[inline(always)]
    fn is_sound(&self, headers: &Headers) -> bool {
        let (at, length) = (headers.transport as u32, headers.segment() as u32);
        // SAFETY: the program's context.
        length > sum::MESSAGE || unsafe { sum::is_right(self.0.as_ptr(), at, length) } != 0
    }

    #[inline(always)]
    fn longest(&self, headers: &Headers) -> u32 {
        // SAFETY: the program's context.
        match unsafe { (*self.skb()).gso_size } {
            0 => headers.length as u32,
            size => headers.header_length() as u32 + size,
        }
    }

    #[inline(always)]
    fn route(&self, headers: &Headers, journey: &Journey) -> Route {
        let Some(lookup) = maps::FIB_SCRATCH.get_ptr_mut(0) else {
            return Route::Unreachable;
        };
        // SAFETY: this CPU's own value, and the program's context.
        unsafe {
            let length = self.longest(headers) as u16;
            let route = (*lookup).ask(self.0.as_ptr(), headers, length, self.ifindex(), journey);
            match route {
                // What the kernel is asked to send it looks up itself, so that it keeps it fresh.
                Route::Forward(hop, mtu) => Route::Forward(NextHop { link: None, ..hop }, mtu),
                route => route,
            }
        }
    }

    #[inline(always)]
    fn narrow_way(&self, headers: &Headers, journey: &Journey) -> Option<(NextHop, u32)> {
        let lookup = maps::FIB_SCRATCH.get_ptr_mut(0)?;
        // SAFETY: this CPU's own value, and the program's context.
        unsafe {
            // The helper says how long is not too long where the length is, and where it leads to where
            // it is not.
            let Route::TooBig = self.route(headers, journey) else { return None };
            let mtu = (*lookup).length();
            let route = (*lookup).ask(self.0.as_ptr(), headers, LEAST_MTU, self.ifindex(), journey);
            match route {
                Route::Forward(hop, _) => Some((NextHop { link: None, ..hop }, mtu)),
                Route::Local | Route::TooBig | Route::Unreachable => None,
            }
        }
    }

    #[inline(always)]
    fn can_finish(&mut self, _headers: &Headers, _hop: &NextHop) -> bool {
        true
    }

    #[inline(always)]
    fn has_socket(&self, headers: &Headers) -> bool {
        self.socket_state(headers).is_some()
    }

    #[inline(always)]
    fn has_connection(&self, headers: &Headers) -> bool {
        self.socket_state(headers) == Some(TCP_ESTABLISHED)
    }

    #[inline(always)]
    fn is_harmless(&mut self, headers: &Headers, side: Side) -> bool {
        let last = barrier((headers.payload() as u64).wrapping_sub(1));
        if last > harmless::LONGEST as u64 - 1 {
            return false;
        }
        let length = bounded::<{ harmless::LONGEST }>(last) + 1;
        let Some(line) = maps::LINE_SCRATCH.get_ptr_mut(0) else { return false };
        let at = (headers.transport + headers.tcp.length) as u32;
        // SAFETY: this CPU's own value; the helper writes at most LONGEST bytes into it.
        let loaded = unsafe { bpf_skb_load_bytes(self.0.as_ptr(), at, line.cast(), length) } == 0;
        loaded && global::nat_harmless(side.index() as u32, length) != 0
    }

    #[inline(always)]
    fn punt(&mut self, mut header: PuntHeader, at: usize) -> Result<bool, Reason> {
        const HEADER: usize = size_of::<PuntHeader>();
        let last = barrier((header.length() as u64).wrapping_sub(1));
        if last > MAX_PACKET as u64 - 1 {
            return Err(Reason::AlgTooLong);
        }
        let length = bounded::<MAX_PACKET>(last) + 1;
        let record = maps::PUNT_SCRATCH.get_ptr_mut(0).ok_or(Reason::AlgRingFull)?.cast::<u8>();
        let ring = (&raw const maps::PUNTS).cast_mut().cast();
        // By itself the ring wakes only a reader that has read everything, which one that leaves
        // copies where they are has not.
        let mut wake = BPF_RB_FORCE_WAKEUP;
        // SAFETY: reads a number.
        let waiting = || unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA as u64) };
        let is_segment = header.is_segment();
        let full = if is_segment { Reason::AlgRingFull } else { Reason::FragmentsFull };
        if !is_segment {
            if waiting() > layout::RING_FRAGMENTS as u64 {
                return Err(full);
            }
        } else if header.is_copy() {
            let waiting = waiting();
            if waiting > layout::RING_COPIES as u64 {
                header = header.at_line();
            } else if waiting < layout::RING_WAKES as u64 {
                wake = BPF_RB_NO_WAKEUP;
            }
        }
        // SAFETY: the record has room for the header and MAX_PACKET bytes; a TC program is not
        // interrupted by another one on its CPU.
        unsafe {
            ptr::write_unaligned(record.cast::<PuntHeader>(), header);
            let to = record.add(HEADER).cast();
            if bpf_skb_load_bytes(self.0.as_ptr(), at as u32, to, length) != 0 {
                return Err(Reason::Truncated);
            }
            let size = HEADER as u64 + length as u64;
            match bpf_ringbuf_output(ring, record.cast(), size, wake as u64) {
                0 => Ok(header.is_copy()),
                _ => Err(full),
            }
        }
    }

    #[inline(always)]
    fn window_scale(&mut self, at: usize, length: usize) -> u8 {
        match self.options(at, length) {
            Ok((_area, length)) => global::nat_window_scale(length) as u8,
            Err(_) => 0,
        }
    }

    #[inline(always)]
    fn edit_options<E: OptionsEdit>(
        &mut self,
        at: usize,
        length: usize,
        mut edit: E,
    ) -> Result<Delta, Reason> {
        let (area, length) = self.options(at, length)?;
        // Bytes past the end are of an earlier packet: the same before and after, they cancel out.
        let before = global::nat_options_sum() as u16;
        edit.edit(area, length as usize);
        let after = global::nat_options_sum() as u16;
        if before == after {
            return Ok(Delta::NONE);
        }
        // SAFETY: the helper reads `length` bytes of the area.
        unsafe {
            let from = area.as_ptr().cast();
            if bpf_skb_store_bytes(self.skb(), at as u32, from, length, 0) != 0 {
                return Err(Reason::WriteFailed);
            }
        }
        Ok(Delta::NONE.word(before.to_ne_bytes(), after.to_ne_bytes()))
    }
}
