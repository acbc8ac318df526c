//! A gateway with one arm: inside hosts, the outside and the gateway are on one link.
//!
//! ```text
//!     inside        beside      gateway        outside
//!       arm0         arm0         wan0           out0
//!   10.0.1.2     10.0.1.3     10.0.1.1
//!                         203.0.113.1    203.0.113.10
//!        \            |           |             /
//!         +-----------+-- sw0 ----+------------+     (in the namespace of the host outside)
//! ```

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, INSIDE_DEVICE, LAN, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    link::{self, End},
    netns::{Lifetime, Namespace},
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{self, accept, connect},
    traffic,
};
use nix::sys::signal::Signal;

const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
/// The router of a network that has but one, and a host behind it.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const ARM: &str = "arm0";

/// One link for all, with the second host inside.
fn one_link(lab: &Lab) -> Namespace {
    let beside = Namespace::new(lab.name(), "beside", Lifetime::Run).expect("a namespace");
    let ip = |namespace: &Namespace, words: &[&str]| {
        for words in words {
            namespace.ip(words).expect("set up");
        }
    };
    ip(&lab.inside, &[&format!("address flush dev {INSIDE_DEVICE}")]);
    for (host, address, port) in [(&lab.inside, INSIDE, "sw1"), (&beside, BESIDE, "sw2")] {
        let address = format!("{address}/24");
        link::connect(
            End { namespace: host, name: ARM, addresses: &[&address] },
            End { namespace: &lab.outside, name: port, addresses: &[] },
        )
        .expect("a cable");
        ip(host, &[&format!("route replace default via {LAN}")]);
    }
    ip(
        &lab.outside,
        &[
            "link add sw0 type bridge",
            &format!("address flush dev {OUTSIDE_DEVICE}"),
            &format!("address add {OUTSIDE}/24 dev sw0"),
            &format!("link set {OUTSIDE_DEVICE} master sw0"),
            "link set sw1 master sw0",
            "link set sw2 master sw0",
            "link set sw0 up",
        ],
    );
    ip(
        &lab.gateway,
        &[
            &format!("address flush dev {LAN_DEVICE}"),
            &format!("address add {LAN}/24 dev {WAN_DEVICE}"),
        ],
    );
    beside
}

