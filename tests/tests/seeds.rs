//! The rules of other gateways, moved here as they are: FTP works through each of them, and `doctor`
//! says which of them are no longer needed.

use std::path::Path;

use nat_tests::{
    client::{self, DataMode, Direction, Request},
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, WAN, WAN_SECOND},
    netns::Lifetime,
    payload::TEN_MEGABYTES,
    requirements,
    server::{Announce, Kind, Server, Settings},
};
use serde_json::Value;

/// A set-up: commands, what the server says of itself, and what `doctor` is to say.
struct Seed {
    rules: &'static [&'static str],
    announce: Announce,
    passive: Option<[u16; 2]>,
    public: std::net::Ipv4Addr,
    /// Check and rule of each finding.
    findings: &'static [(&'static str, &'static str)],
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Check and first subject of what `doctor` finds, and whether it found something broken.
fn doctor(gateway: &NatCtl<'_>) -> (Vec<(String, String)>, bool) {
    let finished = gateway.call(&["doctor", "-o", "json"]).expect("a call");
    let findings: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = |finding: &Value| (text(&finding["check"]), text(&finding["about"][0]));
    let list = findings.as_array().expect("a list").iter().map(about).collect();
    (list, finished.status.code() == Some(1))
}

fn moved_here(name: &str, binary: &Path, seed: &Seed) {
    let lab = Lab::with(Lifetime::Run, TEN_MEGABYTES / 10).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, binary).expect("a gateway");
    for rule in seed.rules {
        gateway.call(&words(rule)).expect("a call").checked(rule).expect("a rule");
    }
    let settings =
        Settings { announce: seed.announce, passive: seed.passive, ..Settings::new(Kind::Vsftpd) };
    let folder = lab.folder("server").expect("a folder");
    let server = Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server");
    let get = |mode| {
        for direction in [Direction::Download, Direction::Upload] {
            let request = Request::new(client::Kind::Curl, mode, seed.public);
            let request = Request { direction, ..request };
            client::transfer(&lab.outside, &request, &server, &lab.payload, lab.root())
                .unwrap_or_else(|e| panic!("{name}, {mode}: {e:#}\n{}", gateway.diagnosis()));
        }
    };
    let active_and_passive = || [DataMode::Port, DataMode::Pasv, DataMode::Epsv].map(get);
    active_and_passive();
    let (found, _) = doctor(&gateway);
    let found: Vec<_> =
        found.iter().map(|(check, about)| (check.as_str(), about.as_str())).collect();
    assert_eq!(found, seed.findings, "{name}");
    // What it says is true: they are not needed.
    for (check, rule) in seed.findings {
        if *check == "needless" && seed.rules.len() > 1 {
            let removed = gateway.call(&["forward", "remove", rule]).expect("a call");
            removed.checked("forward remove").expect("a rule that is gone");
        }
    }
    active_and_passive();
    gateway.stop().expect("an end");
}

#[test]
fn forwards_of_21_and_20() {
    let Some(binary) = requirements::met_with_binary("seeds, 21 and 20") else { return };
    let seed = Seed {
        rules: &[
            "forward add --name control --protocol tcp --public 203.0.113.1:21 --to 10.0.1.2",
            "forward add --name data --protocol tcp --public 203.0.113.1:20 --to 10.0.1.2",
        ],
        announce: Announce::Own,
        passive: None,
        public: WAN,
        findings: &[("needless", "data")],
    };
    moved_here("21 and 20", &binary, &seed);
}

#[test]
fn a_passive_range_with_a_server_that_states_the_public_address() {
    let Some(binary) = requirements::met_with_binary("seeds, passive range") else { return };
    let seed = Seed {
        rules: &[
            "forward add --name control --protocol tcp --public 203.0.113.1:21 --to 10.0.1.2",
            "forward add --name passive --protocol tcp --public 203.0.113.1:50000-50100 --to 10.0.1.2",
        ],
        announce: Announce::Stated(WAN),
        passive: Some([50000, 50100]),
        public: WAN,
        findings: &[("needless", "passive")],
    };
    moved_here("passive range", &binary, &seed);
}

#[test]
fn all_ports_with_a_server_that_states_its_own_address() {
    let Some(binary) = requirements::met_with_binary("seeds, 1024-65535") else { return };
    let seed = Seed {
        rules: &[
            "forward add --name control --protocol tcp --public 203.0.113.1:21 --to 10.0.1.2",
            "forward add --name all --protocol tcp --public 203.0.113.1:1024-65535 --to 10.0.1.2",
        ],
        announce: Announce::Own,
        passive: None,
        public: WAN,
        // Nobody else gets a port: that is said first.
        findings: &[("pool", "all"), ("needless", "all")],
    };
    moved_here("1024-65535", &binary, &seed);
}

#[test]
fn one_to_one_with_20_and_21_let_in() {
    let Some(binary) = requirements::met_with_binary("seeds, one-to-one") else { return };
    let seed = Seed {
        rules: &[
            "one-to-one add --name host --public 203.0.113.11 --to 10.0.1.2 --inbound tcp:20-21",
        ],
        announce: Announce::Own,
        passive: None,
        public: WAN_SECOND,
        findings: &[("needless", "host")],
    };
    moved_here("one-to-one", &binary, &seed);
}

#[test]
fn a_forward_of_all_ports_leaves_inside_clients_none_and_doctor_says_so() {
    let Some(binary) = requirements::met_with_binary("seeds, no port left") else { return };
    let lab = Lab::with(Lifetime::Run, TEN_MEGABYTES / 10).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    let get = || {
        let request = Request::new(client::Kind::Curl, DataMode::Pasv, OUTSIDE);
        client::transfer(&lab.inside, &request, &server, &lab.payload, lab.root())
    };
    let add = "forward add --name all --protocol tcp --public wan0:1024-65535 --to 10.0.1.2";
    gateway.call(&words(add)).expect("a call").checked("forward add").expect("a rule");
    let (found, broken) = doctor(&gateway);
    assert!(broken && found == [("pool".to_owned(), "all".to_owned())], "{found:?}");
    get().expect_err("a transfer without a port");
    let drops = gateway.json(&["drops"]).expect("drops");
    assert!(drops["ports-exhausted"].as_u64() >= Some(1), "{drops}");
    let removed = gateway.call(&["forward", "remove", "all"]).expect("a call");
    removed.checked("forward remove").expect("a rule that is gone");
    assert_eq!(doctor(&gateway), (vec![], false));
    get().unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    gateway.stop().expect("an end");
}
