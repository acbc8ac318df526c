//! Whether two rules can be in force together.
//!
//! Invariant: symmetric, and complete for [`super::expand`]: rules without a conflict never
//! produce two entries with one key (property-tested in `tests.rs`).
//!
//! A forward of a whole protocol and a forward of one of its ports do go together: the lookup
//! takes the more exact entry.

use std::net::Ipv4Addr;

use super::{Forward, OneToOne, PortRange, Protocol, PublicAddress, Rule, set::Resolve};

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
    if !same_address(&left.address, &right.address, resolve) {
        return None;
    }
    let protocol = a.protocols().each().iter().find(|p| b.protocols().each().contains(p))?;
    let ports = same_ports(left.ports, right.ports)?;
    Some(format!("both forward {protocol} {}{ports}", left.address))
}

fn hosts(a: &OneToOne, b: &OneToOne) -> Option<String> {
    if a.public() == b.public() {
        return Some(format!("{} belongs to {} already", b.public(), b.to()));
    }
    (a.to() == b.to()).then(|| format!("{} uses {} already", b.to(), b.public()))
}

fn forward_and_host(forward: &Forward, host: &OneToOne, resolve: Resolve<'_>) -> Option<String> {
    let public = forward.public();
    if !same_address(&public.address, &PublicAddress::Address(host.public()), resolve) {
        return None;
    }
    let (address, to) = (host.public(), forward.to().address);
    if to != host.to() {
        return Some(format!("{address} leads to {to} in one and to {} in the other", host.to()));
    }
    host.inbound().iter().find_map(|inbound| {
        let protocol = inbound.protocol().key()?;
        if !forward.protocols().each().contains(&protocol) {
            return None;
        }
        let ports = same_ports(public.ports, inbound.ports())?;
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

/// The address that counts now, where there is one.
pub(super) fn address(public: &PublicAddress, resolve: Resolve<'_>) -> Option<Ipv4Addr> {
    match public {
        PublicAddress::Address(address) => Some(*address),
        PublicAddress::Interface(name) => resolve(name),
    }
}

/// Key of an entry: address, protocol, port; `None` stands for all.
pub(super) type Key = (Ipv4Addr, Option<Protocol>, Option<u16>);
