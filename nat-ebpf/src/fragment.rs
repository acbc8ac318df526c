//! Fragments: each is translated by itself, as the datagram that it is of. None is put together, so what
//! a host sends and how it cuts it stays as it is; in TC alone, for none is waited for on a fast path.
//!
//! ```text
//!   first fragment --has ports--> flow (made if need be) --> noted in `fragments` --> leaves
//!   later fragment --identification--> `fragments` --> ports --> flow -------------> leaves
//!                                       | none yet
//!                                       +--> to the agent, which holds it until there is one
//! ```
//!
//! What leaves with another source gets another identification too: two hosts behind one address would
//! else use the same one for a remote host, which would mix up their datagrams (RFC 6864 section 5.3).
//!
//! A first fragment is as long as the headers that decide about it, or dropped (RFC 1858 section 4.2);
//! a later one of TCP starts behind the flags (RFC 3128 section 3), and none ends beyond the longest packet
//! that there is.

use crate::{
    arrival,
    closing::{self, Noted},
    cut,
    headers::{FRAGMENT_OFFSET, Headers, Transport},
    inbound,
    packet::{Journey, NextHop, Packet, Route},
    path::Outcome,
    rewrite,
    tables::{Slot, Tables},
};
use nat_common::{
    checksum::Delta,
    flow::{Flow, TCP, Zone},
    fragment::{FragmentKey, Fragmented, LIFETIME},
    interface::Role,
    punt::PuntHeader,
    reason::Reason,
};

/// Where identification, flags and offset are in the IPv4 header.
pub const IDENTIFICATION: usize = 4;
/// Bytes that offsets are counted in, and those of the longest packet (RFC 791 section 3.1).
const UNIT: usize = 8;
const LONGEST: usize = 65_535;
/// Offset, in units of 8 bytes, at which a fragment would begin with the flags of TCP (RFC 3128).
const AT_FLAGS: u16 = 1;

/// Passes a fragment on that arrives from `zone`.
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
    let [a, b, c, d]: [u8; 4] = packet.read(headers.network + IDENTIFICATION)?;
    let (identification, offset) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (src, dst) = (headers.src, headers.dst);
    let datagram = FragmentKey::new(zone, headers.protocol, src, dst, identification);
    let now = tables.now();
    let known = tables.fragmented(&datagram).filter(|known| known.is_alive(now));
    let headers = if headers.kind == Transport::FirstFragment {
        let begun = headers.begun(packet)?;
        if begun.kind == Transport::FirstFragment {
            return Err(Reason::Fragment);
        }
        begun
    } else if headers.protocol == TCP && offset & FRAGMENT_OFFSET == AT_FLAGS
        || usize::from(offset & FRAGMENT_OFFSET) * UNIT + headers.length > LONGEST
    {
        return Err(Reason::Fragment);
    } else {
        match known {
            Some(known) => headers.of(&known),
            None => return alone(packet, tables, &headers, zone, now),
        }
    };
    let slot = tables.flow_in_place(&headers.key(zone)).ok_or(Reason::FragmentAlone)?;
    let flow = slot.load().ok_or(Reason::FragmentAlone)?;
    if flow.control_session().is_some() {
        return Err(Reason::Fragment);
    }
    let way = way(packet, tables, &headers, &flow, zone)?;
    if let Way::Kernel = way
        && zone == Zone::Inside
    {
        return Ok(Outcome::Stack);
    }
    let (src, dst) = (flow.rewrite().src(), flow.rewrite().dst());
    let leaves = if headers.kind == Transport::LaterFragment {
        // One of TCP has nothing to say of the connection.
        if headers.protocol != TCP {
            Noted::plain(&headers.tcp).note(&slot, &flow, &headers, now)?;
        }
        known.map_or(identification, |known| known.identification())
    } else {
        let key = headers.key(zone);
        closing::note(packet, tables, &headers, &key, &slot, &flow, now)?;
        note(tables, &datagram, &headers, &flow, known, &way, now)
    };
    let ttl = match way {
        Way::Hop(..) | Way::Narrow(..) if zone == Zone::Inside => headers.ttl - 1,
        Way::Hop(..) => headers.ttl - 1,
        // The kernel counts the hop itself.
        Way::Narrow(..) | Way::Kernel => headers.ttl,
    };
    let headers = identify(packet, headers, identification, leaves)?;
    if headers.kind == Transport::LaterFragment {
        rewrite::addresses(packet, &headers, src, dst, ttl)?;
    } else {
        rewrite::with_ttl(packet, &headers, &flow, ttl)?;
    }
    match way {
        Way::Hop(hop, _) => Ok(Outcome::Forward(hop)),
        Way::Narrow(hop, mtu) if zone == Zone::Inside => {
            cut::hand_over(packet, &headers, &hop, mtu)
        }
        Way::Narrow(..) | Way::Kernel => Ok(Outcome::Stack),
    }
}

/// How a fragment goes on.
#[derive(Clone, Copy)]
enum Way {
    /// By this hop, which takes packets of so many bytes.
    Hop(NextHop, u32),
    /// By this hop, once it is cut to so many: by the agent for the outside, by the kernel for the
    /// inside.
    Narrow(NextHop, u32),
    /// The kernel tells its sender why it does not: one outside once it is translated.
    Kernel,
}

