//! ICMP errors one by one: what a host is told, and what nobody is.

use crate::{
    common::{
        frame::{ACK, Body, ECHO, ETHERNET, SYN, Spec},
        sums,
    },
    gateway::{self, FAR, Gateway, HOST, LAN, ONE_TO_ONE, OWN, PUBLIC, REMOTE, SERVER, WAN},
};
use nat_common::{flow::Zone, reason::Reason};
use nat_ebpf::host::{self, HostPacket, Verdict};

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
/// A router on the way outside, and one inside.
const ROUTER: [u8; 4] = [198, 51, 100, 2];
const INNER: [u8; 4] = [10, 0, 1, 3];

fn start() -> Gateway {
    gateway::gateway(64, true, Some(PUBLIC))
}

/// Runs a frame through TC; what became of it.
fn send(gateway: &Gateway, zone: Zone, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let mut packet = HostPacket::new(frame.to_vec(), ifindex, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
    (verdict, packet.frame)
}

/// Sends a packet that must be forwarded; the IPv4 packet that leaves.
fn forwarded(gateway: &Gateway, zone: Zone, spec: &Spec) -> Vec<u8> {
    let (verdict, frame) = send(gateway, zone, &spec.build());
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}: {spec:?}");
    frame[ETHERNET..].to_vec()
}

/// An error about `quote`; `said` is its length in words.
fn error(kind: u8, said: u8, src: [u8; 4], dst: [u8; 4], quote: &[u8]) -> Vec<u8> {
    let body = Body::Icmp { kind, identifier: said.into() };
    Spec::of(src, dst, body).with(quote).build()
}

fn source(ip: &[u8]) -> [u8; 4] {
    ip[12..16].try_into().unwrap()
}

/// Everything is right: the header, the message, and what it quotes.
fn is_right(frame: &[u8]) {
    let all = sums::residues(frame);
    assert_eq!((all.network, all.transport), (0, Some(0)));
    assert_eq!(sums::quoted(frame).expect("a quote").network, 0);
}

/// A packet leaves from `zone`; `router` on its way reports it. What its sender gets, and what it
/// should quote: the packet as sent, with the time to live that it left with.
fn reported(gateway: &Gateway, zone: Zone, spec: &Spec, router: [u8; 4]) -> (Vec<u8>, Vec<u8>) {
    let left = forwarded(gateway, zone, spec);
    let error = error(TIME_EXCEEDED, 0, router, source(&left), &left);
    let (verdict, frame) = send(gateway, zone.other(), &error);
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    is_right(&frame);
    let sent = Spec { ttl: spec.ttl - 1, ..spec.clone() };
    (frame, sent.build()[ETHERNET..].to_vec())
}

#[test]
fn a_host_inside_gets_its_own_packet_back_from_a_router_outside() {
    let gateway = start();
    // Mapped to another port, to its own, by its own address.
    forwarded(&gateway, Zone::Inside, &Spec::udp(([10, 0, 1, 3], 40001), (REMOTE, 7)));
    let unsummed = Body::Udp { sport: 40002, dport: 53, summed: false };
    let options = Spec { options: 3, ..Spec::udp((HOST, 40001), (FAR, 33434)).with(b"probe") };
    for spec in [
        Spec::udp((HOST, 40001), (REMOTE, 33434)).with(b"odd"),
        options,
        Spec::of(HOST, REMOTE, unsummed).with(b"question"),
        Spec::tcp((HOST, 5000), (FAR, 80), SYN).with(b"early"),
        Spec::tcp((ONE_TO_ONE, 5000), (FAR, 80), SYN),
        Spec::echo(HOST, REMOTE, ECHO, 40000).with(b"ping"),
        Spec::echo(ONE_TO_ONE, REMOTE, ECHO, 7).with(b"ping"),
    ] {
        let (frame, sent) = reported(&gateway, Zone::Inside, &spec, ROUTER);
        assert_eq!(frame[ETHERNET + 28..], sent, "{spec:?}");
        assert_eq!(source(&frame[ETHERNET..]), ROUTER);
        assert_eq!(frame[ETHERNET + 16..ETHERNET + 20], spec.src);
    }
}

#[test]
fn a_host_outside_gets_its_own_packet_back_from_a_router_inside_whose_address_it_never_sees() {
    let gateway = start();
    for spec in [
        Spec::tcp((REMOTE, 5000), (PUBLIC, 8080), SYN),
        Spec::udp((REMOTE, 5000), (PUBLIC, 5353)).with(b"probe"),
        Spec::udp((FAR, 5000), (OWN, 33434)).with(b"probe"),
        Spec::echo(FAR, OWN, ECHO, 9).with(b"ping"),
    ] {
        let (frame, sent) = reported(&gateway, Zone::Outside, &spec, INNER);
        assert_eq!(frame[ETHERNET + 28..], sent, "{spec:?}");
        assert_eq!(source(&frame[ETHERNET..]), spec.dst);
        assert_eq!(frame[ETHERNET + 16..ETHERNET + 20], spec.src);
    }
}

