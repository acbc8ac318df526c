//! Prefixes of IPv6 that are translated: whether routes lead to both of their sides.
//!
//! Whether the provider routes a public prefix to this machine nobody can see from here; what can be seen is
//! that it does not have to, because the prefix lies on the link of a WAN.

use std::net::Ipv6Addr;

use super::{Facts, Finding, Severity, Subject};
use crate::{
    output::Role,
    rules::{Cidr, Prefix},
};

/// Flags of a route (include/uapi/linux/route.h, ipv6_route.h): by a router, to nowhere, to this machine.
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;
const LOCAL: u32 = 0x8000_0000;

/// A route of IPv6 to other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route6 {
    /// Where it leads.
    pub to: Cidr,
    /// The interface.
    pub interface: String,
    /// Whether a router is next, and not the destination itself.
    pub by_router: bool,
}

/// The routes that `/proc/net/ipv6_route` has (net/ipv6/ip6_fib.c, `ipv6_route_native_seq_show`): destination,
/// its bits, source, its bits, router, metric, two counts, flags and interface, in hexadecimal. Those to
/// this machine, to groups and to nowhere are left out.
pub(super) fn routes(text: &str) -> Vec<Route6> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [to, bits, _, _, _, _, _, _, flags, interface] = words[..] else { return None };
        let to = Ipv6Addr::from(u128::from_str_radix(to, 16).ok()?);
        let bits = u8::from_str_radix(bits, 16).ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        if flags & (REJECT | LOCAL) != 0 || to.is_multicast() {
            return None;
        }
        let to = format!("{to}/{bits}").parse().ok()?;
        let by_router = flags & GATEWAY != 0;
        Some(Route6 { to, interface: interface.to_owned(), by_router })
    };
    text.lines().filter_map(one).collect()
}

pub(super) fn check(subject: &Subject, facts: &Facts, findings: &mut Vec<Finding>) {
    if subject.prefixes.is_empty() {
        return;
    }
    if subject.running && facts.forwarding6 == Some(0) {
        findings.push(forwarding());
    }
    for pair in &subject.prefixes {
        let (wan, inside) = (pair.wan(), pair.inside());
        if !subject.side(Role::Wan).any(|name| name == wan) {
            findings.push(nowhere(pair));
            continue;
        }
        // One that is missing has a finding of its own, and no routes.
        if facts.routes6.is_empty() || !facts.links.iter().any(|link| link == wan) {
            continue;
        }
        let leads = |route: &&Route6| meet(route.to, inside) && subject.is_lan(&route.interface);
        if !facts.routes6.iter().any(|route| leads(&route)) {
            findings.push(unreached(pair));
        }
        let of_wan = || facts.routes6.iter().filter(|route| route.interface == wan);
        if !of_wan().any(|route| route.to.prefix_length() == 0 || route.by_router) {
            findings.push(no_way_out(pair));
        }
        let on_link = |route: &&Route6| !route.by_router && meet(route.to, pair.public());
        if let Some(route) = of_wan().find(on_link) {
            findings.push(on_the_link(pair, route.to));
        }
    }
}

/// Whether they have addresses in common; the way to everywhere is none to these.
fn meet(network: Cidr, prefix: Cidr) -> bool {
    network.prefix_length() > 0 && (network.covers(prefix) || prefix.covers(network))
}

fn forwarding() -> Finding {
    Finding {
        severity: Severity::Broken,
        check: "ip-forward",
        about: vec![],
        found: "net.ipv6.conf.all.forwarding is 0".to_owned(),
        why: "the gateway has turned it on and something has turned it off since: the kernel forwards \
              no packet of IPv6, with a translated prefix or without"
            .to_owned(),
        advice: "sysctl -w net.ipv6.conf.all.forwarding=1, and look for what sets it to 0 (sysctl.d, \
                 a network manager)"
            .to_owned(),
    }
}

fn finding(pair: &Prefix, severity: Severity, found: String, why: &str, advice: String) -> Finding {
    let about = vec![pair.wan().to_owned()];
    Finding { severity, check: "prefix", about, found, why: why.to_owned(), advice }
}

fn nowhere(pair: &Prefix) -> Finding {
    let wan = pair.wan();
    let found = format!("prefix {} is translated at {wan}, which is no WAN here", pair.inside());
    let advice =
        format!("start the gateway with --wan {wan}, or name another interface in [[prefix]]");
    finding(pair, Severity::Broken, found, "it is translated nowhere", advice)
}

fn unreached(pair: &Prefix) -> Finding {
    let inside = pair.inside();
    let found = format!("no route leads to an address below {inside} by a LAN");
    let why =
        "what comes for the public prefix has nowhere to go (unsolicited), and so have answers";
    let advice = format!(
        "give a LAN an address below {inside} ('ip address add {}/64 dev LAN'), or route the prefix \
         to a router inside",
        first(inside)
    );
    finding(pair, Severity::Broken, found, why, advice)
}

/// The address of a network that a router has as a rule.
fn first(network: Cidr) -> String {
    let text = network.to_string();
    let (network, _) = text.split_once('/').unwrap_or((&text, ""));
    format!("{network}1")
}

fn no_way_out(pair: &Prefix) -> Finding {
    let (wan, inside) = (pair.wan(), pair.inside());
    let found =
        format!("prefix {inside} is translated at {wan}, by which no route of IPv6 leads on");
    let why = "what hosts inside send to the internet leaves by another interface, or not at all";
    let advice = format!(
        "'ip -6 route add default via ROUTER dev {wan}'; a route that a router advertises is kept \
         where net.ipv6.conf.{wan}.accept_ra is 2"
    );
    finding(pair, Severity::Warning, found, why, advice)
}

fn on_the_link(pair: &Prefix, network: Cidr) -> Finding {
    let (wan, public) = (pair.wan(), pair.public());
    let found =
        format!("the public prefix {public} has addresses of {network}, the network on {wan}");
    let why = "a router on that link asks who has such an address, and the gateway answers no neighbour \
               solicitation for those that it translates";
    let advice = format!(
        "let the provider route {public} to this machine (a delegated prefix is), or run a neighbour \
         proxy on {wan}"
    );
    finding(pair, Severity::Warning, found, why, advice)
}
