//! IPv6, one by one: what begins a flow, what belongs to one, what is none of ours.

use crate::{
    common::{
        frame::{ACK, FIN, RST, SYN},
        six::{
            self, GATEWAY6, HOST6, LAN6, LINK_LOCAL, NOWHERE6, OTHER6, REMOTE6, datagram, fragment,
            frame, icmp, line, quote, tcp, udp,
        },
    },
    gateway::{self, Gateway, LAN, PUBLIC, WAN},
};
use nat_common::{
    counter::Counter,
    flow::{self, Zone},
    port::Port,
    punt::Punt,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
    six::{
        Address6, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key, ICMPV6,
        Opening, Watch6Key,
    },
    watch::Watch,
};
use nat_ebpf::{
    host::{self, HostPacket, Verdict},
    six::Course,
};

const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const PARAMETER_PROBLEM: u8 = 4;
const SOLICITATION: u8 = 135;

pub const HERE: (Address6, u16) = (HOST6, 5000);
pub const THERE: (Address6, u16) = (REMOTE6, 80);

/// What became of a packet: it is let on as one of a flow, left alone, or dropped.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Known,
    Untouched,
    Punted,
    Dropped(Reason),
}
use Fate::{Dropped, Known, Punted, Untouched};

pub fn start() -> Gateway {
    gateway::gateway(64, true, Some(PUBLIC))
}

/// One packet; every counter that must not move does not, and no byte changes.
pub fn send(gateway: &Gateway, zone: Zone, frame: &[u8]) -> Fate {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let before = gateway.memory.state().clone();
    let mut packet = HostPacket::new(frame.to_vec(), ifindex, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
    assert_eq!(packet.frame, frame, "nothing of IPv6 is rewritten");
    let after = gateway.memory.state().clone();
    let moved = |counter: Counter| after.counted(counter) - before.counted(counter);
    let dropped = after.drops.iter().sum::<u64>() - before.drops.iter().sum::<u64>();
    let fate = match verdict {
        Verdict::Pass if moved(Counter::Six) == 1 => Known,
        Verdict::Pass => Untouched,
        Verdict::Drop(reason) => {
            assert_eq!(after.dropped(reason), before.dropped(reason) + 1);
            Dropped(reason)
        }
        Verdict::Punted => {
            let [(header, packet)] = &packet.punted[..] else { panic!("handed over once") };
            assert_eq!(header.kind(), Punt::Six(zone));
            assert_eq!((packet.len(), &packet[..]), (header.length(), &frame[14..]));
            Punted
        }
        Verdict::Forward(_) => panic!("{verdict:?}"),
    };
    let counted = (moved(Counter::Six), moved(Counter::Stack), moved(Counter::Punted), dropped);
    let wanted = match fate {
        Known => (1, 0, 0, 0),
        Untouched => (0, 1, 0, 0),
        Punted => (0, 0, 1, 0),
        Dropped(_) => (0, 0, 0, 1),
    };
    assert_eq!(counted, wanted, "each packet is counted once");
    assert_eq!(after.flows(), before.flows(), "no flow of IPv4");
    if matches!(fate, Untouched | Dropped(Reason::Unsolicited)) {
        assert_eq!(after.flows6, before.flows6, "what does not pass leaves nothing");
    }
    fate
}

pub fn out(gateway: &Gateway, frame: &[u8]) -> Fate {
    send(gateway, Zone::Inside, frame)
}

pub fn back(gateway: &Gateway, frame: &[u8]) -> Fate {
    send(gateway, Zone::Outside, frame)
}

pub fn the_flow(gateway: &Gateway) -> (Flow6Key, Flow6) {
    let state = gateway.memory.state();
    assert_eq!(state.flows6.len(), 1);
    state.flows6.iter().map(|(key, flow)| (*key, *flow)).next().unwrap()
}

fn open(gateway: &Gateway, protocol: u8, port: u16, filter: u32) {
    let end = Endpoint6::new(protocol, HOST6, Port::new(port));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), filter));
}

/// A SYN with an MSS, behind another option or before it, and its checksum.
fn syn(mss: u16, is_first: bool) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    let mut options = [[2, 4, high, low], [1, 1, 4, 2]];
    if !is_first {
        options.reverse();
    }
    let mut frame = tcp(HERE, THERE, SYN);
    frame.extend(options.concat());
    // Its own length, and that of its header.
    frame[19] += 8;
    frame[54 + 12] = 7 << 4;
    let field = checksum(&frame);
    frame[70..72].copy_from_slice(&field);
    frame
}

