//! The table grows: the agent has this program move all flows, some places at a time, while packets
//! move those that they need.

use super::{
    maps,
    memory::{BEFORE, NOW},
};
use aya_ebpf::{
    bindings::xdp_action::XDP_PASS, helpers::generated::bpf_loop, programs::XdpContext,
};
use core::{ffi::c_void, ptr};
use nat_common::{
    flow_table::{self, Found, Memory},
    layout::MOVES,
    record::{STATE, State},
};

/// Bytes of a test run's frame that are read: an index, 32 bits.
const ORDER: usize = 4;

/// Where the run has come to.
struct Run {
    index: u32,
}

/// Moves the flows of [`MOVES`] places from the one on that the frame of the test run names.
#[inline(always)]
pub fn run(context: &XdpContext) -> u32 {
    let start = context.data();
    if start + ORDER > context.data_end() {
        return XDP_PASS;
    }
    // SAFETY: checked against the end of the frame.
    let index = unsafe { ptr::read_unaligned(start as *const u32) };
    let mut run = Run { index };
    // SAFETY: the callback gets the run back; both live during the call.
    unsafe { bpf_loop(MOVES, turn as *mut c_void, ptr::from_mut(&mut run).cast(), 0) };
    XDP_PASS
}

unsafe extern "C" fn turn(_turn: u32, run: *mut Run) -> i64 {
    // SAFETY: `run` gave it.
    let index = unsafe { (*run).index };
    // SAFETY: as above.
    unsafe { (*run).index = index.wrapping_add(1) };
    nat_move_place(index);
    0
}

/// Moves the flow of one place, if there is one; it stays where others have it in hand.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_move_place(index: u32) -> u64 {
    let Some(place) = maps::FLOWS_BEFORE.get_ptr_mut(index) else { return 0 };
    let state = State::from_word(BEFORE.load(place, STATE));
    if !state.is_live() {
        return 0;
    }
    // Its home does not matter: the line says where it lies.
    let found = Found { place, home: index, offset: 0, state };
    flow_table::relocate(&BEFORE, &NOW, found).is_ok() as u64
}
