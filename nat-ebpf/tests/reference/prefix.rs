//! Prefixes that are translated (RFC 6296): what the inside and the outside see of each other's packets.
//!
//! Invariant of every packet here: its sum from the source address on stays, so every checksum does.

use crate::{
    common::{
        frame::{ACK, SYN},
        six::{
            GATEWAY6, HOST6, HOST6_OUTSIDE, LAN6, LAN6_OUTSIDE, NEIGHBOUR6, NEIGHBOUR6_OUTSIDE,
            ONES6, ONES6_OUTSIDE, REMOTE6, datagram, fragment, frame, icmp, line, prefixes, quote,
            tcp, udp,
        },
        sums::sum,
    },
    gateway::{self, Gateway, LAN, OTHER, PUBLIC, WAN},
};
use nat_common::{
    counter::Counter,
    flow::{self, Zone},
    port::Port,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
    six::{Address6, Control6, Endpoint6, Opening, Prefix, PrefixKey},
};
use nat_ebpf::{
    host::{self, HostPacket, Verdict},
    six::Course,
};

const ECHO: u8 = 128;
const TOO_BIG: u8 = 2;
const UNREACHABLE: u8 = 1;

const HERE: (Address6, u16) = (HOST6, 5000);
const HERE_OUTSIDE: (Address6, u16) = (HOST6_OUTSIDE, 5000);
const THERE: (Address6, u16) = (REMOTE6, 80);

fn start() -> Gateway {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let mut state = gateway.memory.state();
    state.prefixes = prefixes();
    state.settings.prefixes = 1;
    drop(state);
    gateway
}

/// What the kernel gets to see of a frame that arrives.
fn arrive(gateway: &Gateway, zone: Zone, frame: &[u8]) -> Result<Vec<u8>, Reason> {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let mut packet = HostPacket::new(frame.to_vec(), ifindex, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
    kept(frame, packet, verdict)
}

/// What leaves of a frame by an interface.
fn leave_by(gateway: &Gateway, ifindex: u32, frame: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut packet = HostPacket::new(frame.to_vec(), ifindex, &gateway.world);
    let verdict = host::outside_egress(&mut packet, &mut gateway.memory.tables(), LAN, 0);
    kept(frame, packet, verdict)
}

fn kept(before: &[u8], packet: HostPacket<'_, true>, verdict: Verdict) -> Result<Vec<u8>, Reason> {
    let residue = |frame: &[u8]| sum(&frame[22..]) % 0xffff;
    assert_eq!(residue(&packet.frame), residue(before), "the sum stays");
    match verdict {
        Verdict::Drop(reason) => Err(reason),
        Verdict::Punted => {
            assert_eq!(packet.punted[0].1, packet.frame[14..], "what the agent reads");
            Ok(packet.frame)
        }
        Verdict::Pass => Ok(packet.frame),
        Verdict::Forward(_) => panic!("{verdict:?}"),
    }
}

/// A frame from inside, as the outside gets it.
fn out(gateway: &Gateway, frame: &[u8]) -> Result<Vec<u8>, Reason> {
    let routed = arrive(gateway, Zone::Inside, frame)?;
    assert_eq!(routed, frame, "the kernel routes it by the inside address");
    leave_by(gateway, WAN, &routed)
}

/// A frame from outside, as the inside gets it.
fn back(gateway: &Gateway, frame: &[u8]) -> Result<Vec<u8>, Reason> {
    arrive(gateway, Zone::Outside, frame)
}

#[test]
fn each_side_sees_the_addresses_that_it_knows() {
    let gateway = start();
    assert_eq!(back(&gateway, &udp(THERE, HERE_OUTSIDE)), Err(Reason::Unsolicited));
    let echo = |src, dst| icmp(src, dst, ECHO, 7, b"");
    for (here, there) in [
        (tcp(HERE, THERE, SYN), tcp(HERE_OUTSIDE, THERE, SYN)),
        (udp(HERE, THERE), udp(HERE_OUTSIDE, THERE)),
        (echo(HOST6, REMOTE6), echo(HOST6_OUTSIDE, REMOTE6)),
        (frame(HOST6, REMOTE6, 50, b"esp"), frame(HOST6_OUTSIDE, REMOTE6, 50, b"esp")),
    ] {
        assert_eq!(out(&gateway, &here), Ok(there));
    }
    let reply = |src, dst| icmp(src, dst, ECHO + 1, 7, b"");
    for (there, here) in [
        (tcp(THERE, HERE_OUTSIDE, SYN | ACK), tcp(THERE, HERE, SYN | ACK)),
        (udp(THERE, HERE_OUTSIDE), udp(THERE, HERE)),
        (reply(REMOTE6, HOST6_OUTSIDE), reply(REMOTE6, HOST6)),
        (frame(REMOTE6, HOST6_OUTSIDE, 50, b"esp"), frame(REMOTE6, HOST6, 50, b"esp")),
    ] {
        assert_eq!(back(&gateway, &there), Ok(here));
    }
    let state = gateway.memory.state();
    assert_eq!(state.flows6.len(), 4);
    assert!(state.flows6.keys().all(|key| key.inside() == HOST6), "by inside addresses");
}

#[test]
fn without_a_pair_nothing_is_rewritten() {
    let gateway = start();
    gateway.memory.state().settings.prefixes = 0;
    let syn = tcp(HERE, THERE, SYN);
    assert_eq!(out(&gateway, &syn), Ok(syn));
    let answer = tcp(THERE, HERE, SYN | ACK);
    assert_eq!(back(&gateway, &answer), Ok(answer));
    assert_eq!(back(&gateway, &udp(THERE, HERE_OUTSIDE)), Err(Reason::Unsolicited));
}

#[test]
fn a_rule_of_an_inside_host_is_reached_by_its_public_address() {
    let gateway = start();
    let end = Endpoint6::new(flow::TCP, HOST6, Port::new(5000));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), 0));
    let syn = tcp(THERE, HERE_OUTSIDE, SYN);
    assert_eq!(back(&gateway, &syn), Ok(tcp(THERE, HERE, SYN)));
    let neighbour = tcp(THERE, (NEIGHBOUR6_OUTSIDE, 5000), SYN);
    assert_eq!(back(&gateway, &neighbour), Err(Reason::Unsolicited));
    let answer = tcp(HERE, THERE, SYN | ACK);
    assert_eq!(out(&gateway, &answer), Ok(tcp(HERE_OUTSIDE, THERE, SYN | ACK)));
}

