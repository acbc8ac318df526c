//! Rules that lead nowhere, and rules that take packets from each other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use nat_common::port::Port;

use super::{Facts, Finding, Severity, Subject, host, public_address};
use crate::{
    output::{ForwardView, OneToOneView, Role, RuleView},
    rules::{Cidr, Protocol, PublicAddress},
};

pub(super) fn check(subject: &Subject, facts: &Facts, findings: &mut Vec<Finding>) {
    for rule in &subject.rules {
        findings.extend(address(subject, facts, rule));
        findings.extend(unreached(subject, facts, rule));
        findings.extend(uplink(subject, rule));
    }
    findings.extend(shared(subject, facts));
    findings.extend(pool(subject, facts));
    for (index, first) in subject.rules.iter().enumerate() {
        for second in subject.rules.iter().skip(index + 1) {
            if same_address(facts, first, second) {
                findings.extend(shadow(first, second).or_else(|| shadow(second, first)));
            }
        }
    }
}

/// What to do about a public address that this machine does not have, where something is.
fn missing(subject: &Subject, facts: &Facts, address: Ipv4Addr) -> Option<String> {
    let is_own = facts.addresses.iter().any(|(own, _)| own.addr() == address);
    let home = facts.home_of(subject, address);
    if is_own || home.is_some() && !subject.running && subject.adds_addresses {
        return None;
    }
    Some(match home {
        Some(wan) => format!(
            "the gateway adds it to {wan} unless another station there has it ('ip neighbour \
             show {address}'), it was taken off {wan}, or add_addresses is false: see \
             which, then 'ip address add {address}/32 dev {wan}'"
        ),
        None => format!("'ip address add {address}/32 dev WAN', or have it routed to this machine"),
    })
}

/// Addresses to hide hosts behind that this machine does not have.
fn shared(subject: &Subject, facts: &Facts) -> Vec<Finding> {
    let finding = |address: &Ipv4Addr| {
        Some(Finding {
            severity: Severity::Warning,
            check: "public-address",
            about: vec![],
            found: format!("masquerade has {address}, and no interface here has it"),
            why: "hosts are hidden behind the other addresses, or behind that of the WAN"
                .to_owned(),
            advice: missing(subject, facts, *address)?,
        })
    };
    subject.addresses.iter().filter_map(finding).collect()
}

/// A public address that this machine does not have.
fn address(subject: &Subject, facts: &Facts, rule: &RuleView) -> Option<Finding> {
    let about = vec![rule.name().to_owned()];
    match public_address(rule)? {
        // It is the host's own.
        PublicAddress::Address(IpAddr::V6(_)) => None,
        PublicAddress::Address(IpAddr::V4(address)) => Some(Finding {
            severity: Severity::Warning,
            check: "public-address",
            about,
            found: format!("rule '{}' has {address}, and no interface here has it", rule.name()),
            why: "the gateway answers no ARP for it: packets to it arrive only if the provider \
                  routes it here"
                .to_owned(),
            advice: missing(subject, facts, address)?,
        }),
        PublicAddress::Interface(name) => {
            let has_one = facts.addresses.iter().any(|(_, of)| *of == name);
            (!has_one).then(|| Finding {
                severity: Severity::Broken,
                check: "public-address",
                about,
                found: format!(
                    "rule '{}' has the address of '{name}', which {}",
                    rule.name(),
                    if facts.links.contains(&name) { "has none" } else { "is no interface here" }
                ),
                why: "the rule leads nobody anywhere until it has one".to_owned(),
                advice: format!("give {name} an address, or name another interface in the rule"),
            })
        }
    }
}

/// An uplink that is no WAN.
fn uplink(subject: &Subject, rule: &RuleView) -> Option<Finding> {
    let uplink = match rule {
        RuleView::Forward(view) => view.uplink.as_ref(),
        RuleView::OneToOne(view) => view.uplink.as_ref(),
    }?;
    let is_wan = subject.side(Role::Wan).any(|wan| wan == uplink.name());
    (!is_wan).then(|| Finding {
        severity: Severity::Warning,
        check: "uplink",
        about: vec![rule.name().to_owned()],
        found: format!("rule '{}' has the uplink '{uplink}', which is no WAN here", rule.name()),
        why: "its packets leave as if it had none".to_owned(),
        advice: format!("start the gateway with --wan {uplink}, or name another interface"),
    })
}

/// An inside host that no LAN leads to.
fn unreached(subject: &Subject, facts: &Facts, rule: &RuleView) -> Option<Finding> {
    let IpAddr::V4(host) = host(rule) else { return None };
    let way = facts.ways.get(&host)?;
    let found = match way {
        Some(name) if subject.is_lan(name) => return None,
        Some(name) if name == "lo" => "is this machine itself".to_owned(),
        Some(name) => format!("is reached by {name}, which is no LAN of the gateway"),
        None => "has no route".to_owned(),
    };
    Some(Finding {
        severity: Severity::Broken,
        check: "host",
        about: vec![rule.name().to_owned()],
        found: format!("rule '{}' leads to {host}, which {found}", rule.name()),
        why: "what comes in by the rule is dropped (no-route)".to_owned(),
        advice: format!("correct the address, or name the interface that leads to {host} as --lan"),
    })
}

