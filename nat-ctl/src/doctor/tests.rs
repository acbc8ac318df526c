//! Each check: what it finds, and what it leaves alone.

use std::collections::BTreeMap;

use super::{
    facts::{InterfaceFacts, merges},
    nft::{NatKind, Ruleset, legacy_rule},
    prefixes::routes,
    *,
};
use crate::rules::{Origin, Rule};
use aya::util::KernelVersion;
use nat_common::port::PortRange;
use serde_json::json;

const OBJECTS: &str = include_str!("tests/ruleset.json");
const TEXTS: &str = include_str!("tests/ruleset.nft");

fn rule(value: serde_json::Value) -> RuleView {
    let rule: Rule = serde_json::from_value(value).unwrap();
    RuleView::new(&rule, Origin::Command, 1)
}

fn forward(name: &str, public: &str, to: &str) -> RuleView {
    rule(json!({"kind": "forward", "name": name, "protocol": "tcp", "public": public, "to": to}))
}

fn one_to_one(inbound: &[&str]) -> RuleView {
    rule(json!({
        "kind": "one-to-one", "name": "host", "public": "203.0.113.11", "to": "10.0.1.2",
        "inbound": inbound,
    }))
}

fn subject(rules: Vec<RuleView>) -> Subject {
    let interfaces = vec![("wan0".to_owned(), Role::Wan), ("lan0".to_owned(), Role::Lan)];
    Subject { running: true, interfaces, rules, adds_addresses: true, ..Subject::default() }
}

/// A machine where nothing is wrong.
fn healthy() -> Facts {
    let about = InterfaceFacts { rp_filter: Some(1), forwarding: Some(1), ..Default::default() };
    let names = ["lo", "wan0", "lan0"].map(str::to_owned);
    let lan = || Some("lan0".to_owned());
    Facts {
        kernel: Some((KernelVersion::new(6, 1, 0), "6.1.0".to_owned())),
        jit: Some(1),
        forwarding: Some(1),
        interfaces: names.iter().skip(1).map(|name| (name.clone(), about.clone())).collect(),
        addresses: [
            ("203.0.113.1/24", "wan0"),
            ("203.0.113.11/24", "wan0"),
            ("10.0.1.1/24", "lan0"),
        ]
        .map(|(address, of)| (address.parse().unwrap(), of.to_owned()))
        .to_vec(),
        links: names.to_vec(),
        ways: BTreeMap::from([
            ("10.0.1.2".parse().unwrap(), lan()),
            ("10.0.1.3".parse().unwrap(), lan()),
            ("192.0.2.1".parse().unwrap(), Some("wan0".to_owned())),
            ("192.0.2.2".parse().unwrap(), None),
        ]),
        ..Facts::default()
    }
}

/// Check and severity of each finding.
fn found(subject: &Subject, facts: &Facts) -> Vec<(&'static str, Severity)> {
    examine(subject, facts).iter().map(|finding| (finding.check, finding.severity)).collect()
}

#[test]
fn a_healthy_gateway_has_no_findings() {
    let rules = vec![
        rule(
            json!({"kind": "forward", "name": "ftp", "service": "ftp", "public": "wan0", "to": "10.0.1.2"}),
        ),
        forward("web", "203.0.113.1:8000-8010", "10.0.1.3"),
        one_to_one(&["tcp:21", "tcp:443"]),
    ];
    assert_eq!(examine(&subject(rules), &healthy()), []);
}

#[test]
fn the_machine_is_looked_at() {
    use Severity::{Broken, Note, Warning};
    let healthy = healthy();
    let rules = || subject(vec![]);
    let old = Some((KernelVersion::new(5, 15, 3), "5.15.3".to_owned()));
    assert_eq!(found(&rules(), &Facts { kernel: old, ..healthy.clone() }), [("kernel", Broken)]);
    let facts = Facts { jit: Some(0), ..healthy.clone() };
    assert_eq!(found(&rules(), &facts), [("bpf-jit", Warning)]);
    let facts = Facts { forwarding: Some(0), bpffs_missing: true, ..healthy };
    assert_eq!(found(&rules(), &facts), [("bpffs", Broken), ("ip-forward", Broken)]);
    // Before the start it is the gateway that turns forwarding on, and mounts.
    let at_rest = Subject { running: false, ..rules() };
    assert_eq!(found(&at_rest, &facts), [("bpffs", Note)]);
}