#[inline(always)]
fn way<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
    flow: &Flow,
    zone: Zone,
) -> Result<Way, Reason> {
    let side = arrival::way_out(&headers.key(zone), flow.rewrite());
    let refused = if headers.ttl <= 1 {
        Reason::TtlExpired
    } else {
        let journey = arrival::journey(headers, flow, zone);
        match packet.route(headers, &journey) {
            Route::Forward(hop, mtu) if arrival::leads(tables, &hop, side) => {
                return Ok(Way::Hop(hop, mtu));
            }
            Route::Forward(..) | Route::Local if zone == Zone::Outside => {
                return Err(Reason::NoRoute);
            }
            Route::TooBig => match packet.narrow_way(headers, &journey) {
                Some((hop, mtu))
                    if !headers.is_whole(packet)?
                        && arrival::leads(tables, &hop, side)
                        && (zone == Zone::Outside || side == Role::Wan) =>
                {
                    return Ok(Way::Narrow(hop, mtu));
                }
                Some(_) | None => Reason::TooBig,
            },
            Route::Forward(..) | Route::Local | Route::Unreachable => Reason::NoRoute,
        }
    };
    // The kernel would take one that turns back for its own.
    if zone == Zone::Inside && side == Role::Lan { Err(refused) } else { Ok(Way::Kernel) }
}

/// Notes the datagram of a first fragment; gives the identification that it leaves with. One that comes
/// twice is the same.
#[inline(always)]
fn note<T: Tables>(
    tables: &mut T,
    key: &FragmentKey,
    headers: &Headers,
    flow: &Flow,
    known: Option<Fragmented>,
    way: &Way,
    now: u32,
) -> u16 {
    let rewrite = flow.rewrite();
    let ports = [headers.sport, headers.dport];
    let leaves = match known {
        Some(known) if known.ports() == ports => known.identification(),
        _ if rewrite.src() == headers.src => key.identification(),
        _ => tables.identification(rewrite.src(), rewrite.dst(), headers.protocol),
    };
    let way = match way {
        Way::Hop(hop, mtu) | Way::Narrow(hop, mtu) => (hop.ifindex, *mtu),
        Way::Kernel => (0, 0),
    };
    let noted = Fragmented::new(ports, rewrite, leaves, way, now.saturating_add(LIFETIME));
    tables.note_fragmented(key, &noted);
    leaves
}

/// Writes another identification.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn identify<P: Packet>(
    packet: &mut P,
    mut headers: Headers,
    old: u16,
    new: u16,
) -> Result<Headers, Reason> {
    if old == new {
        return Ok(headers);
    }
    let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
    packet.write(headers.network + IDENTIFICATION, new)?;
    // Written with the rest of the header.
    headers.network_checksum = Delta::NONE.word(old, new).apply(headers.network_checksum);
    Ok(headers)
}

/// A later fragment of which nothing is known: where its first one may lead to a flow the agent holds it
/// until that has come (RFC 4787 REQ-14). One to an address of the gateway may be the gateway's own: the
/// kernel gets it, and the agent a copy.
#[inline(always)]
fn alone<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers,
    zone: Zone,
    now: u32,
) -> Result<Outcome, Reason> {
    let settings = tables.settings();
    let local = match (zone, packet.route(headers, &Journey::new(headers.src, headers.dst))) {
        (Zone::Inside, Route::Local) if tables.is_inside_address(headers.dst) => {
            return Ok(Outcome::Stack);
        }
        (_, Route::Local) => true,
        (Zone::Inside, route) => {
            let hop = match route {
                Route::Forward(hop, _) => Some(hop),
                _ => packet
                    .narrow_way(headers, &Journey::new(headers.src, headers.dst))
                    .map(|(hop, _)| hop),
            };
            match hop {
                Some(hop) if arrival::leads(tables, &hop, Role::Wan) && headers.ttl > 1 => false,
                // To another inside network, or nowhere: the kernel knows what to do.
                Some(_) | None => return Ok(Outcome::Stack),
            }
        }
        // Straight to an inside host no flow leads but those of networks that are exempt from NAT.
        (Zone::Outside, Route::Forward(hop, _)) if arrival::leads(tables, &hop, Role::Lan) => {
            if !tables.is_exempt(headers.src) {
                return Err(Reason::Unsolicited);
            }
            false
        }
        (Zone::Outside, _) if settings.routes_others != 0 => {
            return inbound::own(packet, tables, headers).map(|_stack| Outcome::Stack);
        }
        // A public address may be led here without being the gateway's.
        (Zone::Outside, _) => false,
    };
    let length = headers.length as u32;
    let header = PuntHeader::fragment(zone, length, packet.ifindex());
    if local {
        if settings.agent_alive(now) {
            // The kernel has it, whatever becomes of the copy.
            let _ = packet.punt(header.passed(), headers.network);
        }
        return Ok(Outcome::Stack);
    }
    if !settings.agent_alive(now) {
        return Err(Reason::FragmentAlone);
    }
    packet.punt(header, headers.network)?;
    Ok(Outcome::Punted)
}