#[test]
fn an_error_whose_sum_is_wrong_is_dropped_however_long_it_is() {
    let gateway = start();
    let left = forwarded(&gateway, Zone::Inside, &Spec::udp((HOST, 40001), (REMOTE, 9)));
    // Within the first chunk of 512 bytes that is summed up, at its end, behind it, at an odd end.
    for length in [28, 504, 505, 600, 1471, 1472] {
        let mut quote = left.clone();
        quote.resize(length, 7);
        let whole = error(UNREACHABLE, 0, ROUTER, source(&left), &quote);
        let (verdict, frame) = send(&gateway, Zone::Outside, &whole);
        assert!(matches!(verdict, Verdict::Forward(_)), "{length}: {verdict:?}");
        assert_eq!(sums::residues(&frame).transport, Some(0));
        for damaged in [ETHERNET + 20 + 2, whole.len() - 1] {
            let mut damaged_frame = whole.clone();
            damaged_frame[damaged] ^= 0x10;
            let (verdict, frame) = send(&gateway, Zone::Outside, &damaged_frame);
            assert_eq!((verdict, frame), (Verdict::Drop(Reason::IcmpQuote), damaged_frame));
        }
    }
}

#[test]
fn a_quote_whose_own_header_sum_is_wrong_comes_back_as_wrong() {
    let gateway = start();
    let spec = Spec::udp((HOST, 40001), (REMOTE, 9));
    let mut left = forwarded(&gateway, Zone::Inside, &spec);
    // Of a router that quotes another time to live than it has summed up.
    left[8] -= 1;
    let told = error(TIME_EXCEEDED, 0, ROUTER, source(&left), &left);
    let (verdict, frame) = send(&gateway, Zone::Outside, &told);
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    assert_eq!(frame[ETHERNET + 16..ETHERNET + 20], HOST);
    assert_eq!(sums::residues(&frame).transport, Some(0));
    assert_eq!(sums::quoted(&frame).map(|it| it.network), sums::quoted(&told).map(|it| it.network));
}

#[test]
fn an_answer_that_does_not_arrive_is_reported_to_who_has_answered() {
    let gateway = start();
    forwarded(&gateway, Zone::Outside, &Spec::echo(FAR, OWN, ECHO, 9));
    let spec = Spec::echo(ONE_TO_ONE, FAR, 0, 9).with(b"pong");
    let (frame, sent) = reported(&gateway, Zone::Inside, &spec, FAR);
    assert_eq!(frame[ETHERNET + 28..], sent);
}

#[test]
fn a_short_quote_has_its_ports_and_what_follows_a_quote_stays() {
    let gateway = start();
    let spec = Spec::tcp((HOST, 5000), (REMOTE, 80), SYN).with(&[7; 200]);
    let left = forwarded(&gateway, Zone::Inside, &spec);
    let sent = Spec { ttl: 63, ..spec }.build()[ETHERNET..].to_vec();
    let extension = [0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 1, 2, 3, 4];
    for (said, length) in [(0, 28), (0, 36), (0, 38), (7, 28), (32, 128)] {
        let mut quote = left[..length].to_vec();
        let mut wanted = sent[..length].to_vec();
        if said != 0 {
            quote.extend(extension);
            wanted.extend(extension);
        }
        let (verdict, frame) =
            send(&gateway, Zone::Outside, &error(UNREACHABLE, said, ROUTER, PUBLIC, &quote));
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?} of {length}");
        is_right(&frame);
        assert_eq!(frame[ETHERNET + 28..], wanted, "{length} bytes");
    }
}

#[test]
fn an_error_keeps_no_flow_alive_and_ends_none() {
    let gateway = start();
    let left = forwarded(&gateway, Zone::Inside, &Spec::tcp((HOST, 5000), (REMOTE, 80), SYN));
    let before = gateway.memory.state().flows();
    gateway.memory.state().now += 100;
    let frame = error(UNREACHABLE, 0, REMOTE, PUBLIC, &left);
    assert!(matches!(send(&gateway, Zone::Outside, &frame).0, Verdict::Forward(_)));
    assert_eq!(gateway.memory.state().flows(), before);
}