#[test]
fn a_unique_local_address_leaves_where_it_is_translated() {
    const LOCAL: Address6 = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let mut gateway = start();
    gateway.world.routes6.push((LOCAL, 64, Course::To(LAN)));
    let leaves = udp((LOCAL, 5000), THERE);
    assert_eq!(out(&gateway, &leaves), Err(Reason::UniqueLocal));
    let public = prefixes()[2].0.address();
    let pair = |wan| {
        let (out, back) =
            (Prefix::new(LOCAL, public, 48, wan), Prefix::new(public, LOCAL, 48, wan));
        let keys =
            [PrefixKey::leaving(wan, LOCAL), PrefixKey::inside(LOCAL)].map(|key| (key, 48, out));
        keys.into_iter().chain([(PrefixKey::public(public), 48, back)]).collect::<Vec<_>>()
    };
    gateway.memory.state().prefixes = pair(OTHER);
    assert_eq!(out(&gateway, &leaves), Err(Reason::UniqueLocal));
    gateway.memory.state().prefixes = pair(WAN);
    let left = out(&gateway, &leaves).expect("a way out");
    let known: Address6 = left[22..38].try_into().unwrap();
    assert_eq!(known[..6], public[..6]);
    // The same from outside.
    let end = Endpoint6::new(flow::UDP, LOCAL, Port::new(6000));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), 0));
    let came = back(&gateway, &udp(THERE, (known, 6000)));
    assert_eq!(came, Ok(udp(THERE, (LOCAL, 6000))));
}

#[test]
fn nobody_outside_comes_from_the_inside_by_either_prefix() {
    let mut gateway = start();
    let end = Endpoint6::new(flow::TCP, HOST6, Port::new(5000));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), 0));
    for src in [NEIGHBOUR6, NEIGHBOUR6_OUTSIDE, LAN6_OUTSIDE, ONES6_OUTSIDE] {
        let dials = tcp((src, 80), HERE_OUTSIDE, SYN);
        assert_eq!(back(&gateway, &dials), Err(Reason::NotAllowed), "{src:02x?}");
    }
    // Nor does an inside host have an address of the public one for its own.
    let public = tcp(HERE_OUTSIDE, THERE, SYN);
    assert_eq!(out(&gateway, &public), Err(Reason::ForeignSource));
    gateway.world.routes6.push((HOST6_OUTSIDE, 48, Course::Nowhere));
    assert_eq!(out(&gateway, &public), Err(Reason::ForeignSource));
    assert!(gateway.memory.state().flows6.is_empty());
}

