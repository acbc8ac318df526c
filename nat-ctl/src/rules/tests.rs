//! Parsing, conflicts and expansion.

use std::{
    collections::{BTreeSet, HashSet},
    net::Ipv4Addr,
};

use proptest::prelude::*;

use super::*;
use crate::{error::Exit, options::Instance};

const NOWHERE: Resolve<'static> = &|_| None;

fn forward(name: &str, protocol: &str, public: &str, to: &str) -> Rule {
    let draft = ForwardDraft {
        name: name.parse().expect("name"),
        service: None,
        protocol: Some(protocol.parse().expect("protocol")),
        public: public.parse().expect("public"),
        public_port: None,
        to: to.parse().expect("to"),
        local_port: None,
        allow: vec![],
        alg: None,
        strict: None,
        passive_range: None,
        uplink: None,
        comment: None,
    };
    Rule::Forward(draft.finish().expect("forward"))
}

/// An FTP server with a passive range.
fn with_range(name: &str, public: &str, to: &str, range: &str) -> Result<Rule, RuleError> {
    let draft = ForwardDraft {
        name: name.parse().expect("name"),
        service: Some(Service::Ftp),
        protocol: None,
        public: public.parse().expect("public"),
        public_port: None,
        to: to.parse().expect("to"),
        local_port: None,
        allow: vec!["198.51.100.0/24".parse().expect("network")],
        alg: None,
        strict: None,
        passive_range: Some(range.parse().expect("range")),
        uplink: None,
        comment: None,
    };
    draft.finish().map(Rule::Forward)
}

fn one_to_one(name: &str, public: &str, to: &str, inbound: &[&str]) -> Rule {
    let draft = OneToOneDraft {
        name: name.parse().expect("name"),
        public: public.parse().expect("public"),
        to: to.parse().expect("to"),
        inbound: inbound.iter().map(|text| text.parse().expect("inbound")).collect(),
        alg: None,
        strict: None,
        uplink: None,
        comment: None,
    };
    Rule::OneToOne(draft.finish().expect("one-to-one"))
}

fn set(rules: impl IntoIterator<Item = Rule>) -> RuleSet {
    let mut set = RuleSet::default();
    for rule in rules {
        set.insert(rule, NOWHERE).expect("no conflict");
    }
    set
}

fn find(entries: &[ForwardEntry], protocol: &str, port: u16) -> Option<ForwardEntry> {
    let protocol: Option<FlowProtocol> = protocol.parse().ok();
    let port = (port > 0).then_some(port);
    entries.iter().find(|entry| entry.protocol == protocol && entry.port == port).cloned()
}

#[test]
fn what_is_no_rule_is_refused_in_one_line() {
    for text in ["0", "80-", "-80", "90-80", "65536", "+80", "", "80-90-100", "http"] {
        assert!(text.parse::<PortRange>().is_err(), "{text}");
    }
    for text in ["", "203.0.113", "203.0.113.256", "224.0.0.1", "0.0.0.1", "127.0.0.1", "a/b"] {
        let error = text.parse::<PublicEndpoint>().expect_err(text);
        assert_eq!((error.exit(), error.to_string().lines().count()), (Exit::Usage, 1));
    }
    for text in ["fe80::1", "ff02::1", "::1", "[2001:db8::1", "[2001:db8::1]80", "[2001:db8::1]:"] {
        assert!(text.parse::<InsideEndpoint>().is_err(), "{text}");
        assert!(text.parse::<PublicEndpoint>().is_err(), "{text}");
    }
    for text in ["[eth0]:80", "10.0.0.5:", ":80", "10.0.0.5:80:90", "eth0"] {
        assert!(text.parse::<InsideEndpoint>().is_err(), "{text}");
    }
    for text in ["198.51.100.0/33", "198.51.100/24", "all", "2001:db8::/129", ""] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
    for text in [
        "icmp:8",
        "any:80",
        "sctp:80",
        "tcp:",
        "tcp@",
        "tcp:80@nowhere",
        "tcp@2001:db8::/32",
        "tcp:80@1.2.3.4,",
    ] {
        assert!(text.parse::<Inbound>().is_err(), "{text}");
    }
    for text in ["", "a b", "näme", "a/b", &"x".repeat(64)] {
        assert!(text.parse::<RuleName>().is_err(), "{text}");
    }
}