fn fetch_both_ways(lab: &Lab, gateway: &NatCtl<'_>, client: &Namespace, server: Ipv4Addr) {
    session::fetch_both_ways(client, server, FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

/// The address that a connection from `client` arrives with.
fn seen(client: &Namespace, server: &Namespace, at: Ipv4Addr) -> Ipv4Addr {
    let [_near, far] = session::pair(client, server, at).expect("a connection");
    match far.peer_addr().expect("an end").ip() {
        std::net::IpAddr::V4(address) => address,
        six => panic!("{six}"),
    }
}

#[test]
fn one_interface_is_the_way_out_and_the_inside() {
    let Some(binary) = requirements::met_with_binary("a gateway with one arm") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let beside = one_link(&lab);
    let mut gateway = NatCtl::prepare(&lab, Mode::Xdp, &binary).expect("a gateway");
    gateway.run(&["--lan", WAN_DEVICE]).expect("a start");
    let captures = lab.folder("capture").expect("a folder");
    let filter = format!("src net 10.0.0.0/8 and dst host {OUTSIDE}");
    let untranslated = Capture::start(&lab.outside, "sw0", &filter, &captures).expect("a capture");

    // From inside, and from the gateway itself.
    let settings = Settings::new(Kind::Vsftpd);
    let folder = lab.folder("outside").expect("a folder");
    let outer = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    for host in [&lab.inside, &beside] {
        fetch_both_ways(&lab, &gateway, host, OUTSIDE);
        assert_eq!(seen(host, &lab.outside, OUTSIDE), WAN);
        traffic::echo(host, OUTSIDE).expect("an echo");
        traffic::echo(host, LAN).expect("the gateway's own");
    }
    assert_eq!(seen(&lab.gateway, &lab.outside, OUTSIDE), WAN);
    assert_eq!(seen(&lab.gateway, &lab.inside, INSIDE), LAN);
    drop(outer);
    // From outside by a rule, and not without one.
    let folder = lab.folder("inside").expect("a folder");
    let _inner = Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server");
    let refused = || {
        let to = SocketAddrV4::new(WAN, 21).into();
        let limit = Duration::from_millis(300);
        let dial = || TcpStream::connect_timeout(&to, limit).is_err();
        lab.outside.enter(dial).expect("a namespace")
    };
    assert!(refused(), "there is no rule yet");
    assert!(gateway.dropped("unsolicited").expect("drops") > 0);
    let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a rule");
    // From the other host inside by the public address, too.
    for client in [&lab.outside, &beside] {
        fetch_both_ways(&lab, &gateway, client, WAN);
    }

    let status = gateway.json(&["status"]).expect("a status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let sides: Vec<_> = interfaces.iter().filter(|it| it["name"] == WAN_DEVICE).collect();
    let roles: Vec<_> = sides.iter().filter_map(|it| it["role"].as_str()).collect();
    assert_eq!(roles, ["wan", "lan"]);
    assert!(sides.iter().all(|it| it["reason"].to_string().contains("both sides")));
    let verdict = |src: Ipv4Addr, dst: Ipv4Addr| {
        let ends = [format!("{src}:5000"), format!("{dst}:443")];
        let words = ["explain", "--protocol", "tcp", "--interface", WAN_DEVICE, &ends[0], &ends[1]];
        gateway.json(&words).expect("an answer")["verdict"].as_str().expect("one").to_owned()
    };
    assert_eq!(verdict(INSIDE, OUTSIDE), "forwarded");
    assert_eq!(verdict(INSIDE, BESIDE), "kernel");
    assert_eq!(verdict(OUTSIDE, WAN), "dropped");
    let seen = untranslated.finish().expect("the capture");
    assert!(seen.is_empty(), "{} packets have left with an inside address", seen.len());
    gateway.end(Signal::SIGTERM).expect("an end");
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}

/// As a NAT instance of a cloud: one private address, in the network of its hosts and of their router.
#[test]
fn one_private_address_is_enough() {
    let Some(binary) = requirements::met_with_binary("a NAT instance") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let beside = one_link(&lab);
    for words in [
        format!("address flush dev {WAN_DEVICE}"),
        format!("address add {LAN}/24 dev {WAN_DEVICE}"),
        format!("route add default via {ROUTER}"),
    ] {
        lab.gateway.ip(&words).expect("set up");
    }
    for words in [
        format!("address replace {ROUTER}/24 dev sw0"),
        "link set lo up".to_owned(),
        format!("address add {FAR}/32 dev lo"),
    ] {
        lab.outside.ip(&words).expect("set up");
    }
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.run(&["--lan", WAN_DEVICE]).expect("a start");
    let settings = Settings::new(Kind::Vsftpd);
    let folder = lab.folder("outside").expect("a folder");
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    for host in [&lab.inside, &beside] {
        fetch_both_ways(&lab, &gateway, host, FAR);
        assert_eq!(seen(host, &lab.outside, FAR), LAN);
    }
    // By a rule, with the address that the far host has.
    let (public, to) = (format!("{LAN}:8080"), format!("{INSIDE}:80"));
    let words = ["forward", "add", "--name", "web", "--protocol", "tcp", "--public", &public];
    gateway
        .call(&[&words[..], &["--to", &to]].concat())
        .expect("a call")
        .checked("add")
        .expect("it");
    let listener = lab
        .inside
        .enter(|| TcpListener::bind((INSIDE, 80)))
        .expect("a namespace")
        .expect("a listener");
    lab.outside.ip(&format!("route add {LAN}/32 dev sw0 src {FAR}")).expect("a route");
    lab.gateway.ip(&format!("route add {FAR}/32 via {ROUTER}")).expect("a route");
    for (client, peer) in [(&lab.outside, FAR), (&beside, LAN)] {
        let _near = connect(client, SocketAddrV4::new(LAN, 8080))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        let far = accept(&listener).expect("it arrives");
        assert_eq!(far.peer_addr().expect("an end").ip(), peer);
    }
}