#[test]
fn errors_quote_what_their_receiver_has_sent() {
    let gateway = start();
    assert!(out(&gateway, &udp(HERE, THERE)).is_ok());
    let error = |src, dst, about: &[u8]| icmp(src, dst, TOO_BIG, 0, quote(about));
    // From a router outside, about what the host has sent.
    let there = error(GATEWAY6, HOST6_OUTSIDE, &udp(HERE_OUTSIDE, THERE));
    let here = error(GATEWAY6, HOST6, &udp(HERE, THERE));
    assert_eq!(back(&gateway, &there), Ok(here));
    // With the inside address nobody outside has got it.
    let forged = error(GATEWAY6, HOST6_OUTSIDE, &udp(HERE, THERE));
    assert_eq!(back(&gateway, &forged), Err(Reason::IcmpUnrelated));
    // From the host, and from a router inside, about what the outside has sent.
    for (router, known) in [(HOST6, HOST6_OUTSIDE), (NEIGHBOUR6, NEIGHBOUR6_OUTSIDE)] {
        let here = error(router, REMOTE6, &udp(THERE, HERE));
        let there = error(known, REMOTE6, &udp(THERE, HERE_OUTSIDE));
        assert_eq!(out(&gateway, &here), Ok(there));
    }
    // From the gateway itself, by the address of its WAN, and about its own packet.
    let own = error(GATEWAY6, REMOTE6, &udp(THERE, HERE));
    let leaves = error(GATEWAY6, REMOTE6, &udp(THERE, HERE_OUTSIDE));
    assert_eq!(leave_by(&gateway, WAN, &own), Ok(leaves));
    let about_own = error(REMOTE6, LAN6_OUTSIDE, &udp((LAN6_OUTSIDE, 5000), THERE));
    let got = error(REMOTE6, LAN6, &udp((LAN6, 5000), THERE));
    assert_eq!(back(&gateway, &about_own), Ok(got));
    // One that ends before the addresses that it quotes.
    let short = icmp(GATEWAY6, REMOTE6, UNREACHABLE, 0, &quote(&udp(THERE, HERE))[..30]);
    assert_eq!(leave_by(&gateway, WAN, &short), Ok(short));
    let short = |dst| icmp(REMOTE6, dst, UNREACHABLE, 0, &quote(&udp((LAN6, 5000), THERE))[..20]);
    assert_eq!(back(&gateway, &short(LAN6_OUTSIDE)), Ok(short(LAN6)));
}

#[test]
fn every_fragment_is_translated_by_itself() {
    let gateway = start();
    let part = |src, dst, offset, body: &[u8]| {
        let header = fragment(flow::UDP, offset, offset == 0, 9);
        frame(src, dst, 44, &[&header[..], body].concat())
    };
    let (first, last) = (datagram(5000, 80), b"restrest");
    for (offset, body) in [(0, &first[..]), (2, last)] {
        let left = out(&gateway, &part(HOST6, REMOTE6, offset, body));
        assert_eq!(left, Ok(part(HOST6_OUTSIDE, REMOTE6, offset, body)));
    }
    let first = datagram(80, 5000);
    for (offset, body) in [(0, &first[..]), (2, last)] {
        let came = back(&gateway, &part(REMOTE6, HOST6_OUTSIDE, offset, body));
        assert_eq!(came, Ok(part(REMOTE6, HOST6, offset, body)));
    }
}

#[test]
fn the_agent_reads_lines_with_the_inside_address() {
    let gateway = start();
    let server = (REMOTE6, 21);
    assert!(out(&gateway, &tcp(HERE, server, SYN)).is_ok());
    let reply = line(server, HERE_OUTSIDE, ACK);
    assert_eq!(back(&gateway, &reply), Ok(line(server, HERE, ACK)));
    let command = line(HERE, server, ACK);
    assert_eq!(arrive(&gateway, Zone::Inside, &command), Ok(command));
}