#[test]
fn an_address_of_ipv6_stands_in_brackets_before_ports() {
    for text in ["2001:db8::1", "[2001:db8::1]:80", "[2001:db8::1]:80-81"] {
        assert_eq!(text.parse::<PublicEndpoint>().expect(text).to_string(), text);
        assert_eq!(text.parse::<InsideEndpoint>().expect(text).to_string(), text);
    }
    let alone: InsideEndpoint = "[2001:db8::1]".parse().expect("an address");
    assert_eq!((alone.to_string().as_str(), alone.ports), ("2001:db8::1", None));
}

#[test]
fn bits_beyond_a_prefix_are_dropped_and_any_is_everybody() {
    assert_eq!("198.51.100.7/24".parse::<Cidr>().expect("prefix").to_string(), "198.51.100.0/24");
    assert_eq!("198.51.100.7".parse::<Cidr>().expect("host").prefix_length(), 32);
    assert_eq!("any".parse::<Cidr>().expect("any"), Cidr::ALL);
}

#[test]
fn service_ftp_is_the_control_port_with_the_alg() {
    let draft: ForwardDraft = serde_json::from_value(serde_json::json!({
        "name": "ftp", "service": "ftp", "public": "203.0.113.10", "to": "192.168.1.10",
    }))
    .expect("draft");
    let entries = set([Rule::Forward(draft.finish().expect("forward"))]).entries(NOWHERE);
    let [entry] = &entries.expect("entries")[..] else { panic!("one entry") };
    assert_eq!(
        (entry.protocol, entry.port, entry.to_port),
        (Some(Protocol::Tcp.into()), Some(21), Some(21))
    );
    assert_eq!((entry.kind, &entry.allow[..]), (EntryKind::Control, &[Cidr::ALL][..]));
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let draft = |extra: serde_json::Value| {
        let mut object = serde_json::json!({
            "name": "a", "public": "203.0.113.10:8000-8010", "to": "192.168.1.10"
        });
        for (key, value) in extra.as_object().expect("object") {
            object[key] = value.clone();
        }
        serde_json::from_value::<ForwardDraft>(object).expect("draft").finish()
    };
    for (extra, word) in [
        (serde_json::json!({}), "protocol"),
        (serde_json::json!({"protocol": "tcp", "to": "192.168.1.10:80"}), "one to one"),
        (serde_json::json!({"protocol": "udp", "alg": "ftp"}), "tcp"),
        (serde_json::json!({"protocol": "tcp", "publicPort": 80}), "twice"),
        (serde_json::json!({"service": "ftp"}), "one port"),
        (serde_json::json!({"service": "ftp", "protocol": "udp"}), "tcp"),
        (serde_json::json!({"protocol": "tcp", "public": "192.168.1.10"}), "inside address"),
        (
            serde_json::json!({"protocol": "tcp", "public": "203.0.113.10", "to": "10.0.0.1:80"}),
            "public one",
        ),
    ] {
        let error = draft(extra).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
    assert!(draft(serde_json::json!({"protocol": "tcp", "to": "192.168.1.10:9000-9010"})).is_ok());
}

#[test]
fn the_alg_defaults_to_the_control_port_and_is_asked_for_elsewhere() {
    let rule = forward("a", "tcp+udp", "203.0.113.10:20-22", "192.168.1.10");
    let entries = set([rule]).entries(NOWHERE).expect("entries");
    assert_eq!(entries.len(), 6);
    let on: Vec<_> = entries
        .iter()
        .filter(|e| e.kind == EntryKind::Control)
        .map(|e| (e.protocol, e.port))
        .collect();
    assert_eq!(on, [(Some(Protocol::Tcp.into()), Some(21))]);

    let all = forward("all", "tcp", "203.0.113.10", "192.168.1.10");
    let entries = set([all.clone()]).entries(NOWHERE).expect("entries");
    assert_eq!(find(&entries, "tcp", 0).expect("all ports").kind, EntryKind::Plain);
    assert_eq!(find(&entries, "tcp", 21).expect("control port").kind, EntryKind::Control);

    // The port that the wide rule implies yields to the rule that names it.
    let exact = forward("exact", "tcp", "203.0.113.10:21", "192.168.1.20:2121");
    let entries = set([all, exact]).entries(NOWHERE).expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(find(&entries, "tcp", 21).expect("exact").to, Ipv4Addr::new(192, 168, 1, 20));
}

#[test]
fn a_passive_range_is_forwarded_port_by_port_for_who_is_encrypted() {
    let rule = with_range("ftp", "203.0.113.10", "192.168.1.10", "50000-50002").expect("a rule");
    let entries = set([rule.clone()]).entries(NOWHERE).expect("entries");
    assert_eq!(entries.len(), 4);
    assert_eq!(find(&entries, "tcp", 21).expect("control port").kind, EntryKind::Control);
    for port in 50000..=50002 {
        let entry = find(&entries, "tcp", port).expect("a port of the range");
        assert_eq!((entry.kind, entry.to_port), (EntryKind::Range, Some(port)));
        assert_eq!(entry.allow.len(), 1);
    }
    let text = serde_json::to_string(&rule).expect("text");
    assert_eq!(serde_json::from_str::<Rule>(&text).expect("rule"), rule);
}

#[test]
fn a_passive_range_conflicts_with_who_else_wants_its_ports() {
    let ftp = |range| with_range("ftp", "203.0.113.10", "192.168.1.10", range).expect("a rule");
    let others = [
        forward("web", "tcp", "203.0.113.10:50002", "192.168.1.20:80"),
        with_range("other", "203.0.113.10:2121", "192.168.1.20", "50002-50009").expect("a rule"),
        one_to_one("host", "203.0.113.10", "192.168.1.10", &["tcp:50001"]),
        one_to_one("host", "203.0.113.10", "192.168.1.10", &["any"]),
    ];
    for other in others {
        let mut rules = set([other.clone()]);
        let error = rules.insert(ftp("50000-50002"), NOWHERE).expect_err("a conflict");
        assert_eq!(error.exit(), Exit::Conflict);
        assert!(error.to_string().contains(other.name().as_str()), "{error}");
        let mut rules = set([ftp("50000-50002")]);
        assert!(rules.insert(other, NOWHERE).is_err());
    }
    let udp = forward("udp", "udp", "203.0.113.10:50000-50002", "192.168.1.20");
    assert!(set([udp]).insert(ftp("50000-50002"), NOWHERE).is_ok());
}

#[test]
fn a_passive_range_must_make_sense() {
    for (public, range, word) in
        [("203.0.113.10", "1000-2000", "1023"), ("203.0.113.10:50000", "50000-50009", "itself")]
    {
        let error = with_range("ftp", public, "192.168.1.10", range).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
    let draft = |extra: &str| -> Result<Forward, _> {
        serde_json::from_str(&format!(
            "{{\"name\":\"a\",\"protocol\":\"tcp\",\"to\":\"192.168.1.10\",\
             \"passive_range\":\"50000-50009\",{extra}}}"
        ))
    };
    for (extra, word) in [
        ("\"public\":\"203.0.113.10:80\"", "for FTP"),
        ("\"public\":\"203.0.113.10:21\",\"alg\":\"none\"", "for FTP"),
        ("\"public\":\"203.0.113.10\"", "forwarded already"),
    ] {
        let error = draft(extra).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(draft("\"public\":\"203.0.113.10:2121\",\"alg\":\"ftp\"").is_ok());
}

#[test]
fn a_range_maps_one_to_one() {
    let rule = forward("a", "udp", "203.0.113.10:8000-8002", "192.168.1.10:9000-9002");
    let entries = set([rule]).entries(NOWHERE).expect("entries");
    let ports: Vec<_> = entries.iter().map(|entry| (entry.port, entry.to_port)).collect();
    let pair = |a, b| (Some(a), Some(b));
    assert_eq!(ports, [pair(8000, 9000), pair(8001, 9001), pair(8002, 9002)]);
}

#[test]
fn the_most_exact_inbound_entry_lets_everybody_in_whom_a_wider_one_lets_in() {
    let inbound = ["any@10.9.0.0/16", "tcp:80@198.51.100.0/24", "tcp:80@198.51.100.7", "icmp"];
    let rules = set([one_to_one("web", "203.0.113.11", "192.168.1.11", &inbound)]);
    let entries = rules.entries(NOWHERE).expect("entries");
    let allow = |protocol: &str, port: u16| -> Vec<String> {
        let entry = find(&entries, protocol, port).expect("entry");
        entry.allow.iter().map(Cidr::to_string).collect()
    };
    assert_eq!(allow("tcp", 80), ["10.9.0.0/16", "198.51.100.0/24"]);
    assert_eq!(allow("icmp", 0), ["0.0.0.0/0"]);
    assert_eq!(allow("any", 0), ["10.9.0.0/16"]);
    // Everything from 10.9/16 comes in, so its FTP control connections do, with the ALG.
    let control = find(&entries, "tcp", 21).expect("control port");
    assert_eq!((control.kind, control.allow.len()), (EntryKind::Control, 1));
    assert_eq!(entries.len(), 4);
    assert_eq!(rules.hosts().len(), 1);
}

#[test]
fn protocols_without_ports_are_let_in_by_name_or_number() {
    let inbound = ["gre", "esp@198.51.100.0/24", "132", "99"];
    let rules = set([one_to_one("vpn", "203.0.113.11", "192.168.1.11", &inbound)]);
    let entries = rules.entries(NOWHERE).expect("entries");
    for (protocol, number) in [("gre", 47), ("esp", 50), ("sctp", 132), ("99", 99)] {
        let entry = find(&entries, protocol, 0).expect(protocol);
        assert_eq!((entry.protocol.map(FlowProtocol::number), entry.port), (Some(number), None));
    }
    let shown: Vec<String> = ["132", "6:25", "99", "gre"]
        .iter()
        .map(|text| text.parse::<Inbound>().expect(text).to_string())
        .collect();
    assert_eq!(shown, ["sctp", "tcp:25", "99", "gre"]);
    for text in ["gre:80", "99:1", "0", "136", "ah", "51", "icmpv6", "256", "-1"] {
        assert!(text.parse::<Inbound>().is_err(), "{text}");
    }
}

#[test]
fn one_to_one_without_inbound_lets_nothing_in() {
    let rules = set([one_to_one("quiet", "203.0.113.11", "192.168.1.11", &[])]);
    assert_eq!(rules.entries(NOWHERE), Ok(vec![]));
    assert_eq!(rules.hosts()[0].public, Ipv4Addr::new(203, 0, 113, 11));
}

#[test]
fn a_conflict_names_the_other_rule() {
    let web = || forward("web", "tcp", "203.0.113.10:80-90", "192.168.1.10");
    let mail = || one_to_one("mail", "203.0.113.11", "192.168.1.11", &["tcp:25"]);
    for (old, new, words) in [
        (web(), forward("web", "udp", "203.0.113.9:1", "192.168.1.9"), "this name"),
        (web(), forward("b", "tcp+udp", "203.0.113.10:85", "192.168.1.9"), "tcp 203.0.113.10:85"),
        (mail(), forward("b", "tcp", "203.0.113.11:80", "192.168.1.9"), "192.168.1.9 in one"),
        (mail(), forward("b", "tcp", "203.0.113.11:25", "192.168.1.11"), "tcp 203.0.113.11:25"),
        (web(), one_to_one("b", "203.0.113.10", "192.168.1.9", &[]), "192.168.1.10 in one"),
        (mail(), one_to_one("b", "203.0.113.11", "192.168.1.9", &[]), "belongs to 192.168.1.11"),
        (mail(), one_to_one("b", "203.0.113.12", "192.168.1.11", &[]), "uses 203.0.113.11"),
    ] {
        let mut rules = set([old.clone()]);
        let error = rules.insert(new, NOWHERE).expect_err(words);
        let text = error.to_string();
        assert!(text.contains(&format!("'{}'", old.name())) && text.contains(words), "{text}");
        assert_eq!(error.exit(), Exit::Conflict);
        assert_eq!(rules.iter().count(), 1, "the set is unchanged");
    }
}

#[test]
fn rules_that_only_look_alike_go_together() {
    set([
        forward("tcp", "tcp", "203.0.113.10:80", "192.168.1.10"),
        forward("udp", "udp", "203.0.113.10:80", "192.168.1.11"),
        forward("rest", "tcp", "203.0.113.10", "192.168.1.12"),
        forward("other", "tcp", "203.0.113.12:80", "192.168.1.13"),
        one_to_one("mail", "203.0.113.11", "192.168.1.11", &["tcp:25"]),
        forward("same-host", "tcp", "203.0.113.11:2525", "192.168.1.11:25"),
    ]);
}

#[test]
fn an_interface_counts_as_its_address() {
    let resolve: Resolve<'_> = &|name| (name == "eth0").then_some(Ipv4Addr::new(203, 0, 113, 10));
    let named = || forward("named", "tcp", "eth0:80", "192.168.1.10");
    let numbered = forward("numbered", "tcp", "203.0.113.10:80", "192.168.1.11");

    let mut rules = set([named()]);
    let error = rules.insert(numbered.clone(), resolve).expect_err("conflict");
    assert!(error.to_string().contains("'named'"), "{error}");

    // The address came to the interface after both were accepted.
    let rules = set([named(), numbered]);
    assert!(matches!(rules.entries(resolve), Err(RuleError::Conflict { .. })));
    assert_eq!(set([named()]).entries(NOWHERE), Ok(vec![]), "no address, no entry");
}

#[test]
fn more_ports_than_the_map_holds_are_refused() {
    let wide =
        |name, to: &str| forward(name, "tcp", &format!("203.0.113.{to}:1-65535"), "10.0.0.1");
    let mut rules = set([wide("a", "1")]);
    let error = rules.insert(wide("b", "2"), NOWHERE).expect_err("too many");
    assert!(matches!(error, RuleError::TooMany { entries: 131_070, .. }), "{error}");
}

#[test]
fn names_have_numbers_that_a_successor_finds_again() {
    let name = |text: &str| text.parse::<RuleName>().expect("name");
    let id = |text: &str| name(text).id(&BTreeSet::new()).expect("a number");
    assert_eq!(id("a").number(), 0xe40c ^ 0x292c, "FNV-1a of \"a\"");
    assert_ne!(id("ftp"), id("mail"));
    // Whoever comes second has the next number that nobody has.
    let second = name("a").id(&BTreeSet::from([id("a")])).expect("a number");
    assert_eq!(second.number(), id("a").number() + 1);
}

#[test]
fn a_rule_has_its_number_for_as_long_as_it_is_there_and_again_afterwards() {
    let rule = |name| forward(name, "tcp", &format!("203.0.113.10:{}", name.len()), "10.0.0.1");
    let mut rules = set([rule("a"), rule("bb")]);
    let name = |text: &str| text.parse::<RuleName>().expect("name");
    let (a, b) = (rules.number(&name("a")), rules.number(&name("bb")));
    assert_eq!(rules.find_id(b).map(Rule::name), Some(&name("bb")));
    rules.remove("a");
    assert_eq!((rules.number(&name("a")), rules.number(&name("bb"))), (0, b));
    assert!(rules.find_id(a).is_none());
    rules.insert(rule("a"), NOWHERE).expect("room");
    assert_eq!(rules.number(&name("a")), a);
    let entries = rules.entries(NOWHERE).expect("entries");
    let numbers: BTreeSet<u32> = entries.iter().map(|entry| entry.rule.number()).collect();
    assert_eq!(numbers, BTreeSet::from([a, b]));
}

fn store(folder: &std::path::Path) -> RuleStore {
    RuleStore::open(folder.join("nat.rules.json"), &[], &[], NOWHERE).expect("store")
}

/// A folder of its own, removed afterwards.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nat-ctl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn rules_of_the_command_line_outlive_the_agent_and_runtime_rules_do_not() {
    let folder = Folder::new("store");
    let (kept, gone) = (
        one_to_one("kept", "203.0.113.11", "192.168.1.11", &["tcp:25@198.51.100.0/24"]),
        forward("gone", "tcp", "203.0.113.10:80", "192.168.1.10"),
    );
    let mut first = store(&folder.0);
    first.add(kept.clone(), Origin::Command, NOWHERE).expect("add");
    first.add(gone, Origin::Runtime, NOWHERE).expect("add");
    let mut second = store(&folder.0);
    assert_eq!(second.rules().iter().collect::<Vec<_>>(), [&kept]);
    second.remove(RuleKind::OneToOne, "kept").expect("remove");
    assert_eq!(store(&folder.0).rules().iter().count(), 0);
}

#[test]
fn the_store_removes_only_what_it_may() {
    let folder = Folder::new("remove");
    let configured = [forward("a", "tcp", "203.0.113.10:80", "192.168.1.10")];
    let path = folder.0.join("nat.rules.json");
    let mut store = RuleStore::open(path.clone(), &configured, &[], NOWHERE).expect("store");
    let exit = |error: StoreError| error.exit();
    assert_eq!(store.remove(RuleKind::Forward, "b").map_err(exit), Err(Exit::NotFound));
    assert_eq!(store.remove(RuleKind::OneToOne, "a").map_err(exit), Err(Exit::NotFound));
    assert_eq!(store.remove(RuleKind::Forward, "a").map_err(exit), Err(Exit::Conflict));
    std::fs::write(&path, "{\"version\":2,\"rules\":[]}").expect("write");
    let error = RuleStore::open(path, &[], &[], NOWHERE).expect_err("version");
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_rule_that_cannot_be_kept_is_not_in_force() {
    let folder = Folder::new("full");
    let path = folder.0.join("file/nat.rules.json");
    let mut store = RuleStore::open(path, &[], &[], NOWHERE).expect("store");
    std::fs::write(folder.0.join("file"), "in the way").expect("write");
    let rule = forward("a", "tcp", "203.0.113.10:80", "192.168.1.10");
    store.add(rule, Origin::Command, NOWHERE).expect_err("no folder");
    assert_eq!(store.rules().iter().count(), 0);
}

#[test]
fn the_state_file_stands_beside_the_configuration() {
    let path = |config: Option<&str>| {
        let config = config.map(std::path::Path::new);
        RuleStore::path_for(config, &Instance::default()).display().to_string()
    };
    assert_eq!(path(Some("/etc/gateway/nat.toml")), "/etc/gateway/nat.rules.json");
    assert_eq!(path(Some("nat.toml")), "nat.rules.json");
    assert_eq!(path(None), "/etc/nat-ctl/default.rules.json");
}

fn ports() -> impl Strategy<Value = String> {
    let port = || prop_oneof![Just(20_u16), Just(21), Just(22), Just(1), Just(65_535), 1_u16..];
    prop_oneof![
        Just(String::new()),
        port().prop_map(|port| format!(":{port}")),
        (port(), 0_u16..4)
            .prop_map(|(first, more)| format!(":{first}-{}", first.saturating_add(more))),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop::sample::select(vec!["tcp", "udp", "tcp+udp"]);
    let inbound =
        prop::sample::select(vec!["any", "icmp", "tcp", "tcp:20-22", "udp:21", "gre", "99"]);
    let name = "[a-f]{1,2}";
    prop_oneof![
        (name, protocol, 1_u8..4, ports(), 1_u8..4).prop_map(|(name, protocol, a, ports, b)| {
            forward(&name, protocol, &format!("203.0.113.{a}{ports}"), &format!("10.0.0.{b}"))
        }),
        (name, 1_u8..4, 1_u8..4, prop::collection::vec(inbound, 0..3)).prop_map(
            |(name, a, b, inbound)| {
                let (public, to) = (format!("203.0.113.{a}"), format!("10.0.0.{b}"));
                one_to_one(&name, &public, &to, &inbound)
            }
        ),
    ]
}

proptest! {
    #[test]
    fn rules_without_conflict_never_share_a_key(
        rules in prop::collection::vec(any_rule(), 1..8),
    ) {
        let mut set = RuleSet::default();
        for rule in rules {
            let _ = set.insert(rule, NOWHERE);
        }
        let entries = set.entries(NOWHERE).expect("accepted rules expand");
        let mut keys = HashSet::new();
        for entry in &entries {
            prop_assert!(keys.insert((entry.public, entry.protocol, entry.port)), "{entry:?}");
            prop_assert!(!entry.allow.is_empty());
            prop_assert!(set.find_id(entry.rule.number()).is_some());
        }
        prop_assert!(entries.len() <= MAX_ENTRIES);
    }

    #[test]
    fn conflicts_do_not_depend_on_the_order(a in any_rule(), b in any_rule()) {
        let clash = |first: &Rule, second: &Rule| {
            let mut rules = set([first.clone()]);
            rules.insert(second.clone(), NOWHERE).is_err()
        };
        prop_assert_eq!(clash(&a, &b), clash(&b, &a));
    }

    #[test]
    fn what_is_kept_is_what_was_added(rule in any_rule()) {
        let text = serde_json::to_string(&rule).expect("text");
        prop_assert_eq!(serde_json::from_str::<Rule>(&text).expect("rule"), rule);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "[0-9a-z.:/@,+-]{0,24}") {
        let _ = text.parse::<PublicEndpoint>().map(|ok| {
            assert_eq!(ok.to_string().parse(), Ok(ok));
        });
        let _ = text.parse::<Inbound>().map(|ok| assert_eq!(ok.to_string().parse(), Ok(ok)));
        let _ = text.parse::<Cidr>().map(|ok| assert_eq!(ok.to_string().parse(), Ok(ok)));
        let _ = text.parse::<PortRange>().map(|ok| assert_eq!(ok.to_string().parse(), Ok(ok)));
    }
}

#[test]
fn strict_mode_is_for_rules_that_follow_ftp() {
    let rule = |text: serde_json::Value| serde_json::from_value::<Rule>(text);
    let forward = |port: &str, alg: serde_json::Value| {
        rule(serde_json::json!({
            "kind": "forward", "name": "a", "protocol": "tcp", "public": format!("203.0.113.10:{port}"),
            "to": format!("192.168.1.10:{port}"), "alg": alg, "strict": true,
        }))
    };
    let Ok(Rule::Forward(made)) = forward("21", serde_json::Value::Null) else { panic!("refused") };
    assert_eq!(made.strict(), Some(true));
    assert!(forward("2121", "ftp".into()).is_ok());
    for (port, alg) in [("2121", serde_json::Value::Null), ("21", "none".into())] {
        let error = forward(port, alg).expect_err("it is not followed").to_string();
        assert!(error.contains("strict mode is for FTP"), "{error}");
    }
    let host = |alg: &str| {
        rule(serde_json::json!({
            "kind": "one-to-one", "name": "a", "public": "203.0.113.11", "to": "192.168.1.11",
            "alg": alg, "strict": false,
        }))
    };
    let Ok(Rule::OneToOne(made)) = host("ftp") else { panic!("refused") };
    assert_eq!(made.strict(), Some(false));
    assert!(host("none").is_err());
}
