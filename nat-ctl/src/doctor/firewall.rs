//! Other translators and filters of the kernel: nft, iptables, Docker, helpers.
//!
//! What the gateway translates passes none of them. What they do see is what the agent sends (lines of
//! FTP, by OUTPUT and POSTROUTING), connections of the gateway itself, and what the kernel forwards.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use nat_common::layout::AGENT_MARK;

use super::{
    Facts, Finding, Severity, Subject,
    nft::{NatKind, NatRule, legacy_rule},
    public_address,
};
use crate::{
    output::{Role, RuleView},
    rules::{Alg, Protocol, PublicAddress},
};

pub(super) fn check(subject: &Subject, facts: &Facts, findings: &mut Vec<Finding>) {
    let nft = facts.nft.as_ref();
    let legacy: Vec<NatRule> =
        facts.legacy_rules.iter().filter_map(|line| legacy_rule(line)).collect();
    for rule in nft.iter().flat_map(|nft| &nft.nat).chain(&legacy) {
        match rule.kind {
            NatKind::Source(to) => findings.extend(source(subject, facts, rule, to)),
            NatKind::Destination => findings.extend(destination(subject, rule)),
        }
    }
    if legacy.is_empty() && facts.legacy_tables.iter().any(|table| table == "nat") {
        findings.push(unseen());
    }
    for (hook, text) in nft.iter().flat_map(|nft| &nft.drops) {
        findings.extend(filter(hook, text));
    }
    for helper in nft.iter().flat_map(|nft| &nft.helpers) {
        findings.push(helping(helper));
    }
    if facts.helpers == Some(1) {
        findings.push(helping("net.netfilter.nf_conntrack_helper is 1"));
    }
    findings.extend(docker(subject, facts));
}

/// Masquerade or SNAT where packets leave, `to` an address or to that of the interface.
fn source(
    subject: &Subject,
    facts: &Facts,
    rule: &NatRule,
    to: Option<Ipv4Addr>,
) -> Option<Finding> {
    let wan = subject.side(Role::Wan).find(|name| rule.is_on(name))?;
    let own = facts.address_of(wan);
    let others: Vec<String> = public_addresses(subject, own)
        .filter(|address| rule.is_from(*address) && Some(*address) != to.or(own))
        .map(|address| address.to_string())
        .collect();
    let (severity, why) = if others.is_empty() {
        (
            Severity::Warning,
            "what the gateway translates does not pass it; if something does by mistake, it hides \
             that"
                .to_owned(),
        )
    } else {
        (
            Severity::Broken,
            format!(
                "what the agent sends for FTP sessions passes it: lines from {} leave with another \
                 address, and the session hangs",
                others.join(", ")
            ),
        )
    };
    Some(Finding {
        severity,
        check: "nat",
        about: vec![wan.to_owned()],
        found: rule.text.clone(),
        why,
        advice: format!("remove the rule: the gateway does its work on {wan}"),
    })
}

/// The addresses that FTP sessions leave with: that of the WAN, and those of rules.
fn public_addresses(subject: &Subject, own: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let ftp = subject.rules.iter().filter(|rule| match rule {
        RuleView::Forward(view) => view.alg == Some(Alg::Ftp),
        RuleView::OneToOne(view) => view.alg == Some(Alg::Ftp),
    });
    let named = ftp.filter_map(|rule| match public_address(rule)? {
        PublicAddress::Address(IpAddr::V4(address)) => Some(address),
        PublicAddress::Address(IpAddr::V6(_)) | PublicAddress::Interface(_) => None,
    });
    let all: BTreeSet<Ipv4Addr> = own.into_iter().chain(named).collect();
    all.into_iter()
}

