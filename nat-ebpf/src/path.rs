//! The path of a packet through the gateway; read it top to bottom as the table of contents of the
//! data plane.
//!
//! Read, decide, then rewrite: nothing is written before everything is known that the packet needs
//! to leave. XDP runs the same steps as TC; where it cannot finish it answers [`Outcome::Stack`]
//! before the first write, and the TC program on the interface begins anew.
//!
//! ```text
//!   frame -> plain? --yes--> flow? --yes--> next hop known? --yes--> rewrite -> Forward
//!             | no            | no                | no
//!             |               +-> admit           |     of a control connection (TC only): control
//!             |                     |             |       payload to the agent, the rest shifted
//!             +---------------------|-------------+--> rare: any packet, by the kernel's routing
//!                                   |                    |      SYN with an MSS that may not fit: mss
//!                                   |                    |      fragment; too long for its way: cut
//!                                   |                    |
//!                                   | made <-------------+ no flow
//!                                   +-> rare
//!                inside:            outbound (masquerade, one-to-one, expectation)
//!                outside (TC only): inbound  (forward, expectation)
//! ```
//!
//! IPv6 is judged by [`crate::six`], in TC, and left to the kernel: nothing of it is translated.
//!
//! Nearly every packet is finished by [`ingress`], which is short. What opens or closes a connection,
//! is no TCP or UDP, is cut, or has no known way goes to [`rare`], which knows everything.

use crate::{
    arrival::{Arrival, arrive, known_hop},
    closing::Noted,
    control, cut, hairpin,
    headers::{Headers, Transport},
    inbound, mss, outbound,
    packet::{NextHop, Packet},
    rewrite::{self, Numbers},
    tables::{Slot, Tables},
};
use nat_common::{flow::Zone, reason::Reason, tcp};

/// What becomes of a packet; the hooks turn it into what the kernel wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Untouched, to whatever comes next: from XDP to TC, from TC to the kernel's stack.
    Stack,
    /// Translated; it leaves by this hop.
    Forward(NextHop),
    /// The agent has it, and will send it on.
    Punted,
    /// Not as most packets are. Untouched; [`rare`] goes on, in TC with IPv6 [`crate::six::pass`].
    Rare,
    /// It has no flow. Untouched; [`admit`] says whether it begins one.
    Unknown,
    /// It is of a control connection. Untouched; [`control`] goes on.
    Control,
    /// It opens a connection, with an MSS that may not fit. Untouched; [`open`] goes on.
    Opens,
    /// It is a fragment: a later one, or the first one of a flow. Untouched; [`crate::fragment::pass`]
    /// goes on.
    Fragment,
    /// It cannot go on. Untouched; [`refuse`] goes on.
    Refused,
}

/// What an arriving packet without a flow turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has one now: [`rare`] goes on.
    Flow,
    /// It is none of ours.
    Stack,
    /// It is from inside, for the gateway: [`turn`] goes on, in TC.
    Local,
    /// It is an error about another packet: [`crate::icmp_error::pass`] goes on, in TC.
    Error,
}

/// A packet arrives from `zone` for which no flow was found.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn admit<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Admission, Reason> {
    let Some(headers) = Headers::read(packet)? else {
        return Ok(Admission::Stack);
    };
    if headers.kind == Transport::IcmpError {
        return Ok(Admission::Error);
    }
    let headers = headers.begun(packet)?;
    let now = tables.now();
    let key = headers.key(zone);
    match zone {
        Zone::Inside => outbound::admit(packet, tables, &headers, &key, now),
        Zone::Outside => inbound::admit(packet, tables, &headers, &key, now),
    }
}

/// A packet arrives from inside that is for the gateway, if not for an inside host by its address.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn turn<P: Packet, T: Tables>(packet: &P, tables: &mut T) -> Result<Admission, Reason> {
    let Some(headers) = Headers::read(packet)? else {
        return Ok(Admission::Stack);
    };
    let headers = headers.begun(packet)?;
    let now = tables.now();
    hairpin::admit(packet, tables, &headers, &headers.key(Zone::Inside), now)
}

