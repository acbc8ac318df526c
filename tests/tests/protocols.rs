//! Protocols without ports, by one-to-one NAT: GRE, ESP, SCTP, from raw sockets.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, WAN_SECOND},
    netns::{Lifetime, Namespace},
    requirements,
};
use socket2::{Domain, Protocol, Socket, Type};

const GRE: u8 = 47;
const ESP: u8 = 50;
const SCTP: u8 = 132;
const HEADER: usize = 20;

fn raw(namespace: &Namespace, protocol: u8) -> Socket {
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol))));
    let socket = namespace.enter(open).expect("a namespace").expect("a raw socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    socket
}

/// What is sent to an address arrives as it is, from the address that its sender has there.
fn arrives(from: &Socket, to: Ipv4Addr, at: &Socket, seen_as: Ipv4Addr, length: usize) {
    let payload: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
    from.send_to(&payload, &SocketAddrV4::new(to, 0).into()).expect("a packet");
    let mut packet = vec![0; 4000];
    let got = (&*at).read(&mut packet).unwrap_or_else(|error| panic!("to {to}: {error}"));
    assert_eq!(packet[12..16], seen_as.octets());
    assert_eq!(packet[HEADER..got], payload);
}

#[test]
fn protocols_without_ports_pass_one_to_one_nat_in_both_directions() {
    let Some(binary) = requirements::met_with_binary("other protocols") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Xdp, &binary).expect("a gateway");
    let (public, to) = (WAN_SECOND.to_string(), INSIDE.to_string());
    let words = ["one-to-one", "add", "--name", "vpn", "--public", &public, "--to", &to];
    let inbound = ["--inbound", "gre", "--inbound", "50"];
    gateway.call(&[&words[..], &inbound].concat()).expect("a rule");
    let count = |protocol: &str| {
        let flows = gateway.json(&["flows", "count", "--proto", protocol]).expect("flows");
        flows["count"].as_u64()
    };
    for (protocol, is_let_in) in [(GRE, true), (ESP, true), (SCTP, false)] {
        let [inside, outside] = [&lab.inside, &lab.outside].map(|side| raw(side, protocol));
        let number = protocol.to_string();
        if is_let_in {
            arrives(&outside, WAN_SECOND, &inside, OUTSIDE, 100);
        } else {
            let to = SocketAddrV4::new(WAN_SECOND, 0).into();
            outside.send_to(b"let me in", &to).expect("a packet");
        }
        assert_eq!(count(&number), Some(u64::from(is_let_in)), "{protocol}");
        arrives(&inside, OUTSIDE, &outside, WAN_SECOND, 100);
        arrives(&outside, WAN_SECOND, &inside, OUTSIDE, 33);
        // In pieces.
        arrives(&inside, OUTSIDE, &outside, WAN_SECOND, 3001);
        arrives(&outside, WAN_SECOND, &inside, OUTSIDE, 3001);
        assert_eq!(count(&number), Some(1), "{protocol}\n{}", gateway.diagnosis());
    }
    let flows = gateway.json(&["flows", "list", "--proto", "sctp"]).expect("flows");
    assert_eq!((&flows[0]["protocol"], &flows[0]["rule"]), (&"sctp".into(), &"vpn".into()));
    gateway.stop().expect("an end");
}