#[test]
fn errors_that_nobody_here_can_have_caused_are_dropped() {
    let gateway = start();
    let left = forwarded(&gateway, Zone::Inside, &Spec::udp((HOST, 40000), (REMOTE, 80)));
    let mut other = left.clone();
    other[19] ^= 1;
    let mut later = left.clone();
    later[7] = 1;
    let cases = [
        (Zone::Outside, PUBLIC, &other, Reason::IcmpUnrelated),
        // For another address than that of the sender of what it quotes.
        (Zone::Outside, OWN, &left, Reason::IcmpUnrelated),
        (Zone::Outside, SERVER, &later, Reason::Unsolicited),
        (Zone::Inside, REMOTE, &left, Reason::IcmpUnrelated),
        (Zone::Inside, REMOTE, &left[..27].to_vec(), Reason::IcmpQuote),
        (Zone::Inside, REMOTE, &later, Reason::IcmpQuote),
    ];
    for (zone, dst, quote, reason) in cases {
        let src = if zone == Zone::Inside { HOST } else { ROUTER };
        let (verdict, _) = send(&gateway, zone, &error(UNREACHABLE, 0, src, dst, quote));
        assert_eq!(verdict, Verdict::Drop(reason));
    }
    // About what the gateway itself has sent: the kernel knows.
    let own = Spec::udp((PUBLIC, 53), (REMOTE, 4000)).build()[ETHERNET..].to_vec();
    let (verdict, _) = send(&gateway, Zone::Outside, &error(3, 0, ROUTER, PUBLIC, &own));
    assert_eq!(verdict, Verdict::Pass);
}

#[test]
fn a_quoted_segment_of_a_control_connection_has_the_number_that_its_sender_gave_it() {
    let gateway = start();
    let syn = Spec::tcp((HOST, 5000), (REMOTE, 21), SYN);
    forwarded(&gateway, Zone::Inside, &syn);
    // The client's lines have grown by 9 bytes.
    let mut state = gateway.memory.state();
    let session = state.sessions.iter_mut().find(|session| session.claimed == 1).unwrap();
    session.copies[0][0] = nat_common::sequence::Corrections::with_base(9);
    drop(state);
    let spec = Spec::tcp((HOST, 5000), (REMOTE, 21), ACK);
    let (frame, sent) = reported(&gateway, Zone::Inside, &spec, ROUTER);
    assert_eq!(frame[ETHERNET + 28..], sent);
}

#[test]
fn what_cannot_go_on_to_the_inside_is_shown_to_the_kernel_and_its_word_goes_out_translated() {
    let gateway = start();
    let ttl = Spec { ttl: 1, ..Spec::udp((REMOTE, 5000), (PUBLIC, 5353)).with(b"probe") };
    let big = Spec::udp((REMOTE, 5001), (PUBLIC, 5353)).with(&[1; 4000]);
    for spec in [ttl, big] {
        let frame = spec.build();
        let (verdict, shown) = send(&gateway, Zone::Outside, &frame);
        assert_eq!(verdict, Verdict::Pass);
        let inside = Spec { dst: [10, 0, 1, 6], body: dnat(&spec, 53), ..spec.clone() }.build();
        assert_eq!(shown, inside);
        // The kernel quotes that much at most (RFC 1812 section 4.3.2.3).
        let quote = &shown[ETHERNET..shown.len().min(ETHERNET + 548)];
        let said = error(TIME_EXCEEDED, 0, PUBLIC, REMOTE, quote);
        let mut packet = HostPacket::new(said, WAN, &gateway.world);
        let tables = &mut gateway.memory.tables();
        assert_eq!(host::outside_egress(&mut packet, tables, 0, 0), Verdict::Pass);
        is_right(&packet.frame);
        assert_eq!(packet.frame[ETHERNET + 28..], frame[ETHERNET..ETHERNET + quote.len()]);
        assert_eq!(source(&packet.frame[ETHERNET..]), PUBLIC);
    }
    // Without a flow to translate it by, an inside address does not leave.
    let quote = Spec::udp((REMOTE, 5000), (HOST, 53)).build()[ETHERNET..].to_vec();
    let said = error(TIME_EXCEEDED, 0, PUBLIC, REMOTE, &quote);
    let mut packet = HostPacket::new(said, WAN, &gateway.world);
    let verdict = host::outside_egress(&mut packet, &mut gateway.memory.tables(), 0, 0);
    assert_eq!(verdict, Verdict::Drop(Reason::IcmpUnrelated));
}

fn dnat(spec: &Spec, port: u16) -> Body {
    match spec.body {
        Body::Udp { sport, summed, .. } => Body::Udp { sport, dport: port, summed },
        _ => panic!("a datagram"),
    }
}