/// The checksum that a segment of 28 bytes should have (RFC 8200 section 8.1).
fn checksum(frame: &[u8]) -> [u8; 2] {
    let mut summed = frame[22..54].to_vec();
    summed.extend([0, 28, 0, flow::TCP]);
    summed.extend(&frame[54..70]);
    summed.extend([0, 0]);
    summed.extend(&frame[72..82]);
    let words = summed.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[test]
fn a_connection_announces_no_more_than_its_path_takes() {
    let mss_in = |frame: &[u8]| {
        let at = if frame[74] == 2 { 76 } else { 80 };
        u16::from_be_bytes([frame[at], frame[at + 1]])
    };
    // The MTU of the route, what fits all interfaces over IPv4, and the most that is to be announced.
    for (mtu, fits, most, announced, wanted) in [
        (1400, 1360, 65535, 1440, 1340),
        (1400, 1360, 65535, 1340, 1340),
        // What fits every interface is not looked at more closely.
        (1400, 1460, 65535, 1440, 1440),
        (0, 1380, 65535, 1440, 1360),
        (1500, 1460, 900, 1440, 900),
        (1500, 1460, 900, 536, 536),
        (1400, 1460, 0, 9000, 9000),
    ] {
        for is_first in [true, false] {
            let mut gateway = start();
            gateway.world.mtu6 = mtu;
            {
                let mut state = gateway.memory.state();
                (state.settings.mss_fits, state.settings.mss_most) = (fits, most);
            }
            let frame = syn(announced, is_first);
            let mut packet = HostPacket::new(frame.clone(), LAN, &gateway.world);
            let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
            assert_eq!(verdict, Verdict::Pass);
            assert_eq!(gateway.memory.state().counted(Counter::Six), 1);
            // Behind another option it is looked at in any case.
            let wanted = if is_first { wanted } else { wanted.min(path(mtu, fits, most)) };
            assert_eq!(mss_in(&packet.frame), wanted, "{mtu} {fits} {most} {announced} {is_first}");
            assert_eq!(packet.frame[70..72], checksum(&packet.frame));
            let mut back = packet.frame.clone();
            back[70..82].copy_from_slice(&frame[70..82]);
            assert_eq!(back, frame, "nothing else is written to");
        }
    }
}

/// What a path takes.
fn path(mtu: u32, fits: u16, most: u16) -> u16 {
    match (most, mtu) {
        (0, _) => u16::MAX,
        (_, 0) => most.min(fits - 20),
        _ => most.min(mtu as u16 - 60),
    }
}

#[test]
fn the_inside_dials_and_only_its_answers_come_in() {
    let gateway = start();
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN)), Dropped(Reason::Unsolicited));
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN | ACK)), Dropped(Reason::Unsolicited));
    assert_eq!(back(&gateway, &udp(THERE, HERE)), Dropped(Reason::Unsolicited));
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN | ACK)), Known);
    assert_eq!(out(&gateway, &tcp(HERE, THERE, ACK)), Known);
    let (key, flow) = the_flow(&gateway);
    assert_eq!(
        key,
        Flow6Key::new(Zone::Inside, flow::TCP, HERE.0, Port::new(5000), THERE.0, Port::new(80))
    );
    assert_eq!((flow.outbound.packets, flow.outbound.bytes), (2, 120));
    assert_eq!((flow.inbound.packets, flow.inbound.bytes), (1, 60));
    assert_eq!((flow.begun(), flow.rule()), (Zone::Inside, RuleId::NONE));
    // Another port of the same host, and another host on the same port, are others.
    for stranger in [(REMOTE6, 81), (GATEWAY6, 80)] {
        assert_eq!(back(&gateway, &tcp(stranger, HERE, ACK)), Dropped(Reason::Unsolicited));
    }
    assert_eq!(out(&gateway, &udp(HERE, THERE)), Known);
    assert_eq!(back(&gateway, &udp(THERE, HERE)), Known);
}

#[test]
fn only_a_syn_opens_a_connection_and_one_that_has_ended_is_opened_anew_from_inside_alone() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, THERE, ACK)), Dropped(Reason::NoSyn));
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN | FIN)), Dropped(Reason::TcpFlags));
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN | FIN)), Dropped(Reason::TcpFlags));
    // Both open at once (RFC 6092 section 3.3.1).
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN)), Known);
    assert_eq!(out(&gateway, &tcp(HERE, THERE, FIN | ACK)), Known);
    assert_eq!(back(&gateway, &tcp(THERE, HERE, RST)), Known);
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN)), Dropped(Reason::Unsolicited));
    gateway.memory.state().now += 5;
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    let (_, flow) = the_flow(&gateway);
    assert_eq!((flow.outbound.packets, flow.inbound.packets), (1, 0));
    assert_eq!(flow.created(), gateway::START + 5);
}

#[test]
fn echo_is_known_by_its_identifier_from_the_side_that_asks() {
    let gateway = start();
    let reply = icmp(REMOTE6, HOST6, ECHO_REPLY, 7, b"");
    assert_eq!(back(&gateway, &reply), Dropped(Reason::Unsolicited));
    assert_eq!(out(&gateway, &icmp(HOST6, REMOTE6, ECHO_REPLY, 7, b"")), Dropped(Reason::IcmpType));
    assert_eq!(out(&gateway, &icmp(HOST6, REMOTE6, ECHO, 7, b"")), Known);
    assert_eq!(back(&gateway, &reply), Known);
    let other = icmp(REMOTE6, HOST6, ECHO_REPLY, 8, b"");
    assert_eq!(back(&gateway, &other), Dropped(Reason::Unsolicited));
    let request = icmp(REMOTE6, HOST6, ECHO, 7, b"");
    assert_eq!(back(&gateway, &request), Dropped(Reason::Unsolicited));
}