#[test]
fn interfaces_are_looked_at() {
    use Severity::{Broken, Warning};
    let change = |change: &dyn Fn(&mut InterfaceFacts)| {
        let mut facts = healthy();
        change(facts.interfaces.get_mut("wan0").unwrap());
        facts
    };
    let one = subject(vec![]);
    let facts = change(&|about| about.programs.push("XDP program 'other' (id 7)".to_owned()));
    assert_eq!(found(&one, &facts), [("hook", Warning)]);
    assert_eq!(found(&one, &change(&|about| about.lro = true)), [("lro", Broken)]);
    let facts = change(&|about| about.forwarding = Some(0));
    assert_eq!(found(&one, &facts), [("ip-forward", Broken)]);
    let mut gone = healthy();
    gone.links.retain(|name| name != "lan0");
    assert_eq!(found(&one, &gone), [("interface", Broken)]);
    // A strict filter hurts where the way back may be another one.
    let mut two = subject(vec![]);
    two.interfaces.push(("wan1".to_owned(), Role::Wan));
    let mut facts = healthy();
    facts.links.push("wan1".to_owned());
    assert_eq!(found(&two, &facts), [("rp-filter", Warning)]);
    facts.interfaces.get_mut("wan0").unwrap().rp_filter = Some(2);
    assert_eq!(found(&two, &facts), []);
}

#[test]
fn a_network_on_both_sides_is_found_and_one_beside_it_is_not() {
    let with = |wan: &str| {
        let mut facts = healthy();
        facts.addresses.push((wan.parse().unwrap(), "wan0".to_owned()));
        found(&subject(vec![]), &facts)
    };
    // The inside is 10.0.1.0/24.
    for wan in ["10.0.1.77/24", "10.0.0.1/8", "10.0.1.130/25", "10.0.1.0/31"] {
        assert_eq!(with(wan), [("overlap", Severity::Broken)], "{wan}");
    }
    for wan in ["10.0.0.1/24", "10.0.2.0/31", "192.168.1.1/16"] {
        assert_eq!(with(wan), [], "{wan}");
    }
    // One interface for both sides is one arm, and has its networks on purpose.
    let mut arm = subject(vec![]);
    arm.interfaces = vec![("lan0".to_owned(), Role::Wan), ("lan0".to_owned(), Role::Lan)];
    assert_eq!(found(&arm, &healthy()), []);
}

#[test]
fn ethtool_says_whether_segments_are_merged() {
    let text = "Features for eth0:\ngeneric-receive-offload: on\nlarge-receive-offload: ";
    assert!(merges(&format!("{text}on\n")) && merges(&format!("{text}on [fixed]\n")));
    assert!(!merges(&format!("{text}off [requested on]\n")));
}

#[test]
fn rules_of_nft_are_read_and_quoted() {
    let ruleset = Ruleset::parse(OBJECTS, TEXTS);
    let kinds: Vec<_> = ruleset.nat.iter().map(|rule| rule.kind).collect();
    let to = Some("1.2.3.4".parse().unwrap());
    let (source, destination) = (NatKind::Source(None), NatKind::Destination);
    assert_eq!(
        kinds,
        [source, NatKind::Source(to), source, source, source, destination, destination]
    );
    let first = &ruleset.nat[0];
    assert_eq!(first.text, "table ip nat post: oifname \"wan0\" masquerade");
    assert!(first.is_on("wan0") && !first.is_on("lan0"));
    assert!(ruleset.nat[1].is_on("b") && ruleset.nat[2].is_on("anything"));
    assert!(!ruleset.nat[2].is_from("203.0.113.1".parse().unwrap()));
    assert!(ruleset.nat[4].is_on("br7") && !ruleset.nat[4].is_on("wan0"));
    assert_eq!((ruleset.nat[5].port, ruleset.nat[6].port), (Some(80), Some(81)));
    let hooks: Vec<_> = ruleset.drops.iter().map(|(hook, _)| hook.as_str()).collect();
    assert_eq!(hooks, ["output", "forward"]);
    assert_eq!(ruleset.helpers, ["table inet filter f: type \"ftp\""]);
    assert!(ruleset.docker.is_some());
    assert_eq!(Ruleset::parse("", ""), Ruleset::default());
}

