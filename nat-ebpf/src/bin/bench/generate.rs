//! The next packet of a population of flows.
//!
//! Invariant: every byte of the frame is written, for a live frame comes back with the edits of all
//! the programs that it has met.

use super::maps::{DUE, ORDERS, POPULAR, POPULAR_ENTRIES, POSITION, SEEN, TALLIES};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    helpers::bpf_ktime_get_ns,
    programs::XdpContext,
};
use nat_common::bench::{
    ANSWERED, DESTINATION_PORT, Ends, FRAME, NUMBER, OPENED, Order, frame,
    mode::{ANSWER, BACK as ANSWERS, FLOOD, FRESH, OPEN, POPULAR as FAVOURITES, UNIFORM},
};

/// Multiplier of a congruential generator (Knuth, MMIX).
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;
/// Nanoseconds of silence after which a paced generator sends as much at once: less than a ring
/// holds, at any rate that a gateway is asked for.
const CATCH_UP: u64 = 100_000;

/// The order that is for packets one way alone, or the first of two.
pub const FORTH: u32 = 0;
/// The order that is for packets the other way at the same time.
pub const BACK: u32 = 1;

/// Makes the next packet of an order; `XDP_TX` sends it out of the interface of the run.
#[inline(always)]
pub fn send(context: &XdpContext, which: u32) -> u32 {
    if !is_due(which) {
        return XDP_DROP;
    }
    let Some(next) = next(which) else { return XDP_DROP };
    let start = context.data();
    if start + FRAME > context.data_end() {
        return XDP_DROP;
    }
    // SAFETY: checked against the end of the frame.
    unsafe { *(start as *mut [u8; FRAME]) = next };
    let flow =
        u32::from_be_bytes([next[NUMBER], next[NUMBER + 1], next[NUMBER + 2], next[NUMBER + 3]]);
    if let (Some(order), Some(tally)) = (ORDERS.get(which), TALLIES.get_ptr_mut(0))
        && flow < order.first
    {
        // SAFETY: the entry of this CPU; the sink, which may come in between, has other fields.
        unsafe { (*tally).sent += 1 };
    }
    XDP_TX
}

/// Whether it is time for a packet; what was missed is made good within [`CATCH_UP`].
#[inline(always)]
fn is_due(which: u32) -> bool {
    let (Some(order), Some(due)) = (ORDERS.get(which), DUE.get_ptr_mut(0)) else { return false };
    if order.interval == 0 {
        return true;
    }
    // SAFETY: the entry of this CPU, on which no other program takes the turn of this one.
    let due = unsafe { &mut *due };
    // SAFETY: no memory is involved.
    let now = unsafe { bpf_ktime_get_ns() };
    if *due > now {
        return false;
    }
    let earliest = now - CATCH_UP;
    *due = if *due < earliest { earliest } else { *due } + order.interval as u64;
    true
}

/// The next packet that was ordered.
#[inline(always)]
pub fn next(which: u32) -> Option<[u8; FRAME]> {
    let order = ORDERS.get(which)?;
    let position = POSITION.get_ptr_mut(0)?;
    // SAFETY: the entry of this CPU, on which no other program takes the turn of this one.
    let at = unsafe { *position };
    // SAFETY: as above.
    let advance = |next: u64| unsafe { *position = next };
    match order.mode {
        OPEN => {
            advance(at + 1);
            let flow = flow_at(order, at);
            (SEEN.get(flow)? & OPENED == 0).then(|| outbound(order, flow))
        }
        ANSWER => {
            advance(at + 1);
            let flow = flow_at(order, at);
            let seen = *SEEN.get(flow)?;
            (seen & (OPENED | ANSWERED) == OPENED).then(|| inbound(order, flow, seen))
        }
        UNIFORM => {
            advance(random(at));
            Some(outbound(order, scale(at, order.flows)))
        }
        FAVOURITES => {
            advance(at + 1);
            Some(outbound(order, *POPULAR.get(at as u32 & (POPULAR_ENTRIES as u32 - 1))?))
        }
        FRESH => {
            advance(at + 1);
            let flow = order.first + (at >> 1) as u32;
            (flow < order.flows).then(|| outbound(order, flow))
        }
        FLOOD => {
            advance(at + 1);
            let flow = order.first + (at >> 1) as u32;
            if at & 1 == 1 && flow < order.flows {
                Some(outbound(order, flow))
            } else {
                Some(outbound(order, scale(random(random(at)), order.first)))
            }
        }
        ANSWERS => {
            advance(random(at));
            let flow = scale(at, order.flows);
            Some(inbound(order, flow, *SEEN.get(flow)?))
        }
        _ => None,
    }
}

#[inline(always)]
fn outbound(order: &Order, flow: u32) -> [u8; FRAME] {
    let ends = Ends::of(flow);
    frame(order.links, (ends.inside, ends.port), (ends.outside, DESTINATION_PORT), flow)
}

/// The answer, to where the packet seemed to come from.
#[inline(always)]
fn inbound(order: &Order, flow: u32, seen: u32) -> [u8; FRAME] {
    let ends = Ends::of(flow);
    let to = if order.public == [0; 4] { ends.inside } else { order.public };
    frame(order.links, (ends.outside, DESTINATION_PORT), (to, seen as u16), flow)
}

#[inline(always)]
fn flow_at(order: &Order, at: u64) -> u32 {
    at.checked_rem(order.flows as u64).unwrap_or(0) as u32
}

#[inline(always)]
fn random(state: u64) -> u64 {
    state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
}

/// A number below `below` from the high bits, which are the random ones.
#[inline(always)]
fn scale(state: u64, below: u32) -> u32 {
    (((state >> 32) * below as u64) >> 32) as u32
}