#[test]
fn an_echo_request_from_outside_begins_a_flow_where_the_settings_say_so() {
    let gateway = start();
    let request = icmp(REMOTE6, HOST6, ECHO, 7, b"");
    assert_eq!(back(&gateway, &request), Dropped(Reason::Unsolicited));
    gateway.memory.state().settings.echo6 = 1;
    assert_eq!(back(&gateway, &request), Known);
    let (key, flow) = the_flow(&gateway);
    assert_eq!((key.inside(), flow.begun(), flow.rule()), (HOST6, Zone::Outside, RuleId::NONE));
    assert_eq!(out(&gateway, &icmp(HOST6, REMOTE6, ECHO_REPLY, 7, b"")), Known);
    // Errors about the reply come in.
    let reply = icmp(HOST6, REMOTE6, ECHO_REPLY, 7, b"");
    assert_eq!(back(&gateway, &icmp(GATEWAY6, HOST6, TOO_BIG, 0, quote(&reply))), Known);
    let first = [fragment(ICMPV6, 0, true, 1), quote(&request)[40..].to_vec()].concat();
    assert_eq!(back(&gateway, &frame(REMOTE6, HOST6, 44, &first)), Known);
    // Nothing else comes in, and not from everywhere; a rule of the host goes before it.
    for frame in [
        icmp(REMOTE6, HOST6, ECHO_REPLY, 8, b""),
        udp(THERE, HERE),
        tcp(THERE, HERE, SYN),
        frame(REMOTE6, HOST6, 50, b""),
    ] {
        assert_eq!(back(&gateway, &frame), Dropped(Reason::Unsolicited));
    }
    let forged = icmp(six::ROUTES[1].0, HOST6, ECHO, 9, b"");
    assert_eq!(back(&gateway, &forged), Dropped(Reason::NotAllowed));
    let solicitation = icmp(REMOTE6, HOST6, SOLICITATION, 0, &[0; 16]);
    assert_eq!(back(&gateway, &solicitation), Dropped(Reason::IcmpType));
    assert_eq!(back(&gateway, &icmp(REMOTE6, OTHER6, ECHO, 7, b"")), Dropped(Reason::Unsolicited));
    open(&gateway, ICMPV6, 0, 3);
    let other = icmp(REMOTE6, HOST6, ECHO, 10, b"");
    assert_eq!(back(&gateway, &other), Dropped(Reason::NotAllowed));
    gateway.memory.state().allowed6 = vec![(3, REMOTE6, 128)];
    assert_eq!(back(&gateway, &other), Known);
}

#[test]
fn a_unique_local_address_passes_a_wan_only_where_that_is_said() {
    const LOCAL: Address6 = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const AWAY: Address6 = [0xfc, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let mut gateway = start();
    gateway.world.routes6.push((LOCAL, 64, Course::To(LAN)));
    let (local, away) = ((LOCAL, 5000), (AWAY, 80));
    open(&gateway, flow::UDP, 5000, 0);
    let end = Endpoint6::new(flow::UDP, LOCAL, Port::new(5000));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), 0));
    let unique = Dropped(Reason::UniqueLocal);
    let all = [(local, THERE), (HERE, away), (local, away)];
    for (here, there) in all {
        assert_eq!(out(&gateway, &udp(here, there)), unique);
        assert_eq!(back(&gateway, &udp(there, here)), unique);
    }
    assert_eq!(out(&gateway, &udp(local, HERE)), Untouched);
    assert!(gateway.memory.state().flows6.is_empty());
    gateway.memory.state().settings.unique_local6 = 1;
    for (here, there) in all {
        assert_eq!(out(&gateway, &udp(here, there)), Known);
        gateway.memory.state().flows6.clear();
        assert_eq!(back(&gateway, &udp(there, here)), Known);
    }
}

#[test]
fn other_protocols_pass_by_their_addresses() {
    const ESP: u8 = 50;
    let gateway = start();
    assert_eq!(back(&gateway, &frame(REMOTE6, HOST6, ESP, b"")), Dropped(Reason::Unsolicited));
    assert_eq!(out(&gateway, &frame(HOST6, REMOTE6, ESP, b"")), Known);
    assert_eq!(back(&gateway, &frame(REMOTE6, HOST6, ESP, b"")), Known);
    assert_eq!(back(&gateway, &frame(REMOTE6, HOST6, 59, b"")), Dropped(Reason::Unsolicited));
}

#[test]
fn a_rule_opens_its_port_to_those_that_it_allows() {
    let gateway = start();
    open(&gateway, flow::TCP, 80, 0);
    open(&gateway, flow::UDP, 53, 3);
    open(&gateway, ICMPV6, 0, 0);
    gateway.memory.state().allowed6 = vec![(3, REMOTE6, 112)];
    let (web, dns) = ((HOST6, 80), (HOST6, 53));
    assert_eq!(back(&gateway, &tcp(THERE, web, ACK)), Dropped(Reason::NoSyn));
    assert_eq!(back(&gateway, &tcp(THERE, web, SYN)), Known);
    assert_eq!(out(&gateway, &tcp(web, THERE, SYN | ACK)), Known);
    let (_, flow) = the_flow(&gateway);
    assert_eq!((flow.begun(), flow.rule()), (Zone::Outside, RuleId::new(7)));
    assert_eq!(back(&gateway, &tcp(THERE, (HOST6, 81), SYN)), Dropped(Reason::Unsolicited));
    assert_eq!(back(&gateway, &udp(THERE, dns)), Known);
    let stranger = (six::ROUTES[2].0, 9);
    assert_eq!(back(&gateway, &udp(stranger, dns)), Dropped(Reason::NotAllowed));
    assert_eq!(back(&gateway, &icmp(REMOTE6, HOST6, ECHO, 7, b"")), Known);
    assert_eq!(out(&gateway, &icmp(HOST6, REMOTE6, ECHO_REPLY, 7, b"")), Known);
}