#[test]
fn a_source_that_is_changed_breaks_sessions_only_where_it_becomes_another() {
    use Severity::{Broken, Warning};
    let facts = |line: &str| Facts { legacy_rules: vec![line.to_owned()], ..healthy() };
    let (plain, host) = (subject(vec![]), subject(vec![one_to_one(&["tcp:21"])]));
    let masquerade = facts("-A POSTROUTING -o wan0 -j MASQUERADE");
    assert_eq!(found(&plain, &masquerade), [("nat", Warning)]);
    assert_eq!(found(&host, &masquerade), [("nat", Broken)]);
    let inside = facts("-A POSTROUTING -s 10.0.0.0/8 -o wan0 -j MASQUERADE");
    assert_eq!(found(&host, &inside), [("nat", Warning)]);
    let other = facts("-A POSTROUTING -o wan0 -j SNAT --to-source 203.0.113.9");
    assert_eq!(found(&plain, &other), [("nat", Broken)]);
    assert_eq!(found(&plain, &facts("-A POSTROUTING -o eth7 -j MASQUERADE")), []);
    assert_eq!(found(&plain, &facts("-A POSTROUTING -o wan0 -j ACCEPT")), []);
}

#[test]
fn a_destination_that_is_changed_is_broken_unless_a_forward_does_it() {
    use Severity::{Broken, Note, Warning};
    let facts = |line: &str| Facts { legacy_rules: vec![line.to_owned()], ..healthy() };
    let line = "-A PREROUTING -i wan0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.1.2";
    assert_eq!(found(&subject(vec![]), &facts(line)), [("nat", Broken)]);
    let web = subject(vec![forward("web", "203.0.113.1:80", "10.0.1.2")]);
    assert_eq!(found(&web, &facts(line)), [("nat", Note)]);
    let inside = "-A PREROUTING -i lan0 -p tcp --dport 80 -j REDIRECT --to-ports 3128";
    assert_eq!(found(&subject(vec![]), &facts(inside)), [("nat", Warning)]);
    assert_eq!(legacy_rule("-A PREROUTING -i lan0 -p tcp"), None);
    // Where the rules can't be read, that there are some is said.
    let hidden = Facts { legacy_tables: vec!["nat".to_owned()], ..healthy() };
    assert_eq!(found(&subject(vec![]), &hidden), [("nat", Warning)]);
}

#[test]
fn rules_that_lead_nowhere_are_named() {
    use Severity::{Broken, Warning};
    let of = |public: &str, to: &str| found(&subject(vec![forward("a", public, to)]), &healthy());
    assert_eq!(of("203.0.113.1:80", "10.0.1.2"), []);
    assert_eq!(of("203.0.113.99:80", "10.0.1.2"), [("public-address", Warning)]);
    // Before the start it is the gateway that adds one that lies in the network of its WAN.
    let rest = |public: &str, adds_addresses: bool| {
        let rules = vec![forward("a", public, "10.0.1.2")];
        let subject = Subject { running: false, adds_addresses, ..subject(rules) };
        found(&subject, &healthy())
    };
    assert_eq!(rest("203.0.113.99:80", true), []);
    assert_eq!(rest("203.0.113.99:80", false), [("public-address", Warning)]);
    assert_eq!(rest("198.51.100.9:80", true), [("public-address", Warning)]);
    assert_eq!(of("wan7:80", "10.0.1.2"), [("public-address", Broken)]);
    assert_eq!(of("wan0:80", "192.0.2.1"), [("host", Broken)]);
    assert_eq!(of("wan0:80", "192.0.2.2"), [("host", Broken)]);
}

#[test]
fn an_uplink_that_is_no_wan_is_named() {
    let of = |uplink: &str| {
        let rule = rule(json!({
            "kind": "forward", "name": "a", "protocol": "tcp", "public": "203.0.113.1:80",
            "to": "10.0.1.2", "uplink": uplink,
        }));
        found(&subject(vec![rule]), &healthy())
    };
    assert_eq!(of("wan0"), []);
    assert_eq!(of("lan0"), [("uplink", Severity::Warning)]);
    assert_eq!(of("wan7"), [("uplink", Severity::Warning)]);
}

