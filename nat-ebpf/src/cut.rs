//! Packets from inside that are longer than their way out takes, and may be cut (RFC 4787 REQ-13a).
//!
//! The kernel cuts what it forwards itself, but what is translated here leaves past it. So the agent
//! gets the packet as it is to leave, and sends it in pieces. (From outside the kernel does it: there a
//! translated packet is like any other.)

use crate::{
    arrival, closing, fragment,
    headers::{Headers, Transport},
    packet::{NextHop, Packet},
    path::Outcome,
    rewrite,
    tables::{Slot, Tables},
};
use nat_common::{flow::Zone, interface::Role, punt::PuntHeader, reason::Reason};

/// Whether a packet may be cut: without DF, and no super-packet, whose segments would be.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn may_cut<P: Packet>(packet: &P, headers: &Headers) -> Result<bool, Reason> {
    Ok(P::COMPLETE
        && !headers.is_whole(packet)?
        && packet.longest(headers) == headers.length as u32)
}

/// Passes on a packet from inside that has a flow and no way on as it is; the kernel tells its sender of
/// what cutting does not help.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn pass<P: Packet, T: Tables>(packet: &mut P, tables: &mut T) -> Result<Outcome, Reason> {
    let Some(headers) = Headers::read(packet)? else { return Ok(Outcome::Stack) };
    let now = tables.now();
    if headers.ttl <= 1 || !may_cut(packet, &headers)? || !tables.settings().agent_alive(now) {
        return Ok(Outcome::Stack);
    }
    let slot = tables.flow_in_place(&headers.key(Zone::Inside)).ok_or(Reason::FlowBusy)?;
    let flow = slot.load().ok_or(Reason::FlowBusy)?;
    let is_piece = match headers.kind {
        Transport::FirstFragment => true,
        // Pieces would not be told to be of one packet any more, with an identification each.
        Transport::Other => headers.is_piece(packet)?,
        _ => false,
    };
    if flow.control_session().is_some() || is_piece {
        return Ok(Outcome::Stack);
    }
    let rewrite = *flow.rewrite();
    let journey = arrival::journey(&headers, &flow, Zone::Inside);
    let Some((hop, mtu)) = packet.narrow_way(&headers, &journey) else {
        return Ok(Outcome::Stack);
    };
    if !arrival::leads(tables, &hop, Role::Wan) {
        return Ok(Outcome::Stack);
    }
    let key = headers.key(Zone::Inside);
    closing::note(packet, tables, &headers, &key, &slot, &flow, now)?;
    let old = u16::from_be_bytes(packet.read(headers.network + fragment::IDENTIFICATION)?);
    let new = tables.identification(rewrite.src(), rewrite.dst(), headers.protocol);
    let headers = fragment::identify(packet, headers, old, new)?;
    rewrite::with_ttl(packet, &headers, &flow, headers.ttl - 1)?;
    hand_over(packet, &headers, &hop, mtu)
}

/// Hands a translated packet to the agent, which sends it by `hop` in pieces of at most `mtu` bytes.
///
/// # Errors
/// [`Reason::FragmentsFull`], [`Reason::AlgTooLong`].
#[inline(always)]
pub fn hand_over<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    hop: &NextHop,
    mtu: u32,
) -> Result<Outcome, Reason> {
    let header = PuntHeader::long(mtu as u16, headers.length as u32, hop.ifindex);
    packet.punt(header, headers.network)?;
    Ok(Outcome::Punted)
}