#[test]
fn a_flow_begins_where_its_source_belongs() {
    let gateway = start();
    let foreign = Dropped(Reason::ForeignSource);
    // Of another network outside, of one that is not managed, of nobody, and the gateway's own.
    for src in [six::ROUTES[2].0, REMOTE6, OTHER6, NOWHERE6, GATEWAY6, LAN6] {
        let end = (src, 5000);
        assert_eq!(out(&gateway, &tcp(end, THERE, SYN)), foreign, "{src:02x?}");
        assert_eq!(out(&gateway, &udp(end, THERE)), foreign);
        assert_eq!(out(&gateway, &icmp(src, REMOTE6, ECHO, 7, b"")), foreign);
        let first = [fragment(flow::UDP, 0, true, 1), datagram(5000, 80)].concat();
        assert_eq!(out(&gateway, &frame(src, REMOTE6, 44, &first)), foreign);
        // What begins none is told so first, and what goes nowhere or stays is not looked at.
        assert_eq!(out(&gateway, &tcp(end, THERE, ACK)), Dropped(Reason::NoSyn));
        assert_eq!(out(&gateway, &tcp(end, (NOWHERE6, 80), SYN)), Untouched);
        assert_eq!(out(&gateway, &tcp(end, (LAN6, 80), SYN)), Untouched);
    }
    assert!(gateway.memory.state().flows6.is_empty());

    open(&gateway, flow::TCP, 80, 0);
    let web = (HOST6, 80);
    for src in [six::ROUTES[1].0, HOST6, LAN6, GATEWAY6, NOWHERE6] {
        let dials = tcp((src, 5000), web, SYN);
        assert_eq!(back(&gateway, &dials), Dropped(Reason::NotAllowed), "{src:02x?}");
        let other = tcp((src, 5000), (HOST6, 81), SYN);
        assert_eq!(back(&gateway, &other), Dropped(Reason::Unsolicited));
    }
    assert!(gateway.memory.state().flows6.is_empty());
    for src in [REMOTE6, six::ROUTES[2].0, OTHER6] {
        assert_eq!(back(&gateway, &tcp((src, 5000), web, SYN)), Known);
    }
}

#[test]
fn what_has_a_flow_is_not_asked_where_it_belongs_but_as_it_begins_anew() {
    let mut gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    gateway.world.routes6.retain(|(_, _, course)| *course != Course::To(LAN));
    assert_eq!(out(&gateway, &tcp(HERE, THERE, ACK)), Known);
    assert_eq!(back(&gateway, &tcp(THERE, HERE, ACK)), Known);
    assert_eq!(out(&gateway, &tcp(HERE, THERE, RST | ACK)), Known);
    gateway.memory.state().now += 5;
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Dropped(Reason::ForeignSource));
}

#[test]
fn errors_pass_that_are_about_a_flow_and_for_who_sent_the_packet() {
    let gateway = start();
    let syn = tcp(HERE, THERE, SYN);
    let router = GATEWAY6;
    let about = |to: Address6, frame: &[u8]| icmp(router, to, TOO_BIG, 0, quote(frame));
    assert_eq!(back(&gateway, &about(HOST6, &syn)), Dropped(Reason::IcmpUnrelated));
    assert_eq!(out(&gateway, &syn), Known);
    let (_, before) = the_flow(&gateway);
    for kind in UNREACHABLE..=PARAMETER_PROBLEM {
        assert_eq!(back(&gateway, &icmp(router, HOST6, kind, 0, quote(&syn))), Known);
    }
    assert_eq!(the_flow(&gateway).1, before, "an error keeps no flow alive");
    // To a host that has not sent it, and about what the outside has sent, from the outside.
    let neighbour = six::ROUTES[1].0;
    assert_eq!(back(&gateway, &about(neighbour, &syn)), Dropped(Reason::IcmpUnrelated));
    let answer = tcp(THERE, HERE, SYN | ACK);
    assert_eq!(back(&gateway, &about(HOST6, &answer)), Dropped(Reason::IcmpUnrelated));
    assert_eq!(out(&gateway, &icmp(HOST6, REMOTE6, UNREACHABLE, 0, quote(&answer))), Known);
    // Cut off in the quoted header, in the quoted ports, and the quote of an error.
    for cut in [39, 43] {
        let short = icmp(router, HOST6, TOO_BIG, 0, &quote(&syn)[..cut]);
        assert_eq!(back(&gateway, &short), Dropped(Reason::IcmpQuote));
    }
    let nested = icmp(HOST6, REMOTE6, TOO_BIG, 0, quote(&syn));
    assert_eq!(back(&gateway, &about(HOST6, &nested)), Dropped(Reason::IcmpQuote));
    // About what the gateway itself has sent.
    let own = tcp((GATEWAY6, 5000), THERE, SYN);
    assert_eq!(back(&gateway, &about(GATEWAY6, &own)), Untouched);
}

#[test]
fn an_error_about_an_echo_passes_to_who_has_asked() {
    let gateway = start();
    let request = icmp(HOST6, REMOTE6, ECHO, 9, b"");
    assert_eq!(out(&gateway, &request), Known);
    assert_eq!(back(&gateway, &icmp(GATEWAY6, HOST6, 3, 0, quote(&request))), Known);
    let other = icmp(HOST6, REMOTE6, ECHO, 10, b"");
    let error = icmp(GATEWAY6, HOST6, 3, 0, quote(&other));
    assert_eq!(back(&gateway, &error), Dropped(Reason::IcmpUnrelated));
}

