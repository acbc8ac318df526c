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
//! Nearly every packet is finished by [`ingress`], which is short. What opens or closes a connection,
//! is no TCP or UDP, is cut, or has no known way goes to [`rare`], which knows everything.

use crate::{
    closing::{self, Noted},
    control, cut, hairpin,
    headers::{Headers, Transport},
    inbound, mss, outbound,
    packet::{NextHop, Packet, Route},
    pair,
    rewrite::{self, Numbers},
    tables::{Slot, Tables},
};
use nat_common::{
    flow::{Flow, FlowKey, Rewrite, Zone},
    interface::Role,
    reason::Reason,
    record::Use,
    tcp::{self, wire},
};

/// What becomes of a packet; the hooks turn it into what the kernel wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Untouched, to whatever comes next: from XDP to TC, from TC to the kernel's stack.
    Stack,
    /// Translated; it leaves by this hop.
    Forward(NextHop),
    /// The agent has it, and will send it on.
    Punted,
    /// Not as most packets are. Untouched; [`rare`] goes on.
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
    let arrival = Arrival { headers, slot, flow, hop, now };
    arrival.touch(Noted::plain(&headers.tcp))?;
    rewrite::apply(packet, &arrival.headers, &arrival.flow, Numbers::Kept)?;
    Ok(Outcome::Forward(arrival.hop))
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
    let Arrival { headers, slot, flow, .. } = &arrival;
    let noted = closing::noted(packet, tables, headers, &headers.key(zone), slot, flow)?;
    arrival.touch(noted)?;
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
    let Arrival { headers, slot, flow, .. } = &arrival;
    let noted = closing::noted(packet, tables, headers, &headers.key(zone), slot, flow)?;
    arrival.touch(noted)?;
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
    let Arrival { headers, slot, flow, .. } = &arrival;
    let noted = closing::noted(packet, tables, headers, &headers.key(zone), slot, flow)?;
    arrival.touch(noted)?;
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

/// A packet that has a flow, and what is known of it.
struct Arrival<S> {
    headers: Headers,
    slot: S,
    flow: Flow,
    hop: NextHop,
    now: u32,
}

impl<S: Slot> Arrival<S> {
    #[inline(always)]
    fn touch(&self, noted: Noted) -> Result<(), Reason> {
        let Noted { seen, receiving } = noted;
        let by = Use { now: self.now, bytes: self.headers.length as u32, seen, receiving };
        if self.slot.touch(&self.flow, by) { Ok(()) } else { Err(Reason::FlowBusy) }
    }
}

/// Everything that has to be known before a packet with a flow is written to; or what becomes of it
/// else. `CONTROL`: the packet is known to be of a control connection. `AGAIN`: another stage has found
/// its flow.
#[inline(always)]
fn arrive<P: Packet, T: Tables, const CONTROL: bool, const AGAIN: bool>(
    packet: &P,
    tables: &mut T,
    zone: Zone,
) -> Result<Result<Arrival<T::Slot>, Outcome>, Reason> {
    let Some(headers) = Headers::read(packet)? else {
        return Ok(Err(Outcome::Stack));
    };
    let now = tables.now();
    let settings = tables.settings();
    let alive = settings.agent_alive(now);
    // The options of a SYN are read by TC alone.
    if !P::COMPLETE && (!alive || headers.tcp.flags & wire::SYN != 0) {
        return Ok(Err(Outcome::Stack));
    }
    let Some(slot) = find::<T, AGAIN>(tables, &headers.key(zone), &headers) else {
        return Ok(Err(match headers.kind {
            Transport::LaterFragment => Outcome::Fragment,
            _ => Outcome::Unknown,
        }));
    };
    let flow = slot.load().ok_or(Reason::FlowBusy)?;
    if headers.kind == Transport::FirstFragment {
        return Ok(Err(Outcome::Fragment));
    }
    headers.translatable()?;
    if !CONTROL && flow.control_session().is_some() {
        return Ok(Err(Outcome::Control));
    }
    // So what is known of next hops counts only while the agent keeps it true.
    let epoch = if alive { Some(settings.epoch) } else { None };
    match next_hop(packet, tables, &headers, &slot, &flow, zone, epoch)? {
        Some(hop) => Ok(Ok(Arrival { headers, slot, flow, hop, now })),
        None => Ok(Err(Outcome::Refused)),
    }
}

