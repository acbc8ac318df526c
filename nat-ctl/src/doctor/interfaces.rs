//! The interfaces of the gateway: their settings, their drivers, and who else is on them.

use ipnet::Ipv4Net;

use super::{Facts, Finding, Severity, Subject, facts::InterfaceFacts};
use crate::output::Role;

/// `rp_filter` that takes a packet only by the interface that the answer would leave by
/// (Documentation/networking/ip-sysctl.rst).
const STRICT: u32 = 1;

pub(super) fn check(subject: &Subject, facts: &Facts, findings: &mut Vec<Finding>) {
    for (name, role) in &subject.interfaces {
        if !facts.links.contains(name) {
            findings.push(missing(subject, name));
            continue;
        }
        let Some(about) = facts.interfaces.get(name) else { continue };
        let several = subject.side(Role::Wan).count() > 1;
        if *role == Role::Wan && several && about.rp_filter == Some(STRICT) {
            findings.push(strict(name));
        }
        if subject.running && facts.forwarding != Some(0) && about.forwarding == Some(0) {
            findings.push(not_forwarding(name));
        }
        if about.lro {
            findings.push(merging(name));
        }
        findings.extend(programs(name, about));
    }
    findings.extend(overlaps(subject, facts));
}

fn missing(subject: &Subject, name: &str) -> Finding {
    Finding {
        severity: Severity::Broken,
        check: "interface",
        about: vec![name.to_owned()],
        found: format!("there is no interface '{name}' in this network namespace"),
        why: match subject.running {
            true => {
                "the gateway takes it up again when it comes back; until then nothing passes it"
            }
            false => "'nat-ctl run' refuses to start without it",
        }
        .to_owned(),
        advice: "'ip link' shows those that there are".to_owned(),
    }
}

fn strict(name: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        check: "rp-filter",
        about: vec![name.to_owned()],
        found: format!("rp_filter of {name} is 1 (strict), the larger one of its own and of 'all'"),
        why:
            "with several WANs answers may come in by another one than the route back: the kernel \
              drops those that it has to see itself, connections to the gateway and packets about \
              which it has to send an ICMP error"
                .to_owned(),
        advice: format!("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=2"),
    }
}

fn not_forwarding(name: &str) -> Finding {
    Finding {
        severity: Severity::Broken,
        check: "ip-forward",
        about: vec![name.to_owned()],
        found: format!("net.ipv4.conf.{name}.forwarding is 0"),
        why: format!("the kernel gives no route for packets that come in by {name}"),
        advice: format!("sysctl -w net.ipv4.conf.{name}.forwarding=1"),
    }
}

fn merging(name: &str) -> Finding {
    Finding {
        severity: Severity::Broken,
        check: "lro",
        about: vec![name.to_owned()],
        found: format!("ethtool -k {name}: large-receive-offload: on"),
        why: "the card merges segments in a way that can't be undone: what is merged is too large \
              to be forwarded and is lost"
            .to_owned(),
        advice: format!("ethtool -K {name} lro off (GRO may stay on)"),
    }
}

/// Networks that lie on both sides (RFC 4787 REQ-7): what a router of a provider gives may be what the inside
/// has already.
fn overlaps(subject: &Subject, facts: &Facts) -> Vec<Finding> {
    let of = |role| {
        let names: Vec<&str> = subject.side(role).collect();
        facts.addresses.iter().filter(move |(_, name)| names.contains(&name.as_str()))
    };
    let pairs = of(Role::Wan).flat_map(|outer| of(Role::Lan).map(move |inner| (outer, inner)));
    let meet = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    pairs
        .filter(|((outer, wan), (inner, lan))| wan != lan && meet(outer, inner))
        .map(|((outer, wan), (inner, lan))| Finding {
            severity: Severity::Broken,
            check: "overlap",
            about: vec![wan.clone(), lan.clone()],
            found: format!("{wan} has {outer}, {lan} has {inner}: one network on both sides"),
            why: "an address of it is either inside or outside to the kernel's routing: hosts of \
                  the other side that have one can't be reached, nor can the provider's router"
                .to_owned(),
            advice: format!("give the inside another network: renumber {lan} and its hosts"),
        })
        .collect()
}

fn programs(name: &str, about: &InterfaceFacts) -> impl Iterator<Item = Finding> {
    about.programs.iter().map(move |program| Finding {
        severity: Severity::Warning,
        check: "hook",
        about: vec![name.to_owned()],
        found: format!("{name}: {program}"),
        why:
            "it sees packets before or after they are translated, and may drop, change or redirect \
              them; an XDP program keeps the gateway's own from that place"
                .to_owned(),
        advice: "find out whose it is ('bpftool net', 'bpftool prog'), and remove it if it is not \
                 meant to be there"
            .to_owned(),
    })
}
