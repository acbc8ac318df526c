//! The way out of a WAN: what leaves there is translated, or the gateway's own.
//!
//! Packets that the path has translated carry [`nat_common::layout::MARK`] and are not looked at.
//! What the kernel forwards by itself from an inside interface is dropped here, whatever let it get
//! so far: nothing with an inside address ever leaves. The same goes for interfaces that nobody
//! named, unless the machine routed for them before. The gateway's own packets claim their port,
//! so that masquerade does not give it away.

use crate::{
    headers::{self, Headers, Transport},
    packet::Packet,
    tables::{Refused, Tables},
};
use nat_common::{
    counter::Counter,
    flow::{FlowKey, Zone},
    interface::Role,
    port::{Endpoint, Owner, Port, PortOwner},
    reason::Reason,
};

/// What becomes of a packet at the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It leaves.
    Open,
    /// It is an ICMP error of the gateway: [`crate::icmp_error::leave`] goes on.
    Error,
}

/// Lets an unmarked packet out of a WAN, or not. `from` is the interface it came in by; 0 when the
/// gateway itself sends it.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn egress<P: Packet, T: Tables>(packet: &P, tables: &mut T, from: u32) -> Result<Exit, Reason> {
    let Some(source) = headers::source(packet)? else {
        return Ok(Exit::Open);
    };
    if from != 0 {
        let is_inside = tables.interface(from).is_some_and(|interface| interface.is(Role::Lan));
        return match !is_inside && tables.settings().routes_others != 0 {
            true => Ok(Exit::Open),
            false => Err(Reason::Untranslated),
        };
    }
    if tables.is_inside_address(source) {
        return Err(Reason::InsideSource);
    }
    let Some(headers) = Headers::read(packet)? else {
        return Ok(Exit::Open);
    };
    if headers.kind == Transport::IcmpError {
        return Ok(Exit::Error);
    }
    if matches!(headers.kind, Transport::Tcp | Transport::Udp)
        && tables.settings().pool.contains(headers.sport)
    {
        claim(tables, &headers);
    }
    Ok(Exit::Open)
}

/// Lets a segment out of a WAN that the agent has translated: when an answer to it would be known,
/// which it is not where the route to the inside is gone and another one took the segment here.
///
/// # Errors
/// [`Reason::NoRoute`].
#[inline(always)]
pub fn agent<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Exit, Reason> {
    let headers = Headers::read(packet)?.ok_or(Reason::NoRoute)?;
    let answer = FlowKey::new(
        Zone::Outside,
        headers.protocol,
        headers.dst,
        headers.dport,
        headers.src,
        headers.sport,
    );
    tables.flow(&answer).map(|_slot| Exit::Open).ok_or(Reason::NoRoute)
}

/// Claims the port of a socket of the gateway. A clash is only counted: a packet in answer belongs
/// to whoever has the whole tuple, and the flow of an inside host has it only for its own remote end.
#[inline(always)]
fn claim<T: Tables>(tables: &mut T, headers: &Headers) {
    let public = Endpoint::new(headers.protocol, headers.src, headers.sport);
    match tables.port_owner(&public) {
        Some(owner) if owner.owner() == Some(Owner::Gateway) => {}
        Some(_) => tables.count(Counter::PortClash),
        None => {
            let owner = PortOwner::new(Owner::Gateway, [0; 4], Port::NONE);
            match tables.claim_port(&public, &owner) {
                Ok(()) => {}
                Err(Refused::Exists | Refused::Full | Refused::Busy) => {
                    tables.count(Counter::PortClash)
                }
            }
        }
    }
}
