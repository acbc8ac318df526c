//! Public addresses of rules that the gateway does not have: it gives them to itself.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    netns::{Lifetime, Namespace},
    requirements, session, wait,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
/// In the network of the WAN; no interface has them.
const FORWARDED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 40);
const HOSTS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 41);
const TAKEN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);

fn forward(gateway: &NatCtl<'_>, name: &str, public: Ipv4Addr) {
    let words = ["forward", "add", "--name", name, "--protocol", "tcp", "--public"];
    let [public, inside] = [public, INSIDE].map(|address| address.to_string());
    let ends = [public.as_str(), "--to", &inside];
    gateway.call(&[&words[..], &ends].concat()).expect("a call").checked("add").expect("a rule");
}

/// Which of the addresses above the WAN has.
fn added(lab: &Lab) -> Vec<Ipv4Addr> {
    let list = lab.gateway.ip(&format!("-o address show dev {WAN_DEVICE}")).expect("addresses");
    let mut all = vec![FORWARDED, HOSTS, TAKEN];
    all.retain(|address| list.contains(&format!(" {address}/32 scope link")));
    all
}

/// The address from which a connection of the inside host arrives.
fn seen_outside(lab: &Lab) -> Ipv4Addr {
    let [_, outside] = session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    match outside.peer_addr().expect("an end").ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address}"),
    }
}

fn neighbour(of: &Namespace, address: Ipv4Addr, device: &str) -> String {
    of.ip(&format!("neighbour show {address} dev {device}")).expect("a neighbour")
}

#[test]
fn a_rule_brings_its_address_along_and_takes_it_away() {
    let Some(binary) = requirements::met_with_binary("addresses of rules") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
        gateway.run(&[]).expect("a start");
        forward(&gateway, "web", FORWARDED);
        let [hosts, inside] = [HOSTS, INSIDE].map(|address| address.to_string());
        let host = ["one-to-one", "add", "--name", "host", "--public", &hosts];
        let to = ["--to", &inside, "--inbound", "tcp"];
        gateway.call(&[&host[..], &to].concat()).expect("a call").checked("add").expect("a rule");
        assert_eq!(added(&lab), [FORWARDED, HOSTS]);
        for public in [FORWARDED, HOSTS] {
            session::pair(&lab.outside, &lab.inside, public).expect("a connection from outside");
        }
        assert_eq!(seen_outside(&lab), HOSTS, "{}", gateway.diagnosis());
        // The gateway itself dials from its own address.
        let listener =
            lab.outside.enter(|| TcpListener::bind((OUTSIDE, 7001))).expect("enter").expect("bind");
        session::connect(&lab.gateway, std::net::SocketAddrV4::new(OUTSIDE, 7001)).expect("dial");
        assert_eq!(session::accept(&listener).expect("it").peer_addr().expect("end").ip(), WAN);
        // Somebody empties the interface, as DHCP clients do.
        for address in [FORWARDED, HOSTS] {
            lab.gateway.ip(&format!("address del {address}/32 dev {WAN_DEVICE}")).expect("none");
        }
        wait::until_true(LIMIT, "both again", || Ok(added(&lab).len() == 2)).expect("both again");
        let removed = gateway.call(&["one-to-one", "remove", "host"]).expect("a call");
        removed.checked("remove").expect("no rule");
        assert_eq!(added(&lab), [FORWARDED]);
        assert_eq!(seen_outside(&lab), WAN, "{}", gateway.diagnosis());
        gateway.end(Signal::SIGTERM).expect("an end");
        assert_eq!(added(&lab), Vec::<Ipv4Addr>::new());
        // The rule of the command line is in the state file.
        gateway.run(&[]).expect("another start");
        assert_eq!(added(&lab), [FORWARDED]);
        session::pair(&lab.outside, &lab.inside, FORWARDED).expect("a connection from outside");
        gateway.end(Signal::SIGKILL).expect("a death");
        assert_eq!(added(&lab), [FORWARDED]);
        gateway.call(&["down"]).expect("a call").checked("down").expect("nothing left");
        assert_eq!(added(&lab), Vec::<Ipv4Addr>::new());
    }
}

#[test]
fn neighbours_hear_of_an_address_that_another_gateway_had() {
    let Some(binary) = requirements::met_with_binary("an announcement") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let old = format!("{FORWARDED} lladdr 02:00:00:00:00:99 nud reachable dev {OUTSIDE_DEVICE}");
    lab.outside.ip(&format!("neighbour replace {old}")).expect("a neighbour");
    // Within a second of the last change a neighbour takes no other one (locktime of the kernel).
    std::thread::sleep(Duration::from_millis(1500));
    forward(&gateway, "web", FORWARDED);
    wait::until_true(LIMIT, "the other link address", || {
        Ok(!neighbour(&lab.outside, FORWARDED, OUTSIDE_DEVICE).contains("02:00:00:00:00:99"))
    })
    .expect("the neighbour follows");
    session::pair(&lab.outside, &lab.inside, FORWARDED).expect("a connection from outside");
}

#[test]
fn an_address_that_another_station_has_stays_there() {
    let Some(binary) = requirements::met_with_binary("an address of a neighbour") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    lab.outside.ip(&format!("address add {TAKEN}/32 dev {OUTSIDE_DEVICE}")).expect("an address");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let mut ping = lab.gateway.command("ping");
    assert!(
        ping.args(["-c", "1", "-W", "5", &TAKEN.to_string()])
            .output()
            .expect("ping")
            .status
            .success()
    );
    forward(&gateway, "theirs", TAKEN);
    assert_eq!(added(&lab), Vec::<Ipv4Addr>::new());
    let said =
        format!("the configuration names {TAKEN}, which another station of {WAN_DEVICE} has");
    assert!(gateway.output().contains(&said), "{}", gateway.output());
    let findings = gateway.call(&["doctor"]).expect("a call").stdout;
    assert!(findings.contains("no interface here has it"), "{findings}");
    assert!(findings.contains(&format!("ip neighbour show {TAKEN}")), "{findings}");
}