/// Forwards that leave masquerade few ports or none, on an address that hosts are hidden behind.
fn pool(subject: &Subject, facts: &Facts) -> Option<Finding> {
    let pool = subject.pool.filter(|pool| !pool.is_empty())?;
    let hidden = subject.side(Role::Wan).flat_map(|wan| facts.hiding(subject, wan));
    let mut worst: Option<(usize, Ipv4Addr, Protocol, Vec<String>)> = None;
    for address in hidden {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut taken = BTreeSet::new();
            let mut names = vec![];
            for rule in &subject.rules {
                let RuleView::Forward(view) = rule else { continue };
                let Some(ports) = view.public_ports else { continue };
                if !view.protocol.each().contains(&protocol)
                    || facts.address_of_rule(rule) != Some(address)
                {
                    continue;
                }
                let before = taken.len();
                let in_pool = |port: &u16| pool.contains(Port::new(*port));
                taken.extend((ports.first..=ports.last).filter(in_pool));
                if taken.len() > before {
                    names.push(view.name.clone());
                }
            }
            if worst.as_ref().is_none_or(|(most, ..)| taken.len() > *most) {
                worst = Some((taken.len(), address, protocol, names));
            }
        }
    }
    let (taken, address, protocol, names) = worst?;
    let all = pool.len() as usize;
    if taken * 2 < all {
        return None;
    }
    let rules = names.join("', '");
    Some(Finding {
        severity: if taken == all { Severity::Broken } else { Severity::Warning },
        check: "pool",
        about: names,
        found: format!(
            "rule '{rules}' has {taken} of the {all} {protocol} ports of {address} that masquerade uses"
        ),
        why: "a port of a forward is never given to an inside host: those that are hidden behind the \
              address get no connection when the others are used up (ports-exhausted)"
            .to_owned(),
        advice: "forward fewer ports, or a public address of their own; for FTP the control port is \
                 enough"
            .to_owned(),
    })
}

fn same_address(facts: &Facts, a: &RuleView, b: &RuleView) -> bool {
    facts.address_of_rule(a).is_some_and(|address| Some(address) == facts.address_of_rule(b))
}

/// What the more exact rule takes from the wider one. Rules that want the same are refused when they
/// are added; a port of a protocol, or of an address, that another rule has whole is not.
fn shadow(exact: &RuleView, wide: &RuleView) -> Option<Finding> {
    let RuleView::Forward(exact) = exact else { return None };
    let ports = exact.public_ports;
    let protocols = exact.protocol.each().iter().copied();
    let (taken, allow): (Vec<Protocol>, &[Cidr]) = match wide {
        RuleView::Forward(wide) if wide.public_ports.is_none() && ports.is_some() => {
            (protocols.filter(|it| wide.protocol.each().contains(it)).collect(), &wide.allow)
        }
        RuleView::Forward(_) => return None,
        RuleView::OneToOne(wide) => {
            let (it, inbound) = protocols.clone().find_map(|it| Some((it, open(wide, it)?)))?;
            (vec![it], inbound)
        }
    };
    let protocol = taken.first()?;
    let what = match ports {
        Some(ports) if ports.first == ports.last => format!("{protocol} {}", ports.first),
        Some(ports) => format!("{protocol} {}-{}", ports.first, ports.last),
        None => format!("all of {protocol}"),
    };
    let narrower = !allow.iter().all(|wide| exact.allow.iter().any(|own| own.covers(*wide)));
    let elsewhere = exact.to != host(wide);
    let mut why = format!("the more exact rule decides for {what}");
    if narrower {
        why += ", and lets in fewer than the other one says";
    }
    if elsewhere {
        why += &format!(", which goes to {} and not to {}", exact.to, host(wide));
    }
    Some(Finding {
        severity: if narrower || elsewhere { Severity::Warning } else { Severity::Note },
        check: "shadow",
        about: vec![exact.name.clone(), wide.name().to_owned()],
        found: format!("rule '{}' takes {what} from rule '{}'", exact.name, wide.name()),
        why,
        advice: advice(exact, narrower || elsewhere),
    })
}

fn advice(exact: &ForwardView, differs: bool) -> String {
    match differs {
        true => "nothing if it is meant so".to_owned(),
        false => format!("remove rule '{}' unless it is there for its ALG", exact.name),
    }
}

/// Who a one-to-one rule lets in by all ports of a protocol.
fn open(rule: &OneToOneView, protocol: Protocol) -> Option<&[Cidr]> {
    let inbound = rule.inbound.iter().find(|inbound| {
        inbound.ports.is_none() && inbound.protocol.key().is_none_or(|key| key == protocol.into())
    })?;
    Some(&inbound.allow)
}
