//! Several WANs: what came in by one is answered there, whatever the best route is.
//!
//! ```text
//!                       wan0 203.0.113.1 ---- outside 203.0.113.10, lo 192.0.2.7   (best route)
//!   inside --- gateway
//!                       wan1 198.51.100.1 --- second 198.51.100.10, lo 192.0.2.7
//! ```
//!
//! The same remote host stands behind both: who answers tells by which WAN a packet has left.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener},
    path::Path,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, WAN, WAN_DEVICE},
    link::{self, End},
    netns::{Lifetime, Namespace},
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{self, Session},
};

const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const SECOND_DEVICE: &str = "wan1";
const SECOND_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// In the network of the second WAN; no interface has it.
const OF_THE_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
/// Led to the gateway by both providers.
const ROUTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

fn second_way_out(lab: &Lab) -> Namespace {
    let second = Namespace::new(lab.name(), "second", Lifetime::Run).expect("a namespace");
    let [wan, router] = [SECOND_WAN, SECOND_ROUTER].map(|address| format!("{address}/24"));
    link::connect(
        End { namespace: &lab.gateway, name: SECOND_DEVICE, addresses: &[&wan] },
        End { namespace: &second, name: "out1", addresses: &[&router] },
    )
    .expect("a second link");
    link::receive_redirected(&second, "out1").expect("NAPI");
    for words in [
        format!("route add default via {OUTSIDE} dev {WAN_DEVICE} metric 100"),
        format!("route add default via {SECOND_ROUTER} dev {SECOND_DEVICE} metric 200"),
    ] {
        lab.gateway.ip(&words).expect("a route");
    }
    for (namespace, device, through) in [(&lab.outside, "out0", WAN), (&second, "out1", SECOND_WAN)]
    {
        for words in [
            "link set lo up".to_owned(),
            format!("address add {REMOTE}/32 dev lo"),
            format!("route add {through}/32 dev {device} src {REMOTE}"),
            format!("route add {ROUTED}/32 via {through} src {REMOTE}"),
        ] {
            namespace.ip(&words).expect("a far host");
        }
    }
    second
}

fn forward(gateway: &NatCtl<'_>, words: &[&str]) {
    let inside = INSIDE.to_string();
    let all = [&["forward", "add", "--to", &inside], words].concat();
    gateway.call(&all).expect("a call").checked("add").expect("a rule");
}

/// From which address the inside host is seen, and who sees it.
fn seen_by(lab: &Lab, second: &Namespace) -> (&'static str, IpAddr) {
    let port = 7100;
    let listen = |namespace: &Namespace| {
        let listener = namespace.enter(|| TcpListener::bind((REMOTE, port)));
        let listener = listener.expect("enter").expect("a listener");
        listener.set_nonblocking(true).expect("no waiting");
        listener
    };
    let listeners = [("first", listen(&lab.outside)), ("second", listen(second))];
    let _near =
        session::connect(&lab.inside, SocketAddrV4::new(REMOTE, port)).expect("a connection");
    let seen = listeners.iter().find_map(|(name, listener)| {
        let (_, from) = listener.accept().ok()?;
        Some((*name, from.ip()))
    });
    seen.expect("one of them has it")
}

/// What turns back leaves by no WAN, whatever their routes are: FTP in both modes, by each address.
fn hairpin(lab: &Lab, gateway: &NatCtl<'_>) {
    for address in [WAN, SECOND_WAN] {
        let mut session = Session::open(&lab.inside, address)
            .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
        for digest in [session.fetch_active(FILE), session.fetch_passive(FILE)] {
            let digest =
                digest.unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
            assert_eq!(digest, lab.payload.sha256);
        }
    }
}

fn answers_leave_where_the_question_came_in(mode: Mode, binary: &Path) {
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let second = second_way_out(&lab);
    let settings = Settings::new(Kind::Vsftpd);
    let folder = lab.folder("server").expect("a folder");
    let _server = Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server");
    let mut gateway = NatCtl::prepare(&lab, mode, binary).expect("a gateway");
    gateway.run(&["--wan", SECOND_DEVICE]).expect("a start");

    for public in [WAN_DEVICE, SECOND_DEVICE] {
        forward(&gateway, &["--name", public, "--protocol", "tcp", "--public", public]);
    }
    let say = |[near, far]: &mut [std::net::TcpStream; 2]| {
        session::say(near, far, b"a question").expect("it arrives");
        session::say(far, near, b"an answer").expect("it comes back");
    };
    let mut by_first = session::pair(&lab.outside, &lab.inside, WAN).expect("a connection");
    let mut by_second = session::pair(&second, &lab.inside, SECOND_WAN).expect("a connection");
    assert_eq!(by_second[1].peer_addr().expect("an end").ip(), REMOTE, "not a neighbour");
    say(&mut by_first);
    say(&mut by_second);
    // Routes change while they talk.
    let other = format!("{OUTSIDE} dev {WAN_DEVICE} metric 50");
    lab.gateway.ip(&format!("route add default via {other}")).expect("a better route");
    say(&mut by_first);
    say(&mut by_second);

    // FTP: segments that the agent sends, and data connections both ways.
    hairpin(&lab, &gateway);
    let mut session = Session::open(&second, SECOND_WAN).expect("a session");
    session
        .fetch_both_ways(FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));

    // Who dials out leaves by the best route, with the address of that.
    assert_eq!(seen_by(&lab, &second), ("first", WAN.into()), "{}", gateway.diagnosis());
    // A rule of the kernel leads a host to the other one.
    for words in [
        format!("route add default via {SECOND_ROUTER} dev {SECOND_DEVICE} table 200"),
        format!("rule add from {INSIDE} lookup 200 pref 100"),
    ] {
        lab.gateway.ip(&words).expect("a rule");
    }
    assert_eq!(seen_by(&lab, &second), ("second", SECOND_WAN.into()));
    lab.gateway.ip("rule del pref 100").expect("no rule");
    assert_eq!(seen_by(&lab, &second), ("first", WAN.into()));

    // An address of its own leaves by the WAN in whose network it lies.
    let [public, inside] = [OF_THE_HOST, INSIDE].map(|address| address.to_string());
    let words = ["one-to-one", "add", "--name", "host", "--public", &public];
    let all = [&words[..], &["--to", &inside]].concat();
    gateway.call(&all).expect("a call").checked("add").expect("a rule");
    assert_eq!(seen_by(&lab, &second), ("second", OF_THE_HOST.into()), "{}", gateway.diagnosis());
    gateway.call(&["one-to-one", "remove", "host"]).expect("a call").checked("remove").expect("ok");

    // An address that no WAN has, by the uplink that is named.
    let routed = ROUTED.to_string();
    let words = ["--name", "routed", "--protocol", "tcp", "--public", &routed];
    forward(&gateway, &[&words[..], &["--uplink", SECOND_DEVICE]].concat());
    let mut by_uplink = session::pair(&second, &lab.inside, ROUTED).expect("a connection");
    say(&mut by_uplink);
    let shown = gateway.json(&["forward", "show", "routed"]).expect("the rule");
    assert_eq!(shown["uplink"], SECOND_DEVICE);
    gateway.end(nix::sys::signal::Signal::SIGTERM).expect("an end");
}

#[test]
fn answers_of_two_wans_leave_where_the_question_came_in() {
    let Some(binary) = requirements::met_with_binary("two WANs") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        answers_leave_where_the_question_came_in(mode, &binary);
    }
}
