//! Bridges of the gateway as its inside and its outside.
//!
//! ```text
//!   inside 10.0.1.2 ---- port1 \
//!                               lan0 (bridge) gateway wan0 (bridge) ---- port3 ---- outside
//!   beside 10.0.1.3 ---- port2 /
//! ```

use std::net::Ipv4Addr;

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl, Rule},
    lab::{
        INSIDE, INSIDE_DEVICE, LAN, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE,
        WAN_SECOND,
    },
    link::{self, End},
    netns::{Lifetime, Namespace},
    process, requirements,
    server::{FILE, Kind, Server, Settings},
    session, traffic,
};

const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);

/// Puts bridges in the place of both interfaces of the gateway, and a second host on that of the inside.
fn bridged(lab: &Lab) -> Namespace {
    let beside = Namespace::new(lab.name(), "beside", Lifetime::Run).expect("a namespace");
    for (bridge, addresses) in [(LAN_DEVICE, &[LAN][..]), (WAN_DEVICE, &[WAN, WAN_SECOND])] {
        lab.gateway.ip(&format!("link del {bridge}")).expect("no cable");
        lab.gateway.ip(&format!("link add {bridge} type bridge")).expect("a bridge");
        for address in addresses {
            lab.gateway.ip(&format!("address add {address}/24 dev {bridge}")).expect("an address");
        }
    }
    for (bridge, port, host, device, address) in [
        (LAN_DEVICE, "port1", &lab.inside, INSIDE_DEVICE, INSIDE),
        (LAN_DEVICE, "port2", &beside, "in1", BESIDE),
        (WAN_DEVICE, "port3", &lab.outside, OUTSIDE_DEVICE, OUTSIDE),
    ] {
        let address = format!("{address}/24");
        link::connect(
            End { namespace: &lab.gateway, name: port, addresses: &[] },
            End { namespace: host, name: device, addresses: &[&address] },
        )
        .expect("a cable");
        lab.gateway.ip(&format!("link set {port} master {bridge}")).expect("a port");
        lab.gateway.ip(&format!("link set {bridge} up")).expect("a bridge that works");
    }
    for host in [&lab.inside, &beside] {
        host.ip(&format!("route add default via {LAN}")).expect("a route");
    }
    beside
}

fn fetch(lab: &Lab, gateway: &NatCtl<'_>, client: &Namespace, server: Ipv4Addr) {
    session::fetch_both_ways(client, server, FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

#[test]
fn bridges_are_an_inside_and_an_outside() {
    let Some(binary) = requirements::met_with_binary("bridges") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let beside = bridged(&lab);
    let settings = Settings::new(Kind::Vsftpd);
    let start = |host: &Namespace, name: &str| {
        let folder = lab.folder(name).expect("a folder");
        Server::start(host, &settings, &lab.payload, &folder).expect("a server")
    };
    let _servers = [start(&lab.outside, "outside"), start(&beside, "beside")];
    let mut gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let captures = lab.folder("capture").expect("a folder");
    let leaks = Capture::start(&lab.outside, OUTSIDE_DEVICE, "ip or arp", &captures).expect("one");

    for host in [&lab.inside, &beside] {
        let [mut near, mut far] = session::pair(host, &lab.outside, OUTSIDE).expect("a connection");
        session::say(&mut near, &mut far, &[7; 300_000]).expect("it arrives");
        session::say(&mut far, &mut near, &[8; 300_000]).expect("it comes back");
        assert_eq!(far.peer_addr().expect("an end").ip(), WAN);
        traffic::echo(host, OUTSIDE).expect("an echo");
        traffic::echo(host, LAN).expect("the gateway's own");
        fetch(&lab, &gateway, host, OUTSIDE);
    }
    // From one port to the other the gateway is only a switch.
    let before = gateway.packets().expect("counters");
    fetch(&lab, &gateway, &lab.inside, BESIDE);
    let [_near, far] = session::pair(&lab.inside, &beside, BESIDE).expect("a connection");
    assert_eq!(far.peer_addr().expect("an end").ip(), INSIDE);
    assert_eq!(gateway.packets().expect("counters"), before, "none of it is the gateway's");

    // By a rule: from outside, and from the other port by the public address.
    let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: BESIDE };
    gateway.add(&rule).expect("a rule");
    for client in [&lab.outside, &lab.inside] {
        fetch(&lab, &gateway, client, WAN);
    }

    // A host that moves to another port is found there: the bridge learns it by what it sends.
    let mut talk = session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    let shown = lab.inside.ip(&format!("-br link show dev {INSIDE_DEVICE}")).expect("a link");
    let address = shown.split_whitespace().nth(2).expect("an address").to_owned();
    lab.gateway.ip("link del port1").expect("a cable is pulled");
    let inside = format!("{INSIDE}/24");
    link::connect(
        End { namespace: &lab.gateway, name: "port4", addresses: &[] },
        End { namespace: &lab.inside, name: INSIDE_DEVICE, addresses: &[&inside] },
    )
    .expect("another cable");
    lab.gateway.ip(&format!("link set port4 master {LAN_DEVICE}")).expect("a port");
    lab.inside.ip(&format!("link set {INSIDE_DEVICE} address {address}")).expect("the same host");
    lab.inside.ip(&format!("route add default via {LAN}")).expect("a route");
    let [near, far] = &mut talk;
    session::say(near, far, b"from another port").expect("it arrives");
    session::say(far, near, b"to another port").expect("it comes back");

    let frames = leaks.finish().expect("a capture");
    assert!(frames.len() > 100, "the capture was at work");
    assert_eq!(frames.iter().filter(|frame| frame.names(is_inside)).count(), 0, "a leak");
    gateway.stop().expect("an end");
}

/// No bridge has native XDP: what it does is in TC, and whoever insists is told so.
#[test]
fn a_bridge_is_refused_in_mode_xdp() {
    let Some(binary) = requirements::met_with_binary("a bridge in XDP") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let _beside = bridged(&lab);
    let gateway = NatCtl::prepare(&lab, Mode::Xdp, &binary).expect("a gateway");
    let limit = std::time::Duration::from_secs(90);
    let refused = process::run(&mut gateway.agent_command(&[]), limit).expect("an answer");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("attach native XDP to"), "{}", refused.stderr);
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}
