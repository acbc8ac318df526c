//! Whether two rules can be in force together.
//!
//! Invariant: symmetric, and complete for [`super::expand`]: rules without a conflict never
//! produce two entries with one key (property-tested in `tests.rs`).
//!
//! A forward of a whole protocol and a forward of one of its ports do go together: the lookup
//! takes the more exact entry.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    FlowProtocol, Forward, OneToOne, PortRange, Protocol, PublicAddress, Rule, set::Resolve,
};

/// Why the rules can't both be in force, in words that follow "conflicts with rule X:".
pub(super) fn between(new: &Rule, old: &Rule, resolve: Resolve<'_>) -> Option<String> {
    if new.name() == old.name() {
        return Some("both have this name".to_owned());
    }
    match (new, old) {
        (Rule::Forward(a), Rule::Forward(b)) => forwards(a, b, resolve),
        (Rule::OneToOne(a), Rule::OneToOne(b)) => hosts(a, b),
        (Rule::Forward(forward), Rule::OneToOne(host))
        | (Rule::OneToOne(host), Rule::Forward(forward)) => {
            forward_and_host(forward, host, resolve)
        }
    }
}

fn forwards(a: &Forward, b: &Forward, resolve: Resolve<'_>) -> Option<String> {
    let (left, right) = (a.public(), b.public());
    // A host of IPv6 is reached by its inside address, whatever that is outside.
    let is_same_host = a.to().address.is_ipv6() && a.to().address == b.to().address;
    if !is_same_host && !same_address(&left.address, &right.address, resolve) {
        return None;
    }
    keys(a).find_map(|(protocol, ports)| {
        let same = |(other, theirs)| (protocol == other).then(|| same_ports(ports, theirs))?;
        let ports = keys(b).find_map(same)?;
        Some(format!("both forward {protocol} {}{ports}", left.address))
    })
}

/// What a forward lets in: its ports in each protocol, and its passive range.
fn keys(forward: &Forward) -> impl Iterator<Item = (Protocol, Option<PortRange>)> {
    let ports = forward.public().ports;
    let range = forward.passive_range().map(|range| (Protocol::Tcp, Some(range)));
    forward.protocols().each().iter().map(move |protocol| (*protocol, ports)).chain(range)
}

fn hosts(a: &OneToOne, b: &OneToOne) -> Option<String> {
    if a.public() == b.public() {
        return Some(format!("{} belongs to {} already", b.public(), b.to()));
    }
    (a.to() == b.to()).then(|| format!("{} uses {} already", b.to(), b.public()))
}

fn forward_and_host(forward: &Forward, host: &OneToOne, resolve: Resolve<'_>) -> Option<String> {
    let public = forward.public();
    if !same_address(&public.address, &PublicAddress::Address(host.public().into()), resolve) {
        return None;
    }
    let (address, to) = (host.public(), forward.to().address);
    if to != IpAddr::V4(host.to()) {
        return Some(format!("{address} leads to {to} in one and to {} in the other", host.to()));
    }
    host.inbound().iter().find_map(|inbound| {
        let open = inbound.protocol().key();
        if let Some(range) = forward.passive_range()
            && open.is_none_or(|open| open == Protocol::Tcp.into())
            && inbound.ports().is_none_or(|ports| ports.overlaps(range))
        {
            return Some(format!("it lets tcp {address}:{range} in for everybody"));
        }
        let protocol = open?;
        let same = |(other, ports): (Protocol, _)| {
            (protocol == other.into()).then(|| same_ports(ports, inbound.ports()))?
        };
        let ports = keys(forward).find_map(same)?;
        Some(format!("both let {protocol} {address}{ports} in"))
    })
}

/// The ports that both want, as text; `None` where they want no key in common.
fn same_ports(a: Option<PortRange>, b: Option<PortRange>) -> Option<String> {
    match (a, b) {
        (None, None) => Some(String::new()),
        (Some(a), Some(b)) if a.overlaps(b) => {
            let shared =
                PortRange::new(a.first().max(b.first()), a.last().min(b.last())).unwrap_or(a);
            Some(format!(":{shared}"))
        }
        _ => None,
    }
}

fn same_address(a: &PublicAddress, b: &PublicAddress, resolve: Resolve<'_>) -> bool {
    a == b || matches!((address(a, resolve), address(b, resolve)), (Some(a), Some(b)) if a == b)
}

/// The address of IPv4 that counts now, where there is one.
pub(super) fn address(public: &PublicAddress, resolve: Resolve<'_>) -> Option<Ipv4Addr> {
    match public {
        PublicAddress::Address(IpAddr::V4(address)) => Some(*address),
        PublicAddress::Address(IpAddr::V6(_)) => None,
        PublicAddress::Interface(name) => resolve(name),
    }
}

/// Key of an entry: address, protocol, port; `None` stands for all.
pub(super) type Key = (Ipv4Addr, Option<FlowProtocol>, Option<u16>);
