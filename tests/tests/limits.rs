//! As many flows as one inside host may open, and as many public ports as it may have, and nobody else's.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    netns::Lifetime,
    requirements,
    traffic::{udp_socket, udp_socket_at},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);
const MOST: u16 = 20;
const PORTS: u16 = 3;
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
/// Behind a forward, on the host that is at its limit.
const SERVICE: u16 = 8053;
const REMOTE: u16 = 7000;

/// A datagram outside and back.
fn passes(from: &UdpSocket, outside: &UdpSocket, text: &str) {
    from.send_to(text.as_bytes(), (OUTSIDE, REMOTE)).expect("a datagram");
    let mut buffer = [0; 100];
    let (length, peer) = outside.recv_from(&mut buffer).expect("a datagram outside");
    assert_eq!((peer.ip(), &buffer[..length]), (WAN.into(), text.as_bytes()));
    outside.send_to(&buffer[..length], peer).expect("an answer");
    let length = from.recv(&mut buffer).expect("an answer inside");
    assert_eq!(&buffer[..length], text.as_bytes());
}

/// What `hosts list` says of a host.
fn host(gateway: &NatCtl<'_>, address: Ipv4Addr) -> anyhow::Result<Option<Value>> {
    let hosts = gateway.json(&["hosts", "list"])?;
    let is_it = |host: &&Value| host["host"] == address.to_string();
    Ok(hosts.as_array().and_then(|hosts| hosts.iter().find(is_it)).cloned())
}

fn has_flows(gateway: &NatCtl<'_>, address: Ipv4Addr, flows: u64) {
    wait::until_true(LIMIT, "a count", || {
        Ok(host(gateway, address)?.is_some_and(|host| host["flows"] == flows))
    })
    .unwrap_or_else(|error| panic!("{flows} of {address}: {error:#}\n{}", gateway.diagnosis()));
}

fn opens_nothing_more_and_all_else_goes_on(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("limits by host") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    lab.inside.ip(&format!("addr add {NEIGHBOUR}/24 dev {INSIDE_DEVICE}")).expect("a host");
    let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
    let tables = format!(
        "[limits]\nflows_per_host = {MOST}\n[[forward]]\nname = \"s\"\nprotocol = \"udp\"\n\
             public = \"{WAN}:{SERVICE}\"\nto = \"{INSIDE}:{SERVICE}\"\n"
    );
    gateway.configure(&tables).expect("a configuration");
    gateway.run(&[]).expect("a start");
    let folder = lab.folder("capture").expect("a folder");
    let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");
    let outside = udp_socket(&lab.outside, REMOTE).expect("a socket");
    let sockets: Vec<UdpSocket> = (0..=MOST)
        .map(|n| udp_socket_at(&lab.inside, SocketAddrV4::new(INSIDE, 31_000 + n)).expect("one"))
        .collect();
    let (last, others) = sockets.split_last().expect("sockets");
    let refused =
        |more: u64| {
            let before = gateway.dropped("host-limit").expect("counters");
            last.send_to(b"one too many", (OUTSIDE, REMOTE)).expect("a datagram");
            wait::until_true(LIMIT, "a refusal", || {
                Ok(gateway.dropped("host-limit")? == before + more)
            })
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        };
    // To the last one that it may have.
    for (n, socket) in others.iter().enumerate() {
        passes(socket, &outside, &format!("flow {n}"));
    }
    refused(1);
    let seen = host(&gateway, INSIDE).expect("hosts").expect("the host");
    assert_eq!((&seen["flows"], &seen["limit"]), (&Value::from(MOST), &Value::from(MOST)));
    assert_eq!(seen["refused"], 1, "{seen}");
    // It hears so, to whomever it would lead.
    for (n, to) in [(0, (OUTSIDE, REMOTE)), (1, (WAN, SERVICE))] {
        let socket = udp_socket_at(&lab.inside, SocketAddrV4::new(INSIDE, 32_000 + n));
        let socket = socket.expect("one");
        socket.connect(to).expect("a destination");
        socket.send(b"one too many").expect("a datagram");
        // The kernel takes "administratively prohibited" for this (icmp_err_convert).
        let told = socket.recv(&mut [0; 20]).expect_err("an error");
        assert_eq!(told.kind(), ErrorKind::HostUnreachable, "{mode}, {to:?}: {told}");
    }
    // Its flows go on, those that others open, and those that lead to it.
    passes(&others[0], &outside, "goes on");
    let neighbour = udp_socket_at(&lab.inside, SocketAddrV4::new(NEIGHBOUR, 0)).expect("one");
    passes(&neighbour, &outside, "of the neighbour");
    let service =
        udp_socket_at(&lab.inside, SocketAddrV4::new(INSIDE, SERVICE)).expect("a service");
    let mut buffer = [0; 100];
    for n in 0..u64::from(MOST) + 1 {
        let client = udp_socket(&lab.outside, 0).expect("a socket");
        client.send_to(&n.to_be_bytes(), (WAN, SERVICE)).expect("a datagram");
        let (length, _) = service.recv_from(&mut buffer).expect("a datagram inside");
        assert_eq!(buffer[..length], n.to_be_bytes());
    }
    let status = wait::until(LIMIT, "a state of overload", || {
        last.send_to(b"one too many", (OUTSIDE, REMOTE))?;
        let status = gateway.json(&["status"])?;
        Ok((status["overload"][0]["state"] == "host-limit").then_some(status))
    })
    .expect("a state");
    assert_eq!(status["overload"][0]["hosts"][0], INSIDE.to_string(), "{status}");
    // A successor counts what there is.
    gateway.end(Signal::SIGKILL).expect("a kill");
    gateway.run(&[]).expect("a successor");
    has_flows(&gateway, INSIDE, MOST.into());
    // What ends makes room, and no more than that.
    let deleted = gateway.json(&["flows", "delete", "--sport", "31000"]).expect("an end");
    assert_eq!(deleted["count"], 1, "{deleted}");
    has_flows(&gateway, INSIDE, u64::from(MOST) - 1);
    has_flows(&gateway, NEIGHBOUR, 1);
    passes(last, &outside, "there is room");
    others[0].send_to(b"one too many", (OUTSIDE, REMOTE)).expect("a datagram");
    has_flows(&gateway, INSIDE, MOST.into());
    for frame in capture.finish().expect("a capture") {
        assert!(!frame.names(is_inside), "{mode}: an inside address outside: {frame:?}");
        assert!(!frame.says("one too many"), "{mode}: refused, and it left");
    }
    gateway.stop().expect("an end");
}