/// DNAT or redirect where packets arrive.
fn destination(subject: &Subject, rule: &NatRule) -> Option<Finding> {
    let (name, role) = subject.interfaces.iter().find(|(name, _)| rule.is_on(name))?;
    let replaced = rule.port.and_then(|port| forward_of(subject, port));
    let base = |severity, why: String, advice: String| Finding {
        severity,
        check: "nat",
        about: vec![name.clone()],
        found: rule.text.clone(),
        why,
        advice,
    };
    if let Some(forward) = replaced {
        return Some(base(
            Severity::Note,
            format!("forward '{forward}' leads that port already, and comes first"),
            "remove the rule".to_owned(),
        ));
    }
    Some(match role {
        Role::Wan => base(
            Severity::Broken,
            "the gateway takes what arrives from outside before this rule sees it, and drops what \
             no rule of its own leads anywhere (unsolicited)"
                .to_owned(),
            "add the same with 'nat-ctl forward add', and remove the rule".to_owned(),
        ),
        Role::Lan => base(
            Severity::Warning,
            "what inside hosts send to the outside is translated before this rule sees it"
                .to_owned(),
            "remove the rule, or use an interface that is none of the gateway's".to_owned(),
        ),
    })
}

/// The forward that leads a port.
fn forward_of(subject: &Subject, port: u16) -> Option<&str> {
    subject.rules.iter().find_map(|rule| match rule {
        RuleView::Forward(view) => {
            let covers =
                view.public_ports.is_none_or(|ports| (ports.first..=ports.last).contains(&port));
            let tcp = view.protocol.each().contains(&Protocol::Tcp);
            (covers && tcp).then_some(view.name.as_str())
        }
        RuleView::OneToOne(_) => None,
    })
}

fn unseen() -> Finding {
    Finding {
        severity: Severity::Warning,
        check: "nat",
        about: vec![],
        found: "/proc/net/ip_tables_names: nat".to_owned(),
        why: "iptables of the old kind may translate beside the gateway; nft does not show its rules, \
              and iptables-legacy-save is not here to be asked"
            .to_owned(),
        advice: "'iptables-legacy -t nat -S' shows them: remove those of the gateway's interfaces"
            .to_owned(),
    }
}

fn filter(hook: &str, text: &str) -> Option<Finding> {
    let marked = format!("accept what has the mark {AGENT_MARK:#x} there ('meta mark' of nft)");
    let (why, advice) = match hook {
        "forward" => (
            "what the gateway translates does not pass this chain: it neither drops nor lets in \
             anything of it",
            "say who may come in with --allow and --inbound of the rules",
        ),
        "output" => (
            "lines of FTP sessions are sent by the agent and pass this chain: what it does not accept \
             is lost (alg-send)",
            marked.as_str(),
        ),
        _ => return None,
    };
    Some(Finding {
        severity: Severity::Warning,
        check: "filter",
        about: vec![],
        found: text.to_owned(),
        why: why.to_owned(),
        advice: advice.to_owned(),
    })
}

fn helping(found: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        check: "ftp-helper",
        about: vec![],
        found: found.to_owned(),
        why: "the kernel's FTP helper reads the lines that the agent sends, drops those that it does \
              not understand, such as lines that are cut, and may write into them a second time"
            .to_owned(),
        advice: "remove the helper: the gateway follows FTP itself".to_owned(),
    }
}

fn docker(subject: &Subject, facts: &Facts) -> Option<Finding> {
    const BRIDGE: &str = "docker0";
    let chain = facts.nft.as_ref().and_then(|nft| nft.docker.clone());
    let found = match (chain, facts.links.iter().any(|link| link == BRIDGE)) {
        (Some(chain), _) => format!("nft: {chain}"),
        (None, true) => format!("an interface {BRIDGE}"),
        (None, false) => return None,
    };
    let inside = subject.has(BRIDGE);
    Some(Finding {
        severity: if inside { Severity::Note } else { Severity::Warning },
        check: "docker",
        about: vec![BRIDGE.to_owned()],
        found,
        why: if inside {
            "Docker translates what its containers send too; the gateway is first".to_owned()
        } else {
            "ports that Docker publishes are not reached through a WAN of the gateway, and its \
             containers are not translated by it: their packets to a WAN are dropped (untranslated) \
             where forwarding was off before"
                .to_owned()
        },
        advice: format!(
            "for containers that are to reach the outside name {BRIDGE} as --lan; for ports that are \
             published use 'nat-ctl forward add'"
        ),
    })
}
