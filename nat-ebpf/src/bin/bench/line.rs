//! Forwarding by a line of memory for each flow: a gateway that knows flows reads a line at least, cannot send
//! a packet before it has it, and counts the packet there. Nothing that keeps flows in a map can be faster.

use super::{
    ceiling::{HEADERS, age, is_forwardable},
    maps::{LINES, WAYS},
};

use aya_ebpf::{
    bindings::{TC_ACT_OK, xdp_action::XDP_PASS},
    helpers::generated::bpf_redirect,
    programs::{TcContext, XdpContext},
};
use core::ptr;

/// Redirects an IPv4 packet.
#[inline(always)]
pub fn forward(context: &XdpContext) -> u32 {
    match carry(context.data(), context.data_end()) {
        // SAFETY: no memory is involved.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
        None => XDP_PASS,
    }
}

/// The same in TC.
#[inline(always)]
pub fn forward_tc(context: &TcContext) -> i32 {
    match carry(context.data(), context.data_end()) {
        // SAFETY: no memory is involved.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        None => TC_ACT_OK,
    }
}

/// Writes the packet; the device by which it leaves.
#[inline(always)]
fn carry(start: usize, end: usize) -> Option<u32> {
    if start + HEADERS > end {
        return None;
    }
    // SAFETY: checked against the end of the linear part, which is this program's to write.
    let frame = unsafe { &mut *(start as *mut [u8; HEADERS]) };
    let way = WAYS.get(0)?;
    if !is_forwardable(frame) {
        return None;
    }
    let line = LINES.get_ptr_mut(place(frame) & way.lines)?.cast::<u64>();
    // SAFETY: the first word of a value of an array map.
    let packets = unsafe { ptr::read_volatile(line) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(line, packets.wrapping_add(1)) };
    age(frame);
    frame[..12].copy_from_slice(&way.links);
    // Nothing, for so many packets there are not; but it has to be known.
    Some(way.ifindex + (packets >> 63) as u32)
}

/// A number that follows from addresses and ports.
#[inline(always)]
fn place(frame: &[u8; HEADERS]) -> u32 {
    let word = |at: usize| {
        u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]) as u64
    };
    // The multiplier of Fibonacci hashing: 2^64 by the golden ratio.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let hash = (word(26) ^ word(34) << 32).wrapping_mul(GOLDEN) ^ word(30);
    (hash.wrapping_mul(GOLDEN) >> 32) as u32
}