#[test]
fn what_a_link_and_the_gateway_need_is_left_alone() {
    let gateway = start();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for zone in [Zone::Inside, Zone::Outside] {
        for (src, dst) in [
            (LINK_LOCAL, HOST6),
            (REMOTE6, LINK_LOCAL),
            (HOST6, group),
            ([0; 16], group),
            (REMOTE6, GATEWAY6),
            (HOST6, LAN6),
        ] {
            assert_eq!(send(&gateway, zone, &icmp(src, dst, SOLICITATION, 0, &[0; 16])), Untouched);
            assert_eq!(send(&gateway, zone, &tcp((src, 546), (dst, 547), SYN)), Untouched);
        }
    }
    assert_eq!(out(&gateway, &tcp(HERE, (six::ROUTES[1].0, 80), ACK)), Untouched);
    assert_eq!(out(&gateway, &tcp(HERE, (OTHER6, 80), ACK)), Untouched);
    assert_eq!(out(&gateway, &tcp(HERE, (NOWHERE6, 80), SYN)), Untouched);
    // Neighbour discovery is for one link (RFC 4890 section 4.3.3): it is not forwarded.
    let solicitation = icmp(REMOTE6, HOST6, SOLICITATION, 0, &[0; 16]);
    assert_eq!(back(&gateway, &solicitation), Dropped(Reason::IcmpType));
    let solicitation = icmp(HOST6, REMOTE6, SOLICITATION, 0, &[0; 16]);
    assert_eq!(out(&gateway, &solicitation), Dropped(Reason::IcmpType));
}

#[test]
fn through_the_gateway_from_outside_to_outside_goes_what_went_before_it_came() {
    let gateway = start();
    for (dst, then) in [
        (OTHER6, Untouched),
        (six::ROUTES[2].0, Untouched),
        (NOWHERE6, Dropped(Reason::Unsolicited)),
    ] {
        gateway.memory.state().settings.routes_others6 = 0;
        let packet = tcp(THERE, (dst, 80), SYN);
        assert_eq!(back(&gateway, &packet), Dropped(Reason::Unsolicited));
        gateway.memory.state().settings.routes_others6 = 1;
        assert_eq!(back(&gateway, &packet), then);
    }
}

