//! What `doctor` says of a machine, and that it is right: what it calls broken is.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nat_tests::{
    client::{self, DataMode, Request},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, LAN_DEVICE, Lab, OUTSIDE, WAN, WAN_DEVICE, WAN_SECOND},
    netns::Lifetime,
    payload::TEN_MEGABYTES,
    process, requirements,
    server::{Kind, Server, Settings},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs a program in the gateway's namespace.
fn on_gateway(lab: &Lab, line: &[&str]) {
    let mut command = lab.gateway.command(line[0]);
    process::must(command.args(&line[1..])).expect("a command");
}

/// The findings, and the exit status.
fn doctor(gateway: &NatCtl<'_>, words: &[&str]) -> (Vec<Value>, Option<i32>) {
    let finished = gateway.call(&[&["doctor", "-o", "json"], words].concat()).expect("a call");
    let findings: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("no JSON: {finished:?}"));
    (findings.as_array().expect("a list").clone(), finished.status.code())
}

/// The one finding.
fn only(gateway: &NatCtl<'_>, severity: &str, check: &str) -> Value {
    let (findings, status) = doctor(gateway, &[]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = &findings[0];
    assert_eq!((&finding["severity"], &finding["check"]), (&severity.into(), &check.into()));
    assert_eq!(status, Some(i32::from(severity == "broken")));
    for field in ["found", "why", "advice"] {
        assert!(finding[field].as_str().is_some_and(|text| text.len() > 5), "{finding}");
    }
    finding.clone()
}

#[test]
fn a_healthy_gateway_is_told_from_one_that_is_not_there() {
    let Some(binary) = requirements::met_with_binary("doctor, health") else { return };
    let lab = Lab::with(Lifetime::Run, TEN_MEGABYTES / 10).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    // Before the first start the interfaces have to be named.
    let nothing = gateway.call(&["doctor"]).expect("a call");
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let named = ["--wan", WAN_DEVICE, "--lan", LAN_DEVICE];
    assert_eq!(doctor(&gateway, &named), (vec![], Some(0)));
    let (missing, status) = doctor(&gateway, &["--wan", "wan7", "--lan", LAN_DEVICE]);
    assert_eq!((&missing[0]["check"], status), (&"interface".into(), Some(1)));
    gateway.run(&["--persist"]).expect("a start");
    assert_eq!(doctor(&gateway, &[]), (vec![], Some(0)));
    let text = gateway.call(&["doctor"]).expect("a call").stdout;
    assert_eq!(text, "nothing was found that is in the way\n");
    // What is left without an agent is looked at too.
    gateway.end(Signal::SIGKILL).expect("a kill");
    on_gateway(&lab, &["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"]);
    only(&gateway, "broken", "ip-forward");
    gateway.call(&["down"]).expect("a call").checked("down").expect("an end");
}

#[test]
fn what_doctor_calls_broken_is() {
    let Some(binary) = requirements::met_with_binary("doctor, broken") else { return };
    let lab = Lab::with(Lifetime::Run, TEN_MEGABYTES / 10).expect("a lab");
    let mut gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let settings = Settings::new(Kind::Vsftpd);
    let folder = lab.folder("server").expect("a folder");
    let server = Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server");
    let rule = Rule::OneToOne { name: "host".into(), public: WAN_SECOND, to: INSIDE };
    gateway.add(&rule).expect("a rule");
    let get = || {
        let limit = Duration::from_secs(4);
        let request = Request::new(client::Kind::Curl, DataMode::Pasv, WAN_SECOND);
        let request = Request { limit, ..request };
        client::transfer(&lab.outside, &request, &server, &lab.payload, lab.root())
    };
    get().unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));

    // Masquerade hides what the agent sends for a host with an address of its own.
    on_gateway(&lab, &["nft", "add table ip nat"]);
    on_gateway(&lab, &["nft", "add chain ip nat post { type nat hook postrouting priority 100; }"]);
    on_gateway(&lab, &["nft", "add rule ip nat post oifname wan0 masquerade"]);
    let finding = only(&gateway, "broken", "nat");
    assert_eq!(finding["found"], "table ip nat post: oifname \"wan0\" masquerade");
    assert!(finding["why"].as_str().expect("text").contains(&WAN_SECOND.to_string()));
    get().expect_err("a session whose lines leave with another address");
    on_gateway(&lab, &["nft", "flush ruleset"]);
    get().unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));

    // DNAT does not see what the gateway takes.
    let web = lab.inside.enter(|| listener(8080)).expect("a namespace");
    let dial = || {
        let to = SocketAddr::from((WAN, 80));
        let dial = || TcpStream::connect_timeout(&to, Duration::from_millis(1500));
        lab.outside.enter(dial).expect("a namespace")
    };
    on_gateway(&lab, &["nft", "add table ip nat"]);
    on_gateway(&lab, &["nft", "add chain ip nat pre { type nat hook prerouting priority -100; }"]);
    let dnat = "add rule ip nat pre iifname wan0 tcp dport 80 dnat to 10.0.1.2:8080";
    on_gateway(&lab, &["nft", dnat]);
    only(&gateway, "broken", "nat");
    dial().expect_err("a port that nobody leads anywhere");
    let add = "forward add --name web --protocol tcp --public wan0:80 --to 10.0.1.2:8080";
    let words: Vec<_> = add.split_whitespace().collect();
    gateway.call(&words).expect("a call").checked(add).expect("a forward");
    only(&gateway, "note", "nat");
    dial().expect("a connection by the forward");
    on_gateway(&lab, &["nft", "flush ruleset"]);
    drop(web);

    // Without forwarding the kernel gives no route for a new flow.
    let outside = lab.outside.enter(|| listener(9000)).expect("a namespace");
    let leave = |to: Ipv4Addr| {
        let to = SocketAddr::from((to, 9000));
        let dial = || TcpStream::connect_timeout(&to, Duration::from_millis(1500));
        lab.inside.enter(dial).expect("a namespace")
    };
    leave(OUTSIDE).expect("a connection");
    on_gateway(&lab, &["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"]);
    only(&gateway, "broken", "ip-forward");
    leave(OUTSIDE).expect_err("no route");
    on_gateway(&lab, &["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    drop(outside);

    // A forward to a host that no LAN reaches.
    let add = "forward add --name lost --protocol tcp --public wan0:81 --to 192.0.2.7";
    let words: Vec<_> = add.split_whitespace().collect();
    gateway.call(&words).expect("a call").checked(add).expect("a forward");
    only(&gateway, "broken", "host");
    gateway.stop().expect("an end");
}

#[test]
fn another_program_on_a_hook_is_named() {
    let Some(binary) = requirements::met_with_binary("doctor, hooks") else { return };
    let lab = Lab::with(Lifetime::Run, TEN_MEGABYTES / 10).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Xdp, &binary).expect("a gateway");
    assert_eq!(doctor(&gateway, &[]), (vec![], Some(0)));
    on_gateway(&lab, &["tc", "qdisc", "add", "dev", WAN_DEVICE, "clsact"]);
    // A classic program of one instruction: return -1, which takes every packet.
    let filter = ["tc", "filter", "add", "dev", WAN_DEVICE, "egress", "prio", "7", "bpf"];
    on_gateway(&lab, &[&filter[..], &["bytecode", "1,6 0 0 4294967295,"]].concat());
    let finding = only(&gateway, "warning", "hook");
    assert_eq!(finding["found"], "wan0: tc egress filter of kind bpf at priority 7");
    on_gateway(&lab, &["tc", "qdisc", "del", "dev", WAN_DEVICE, "clsact"]);
    gateway.stop().expect("an end");
}

fn listener(port: u16) -> TcpListener {
    TcpListener::bind(("0.0.0.0", port)).expect("a listener")
}
