//! What has arrived, and whether it arrived as it should.

use super::maps::{ORDERS, SEEN, TALLIES};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use nat_common::bench::{
    ANSWERED, DESTINATION_PORT, DESTINATIONS, Ends, FRAME, IPV4, NUMBER, OPENED, Order, TTL, UDP,
    is_sound, mode,
};

/// One packet in so many is looked at closely.
const SAMPLE: u64 = 64;

/// Counts a packet of the bench and drops it; others pass.
#[inline(always)]
pub fn count(context: &XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    if start + FRAME > end {
        return XDP_PASS;
    }
    // SAFETY: checked against the end of the frame.
    let frame = unsafe { &*(start as *const [u8; FRAME]) };
    let is_outside = starts_at(frame, IPV4 + 16) && port(frame, UDP + 2) == DESTINATION_PORT;
    let is_inside = starts_at(frame, IPV4 + 12) && port(frame, UDP) == DESTINATION_PORT;
    if frame[IPV4] != 0x45 || frame[IPV4 + 9] != 17 || !(is_outside || is_inside) {
        return XDP_PASS;
    }
    let (Some(order), Some(tally)) = (ORDERS.get(0), TALLIES.get_ptr_mut(0)) else {
        return XDP_PASS;
    };
    // SAFETY: the entry of this CPU, on which no other program takes the turn of this one.
    let tally = unsafe { &mut *tally };
    let flow = u32::from_be_bytes([
        frame[NUMBER],
        frame[NUMBER + 1],
        frame[NUMBER + 2],
        frame[NUMBER + 3],
    ]);
    tally.packets += 1;
    tally.bytes += (end - start) as u64;
    if flow >= order.first {
        tally.fresh += 1;
    }
    if matches!(order.mode, mode::OPEN | mode::ANSWER | mode::FRESH | mode::FLOOD)
        && let Some(seen) = SEEN.get_ptr_mut(flow)
    {
        // SAFETY: a valid entry; packets of one flow arrive one after the other.
        let seen = unsafe { &mut *seen };
        if is_outside && *seen & OPENED == 0 {
            *seen = port(frame, UDP) as u32 | OPENED;
            tally.opened += 1;
        } else if is_inside && *seen & ANSWERED == 0 {
            *seen |= ANSWERED;
            tally.answered += 1;
        }
    }
    if tally.packets % SAMPLE == 0 {
        tally.sampled += 1;
        if !is_right(frame, order, flow, is_outside) {
            tally.wrong += 1;
        }
    }
    XDP_DROP
}

/// Whether the packet is what the gateway had to make of the flow's.
#[inline(always)]
fn is_right(frame: &[u8; FRAME], order: &Order, flow: u32, is_outside: bool) -> bool {
    let ends = Ends::of(flow);
    let [source, destination] = [address(frame, IPV4 + 12), address(frame, IPV4 + 16)];
    let is_addressed = if is_outside {
        let from = if order.public == [0; 4] { ends.inside } else { order.public };
        source == from && destination == ends.outside
    } else {
        source == ends.outside && destination == ends.inside && port(frame, UDP + 2) == ends.port
    };
    is_addressed && frame[IPV4 + 8] == TTL - 1 && is_sound(frame)
}

#[inline(always)]
fn starts_at(frame: &[u8; FRAME], at: usize) -> bool {
    [frame[at], frame[at + 1]] == DESTINATIONS
}

#[inline(always)]
fn port(frame: &[u8; FRAME], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[inline(always)]
fn address(frame: &[u8; FRAME], at: usize) -> [u8; 4] {
    [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]
}
