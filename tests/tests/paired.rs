//! Inside hosts shared out among several public addresses: each keeps its own (RFC 4787 REQ-2).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN, Lab, OUTSIDE, WAN, WAN_DEVICE},
    netns::Lifetime,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session,
    traffic::{udp_socket, udp_socket_at},
    wait,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
/// In the network of the WAN; no interface has them.
const NAMED: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 60), Ipv4Addr::new(203, 0, 113, 61)];
/// The addresses of the inside host, which stand for as many hosts.
const HOSTS: [Ipv4Addr; 3] = [INSIDE, Ipv4Addr::new(10, 0, 1, 3), Ipv4Addr::new(10, 0, 1, 4)];

/// From here on the inside host dials with this address.
fn dial_as(lab: &Lab, host: Ipv4Addr) {
    lab.inside.ip(&format!("route replace default via {LAN} src {host}")).expect("a route");
}

/// From where a connection of `host` arrives outside.
fn seen(lab: &Lab, host: Ipv4Addr) -> IpAddr {
    dial_as(lab, host);
    let [_inside, outside] =
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    outside.peer_addr().expect("an end").ip()
}

/// From where a datagram of `host` arrives outside.
fn seen_by_udp(lab: &Lab, host: Ipv4Addr) -> IpAddr {
    let outside = udp_socket(&lab.outside, 7000).expect("a socket");
    let inside = udp_socket_at(&lab.inside, SocketAddrV4::new(host, 7000)).expect("a socket");
    inside.send_to(b"who am I?", (OUTSIDE, 7000)).expect("a datagram");
    let (_length, SocketAddr::V4(from)) = outside.recv_from(&mut [0; 64]).expect("it arrives")
    else {
        panic!("not IPv4");
    };
    (*from.ip()).into()
}

#[test]
fn each_host_keeps_its_public_address_and_so_do_its_ftp_sessions() {
    let Some(binary) = requirements::met_with_binary("several public addresses") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    for host in &HOSTS[1..] {
        lab.inside.ip(&format!("address add {host}/24 dev {INSIDE_DEVICE}")).expect("an address");
    }
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    let mut gateway = NatCtl::prepare(&lab, Mode::Xdp, &binary).expect("a gateway");
    gateway
        .configure("[masquerade]\naddresses = [\"203.0.113.60-203.0.113.61\"]\n")
        .expect("a configuration");
    gateway.run(&[]).expect("a start");

    let publics = HOSTS.map(|host| seen(&lab, host));
    assert_eq!(BTreeSet::from(publics), NAMED.map(IpAddr::from).into(), "{}", gateway.diagnosis());
    assert_eq!(publics[0], publics[2], "one after the other");
    for (host, public) in HOSTS.into_iter().zip(publics) {
        assert_eq!(seen_by_udp(&lab, host), public);
        let asked = [format!("{host}:5000"), format!("{OUTSIDE}:443")];
        let told = gateway.json(&["explain", "--protocol", "tcp", &asked[0], &asked[1]]);
        assert_eq!(told.expect("an answer")["leaves"]["src"], public.to_string());
        // The server refuses data connections that are not of the address of the control connection.
        dial_as(&lab, host);
        session::fetch_both_ways(&lab.inside, OUTSIDE, FILE, &lab.payload.sha256)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    }
    // The gateway itself dials from its own address.
    let [_own, outside] = session::pair(&lab.gateway, &lab.outside, OUTSIDE).expect("a connection");
    assert_eq!(outside.peer_addr().expect("an end").ip(), WAN);

    // One is taken away: its hosts have the other one until it is back.
    let theirs = HOSTS[1];
    let lost = publics[1];
    lab.gateway.ip(&format!("address del {lost}/32 dev {WAN_DEVICE}")).expect("none");
    lab.gateway.ip(&format!("address add {lost}/32 dev lo")).expect("it is elsewhere");
    wait::until_true(LIMIT, "the other address", || Ok(seen(&lab, theirs) == publics[0]))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    assert_eq!(seen(&lab, INSIDE), publics[0], "its own hosts stay");
    lab.gateway.ip(&format!("address del {lost}/32 dev lo")).expect("none");
    wait::until_true(LIMIT, "its own address", || Ok(seen(&lab, theirs) == lost))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    gateway.end(Signal::SIGTERM).expect("an end");
    let left = lab.gateway.ip(&format!("-o address show dev {WAN_DEVICE}")).expect("addresses");
    assert!(!NAMED.iter().any(|address| left.contains(&address.to_string())), "{left}");
}
