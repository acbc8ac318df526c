//! Flows between inside hosts by a public address: hairpin (RFC 4787 REQ-9).
//!
//! A host inside dials what the outside would dial. Its packet is as one that has left, with its
//! public source, and comes in again at once: both ends are translated, and answers come back this
//! way, though the hosts may be neighbours.
//!
//! ```text
//!   host 10.0.1.2:5000 -> 203.0.113.1:80      key, from inside
//!        203.0.113.1:41000 -> 10.0.1.9:80     leaves, to the inside
//! ```
//!
//! What an FTP session between inside hosts has announced turns back with the address that the session
//! knows its end by, whichever way, and with its own source port: nobody else has dialled that endpoint.

use crate::{
    headers::{Headers, Transport},
    inbound::{self, Entry},
    packet::Packet,
    pair::{self, Kin},
    path::Admission,
    refusal,
    tables::Tables,
};
use nat_common::{
    expectation::ExpectationKey,
    flow::{FlowKey, Rewrite, TCP, Zone},
    hop::HopReference,
    port::Owner,
    reason::Reason,
    rule::RuleId,
};

/// Admits a packet from inside without a flow that is for the gateway by its address.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn admit<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    headers: &Headers,
    key: &FlowKey,
    now: u32,
) -> Result<Admission, Reason> {
    if tables.is_inside_address(key.dst()) {
        return Ok(Admission::Stack);
    }
    let Some((identity, entry)) = way(packet, tables, headers, key, now)? else {
        return Ok(Admission::Stack);
    };
    refusal::open_host::<P, T>(tables, key.src())?;
    let made = turn(tables, key, &identity, &entry, now);
    refusal::close_host::<P, T, _>(tables, key.src(), made).map(|()| Admission::Flow)
}

/// Whom a packet with `key` comes from, as the end that it leads to sees it, and where that is; `None`
/// where it is for the gateway itself.
#[inline(always)]
fn way<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    headers: &Headers,
    key: &FlowKey,
    now: u32,
) -> Result<Option<(Identity, Entry)>, Reason> {
    let expected = ExpectationKey::turning(TCP, key.src(), key.dst(), key.dport());
    if let Some(expectation) = inbound::announced(tables, headers, &expected, now) {
        let identity = Identity { address: expectation.public(), number: None };
        return Ok(Some((identity, Entry::announced(key, &expectation))));
    }
    let Some(identity) = identity(packet, tables, key) else { return Ok(None) };
    // As it would come back in.
    let outer = FlowKey::new(
        Zone::Outside,
        key.protocol(),
        identity.address,
        key.sport(),
        key.dst(),
        key.dport(),
    );
    let entry = entry(tables, headers, &outer)?;
    // Without ports hosts behind one address cannot be told apart.
    if entry.is_some() && headers.kind == Transport::Other && identity.number.is_some() {
        return Err(Reason::Protocol);
    }
    Ok(entry.map(|entry| (identity, entry)))
}

/// Makes the flow of a packet that turns back.
#[inline(always)]
fn turn<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    identity: &Identity,
    entry: &Entry,
    now: u32,
) -> Result<(), Reason> {
    let port = match identity.number {
        None => key.sport(),
        Some(number) => tables.public_port(key.source(), identity.address, number)?,
    };
    let (to, to_port) = (entry.rewrite.dst(), entry.rewrite.dport());
    let rewrite = Rewrite::hairpin(identity.address, port, to, to_port);
    // An endpoint that dials itself: its packets and its answers would be the same.
    if key.answer(&rewrite) == *key {
        return Err(Reason::TupleTaken);
    }
    if key.protocol() == TCP {
        pair::make_room(tables, key, &rewrite);
    }
    pair::make(tables, key, rewrite, entry.rule, entry.kin, HopReference::NONE, now)
}

/// How the outside sees an inside host.
struct Identity {
    address: [u8; 4],
    /// Number of the address, where hosts share it and one of its ports is wanted.
    number: Option<u32>,
}

#[inline(always)]
fn identity<P: Packet, T: Tables>(packet: &P, tables: &T, key: &FlowKey) -> Option<Identity> {
    if let Some(host) = tables.one_to_one(key.src()) {
        return Some(Identity { address: host.public(), number: None });
    }
    if tables.settings().masquerade == 0 {
        return None;
    }
    let interface = tables.interface(packet.ifindex())?;
    let (address, number) = tables.hidden_behind(&interface, key.src())?;
    Some(Identity { address, number: Some(number) })
}

/// Where a packet leads that comes in as `outer`: by a forward, or to the inside host that has this
/// public port. Whoever is inside needs no leave for the latter.
#[inline(always)]
fn entry<T: Tables>(
    tables: &T,
    headers: &Headers,
    outer: &FlowKey,
) -> Result<Option<Entry>, Reason> {
    if let Some(forward) = inbound::forward(tables, headers, outer) {
        return inbound::enter(tables, headers, outer, &forward).map(Some);
    }
    let Some(owner) = tables.port_owner(&outer.destination()) else { return Ok(None) };
    if owner.owner() != Some(Owner::Masquerade) {
        return Ok(None);
    }
    headers.begins_flow()?;
    let rewrite = Rewrite::destination(outer, owner.inside(), owner.inside_port());
    Ok(Some(Entry { rewrite, rule: RuleId::NONE, kin: Kin::Plain }))
}