#[test]
fn the_chain_of_extension_headers_is_followed_to_its_end() {
    let gateway = start();
    let plain = udp(HERE, THERE);
    let segment = &quote(&plain)[40..];
    let extended = |chain: &[(u8, &[u8])]| {
        let mut rest: Vec<u8> = segment.to_vec();
        let mut next = flow::UDP;
        for (kind, body) in chain.iter().rev() {
            rest = [&[next][..], *body, &rest[..]].concat();
            next = *kind;
        }
        frame(HOST6, REMOTE6, next, &rest)
    };
    let options: (u8, &[u8]) = (60, &[0, 1, 4, 0, 0, 0, 0]);
    let long: (u8, &[u8]) = (0, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let authentication: (u8, &[u8]) = (51, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let routing = |kind: u8, left: u8| [0, kind, left, 0, 0, 0, 0];
    let (spent, turned) = (routing(0, 0), routing(2, 1));
    let chains = [
        vec![options],
        vec![long, options, authentication],
        vec![(43, &spent[..]), (43, &turned[..])],
        vec![options; 8],
    ];
    for chain in chains {
        assert_eq!(out(&gateway, &extended(&chain)), Known, "{chain:?}");
    }
    let (key, flow) = the_flow(&gateway);
    assert_eq!((key.inside_port(), key.protocol()), (Port::new(5000), flow::UDP));
    assert_eq!(flow.outbound.packets, 4);
    let led = routing(0, 1);
    assert_eq!(out(&gateway, &extended(&[(43, &led[..])])), Dropped(Reason::Extension));
    assert_eq!(out(&gateway, &extended(&[options; 9])), Dropped(Reason::Extension));
    let whole = extended(&[options]);
    let mut cut = whole[..14 + 40 + 4].to_vec();
    cut[18..20].copy_from_slice(&4u16.to_be_bytes());
    assert_eq!(out(&gateway, &cut), Dropped(Reason::Truncated));
}

#[test]
fn later_fragments_follow_the_first_one_and_none_goes_alone() {
    let gateway = start();
    let part = |zone: Zone, offset: u16, more: bool, id: u32, body: &[u8]| {
        let (src, dst) = match zone {
            Zone::Inside => (HOST6, REMOTE6),
            Zone::Outside => (REMOTE6, HOST6),
        };
        frame(src, dst, 44, &[&fragment(flow::UDP, offset, more, id)[..], body].concat())
    };
    let here = datagram(5000, 80);
    let alone = part(Zone::Inside, 2, false, 1, b"rest");
    assert_eq!(out(&gateway, &alone), Dropped(Reason::FragmentAlone));
    assert_eq!(out(&gateway, &part(Zone::Inside, 0, true, 1, &here)), Known);
    assert_eq!(out(&gateway, &alone), Known);
    assert_eq!(the_flow(&gateway).1.outbound.packets, 2);
    let there = datagram(80, 5000);
    assert_eq!(back(&gateway, &part(Zone::Outside, 0, true, 5, &there)), Known);
    assert_eq!(back(&gateway, &part(Zone::Outside, 2, true, 5, b"restrest")), Known);
    let other = part(Zone::Outside, 2, false, 6, b"rest");
    assert_eq!(back(&gateway, &other), Dropped(Reason::FragmentAlone));
    // The first one has all headers; one that is first and last is whole.
    let hidden = part(Zone::Outside, 0, true, 7, &there[..6]);
    assert_eq!(back(&gateway, &hidden), Dropped(Reason::Fragment));
    assert_eq!(back(&gateway, &part(Zone::Outside, 0, false, 8, &there)), Known);
    // With the flow its fragments are gone.
    gateway.memory.state().flows6.clear();
    assert_eq!(out(&gateway, &alone), Dropped(Reason::FragmentAlone));
    // The kernel puts together what is for the gateway.
    let rest = [&fragment(flow::UDP, 2, false, 9)[..], b"rest"].concat();
    assert_eq!(back(&gateway, &frame(REMOTE6, GATEWAY6, 44, &rest)), Untouched);
}

#[test]
fn a_full_table_and_headers_that_lie_are_dropped() {
    let gateway = start();
    let room = 65_536u32;
    for index in 0..room {
        let port = Port::new(index as u16);
        let key = Flow6Key::new(Zone::Inside, 200, HOST6, port, REMOTE6, port);
        gateway.memory.state().flows6.insert(key, Flow6::default());
    }
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Dropped(Reason::TableFull));
    let mut other = udp(HERE, THERE);
    other[14] = 0x50;
    assert_eq!(out(&gateway, &other), Dropped(Reason::BadHeader));
    let mut long = udp(HERE, THERE);
    long[19] += 1;
    assert_eq!(out(&gateway, &long), Dropped(Reason::Truncated));
    let short = frame(HOST6, REMOTE6, flow::TCP, &[0; 19]);
    assert_eq!(out(&gateway, &short), Dropped(Reason::Truncated));
}

/// What becomes of a packet from inside, and what the agent is to tell its sender.
fn refused(gateway: &Gateway, frame: &[u8]) -> (Verdict, Vec<(Punt, Vec<u8>)>) {
    let mut packet = HostPacket::new(frame.to_vec(), LAN, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    let told = packet.punted.into_iter().map(|(header, bytes)| (header.kind(), bytes));
    (verdict, told.collect())
}

fn counted(gateway: &Gateway) -> Vec<(Address6, u64)> {
    let mut hosts: Vec<_> =
        gateway.memory.state().hosts6.iter().map(|(host, flows)| (*host, *flows)).collect();
    hosts.sort_unstable();
    hosts
}

#[test]
fn a_host_at_its_limit_opens_nothing_more_and_all_else_goes_on() {
    let gateway = start();
    gateway.memory.state().settings.flows_per_host = 2;
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    assert_eq!(out(&gateway, &udp(HERE, THERE)), Known);
    // Who asks again asks for nothing new; what begins none does not count.
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    assert_eq!(out(&gateway, &tcp((HOST6, 5001), THERE, ACK)), Dropped(Reason::NoSyn));
    assert_eq!(out(&gateway, &udp(HERE, (LAN6, 53))), Untouched);
    assert_eq!(counted(&gateway), [(HOST6, 2)]);
    let more = udp((HOST6, 5001), THERE);
    assert_eq!(out(&gateway, &more), Dropped(Reason::HostLimit));
    let echo = icmp(HOST6, REMOTE6, ECHO, 1, b"");
    assert_eq!(out(&gateway, &echo), Dropped(Reason::HostLimit));
    // What it has goes on, what others open, and what leads to it.
    assert_eq!(out(&gateway, &udp(HERE, THERE)), Known);
    assert_eq!(back(&gateway, &udp(THERE, HERE)), Known);
    assert_eq!(out(&gateway, &udp((six::NEIGHBOUR6, 5000), THERE)), Known);
    open(&gateway, flow::UDP, 53, 0);
    for port in 1..5 {
        assert_eq!(back(&gateway, &udp((REMOTE6, port), (HOST6, 53))), Known);
        assert_eq!(out(&gateway, &udp((HOST6, 53), (REMOTE6, port))), Known);
    }
    let key = Expectation6Key::new(Zone::Outside, flow::TCP, REMOTE6, HOST6, Port::new(6000));
    let value = Expectation6::new(SessionId::from_number(9), RuleId::NONE, u32::MAX);
    gateway.memory.state().expectations6.insert(key, value);
    assert_eq!(back(&gateway, &tcp((REMOTE6, 20), (HOST6, 6000), SYN)), Known);
    assert_eq!(counted(&gateway), [(HOST6, 2), (six::NEIGHBOUR6, 1)]);
    // An announcement waits until there is room.
    let key = Expectation6Key::new(Zone::Inside, flow::TCP, HOST6, REMOTE6, Port::new(7000));
    gateway.memory.state().expectations6.insert(key, value);
    let announced = tcp((HOST6, 20), (REMOTE6, 7000), SYN);
    assert_eq!(out(&gateway, &announced), Dropped(Reason::HostLimit));
    gateway.memory.state().settings.flows_per_host = 3;
    assert_eq!(out(&gateway, &announced), Known);
    assert!(gateway.memory.state().expectations6.is_empty());
    assert_eq!(counted(&gateway), [(HOST6, 3), (six::NEIGHBOUR6, 1)]);
}

#[test]
fn a_connection_that_is_opened_anew_counts_once() {
    let gateway = start();
    gateway.memory.state().settings.flows_per_host = 1;
    let opened = |gateway: &Gateway| out(gateway, &tcp(HERE, THERE, SYN));
    assert_eq!(opened(&gateway), Known);
    let (key, flow) = the_flow(&gateway);
    gateway.memory.state().flows6.insert(key, flow.reset());
    assert_eq!(opened(&gateway), Known);
    assert_eq!(the_flow(&gateway).1.outbound.packets, 1);
    assert_eq!(counted(&gateway), [(HOST6, 1)]);
    // One that somebody outside had opened counts now, or is refused.
    open(&gateway, flow::TCP, 81, 0);
    let (here, there) = ((HOST6, 81), (REMOTE6, 5000));
    assert_eq!(back(&gateway, &tcp(there, here, SYN)), Known);
    {
        let mut state = gateway.memory.state();
        let (near, far) = (Port::new(here.1), Port::new(there.1));
        let key = Flow6Key::new(Zone::Inside, flow::TCP, HOST6, near, REMOTE6, far);
        let flow = state.flows6[&key].reset();
        state.flows6.insert(key, flow);
    }
    assert_eq!(out(&gateway, &tcp(here, there, SYN)), Dropped(Reason::HostLimit));
    gateway.memory.state().settings.flows_per_host = 2;
    assert_eq!(out(&gateway, &tcp(here, there, SYN)), Known);
    assert_eq!(counted(&gateway), [(HOST6, 2)]);
}

#[test]
fn a_host_without_room_for_a_flow_is_told_so_and_does_not_count() {
    let (full, limited) = (start(), start());
    for index in 0..65_536u32 {
        let port = Port::new(index as u16);
        let key = Flow6Key::new(Zone::Inside, 200, HOST6, port, REMOTE6, port);
        full.memory.state().flows6.insert(key, Flow6::default());
    }
    limited.memory.state().settings.flows_per_host = 1;
    assert_eq!(out(&limited, &udp(HERE, (REMOTE6, 53))), Known);
    let frame = udp(HERE, THERE);
    for (gateway, reason, flows) in
        [(&full, Reason::TableFull, 0), (&limited, Reason::HostLimit, 1)]
    {
        let wanted = vec![(Punt::Refused, frame[14..].to_vec())];
        assert_eq!(refused(gateway, &frame), (Verdict::Drop(reason), wanted));
        assert_eq!(counted(gateway), [(HOST6, flows)], "{reason}");
        // Who would tell it is gone.
        gateway.memory.state().settings.heartbeat = 0;
        assert_eq!(refused(gateway, &frame), (Verdict::Drop(reason), vec![]));
    }
    // A line in the SYN of a control connection comes again without; so many are told of in a second.
    let gateway = start();
    assert_eq!(out(&gateway, &line(HERE, (REMOTE6, 21), SYN)), Dropped(Reason::AlgMalformed));
    assert_eq!(counted(&gateway), [(HOST6, 0)]);
    gateway.memory.state().settings.flows_per_host = 1;
    assert_eq!(out(&gateway, &udp(HERE, THERE)), Known);
    let more = udp((HOST6, 5001), THERE);
    let told = (0..150).map(|_| refused(&gateway, &more).1.len()).sum::<usize>();
    assert_eq!(told, nat_ebpf::refusal::TOLD as usize);
}

#[test]
fn where_it_is_not_filtered_everything_is_left_alone() {
    let gateway = start();
    gateway.memory.state().settings.ipv6 = 0;
    assert_eq!(back(&gateway, &tcp(THERE, HERE, SYN)), Untouched);
    assert_eq!(out(&gateway, &tcp(HERE, THERE, ACK)), Untouched);
    assert_eq!(back(&gateway, &icmp(REMOTE6, HOST6, SOLICITATION, 0, b"")), Untouched);
}

pub const SERVER: (Address6, u16) = (REMOTE6, 21);

/// An announced connection from outside to this port of the inside host, until that second.
fn expect(gateway: &Gateway, port: u16, expires: u32) {
    let key = Expectation6Key::new(Zone::Outside, flow::TCP, REMOTE6, HOST6, Port::new(port));
    let value = Expectation6::new(SessionId::from_number(9), RuleId::new(7), expires);
    gateway.memory.state().expectations6.insert(key, value);
}

#[test]
fn lines_of_a_control_connection_go_to_the_agent_and_nothing_overtakes_them() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, SYN)), Known);
    assert!(the_flow(&gateway).1.is_control());
    assert_eq!(back(&gateway, &tcp(SERVER, HERE, SYN | ACK)), Known);
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, ACK)), Known);
    assert_eq!(out(&gateway, &line(HERE, SERVER, ACK)), Punted);
    assert_eq!(back(&gateway, &line(SERVER, HERE, ACK)), Punted);
    assert_eq!(back(&gateway, &tcp(SERVER, HERE, FIN | ACK)), Punted);
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, RST)), Punted);
    // A line in fragments cannot be read.
    let segment = &line(HERE, SERVER, ACK)[54..];
    let first = [fragment(flow::TCP, 0, true, 5), segment.to_vec()].concat();
    let first = frame(HOST6, REMOTE6, 44, &first);
    assert_eq!(out(&gateway, &first), Dropped(Reason::Fragment));
    let later = [fragment(flow::TCP, 4, false, 5), b"more".to_vec()].concat();
    let later = frame(HOST6, REMOTE6, 44, &later);
    assert_eq!(out(&gateway, &later), Dropped(Reason::FragmentAlone));
}

