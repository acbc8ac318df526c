//! Forwarding and nothing else: one hop less to live. In XDP the way comes from the kernel's routing
//! table; in TC it is given, as a gateway that knows its next hops has it.

use super::maps::WAYS;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_OK, bpf_fib_lookup as FibLookup, xdp_action::XDP_PASS},
    helpers::generated::{bpf_fib_lookup, bpf_redirect},
    programs::{TcContext, XdpContext},
};
use core::{mem, ptr};

const AF_INET: u8 = 2;
/// Ethernet, IPv4, and the ports.
pub const HEADERS: usize = 38;

/// Redirects an IPv4 packet whose way is known.
#[inline(always)]
pub fn forward(context: &XdpContext) -> u32 {
    let start = context.data();
    if start + HEADERS > context.data_end() {
        return XDP_PASS;
    }
    // SAFETY: checked against the end of the frame.
    let frame = unsafe { &mut *(start as *mut [u8; HEADERS]) };
    if !is_forwardable(frame) {
        return XDP_PASS;
    }
    // SAFETY: integers and unions of integers, for which zero is a value.
    let mut way: FibLookup = unsafe { mem::zeroed() };
    way.family = AF_INET;
    way.l4_protocol = frame[23];
    way.ifindex = context.ingress_ifindex() as u32;
    way.__bindgen_anon_1.tot_len = u16::from_be_bytes([frame[16], frame[17]]);
    way.__bindgen_anon_3.ipv4_src =
        u32::from_ne_bytes([frame[26], frame[27], frame[28], frame[29]]);
    way.__bindgen_anon_4.ipv4_dst =
        u32::from_ne_bytes([frame[30], frame[31], frame[32], frame[33]]);
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the program's own context, and a record of this size.
    if unsafe { bpf_fib_lookup(context.as_ptr(), ptr::from_mut(&mut way), size, 0) } != 0 {
        return XDP_PASS;
    }
    age(frame);
    frame[..6].copy_from_slice(&way.dmac);
    frame[6..12].copy_from_slice(&way.smac);
    // SAFETY: no memory is involved.
    unsafe { bpf_redirect(way.ifindex, 0) as u32 }
}

/// Redirects an IPv4 packet the way that the map `ways` has.
#[inline(always)]
pub fn forward_tc(context: &TcContext) -> i32 {
    let start = context.data();
    if start + HEADERS > context.data_end() {
        return TC_ACT_OK;
    }
    // SAFETY: checked against the end of the linear part, which is this program's to write
    // (bpf_unclone_prologue).
    let frame = unsafe { &mut *(start as *mut [u8; HEADERS]) };
    let Some(way) = WAYS.get(0) else { return TC_ACT_OK };
    if !is_forwardable(frame) {
        return TC_ACT_OK;
    }
    age(frame);
    frame[..12].copy_from_slice(&way.links);
    // SAFETY: no memory is involved.
    unsafe { bpf_redirect(way.ifindex, 0) as i32 }
}

/// Whether it is IPv4 without options, and may go on.
#[inline(always)]
pub const fn is_forwardable(frame: &[u8; HEADERS]) -> bool {
    matches!([frame[12], frame[13], frame[14]], [8, 0, 0x45]) && frame[22] > 1
}

/// One hop less to live.
#[inline(always)]
pub fn age(frame: &mut [u8; HEADERS]) {
    frame[22] -= 1;
    // One less in the high byte of a word is 0x100 more in its complement (RFC 1624).
    let sum = u16::from_be_bytes([frame[24], frame[25]]) as u32 + 0x100;
    [frame[24], frame[25]] = ((sum + (sum >> 16)) as u16).to_be_bytes();
}
