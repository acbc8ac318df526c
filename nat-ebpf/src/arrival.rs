//! A packet that has a flow: everything that is known of it before it is written to, and where it leaves.

use crate::{
    closing,
    headers::{Headers, Transport},
    packet::{Journey, NextHop, Packet, Route},
    pair,
    path::Outcome,
    tables::{Slot, Tables},
};
use nat_common::{
    flow::{Flow, FlowKey, Rewrite, Zone},
    interface::Role,
    opaque::opaque,
    reason::Reason,
    tcp,
};

/// A packet that has a flow, and what is known of it.
pub struct Arrival<S> {
    /// Its headers.
    pub headers: Headers,
    /// Where its flow was found.
    slot: S,
    /// Its flow.
    pub flow: Flow,
    /// Where it leaves.
    pub hop: NextHop,
    /// Seconds of the monotonic clock.
    pub now: u32,
}

impl<S: Slot> Arrival<S> {
    /// Notes it in the line of its flow; it arrived from `zone`.
    ///
    /// # Errors
    /// As [`closing::note`].
    #[inline(always)]
    pub fn note<P: Packet, T: Tables<Slot = S>>(
        &self,
        packet: &mut P,
        tables: &T,
        zone: Zone,
    ) -> Result<(), Reason> {
        let Self { headers, slot, flow, now, .. } = self;
        closing::note(packet, tables, headers, &headers.key(zone), slot, flow, *now)
    }
}

/// Everything that has to be known before a packet with a flow is written to; or what becomes of it
/// else. `CONTROL`: the packet is known to be of a control connection. `AGAIN`: another stage has found
/// its flow.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn arrive<P: Packet, T: Tables, const CONTROL: bool, const AGAIN: bool>(
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
    // The options of a SYN are read by TC alone; and a CRC of SCTP that was left to a device is there.
    let by_tc = tcp::is_syn(headers.tcp.flags) || headers.kind == Transport::Other;
    if !P::COMPLETE && (!alive || by_tc) {
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
        Transport::LaterFragment | Transport::IcmpError | Transport::IcmpOther
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
/// not forward it: an inside host from the packet as it is, one outside from what
/// [`crate::path::refuse`] makes of it.
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
        match packet.route(headers, &journey(headers, flow, zone)) {
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

/// From where to where a packet of `flow` goes.
#[inline(always)]
pub fn journey(headers: &Headers, flow: &Flow, zone: Zone) -> Journey {
    let journey = Journey::new(headers.src, flow.rewrite().dst());
    match side(headers, flow, zone) {
        Role::Wan => journey.behind(flow.rewrite().src()),
        Role::Lan => journey,
    }
}

/// The hop that the flow knows, if it still holds in this epoch and takes the packet.
#[inline(always)]
pub fn known_hop<P: Packet, T: Tables>(
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
pub fn way_out(key: &FlowKey, rewrite: &Rewrite) -> Role {
    let turns = match key.zone() {
        Zone::Inside => key.turns_back(rewrite),
        Zone::Outside => true,
    };
    if opaque(turns as u64) == 0 { Role::Wan } else { Role::Lan }
}

/// Whether a hop leads to that side.
#[inline(always)]
pub fn leads<T: Tables>(tables: &T, hop: &NextHop, side: Role) -> bool {
    tables.interface(hop.ifindex).is_some_and(|interface| interface.is(side))
}
