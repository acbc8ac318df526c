//! ICMP errors about translated packets: the outer header and the quote are translated, so that the
//! sender of what is quoted finds its own packet in it (RFC 5508 section 4.2).
//!
//! An error comes from anywhere on the way of what it quotes; the flow is found by the quote, as the
//! one of the answers to it. It uses nothing up and keeps nothing alive: it is no packet of the flow.
//!
//! ```text
//!   from outside   router -> public : "public:port -> remote"   becomes
//!                  router -> host   : "host:port -> remote"     the router stays who it is
//!   from inside    router -> remote : "remote -> host:port"     becomes
//!                  public -> remote : "remote -> public:port"   nobody outside knows the router
//!
//! The same goes for flows that turn back: who has dialled a public address hears of it alone.
//! ```

use crate::{
    arrival,
    headers::Headers,
    inbound,
    packet::{Journey, Packet, Route},
    path::Outcome,
    quote::Quote,
    rewrite,
    tables::{Slot, Tables},
};
use nat_common::{
    checksum::Delta,
    flow::{Direction, Flow, ICMP, Rewrite, Zone},
    interface::Role,
    port::{Endpoint, Owner},
    reason::Reason,
    session::Side,
};

/// Passes an error on that arrives from `zone`.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn pass<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Outcome, Reason> {
    let Some(headers) = Headers::read(packet)? else { return Ok(Outcome::Stack) };
    let quote = match Quote::read(packet, &headers) {
        Ok(quote) => quote,
        Err(reason) => return stray(packet, tables, &headers, zone, reason),
    };
    let Some(flow) = about(tables, &headers, &quote, zone) else {
        if zone == Zone::Outside && was_given_out(tables, &quote) {
            return Err(Reason::IcmpUnrelated);
        }
        return stray(packet, tables, &headers, zone, Reason::IcmpUnrelated);
    };
    // RFC 5508 REQ-3.
    if !packet.is_sound(&headers) {
        return Err(Reason::IcmpQuote);
    }
    if headers.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let answer = *flow.rewrite();
    // Who is on the way keeps its address where the receiver may know it.
    let src =
        if zone == Zone::Inside || headers.src == quote.dst { answer.src() } else { headers.src };
    let journey = Journey::new(src, answer.dst());
    let (side, journey) = match arrival::way_out(&quote.answer(zone), &answer) {
        Role::Wan => (Role::Wan, journey.behind(src)),
        Role::Lan => (Role::Lan, journey),
    };
    let hop = match packet.route(&headers, &journey) {
        Route::Forward(hop, _) if arrival::leads(tables, &hop, side) => hop,
        Route::TooBig => return Err(Reason::TooBig),
        Route::Forward(..) | Route::Local | Route::Unreachable => return Err(Reason::NoRoute),
    };
    let sequence = sequence(tables, &flow, &quote)?;
    rewrite::addresses(packet, &headers, src, answer.dst(), headers.ttl - 1)?;
    restore(packet, &headers, &quote, &answer, sequence)?;
    Ok(Outcome::Forward(hop))
}

/// Lets an error out of a WAN that the gateway itself has sent. About a packet from outside that it
/// could not forward it quotes that with the inside address, and is translated.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn leave<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<(), Reason> {
    let Some(headers) = Headers::read(packet)? else { return Ok(()) };
    // Its own business: what it cannot be, it does not send about others.
    let Ok(quote) = Quote::read(packet, &headers) else { return Ok(()) };
    if let Some(flow) = about(tables, &headers, &quote, Zone::Inside) {
        // It quotes what it has got, which no correction has shifted.
        return restore(packet, &headers, &quote, flow.rewrite(), None);
    }
    match packet.route(&headers, &Journey::new(headers.dst, quote.dst)) {
        // The flow has ended meanwhile.
        Route::Forward(hop, _) if arrival::leads(tables, &hop, Role::Lan) => {
            Err(Reason::IcmpUnrelated)
        }
        Route::Forward(..) | Route::Local | Route::TooBig | Route::Unreachable => Ok(()),
    }
}

/// The flow of answers to what is quoted. An error is for who has sent that, and for nobody else.
#[inline(always)]
fn about<T: Tables>(tables: &T, headers: &Headers, quote: &Quote, zone: Zone) -> Option<Flow> {
    if headers.dst != quote.src {
        return None;
    }
    tables.flow_in_place(&quote.answer(zone))?.load()
}

/// The sequence number that the sender of a quoted segment has given it, where it was shifted.
#[inline(always)]
fn sequence<T: Tables>(tables: &T, flow: &Flow, quote: &Quote) -> Result<Option<u32>, Reason> {
    let Some(session) = flow.control_session() else { return Ok(None) };
    let answers = match flow.direction() {
        Direction::Original => Side::Originator,
        Direction::Reply => Side::Responder,
    };
    // As if it were acknowledged: that leads from the receiver's numbers to the sender's.
    let shifted = tables.shift(session, answers, 0, quote.sequence())?;
    Ok(Some(shifted.acknowledgement))
}

#[inline(always)]
fn restore<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    quote: &Quote,
    answer: &Rewrite,
    sequence: Option<u32>,
) -> Result<(), Reason> {
    let sum = quote.restore(packet, answer, sequence)?;
    packet.update_checksum(headers, answer, Delta::NONE, sum)
}

/// Whether the source of what is quoted is a port that only inside hosts can have sent from, or
/// nobody; identifiers of the gateway's own echo requests are nowhere to be seen.
#[inline(always)]
fn was_given_out<T: Tables>(tables: &T, quote: &Quote) -> bool {
    if quote.protocol() == ICMP || !tables.settings().pool.contains(quote.sport) {
        return false;
    }
    let public = Endpoint::new(quote.protocol(), quote.src, quote.sport);
    let owner = tables.port_owner(&public).and_then(|owner| owner.owner());
    owner != Some(Owner::Gateway)
}

/// An error about none of the flows: for the gateway itself, or for nobody.
#[inline(always)]
fn stray<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
    zone: Zone,
    reason: Reason,
) -> Result<Outcome, Reason> {
    match zone {
        Zone::Inside => match packet.route(headers, &Journey::new(headers.src, headers.dst)) {
            Route::Forward(hop, _) if arrival::leads(tables, &hop, Role::Wan) => Err(reason),
            Route::Forward(..) | Route::Local | Route::TooBig | Route::Unreachable => {
                Ok(Outcome::Stack)
            }
        },
        Zone::Outside => inbound::own(packet, tables, headers).map(|_stack| Outcome::Stack),
    }
}