/// The flow of a packet, unless the packet begins a new one with the tuple of one that has ended.
#[inline(always)]
fn find<T: Tables, const AGAIN: bool>(
    tables: &mut T,
    key: &FlowKey,
    headers: &Headers,
) -> Option<T::Slot> {
    if matches!(
        headers.kind,
        Transport::LaterFragment | Transport::IcmpError | Transport::IcmpOther | Transport::Other
    ) {
        return None;
    }
    let slot = if AGAIN { tables.flow_in_place(key)? } else { tables.flow(key)? };
    if tcp::opens(headers.tcp.flags)
        && let Some(flow) = slot.load()
    {
        let rewrite = *flow.rewrite();
        // A record that has lost its pair gets both anew.
        let answer = tables.flow_in_place(&key.answer(&rewrite)).and_then(|slot| slot.load());
        let answered = answer.map_or(tcp::RST, |answer| answer.seen);
        if tcp::ends(flow.seen | answered) {
            pair::remove(tables, key, &rewrite);
            return None;
        }
    }
    Some(slot)
}

/// Where a packet of `flow` leaves; `None` where the kernel is to tell its sender by ICMP why it does
/// not forward it: an inside host from the packet as it is, one outside from what [`refuse`] makes of
/// it.
#[inline(always)]
fn next_hop<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    headers: &Headers,
    slot: &T::Slot,
    flow: &Flow,
    zone: Zone,
    epoch: Option<u32>,
) -> Result<Option<NextHop>, Reason> {
    let refused = if headers.ttl <= 1 {
        Reason::TtlExpired
    } else {
        if let Some(epoch) = epoch
            && let Some(hop) = known_hop(packet, tables, headers, flow, epoch)
        {
            return Ok(Some(hop));
        }
        match packet.route(headers, headers.src, flow.rewrite().dst()) {
            Route::Forward(hop, mtu) if leads(tables, &hop, side(headers, flow, zone)) => {
                if let Some(epoch) = epoch {
                    let reference = tables.refer(&hop, mtu, epoch);
                    if reference != flow.hop {
                        slot.lead(flow, reference);
                    }
                }
                return Ok(Some(hop));
            }
            // Where the inside network is gone, a default route must not carry it to the outside.
            Route::Forward(..) | Route::Local if zone == Zone::Outside => {
                return Err(Reason::NoRoute);
            }
            Route::TooBig => Reason::TooBig,
            Route::Forward(..) | Route::Local | Route::Unreachable => Reason::NoRoute,
        }
    };
    // The kernel would take one that turns back for its own.
    if zone == Zone::Inside && side(headers, flow, zone) == Role::Lan {
        return Err(refused);
    }
    Ok(None)
}

/// The hop that the flow knows, if it still holds in this epoch and takes the packet.
#[inline(always)]
fn known_hop<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
    flow: &Flow,
    epoch: u32,
) -> Option<NextHop> {
    if headers.ttl <= 1 {
        return None;
    }
    let known = tables.hop(flow.hop.in_epoch(epoch)?)?;
    let takes = packet.longest(headers) <= known.mtu && (P::COMPLETE || known.hop.link.is_some());
    if takes { Some(known.hop) } else { None }
}

/// Where packets of a flow leave that arrive from `zone`: on the other side, unless they turn back.
#[inline(always)]
fn side(headers: &Headers, flow: &Flow, zone: Zone) -> Role {
    way_out(&headers.key(zone), flow.rewrite())
}

/// The side that packets with `key` leave to as `rewrite`.
#[inline(always)]
pub(crate) fn way_out(key: &FlowKey, rewrite: &Rewrite) -> Role {
    match key.zone() {
        Zone::Inside if !key.turns_back(rewrite) => Role::Wan,
        Zone::Inside | Zone::Outside => Role::Lan,
    }
}

/// Whether a hop leads to that side.
#[inline(always)]
pub(crate) fn leads<T: Tables>(tables: &T, hop: &NextHop, side: Role) -> bool {
    tables.interface(hop.ifindex).and_then(|interface| interface.role()) == Some(side)
}
