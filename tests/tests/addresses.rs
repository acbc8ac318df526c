//! Public addresses that go away: what went by them ends, and says so.

use std::{
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, WAN, WAN_DEVICE},
    netns::Lifetime,
    requirements, session,
    traffic::udp_socket,
    wait,
};
use nix::sys::signal::Signal;

/// Longer than an address may be away.
const LIMIT: Duration = Duration::from_secs(20);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

/// Connections over the gateway; the inside end of each comes first.
struct Connections([[TcpStream; 2]; 2]);

impl Connections {
    fn open(lab: &Lab, gateway: &NatCtl<'_>) -> Self {
        let forward = ["forward", "add", "--name", "all", "--protocol", "tcp"];
        let ends = ["--public", &WAN.to_string(), "--to", &INSIDE.to_string()];
        gateway.call(&[&forward[..], &ends].concat()).expect("a call").checked("add").expect("ok");
        let own = session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
        let [outside, inside] = session::pair(&lab.outside, &lab.inside, WAN).expect("another");
        let mut this = Self([own, [inside, outside]]);
        this.talk();
        this
    }

    /// Bytes go both ways, a different count each, so that no end's number is another's.
    fn talk(&mut self) {
        for [inside, outside] in &mut self.0 {
            session::say(inside, outside, b"from inside").expect("bytes");
            session::say(outside, inside, b"back").expect("bytes");
        }
    }

    /// How each inside end hears of the end, within a time.
    fn hear(&mut self, limit: Duration) -> [ErrorKind; 2] {
        self.0.each_mut().map(|[inside, _]| {
            inside.set_read_timeout(Some(limit)).expect("a limit");
            inside.read(&mut [0; 8]).expect_err("no byte").kind()
        })
    }
}

fn flows_of(gateway: &NatCtl<'_>, public: Ipv4Addr) -> usize {
    let flows = gateway.json(&["flows", "list"]).expect("flows").to_string();
    flows.matches(&format!("\"{public}\"")).count()
}

fn replace_address(lab: &Lab) {
    lab.gateway.ip(&format!("address del {WAN}/24 dev {WAN_DEVICE}")).expect("no address");
    lab.gateway.ip(&format!("address add {OTHER}/24 dev {WAN_DEVICE}")).expect("another");
}

#[test]
fn flows_of_an_address_that_another_took_the_place_of_end_and_inside_hosts_are_told() {
    let Some(binary) = requirements::met_with_binary("an address that changes") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let mut connections = Connections::open(&lab, &gateway);
        let datagrams = udp_socket(&lab.inside, 5000).expect("a socket");
        datagrams.send_to(b"before", (OUTSIDE, 7000)).expect("a datagram");
        wait::until_true(LIMIT, "three flows", || Ok(flows_of(&gateway, WAN) == 3)).expect("flows");
        replace_address(&lab);
        let reset = [ErrorKind::ConnectionReset; 2];
        assert_eq!(connections.hear(LIMIT), reset, "{mode}: {}", gateway.diagnosis());
        assert_eq!(flows_of(&gateway, WAN), 0, "{}", gateway.diagnosis());
        assert!(gateway.output().contains("203.0.113.1 is gone: 3 flows ended"));
        // The same endpoint inside is heard of from the address that there is now.
        let outside = udp_socket(&lab.outside, 7000).expect("a socket");
        datagrams.send_to(b"after", (OUTSIDE, 7000)).expect("a datagram");
        let (_, peer) = outside.recv_from(&mut [0; 8]).expect("the datagram");
        assert_eq!(peer.ip(), OTHER);
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
        gateway.stop().expect("an end");
    }
}

#[test]
fn an_address_that_comes_back_costs_no_flow_and_one_that_does_not_ends_them() {
    let Some(binary) = requirements::met_with_binary("an address that goes") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let mut connections = Connections::open(&lab, &gateway);
    let flap = |away: Duration| {
        lab.gateway.ip(&format!("address del {WAN}/24 dev {WAN_DEVICE}")).expect("no address");
        std::thread::sleep(away);
        lab.gateway.ip(&format!("address add {WAN}/24 dev {WAN_DEVICE}")).expect("an address");
    };
    flap(Duration::from_secs(4));
    connections.talk();
    assert_eq!(flows_of(&gateway, WAN), 2, "{}", gateway.diagnosis());

    let begun = Instant::now();
    lab.gateway.ip(&format!("address del {WAN}/24 dev {WAN_DEVICE}")).expect("no address");
    assert_eq!(connections.hear(LIMIT), [ErrorKind::ConnectionReset; 2], "{}", gateway.diagnosis());
    assert!(begun.elapsed() > Duration::from_secs(8), "it could still have come back");
}

#[test]
fn an_address_that_changes_while_no_agent_looks_is_found_out_by_the_next_one() {
    let Some(binary) = requirements::met_with_binary("an address that changed") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.run(&["--persist"]).expect("a start");
    let mut connections = Connections::open(&lab, &gateway);
    gateway.end(Signal::SIGKILL).expect("a kill");
    replace_address(&lab);
    gateway.run(&["--persist"]).expect("a successor");
    assert_eq!(connections.hear(LIMIT), [ErrorKind::ConnectionReset; 2], "{}", gateway.diagnosis());
}