#[test]
fn the_more_exact_of_two_rules_is_named() {
    use Severity::{Note, Warning};
    let of = |rules| {
        let findings = examine(&subject(rules), &healthy());
        let about = |finding: &Finding| (finding.check, finding.severity, finding.about.join(" "));
        findings.iter().map(about).collect::<Vec<_>>()
    };
    let all = || forward("all", "wan0", "10.0.1.2");
    let same = of(vec![all(), forward("web", "203.0.113.1:80", "10.0.1.2")]);
    assert_eq!(same, [("shadow", Note, "web all".to_owned())]);
    let other = of(vec![forward("web", "203.0.113.1:80", "10.0.1.3"), all()]);
    assert_eq!(other, [("shadow", Warning, "web all".to_owned())]);
    let host = of(vec![one_to_one(&["any"]), forward("web", "203.0.113.11:80", "10.0.1.2")]);
    assert_eq!(host, [("shadow", Note, "web host".to_owned())]);
    assert_eq!(of(vec![all(), forward("web", "203.0.113.11:80", "10.0.1.2")]), []);
}

#[test]
fn forwards_that_leave_masquerade_no_port_are_named() {
    use Severity::{Broken, Warning};
    let of = |ports: &str| {
        let rules = vec![forward("many", &format!("wan0:{ports}"), "10.0.1.2")];
        let mut ranges = [PortRange::default(); 4];
        ranges[0] = PortRange::new(20_000, 29_999).unwrap();
        found(&Subject { pool: Some(Pool::new(ranges)), ..subject(rules) }, &healthy())
    };
    assert_eq!(of("1024-65535"), [("pool", Broken)]);
    assert_eq!(of("20000-29998"), [("pool", Warning)]);
    assert_eq!(of("20000-24998"), []);
    assert_eq!(of("30000-39999"), []);
}

#[test]
fn addresses_that_hosts_are_shared_out_among_are_looked_at() {
    use Severity::{Broken, Warning};
    let mut ranges = [PortRange::default(); 4];
    ranges[0] = PortRange::new(20_000, 29_999).unwrap();
    let all = |public: &str| vec![forward("many", &format!("{public}:1024-65535"), "10.0.1.2")];
    let behind = |last: u8, public: &str| {
        let addresses = vec![Ipv4Addr::new(203, 0, 113, last)];
        found(
            &Subject { pool: Some(Pool::new(ranges)), addresses, ..subject(all(public)) },
            &healthy(),
        )
    };
    assert_eq!(behind(11, "203.0.113.11"), [("pool", Broken)]);
    assert_eq!(behind(11, "wan0"), []);
    // Nobody has it, so that hosts have the first one of the WAN.
    let both = behind(60, "wan0");
    assert_eq!(both, [("pool", Broken), ("public-address", Warning)]);
}

#[test]
fn data_ports_beside_a_control_port_are_needless() {
    let of = |rules: Vec<RuleView>| {
        let findings = examine(&subject(rules), &healthy());
        assert!(findings.iter().all(|it| (it.check, it.severity) == ("needless", Severity::Note)));
        findings.iter().map(|finding| finding.about.join(" ")).collect::<Vec<_>>()
    };
    let at = |name: &str, ports: &str| forward(name, &format!("203.0.113.1:{ports}"), "10.0.1.2");
    let control = || at("ftp", "21");
    assert_eq!(of(vec![control(), at("data", "20")]), ["data"]);
    assert_eq!(of(vec![control(), at("passive", "50000-50100")]), ["passive"]);
    assert_eq!(of(vec![control(), at("all", "1024-65535")]), ["all"]);
    assert_eq!(of(vec![at("both", "20-21")]), ["both"]);
    assert_eq!(of(vec![one_to_one(&["tcp:20-21"])]), ["host"]);
    assert_eq!(of(vec![one_to_one(&["tcp:21", "tcp:50000-50100"])]), ["host"]);
    // Other ports, other hosts, and a server whose sessions are not followed.
    let elsewhere = forward("data", "203.0.113.1:20", "10.0.1.3");
    for rules in [
        vec![control(), at("web", "8080")],
        vec![control(), elsewhere],
        vec![at("data", "20")],
        vec![one_to_one(&["tcp:21", "tcp:8080"])],
        vec![one_to_one(&["tcp:20"])],
    ] {
        assert_eq!(of(rules), Vec::<String>::new());
    }
}

