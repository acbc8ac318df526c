//! A packet of another flow in each repetition of a test run, which by itself gives a program the
//! same packet, as it left it, again and again.

use super::{
    generate,
    maps::{CALLEE, CALLEE_TC},
};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action::XDP_ABORTED},
    programs::{TcContext, XdpContext},
};
use nat_common::bench::FRAME;

/// Writes the next packet and calls the XDP program that is measured.
#[inline(always)]
pub fn xdp(context: &XdpContext) -> u32 {
    write(context.data(), context.data_end());
    // SAFETY: nothing here waits to be dropped.
    unsafe { CALLEE.tail_call(context, 0) };
    XDP_ABORTED
}

/// Writes the next packet and calls the TC program that is measured.
#[inline(always)]
pub fn tc(context: &TcContext) -> i32 {
    write(context.data(), context.data_end());
    // The path marks what it has translated; this packet is another one.
    // SAFETY: the context of this program, whose mark may be written.
    unsafe { (*context.skb.skb).mark = 0 };
    // SAFETY: nothing here waits to be dropped.
    unsafe { CALLEE_TC.tail_call(context, 0) };
    TC_ACT_SHOT
}

#[inline(always)]
fn write(start: usize, end: usize) {
    if start + FRAME <= end
        && let Some(next) = generate::next(generate::FORTH)
    {
        // SAFETY: checked against the end of the frame.
        unsafe { *(start as *mut [u8; FRAME]) = next };
    }
}