#[test]
fn without_an_agent_lines_wait_and_ends_pass() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, SYN)), Known);
    gateway.memory.state().settings.heartbeat = 0;
    assert_eq!(out(&gateway, &line(HERE, SERVER, ACK)), Dropped(Reason::AlgNoAgent));
    assert_eq!(out(&gateway, &line(HERE, SERVER, FIN | ACK)), Dropped(Reason::AlgNoAgent));
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, FIN | ACK)), Known);
    assert_eq!(back(&gateway, &tcp(SERVER, HERE, ACK)), Known);
}

#[test]
fn what_nobody_reads_passes_until_the_connection_is_opened_anew() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, SYN)), Known);
    let (key, made) = the_flow(&gateway);
    let control = Control6::new(SessionId::from_number(9), made.created(), [None; 2]);
    gateway.memory.state().controls6.insert(key, control);
    assert_eq!(out(&gateway, &line(HERE, SERVER, ACK)), Punted);
    gateway.memory.state().controls6.insert(key, control.unread());
    assert_eq!(out(&gateway, &line(HERE, SERVER, ACK)), Known);
    assert_eq!(back(&gateway, &tcp(SERVER, HERE, RST)), Known);
    {
        let mut state = gateway.memory.state();
        state.now += 5;
        state.settings.heartbeat += 5;
    }
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, SYN)), Known);
    assert_eq!(out(&gateway, &line(HERE, SERVER, ACK)), Punted);
}

