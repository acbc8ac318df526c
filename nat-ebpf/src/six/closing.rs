//! What a packet of IPv6 notes in its flow, and which segments that open or close a connection count:
//! what [`crate::closing`] is for IPv4. Both ends have one record here.

use super::{
    headers::Headers6,
    tables::{Line6, Packet6},
};
use crate::headers::{TCP_FIXED, Transport};
use nat_common::{
    flow::Zone,
    reason::Reason,
    record::Use,
    tcp::{self, wire},
    tcp_window::{self, Receiving, SHIFTED},
};

/// What a packet adds to what is known of its sender, if it counts.
#[inline(always)]
pub(super) fn used<P: Packet6>(packet: &mut P, headers: &Headers6, now: u32) -> Use {
    let Headers6 { length, sequence, acknowledgement, window, flags, .. } = *headers;
    let seen = tcp::seen(flags);
    if !tcp::is_syn(flags) {
        let receiving = Receiving { acknowledged: acknowledgement, window };
        return Use { now, bytes: length, seen, receiving };
    }
    let options = (headers.tcp_length as usize).saturating_sub(TCP_FIXED);
    let scale = packet.window_scale(headers.transport + TCP_FIXED, options);
    let receiving = Receiving::of_syn(flags, sequence, acknowledgement, window);
    Use { now, bytes: length, seen: seen | tcp_window::scale_bits(scale), receiving }
}

/// Notes a packet from `zone` in its flow.
///
/// # Errors
/// [`Reason::TcpFlags`] and [`Reason::TcpWindow`].
#[inline(always)]
pub(super) fn note<L: Line6>(
    line: &L,
    zone: Zone,
    headers: &Headers6,
    mut by: Use,
) -> Result<(), Reason> {
    let flags = headers.flags;
    if headers.kind == Transport::Tcp && !tcp::goes_on(flags) {
        if !tcp::is_possible(flags) {
            return Err(Reason::TcpFlags);
        }
        if !counts(line, zone, headers) {
            return Err(Reason::TcpWindow);
        }
        if flags & wire::RST != 0 {
            // It acknowledges, but its sender is ready to receive nothing any more.
            (by.seen, by.receiving) = (tcp::RST, line.receiving(zone));
        }
    }
    line.note(zone, by);
    Ok(())
}

/// Whether its receiver takes a segment that opens or closes.
#[inline(always)]
fn counts<L: Line6>(line: &L, zone: Zone, headers: &Headers6) -> bool {
    let Headers6 { sequence, acknowledgement, flags, .. } = *headers;
    if flags & (wire::RST | wire::FIN) == 0 {
        return true;
    }
    let receiver = line.receiver(zone);
    let slack = if line.is_control() { SHIFTED } else { 0 };
    match flags & wire::RST {
        0 => receiver.takes_fin(sequence, headers.payload(), slack),
        _ => receiver.takes_reset(flags, sequence, acknowledgement, slack),
    }
}