/// A packet arrives from `zone`. Finishes it if it is plain, has a flow, and its next hop is known.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    let Some(headers) = Headers::read_plain(packet) else { return Ok(Outcome::Rare) };
    let now = tables.now();
    let settings = tables.settings();
    // Redirecting past the stack lets neighbour entries age. While the agent lives it keeps them
    // fresh; when it is gone the kernel does.
    if !settings.agent_alive(now) {
        return Ok(Outcome::Rare);
    }
    let Some(slot) = tables.flow_often(&headers.key(zone)) else { return Ok(Outcome::Unknown) };
    let flow = slot.load().ok_or(Reason::FlowBusy)?;
    if flow.control_session().is_some() {
        return Ok(Outcome::Control);
    }
    let Some(hop) = known_hop(packet, tables, &headers, &flow, settings.epoch) else {
        return Ok(Outcome::Rare);
    };
    if !packet.can_finish(&headers, &hop) {
        return Ok(Outcome::Rare);
    }
    Noted::plain(&headers.tcp).note(&slot, &flow, &headers, now)?;
    rewrite::apply(packet, &headers, &flow, Numbers::Kept)?;
    Ok(Outcome::Forward(hop))
}

/// A packet arrives from `zone` that [`ingress`] does not finish, or that [`admit`] has made a flow for.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn rare<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    let arrival = match arrive::<P, T, false, false>(packet, tables, zone)? {
        Ok(arrival) => arrival,
        Err(outcome) => return Ok(outcome),
    };
    if tcp::is_syn(arrival.headers.tcp.flags) && mss::may_exceed(packet, tables, &arrival.headers)?
    {
        return Ok(Outcome::Opens);
    }
    if !packet.can_finish(&arrival.headers, &arrival.hop) {
        return Ok(Outcome::Stack);
    }
    arrival.note(packet, tables, zone)?;
    rewrite::apply(packet, &arrival.headers, &arrival.flow, Numbers::Kept)?;
    Ok(Outcome::Forward(arrival.hop))
}

/// A packet arrives from `zone` that [`rare`] found to open a connection, with an MSS that may not
/// fit its path.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn open<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    let arrival = match arrive::<P, T, false, true>(packet, tables, zone)? {
        Ok(arrival) => arrival,
        Err(outcome) => return Ok(outcome),
    };
    arrival.note(packet, tables, zone)?;
    mss::pass(packet, tables, &arrival.headers, &arrival.flow, arrival.hop)
}

/// A packet arrives from `zone` that was found to belong to a control connection. One hook
/// does this, TC, so that nothing overtakes a line that the agent holds.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn control<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    let arrival = match arrive::<P, T, true, true>(packet, tables, zone)? {
        Ok(arrival) => arrival,
        Err(outcome) => return Ok(outcome),
    };
    // It has ended meanwhile, and the next one has the same tuple: the packet is repeated.
    let session = arrival.flow.control_session().ok_or(Reason::FlowBusy)?;
    arrival.note(packet, tables, zone)?;
    let Arrival { headers, flow, hop, now, .. } = arrival;
    control::pass(packet, tables, &headers, &flow, session, hop, now)
}

/// A packet arrives from `zone` that [`rare`] has found a flow for, and no way on. The kernel sees why
/// it cannot be forwarded and tells its sender, at a rate of its own: an inside host from the packet as it
/// is, unless that may be cut ([`cut`]); one outside from the packet as the inside host would get it, and
/// [`crate::icmp_error::leave`] puts the public address back into what it quotes. One from outside that
/// may be cut the kernel cuts and forwards.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn refuse<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    if zone == Zone::Inside {
        return cut::pass(packet, tables);
    }
    let Some(headers) = Headers::read(packet)? else { return Ok(Outcome::Stack) };
    let slot = tables.flow(&headers.key(Zone::Outside)).ok_or(Reason::FlowBusy)?;
    let flow = slot.load().ok_or(Reason::FlowBusy)?;
    // What the agent has to see must not go on past it.
    if flow.control_session().is_some() && headers.ttl > 1 && !headers.is_whole(packet)? {
        return Err(Reason::TooBig);
    }
    rewrite::keep_ttl(packet, &headers, &flow)?;
    Ok(Outcome::Stack)
}
