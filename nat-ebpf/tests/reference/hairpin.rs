//! Inside hosts that dial a public address, one by one.

use crate::{
    common::{
        frame::{ACK, Body, ECHO, ECHO_REPLY, ETHERNET, SYN, Spec, TCP},
        sums,
    },
    gateway::{self, Gateway, HOST, LAN, ONE_TO_ONE, OWN, PUBLIC, REMOTE, SERVER, WAN},
};
use nat_common::{
    expectation::{Expectation, ExpectationKey},
    flow::Zone,
    port::Port,
    punt::Punt,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
};
use nat_ebpf::host::{self, HostPacket, Verdict};

type End = ([u8; 4], u16);

const NEIGHBOUR: [u8; 4] = [10, 0, 1, 3];
/// Behind the forward of port 8080.
const WEB: [u8; 4] = [10, 0, 1, 5];

fn start() -> Gateway {
    gateway::gateway(64, true, Some(PUBLIC))
}

fn send(gateway: &Gateway, spec: &Spec) -> (Verdict, Vec<u8>) {
    let mut packet = HostPacket::new(spec.build(), LAN, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    (verdict, packet.frame)
}

/// A packet from inside comes back to the inside with these ends, and everything right.
fn turns(gateway: &Gateway, spec: &Spec, src: End, dst: End) {
    let (verdict, frame) = send(gateway, spec);
    let Verdict::Forward(hop) = verdict else { panic!("{verdict:?}: {spec:?}") };
    assert_eq!((hop.ifindex, hop.neighbour), (LAN, dst.0));
    let body = match spec.body.clone() {
        Body::Tcp { sequence, acknowledgement, flags, options, .. } => {
            let (sport, dport) = (src.1, dst.1);
            Body::Tcp { sport, dport, sequence, acknowledgement, flags, options }
        }
        Body::Udp { summed, .. } => Body::Udp { sport: src.1, dport: dst.1, summed },
        Body::Icmp { kind, .. } => {
            Body::Icmp { kind, identifier: if kind == ECHO { src.1 } else { dst.1 } }
        }
        Body::Other { .. } => panic!("nothing to translate"),
    };
    let wanted = Spec { src: src.0, dst: dst.0, ttl: spec.ttl - 1, body, ..spec.clone() };
    assert_eq!(frame[ETHERNET..], wanted.build()[ETHERNET..]);
    let right = sums::residues(&frame);
    assert_eq!((right.network, right.transport), (0, Some(0)));
}

#[test]
fn a_forward_leads_neighbours_and_the_host_itself_to_the_host() {
    for client in [HOST, WEB, ONE_TO_ONE] {
        let gateway = start();
        let own = (client, 40001);
        let public = if client == ONE_TO_ONE { (OWN, 40001) } else { (PUBLIC, 40001) };
        let syn = Spec::tcp(own, (PUBLIC, 8080), SYN);
        turns(&gateway, &syn, public, (WEB, 80));
        turns(&gateway, &Spec::tcp((WEB, 80), public, SYN | ACK), (PUBLIC, 8080), own);
        turns(&gateway, &Spec::tcp(own, (PUBLIC, 8080), ACK), public, (WEB, 80));
        assert_eq!(gateway.memory.state().flows().len(), 2);
    }
}

#[test]
fn a_mapping_leads_to_who_has_it_and_the_source_is_the_mapping_of_the_other() {
    let gateway = start();
    for (host, port) in [(HOST, 40000), (NEIGHBOUR, 40001)] {
        send(&gateway, &Spec::udp((host, port), (REMOTE, 3478)));
    }
    let (one, other) = ((HOST, 40000), (NEIGHBOUR, 40001));
    turns(&gateway, &Spec::udp(one, (PUBLIC, 40001)).with(b"hole"), (PUBLIC, 40000), other);
    turns(&gateway, &Spec::udp(other, (PUBLIC, 40000)).with(b"punch"), (PUBLIC, 40001), one);
    // Two packets of one flow, beside the two flows to the outside.
    assert_eq!(gateway.memory.state().flows().len(), 6);
    // To itself there is nothing to tell a packet from its answer by.
    let (verdict, _) = send(&gateway, &Spec::udp(one, (PUBLIC, 40000)));
    assert_eq!(verdict, Verdict::Drop(Reason::TupleTaken));
}

#[test]
fn an_echo_reaches_a_host_with_an_address_of_its_own() {
    let gateway = start();
    turns(&gateway, &Spec::echo(HOST, OWN, ECHO, 40000), (PUBLIC, 40000), (ONE_TO_ONE, 0));
    let reply = Spec::echo(ONE_TO_ONE, PUBLIC, ECHO_REPLY, 40000);
    turns(&gateway, &reply, (OWN, 0), (HOST, 40000));
    turns(&gateway, &Spec::echo(ONE_TO_ONE, OWN, ECHO, 5), (OWN, 5), (ONE_TO_ONE, 0));
}

#[test]
fn an_error_about_it_names_only_the_address_that_was_dialled() {
    let gateway = start();
    let sent = Spec::tcp((HOST, 40001), (PUBLIC, 8080), SYN);
    let (_, left) = send(&gateway, &sent);
    let body = Body::Icmp { kind: 3, identifier: 0 };
    let error = Spec::of(WEB, PUBLIC, body).with(&left[ETHERNET..]);
    let (verdict, frame) = send(&gateway, &error);
    assert!(matches!(verdict, Verdict::Forward(hop) if hop.neighbour == HOST), "{verdict:?}");
    assert_eq!(frame[ETHERNET + 12..ETHERNET + 16], PUBLIC);
    assert_eq!(frame[ETHERNET + 16..ETHERNET + 20], HOST);
    let wanted = Spec { ttl: 63, ..sent }.build();
    assert_eq!(frame[ETHERNET + 28..], wanted[ETHERNET..]);
    assert_eq!(sums::residues(&frame).transport, Some(0));
}

#[test]
fn what_is_for_the_gateway_itself_goes_there_and_what_cannot_turn_is_dropped() {
    let gateway = start();
    for spec in [
        Spec::tcp((HOST, 40001), (PUBLIC, 22), SYN),
        Spec::tcp((HOST, 40001), (PUBLIC, 9999), SYN),
        Spec::udp((HOST, 40001), ([10, 0, 1, 254], 53)),
        Spec::echo(HOST, PUBLIC, ECHO, 7),
    ] {
        assert_eq!(send(&gateway, &spec).0, Verdict::Pass, "{spec:?}");
    }
    let stale = Spec { ttl: 1, ..Spec::tcp((HOST, 40001), (PUBLIC, 8080), SYN) };
    assert_eq!(send(&gateway, &stale).0, Verdict::Drop(Reason::TtlExpired));
    let stray = Spec::tcp((HOST, 40002), (PUBLIC, 8080), ACK);
    assert_eq!(send(&gateway, &stray).0, Verdict::Drop(Reason::NoSyn));
    // Only for 198.51.100.0/24, of which the public address is not.
    let refused = Spec::udp((HOST, 40001), (PUBLIC, 5353));
    assert_eq!(send(&gateway, &refused).0, Verdict::Drop(Reason::NotAllowed));
}

/// What the agent is to tell the sender of a packet that is dropped for this reason.
fn told(gateway: &Gateway, spec: &Spec, reason: Reason) -> Vec<(Punt, Vec<u8>)> {
    let mut packet = HostPacket::new(spec.build(), LAN, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    assert_eq!(verdict, Verdict::Drop(reason), "{spec:?}");
    packet.punted.into_iter().map(|(header, bytes)| (header.kind(), bytes)).collect()
}

#[test]
fn a_host_without_room_for_a_way_to_another_one_is_told_so() {
    let full = gateway::gateway(2, true, Some(PUBLIC));
    let (exhausted, limited) = (start(), start());
    limited.memory.state().settings.flows_per_host = 1;
    send(&full, &Spec::udp((SERVER, 1), (REMOTE, 3478)));
    send(&limited, &Spec::udp((HOST, 1), (REMOTE, 3478)));
    for port in 1..=gateway::POOL.len() as u16 {
        send(&exhausted, &Spec::udp((SERVER, port), (REMOTE, 3478)));
    }
    let syn = Spec::tcp((HOST, 40001), (PUBLIC, 8080), SYN);
    let datagram = Spec::udp((HOST, 40001), (PUBLIC, 40000));
    for (gateway, spec, reason) in [
        (&full, &syn, Reason::TableFull),
        (&limited, &syn, Reason::HostLimit),
        (&exhausted, &datagram, Reason::PortsExhausted),
    ] {
        let wanted = (Punt::Refused, spec.build()[ETHERNET..].to_vec());
        assert_eq!(told(gateway, spec, reason), [wanted]);
        // Who would tell it is gone.
        gateway.memory.state().settings.heartbeat = 0;
        assert_eq!(told(gateway, spec, reason), []);
    }
    // A rule refuses in silence.
    let refused = Spec::udp((HOST, 40001), (PUBLIC, 5353));
    assert_eq!(told(&start(), &refused, Reason::NotAllowed), []);
}

#[test]
fn a_control_connection_by_a_forward_is_inspected() {
    let gateway = start();
    turns(&gateway, &Spec::tcp((HOST, 40001), (PUBLIC, 21), SYN), (PUBLIC, 40001), (SERVER, 21));
    let line = Spec::tcp((HOST, 40001), (PUBLIC, 21), ACK).with(b"PASV\r\n");
    assert_eq!(send(&gateway, &line).0, Verdict::Punted);
}

#[test]
fn an_announced_connection_turns_back_once_with_the_address_of_its_session_and_its_own_port() {
    let gateway = start();
    let (dials, dialled) = ((SERVER, 20), (PUBLIC, 45_000));
    // Another public address than a host behind the first one would be given.
    let (seen, to) = ((OWN, 20), (HOST, 41_000));
    let syn = Spec::tcp(dials, dialled, SYN);
    let session = SessionId::new(9);
    let expect = |life| {
        let mut state = gateway.memory.state();
        let key = ExpectationKey::turning(TCP, dials.0, dialled.0, Port::new(dialled.1));
        let (port, expires) = (Port::new(to.1), state.now + life);
        let value = Expectation::turned(to.0, port, seen.0, session, RuleId::new(3), expires);
        state.expectations.insert(key, value);
    };
    expect(0);
    assert_eq!(send(&gateway, &syn).0, Verdict::Pass, "it has expired");
    expect(30);
    for other in [
        Spec::tcp((HOST, 20), dialled, SYN),
        Spec::tcp(dials, (PUBLIC, 45_001), SYN),
        Spec::tcp(dials, dialled, SYN | ACK),
        Spec::udp(dials, dialled),
    ] {
        assert_eq!(send(&gateway, &other).0, Verdict::Pass, "{other:?}");
    }
    turns(&gateway, &syn, seen, to);
    turns(&gateway, &Spec::tcp(to, seen, SYN | ACK), dialled, dials);
    turns(&gateway, &Spec::tcp(dials, dialled, ACK), seen, to);
    let state = gateway.memory.state();
    assert!(state.expectations.is_empty());
    assert!(state.flows().values().all(|it| it.flow().related_session() == Some(session)));
    drop(state);
    // Another connection needs another announcement.
    assert_eq!(send(&gateway, &Spec::tcp((SERVER, 21), dialled, SYN)).0, Verdict::Pass);
}

#[test]
fn who_dials_from_outside_with_an_inside_address_uses_no_announcement_of_the_inside() {
    let gateway = start();
    let key = ExpectationKey::turning(TCP, SERVER, PUBLIC, Port::new(45_000));
    let (rule, expires) = (RuleId::new(3), gateway.memory.state().now + 30);
    let value =
        Expectation::turned(HOST, Port::new(41_000), PUBLIC, SessionId::new(9), rule, expires);
    gateway.memory.state().expectations.insert(key, value);
    let syn = Spec::tcp((SERVER, 20), (PUBLIC, 45_000), SYN);
    let mut packet = HostPacket::new(syn.build(), WAN, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Outside);
    assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
    assert_eq!(gateway.memory.state().expectations.len(), 1);
}