#[test]
fn once_a_line_was_rewritten_every_segment_goes_by_the_agent() {
    let gateway = start();
    let server = (REMOTE6, 21);
    let punted = || gateway.memory.state().counted(Counter::Punted);
    assert!(out(&gateway, &tcp(HERE, server, SYN)).is_ok());
    let empty = tcp(HERE, server, ACK);
    assert!(arrive(&gateway, Zone::Inside, &empty).is_ok());
    assert_eq!(punted(), 0);
    let key = *gateway.memory.state().flows6.keys().next().unwrap();
    let control = Control6::new(SessionId::from_number(9), 0, [None; 2]).shifted();
    gateway.memory.state().controls6.insert(key, control);
    assert!(arrive(&gateway, Zone::Inside, &empty).is_ok());
    assert!(back(&gateway, &tcp(server, HERE_OUTSIDE, ACK)).is_ok());
    assert_eq!(punted(), 2);
    gateway.memory.state().settings.heartbeat = 0;
    assert_eq!(arrive(&gateway, Zone::Inside, &empty), Err(Reason::AlgNoAgent));
}

#[test]
fn the_gateway_keeps_its_own_addresses_and_is_reached_by_those_of_its_inside() {
    let mut gateway = start();
    let own = HOST6_OUTSIDE;
    let to_lan = udp(THERE, (LAN6_OUTSIDE, 53));
    assert_eq!(back(&gateway, &to_lan), Ok(udp(THERE, (LAN6, 53))));
    assert_eq!(
        leave_by(&gateway, WAN, &udp((LAN6, 53), THERE)),
        Ok(udp((LAN6_OUTSIDE, 53), THERE))
    );
    // An address of its WAN that lies below the public prefix.
    gateway.world.routes6.push((own, 128, Course::Own));
    for zone in [Zone::Inside, Zone::Outside] {
        let frame = udp(THERE, (own, 53));
        assert_eq!(arrive(&gateway, zone, &frame), Ok(frame));
    }
    let stranger = udp(THERE, (NEIGHBOUR6_OUTSIDE, 53));
    assert_eq!(back(&gateway, &stranger), Err(Reason::Unsolicited));
}

#[test]
fn what_turns_back_inside_comes_from_the_public_address() {
    let gateway = start();
    let (asks, answers) = ((HOST6, 5000), (NEIGHBOUR6, 80));
    let (asks_outside, answers_outside) = ((HOST6_OUTSIDE, 5000), (NEIGHBOUR6_OUTSIDE, 80));
    let turned = |frame: &[u8]| arrive(&gateway, Zone::Inside, frame);
    let question = tcp(asks, answers_outside, SYN);
    let got = tcp(asks_outside, answers, SYN);
    assert_eq!(turned(&question), Ok(got.clone()));
    let answer = tcp(answers, asks_outside, SYN | ACK);
    assert_eq!(turned(&answer), Ok(tcp(answers_outside, asks, SYN | ACK)));
    let error = icmp(NEIGHBOUR6, HOST6_OUTSIDE, UNREACHABLE, 0, quote(&got));
    let heard = icmp(NEIGHBOUR6_OUTSIDE, HOST6, UNREACHABLE, 0, quote(&question));
    assert_eq!(turned(&error), Ok(heard));
    assert!(gateway.memory.state().flows6.is_empty(), "it needs no flow");
}

#[test]
fn what_has_no_translation_does_not_leave() {
    let mut gateway = start();
    gateway.world.routes6.push((ONES6, 64, Course::To(LAN)));
    let ones = (ONES6, 5000);
    assert_eq!(out(&gateway, &udp(ones, THERE)), Err(Reason::PrefixOnes));
    assert_eq!(back(&gateway, &udp(THERE, (ONES6_OUTSIDE, 5000))), Err(Reason::PrefixOnes));
    // At a WAN that has no public prefix for it.
    assert_eq!(leave_by(&gateway, OTHER, &udp(HERE, THERE)), Err(Reason::Untranslated));
    let foreign = udp(THERE, (GATEWAY6, 53));
    assert_eq!(leave_by(&gateway, OTHER, &foreign), Ok(foreign));
}