/// As the kernel writes them: a LAN with fd00:1:0:5::1/64, a WAN with 2001:db8:f::1/64, the default route,
/// a network behind a router inside, addresses, groups, and one that leads nowhere.
const ROUTES: &str = "\
fd000001000000050000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     lan0
20010db8000f00000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     wan0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     wan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000f0000000000000000000a 00000400 00000002 00000000 00000003     wan0
fd000002000000000000000000000000 30 00000000000000000000000000000000 00 fd000001000000050000000000000002 00000400 00000001 00000000 00000003     lan0
fd000003000000000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00200200       lo
fd000001000000050000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001     lan0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     lan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

#[test]
fn routes_are_those_to_other_machines() {
    let found = routes(ROUTES);
    let told: Vec<_> = found
        .iter()
        .map(|route| format!("{} {} {}", route.to, route.interface, route.by_router))
        .collect();
    assert_eq!(
        told,
        [
            "fd00:1:0:5::/64 lan0 false",
            "2001:db8:f::/64 wan0 false",
            "fe80::/64 wan0 false",
            "::/0 wan0 true",
            "fd00:2::/48 lan0 true",
        ]
    );
    assert_eq!(routes("fd 40\nnothing\n"), []);
}

#[test]
fn prefixes_that_lead_nowhere_are_named() {
    use Severity::{Broken, Warning};
    let facts = |lines: &dyn Fn(&str) -> bool| {
        let text: Vec<_> = ROUTES.lines().filter(|line| lines(line)).collect();
        Facts { routes6: routes(&text.join("\n")), forwarding6: Some(1), ..healthy() }
    };
    let pair = |wan: &str, inside: &str, public: &str| {
        let value = json!({"wan": wan, "inside": inside, "public": public});
        Subject { prefixes: vec![serde_json::from_value(value).unwrap()], ..subject(vec![]) }
    };
    let all = facts(&|_| true);
    let of = |inside: &str, public: &str| found(&pair("wan0", inside, public), &all);
    // On a LAN, and behind a router there.
    assert_eq!(of("fd00:1::/48", "2001:db8:a::/48"), []);
    assert_eq!(of("fd00:2::/48", "2001:db8:a::/48"), []);
    assert_eq!(of("fd00:2:0:7::/64", "2001:db8:a:7::/64"), []);
    for inside in ["fd00:3::/48", "fd00:4::/48", "2001:db8:f::/48"] {
        assert_eq!(of(inside, "2001:db8:a::/48"), [("prefix", Broken)], "{inside}");
    }
    // The very network of the WAN, one around it, and one inside of it.
    for (bits, public) in [(64, "2001:db8:f::"), (48, "2001:db8:f::"), (56, "2001:db8:f::")] {
        let (inside, public) = (format!("fd00:1::/{bits}"), format!("{public}/{bits}"));
        assert_eq!(
            of(&inside.replace("fd00:1::/64", "fd00:1:0:5::/64"), &public),
            [("prefix", Warning)],
            "{public}"
        );
    }
    let good = pair("wan0", "fd00:1::/48", "2001:db8:a::/48");
    let no_default = facts(&|line| !line.contains("20010db8000f0000000000000000000a"));
    assert_eq!(found(&good, &no_default), [("prefix", Warning)]);
    let elsewhere = pair("wan7", "fd00:1::/48", "2001:db8:a::/48");
    assert_eq!(found(&elsewhere, &all), [("prefix", Broken)]);
    let off = Facts { forwarding6: Some(0), ..all.clone() };
    assert_eq!(found(&good, &off), [("ip-forward", Broken)]);
    // Before the start it is the gateway that turns forwarding on; and without a prefix nothing is looked at.
    assert_eq!(found(&Subject { running: false, ..good }, &off), []);
    assert_eq!(found(&subject(vec![]), &off), []);
}