/// A segment with number 0 and this payload.
fn says(src: (Address6, u16), dst: (Address6, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = tcp(src, dst, ACK);
    frame.extend(payload);
    frame[19] += payload.len() as u8;
    frame
}

#[test]
fn what_is_encrypted_passes_from_record_to_record() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, SERVER, SYN)), Known);
    let (key, made) = the_flow(&gateway);
    let control = Control6::new(SessionId::from_number(9), made.created(), [None; 2]).watched();
    gateway.memory.state().controls6.insert(key, control);
    let inside = Watch6Key::new(key, Zone::Inside);
    let watch = |boundary| {
        let watch = Watch::records(0u32.wrapping_sub(50), boundary);
        gateway.memory.state().watches6.insert(inside, watch);
    };
    let boundary = || gateway.memory.state().watches6[&inside].next_record();
    let record = |length: u8| [&[23, 3, 3, 0, length][..], &vec![b'x'; length.into()]].concat();
    let two = [record(2), record(9)].concat();
    for (at, payload, fate, next) in [
        (0, &record(2)[..], Known, 7),
        (0, &two, Known, 21),
        (0, &two[..12], Known, 21),
        (7, &two, Known, 21),
        (100, b"PORT 1\r\n", Known, 100),
        // A header that is cut, a line, and what comes behind something that is missing.
        (0, &two[..9], Punted, 0),
        (0, &two[..3], Punted, 0),
        (0, b"PWD\r\n", Punted, 0),
        (0u32.wrapping_sub(1), &record(2), Punted, 0u32.wrapping_sub(1)),
    ] {
        watch(at);
        assert_eq!(out(&gateway, &says(HERE, SERVER, payload)), fate, "{payload:?}");
        assert_eq!(boundary(), Some(next), "{payload:?}");
    }
    // Of the other side nothing is known yet; what has no payload nobody has to see.
    assert_eq!(back(&gateway, &says(SERVER, HERE, &record(2))), Punted);
    assert_eq!(back(&gateway, &tcp(SERVER, HERE, FIN | ACK)), Known);
    gateway.memory.state().settings.heartbeat = 0;
    watch(0);
    assert_eq!(out(&gateway, &says(HERE, SERVER, b"PWD\r\n")), Dropped(Reason::AlgNoAgent));
    assert_eq!(out(&gateway, &says(HERE, SERVER, &record(2))), Known);
}

#[test]
fn other_connections_are_read_by_nobody_and_those_of_a_rule_are() {
    let gateway = start();
    assert_eq!(out(&gateway, &tcp(HERE, THERE, SYN)), Known);
    assert_eq!(out(&gateway, &line(HERE, THERE, ACK)), Known);
    let gateway = start();
    let end = Endpoint6::new(flow::TCP, HOST6, Port::new(2121));
    let opening = Opening::new(RuleId::new(7), 0).control();
    gateway.memory.state().forwards6.insert(end, opening);
    let (client, server) = ((REMOTE6, 5000), (HOST6, 2121));
    let early = line(client, server, SYN);
    assert_eq!(back(&gateway, &early), Dropped(Reason::AlgMalformed));
    assert_eq!(back(&gateway, &tcp(client, server, SYN)), Known);
    assert_eq!(out(&gateway, &line(server, client, ACK)), Punted);
}

#[test]
fn an_announced_connection_comes_in_once_in_its_time_from_any_port() {
    let gateway = start();
    let now = gateway::START;
    expect(&gateway, 6000, now + 30);
    let dial = |port| tcp((REMOTE6, port), (HOST6, 6000), SYN);
    let unsolicited = Dropped(Reason::Unsolicited);
    // Neither what opens nothing nor somebody else uses it up.
    assert_eq!(back(&gateway, &tcp((REMOTE6, 20), (HOST6, 6000), ACK)), unsolicited);
    assert_eq!(back(&gateway, &udp((REMOTE6, 20), (HOST6, 6000))), unsolicited);
    assert_eq!(back(&gateway, &tcp((GATEWAY6, 20), (HOST6, 6000), SYN)), unsolicited);
    assert_eq!(back(&gateway, &dial(20)), Known);
    let (_, made) = the_flow(&gateway);
    assert_eq!(made.related_session(), Some(SessionId::from_number(9)));
    assert_eq!((made.rule(), made.is_control()), (RuleId::new(7), false));
    assert_eq!(back(&gateway, &line((REMOTE6, 20), (HOST6, 6000), ACK)), Known);
    assert_eq!(back(&gateway, &dial(21)), unsolicited);
    expect(&gateway, 6000, now);
    assert_eq!(back(&gateway, &dial(22)), unsolicited);
    assert!(gateway.memory.state().expectations6.is_empty());
}
