//! Two networks inside: both are hidden behind the gateway, and between them it is a router.
//!
//! ```text
//!   inside 10.0.1.2 ---- lan0 10.0.1.1 \
//!                                       gateway wan0 203.0.113.1 ---- outside 203.0.113.10
//!   second 10.0.3.2 ---- lan1 10.0.3.1 /
//! ```

use std::net::Ipv4Addr;

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, INSIDE_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    link::{self, End},
    netns::{Lifetime, Namespace},
    requirements,
    server::{FILE, Kind, Server, Settings},
    session, traffic,
};

const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);
const SECOND_LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 1);
const SECOND_DEVICE: &str = "lan1";

fn second_network(lab: &Lab) -> Namespace {
    let second = Namespace::new(lab.name(), "second", Lifetime::Run).expect("a namespace");
    let [near, far] = [SECOND_LAN, SECOND].map(|address| format!("{address}/24"));
    link::connect(
        End { namespace: &lab.gateway, name: SECOND_DEVICE, addresses: &[&near] },
        End { namespace: &second, name: "in1", addresses: &[&far] },
    )
    .expect("a cable");
    link::receive_redirected(&second, "in1").expect("NAPI");
    second.ip(&format!("route add default via {SECOND_LAN}")).expect("a route");
    second
}

fn fetch(lab: &Lab, gateway: &NatCtl<'_>, client: &Namespace, server: Ipv4Addr) {
    session::fetch_both_ways(client, server, FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

/// As whom the end of a connection sees the other one.
fn seen(client: &Namespace, server: &Namespace, at: Ipv4Addr) -> std::net::IpAddr {
    let [mut near, mut far] = session::pair(client, server, at).expect("a connection");
    session::say(&mut near, &mut far, &[7; 50_000]).expect("it arrives");
    session::say(&mut far, &mut near, &[8; 50_000]).expect("it comes back");
    far.peer_addr().expect("an end").ip()
}

fn two_networks(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("two networks inside") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let second = second_network(&lab);
    let settings = Settings::new(Kind::Vsftpd);
    let start = |host: &Namespace, name: &str| {
        let folder = lab.folder(name).expect("a folder");
        Server::start(host, &settings, &lab.payload, &folder).expect("a server")
    };
    let _outer = start(&lab.outside, "outside");
    let _inner = start(&second, "second");
    let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
    gateway.run(&["--lan", SECOND_DEVICE]).expect("a start");
    let captures = lab.folder("capture").expect("a folder");
    let leaks = Capture::start(&lab.outside, OUTSIDE_DEVICE, "ip or arp", &captures).expect("one");

    for host in [&lab.inside, &second] {
        assert_eq!(seen(host, &lab.outside, OUTSIDE), WAN);
        traffic::echo(host, OUTSIDE).expect("an echo");
        fetch(&lab, &gateway, host, OUTSIDE);
    }
    // Between the two: nobody is hidden, and nothing of FTP is changed.
    let flows = |gateway: &NatCtl<'_>| {
        let flows = gateway.json(&["flows", "list"]).expect("flows");
        let between = |flow: &&serde_json::Value| {
            let text = flow.to_string();
            text.contains(&INSIDE.to_string()) && text.contains(&SECOND.to_string())
        };
        flows.as_array().expect("flows").iter().filter(between).count()
    };
    assert_eq!(seen(&lab.inside, &second, SECOND), INSIDE);
    assert_eq!(seen(&second, &lab.inside, INSIDE), SECOND);
    traffic::echo(&lab.inside, SECOND).expect("an echo");
    traffic::echo(&second, INSIDE).expect("an echo");
    let wire = Capture::start(&lab.inside, INSIDE_DEVICE, "tcp port 21", &captures).expect("one");
    fetch(&lab, &gateway, &lab.inside, SECOND);
    let lines = wire.finish().expect("frames");
    assert!(lines.iter().any(|frame| frame.says("PORT 10,0,1,2,")), "as the client has it");
    assert!(lines.iter().any(|frame| frame.says("(10,0,3,2,")), "as the server has it");
    assert_eq!(flows(&gateway), 0, "{}", gateway.diagnosis());

    // A forward into the second one: from outside, and from the first one by the public address.
    let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: SECOND };
    gateway.add(&rule).expect("a rule");
    for client in [&lab.outside, &lab.inside] {
        fetch(&lab, &gateway, client, WAN);
    }
    let frames = leaks.finish().expect("a capture");
    assert!(frames.len() > 100, "the capture was at work");
    assert_eq!(frames.iter().filter(|frame| frame.names(is_inside)).count(), 0, "a leak");
    assert_eq!(gateway.packets().expect("counters").xdp > 0, mode == Mode::Xdp);
    gateway.stop().expect("an end");
}

#[test]
fn two_inside_networks_are_hidden_and_routed_between_in_mode_tc() {
    two_networks(Mode::Tc);
}

#[test]
fn two_inside_networks_are_hidden_and_routed_between_in_mode_xdp() {
    two_networks(Mode::Xdp);
}