fn takes_no_other_port_and_all_else_goes_on(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("ports by host") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    lab.inside.ip(&format!("addr add {NEIGHBOUR}/24 dev {INSIDE_DEVICE}")).expect("a host");
    let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
    gateway.configure(&format!("[limits]\nports_per_host = {PORTS}\n")).expect("a configuration");
    gateway.run(&[]).expect("a start");
    let [outside, elsewhere] =
        [REMOTE, REMOTE + 1].map(|port| udp_socket(&lab.outside, port).expect("a socket"));
    let sockets: Vec<UdpSocket> = (0..=PORTS)
        .map(|n| udp_socket_at(&lab.inside, SocketAddrV4::new(INSIDE, 31_000 + n)).expect("one"))
        .collect();
    let (last, others) = sockets.split_last().expect("sockets");
    for (n, socket) in others.iter().enumerate() {
        passes(socket, &outside, &format!("port {n}"));
    }
    last.connect((OUTSIDE, REMOTE)).expect("a destination");
    last.send(b"one too many").expect("a datagram");
    let told = last.recv(&mut [0; 20]).expect_err("an error");
    assert_eq!(told.kind(), ErrorKind::HostUnreachable, "{mode}: {told}");
    assert_eq!(gateway.dropped("host-limit").expect("counters"), 1);
    let seen = host(&gateway, INSIDE).expect("hosts").expect("the host");
    let (ports, limit) = (&seen["ports"], &seen["ports_limit"]);
    assert_eq!((ports, limit), (&Value::from(PORTS), &Value::from(PORTS)), "{seen}");
    assert_eq!(
        (&seen["flows"], &seen["refused"]),
        (&Value::from(PORTS), &Value::from(1)),
        "{seen}"
    );
    // A port that it has leads anywhere, and others have their own.
    others[0].send_to(b"elsewhere", (OUTSIDE, REMOTE + 1)).expect("a datagram");
    let (length, peer) = elsewhere.recv_from(&mut [0; 20]).expect("a datagram outside");
    assert_eq!((length, peer), (9, (WAN, 31_000).into()));
    for _ in 0..=PORTS {
        let neighbour = udp_socket_at(&lab.inside, SocketAddrV4::new(NEIGHBOUR, 0)).expect("one");
        passes(&neighbour, &outside, "of the neighbour");
        // The limit is that of each host.
        if host(&gateway, NEIGHBOUR).expect("hosts").expect("it")["ports"] == PORTS {
            break;
        }
    }
    // A successor counts what there is; a port that is given back makes room.
    gateway.end(Signal::SIGKILL).expect("a kill");
    gateway.run(&[]).expect("a successor");
    let deleted = gateway.json(&["flows", "delete", "--sport", "31001"]).expect("an end");
    assert_eq!(deleted["count"], 1, "{deleted}");
    wait::until_true(3 * LIMIT, "a port that is given back", || {
        Ok(host(&gateway, INSIDE)?.is_some_and(|host| host["ports"] == PORTS - 1))
    })
    .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
    passes(last, &outside, "there is room");
    others[1].connect((OUTSIDE, REMOTE)).expect("a destination");
    others[1].send(b"one too many").expect("a datagram");
    assert!(others[1].recv(&mut [0; 20]).is_err(), "{mode}: the port is another's now");
    gateway.stop().expect("an end");
}

#[test]
fn a_host_with_all_its_ports_takes_no_other_and_all_else_goes_on() {
    takes_no_other_port_and_all_else_goes_on(Mode::Tc);
}

#[test]
fn a_host_with_all_its_ports_takes_no_other_in_xdp_either() {
    takes_no_other_port_and_all_else_goes_on(Mode::Xdp);
}

#[test]
fn a_host_at_its_limit_opens_nothing_more_and_all_else_goes_on() {
    opens_nothing_more_and_all_else_goes_on(Mode::Tc);
}

#[test]
fn the_same_where_xdp_makes_its_flows() {
    opens_nothing_more_and_all_else_goes_on(Mode::Xdp);
}
