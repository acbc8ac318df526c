//! IPv6 in the kernel and on the host: the same frames one after the other, as TC sees them.

use crate::{
    both::clock,
    common::{
        frame::{ACK, FIN, RST, SYN},
        gateway::{self, LAN, PUBLIC, WAN},
        six::{
            GATEWAY6, HOST6, HOST6_OUTSIDE, LAN6, LAN6_OUTSIDE, LINK_LOCAL, NEIGHBOUR6, NOWHERE6,
            ONES6, ONES6_OUTSIDE, OTHER6, REMOTE6, ROUTES, Segment, UNIQUE_LOCAL6, datagram,
            fragment, frame, icmp, line, prefixes, quote, tcp, udp,
        },
    },
    lab,
    object::{self, Object},
};
use nat_common::{
    flow::{self, Zone},
    port::Port,
    rule::RuleId,
    session::SessionId,
    settings::Settings,
    six::{
        Address6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key, ICMPV6, Opening, Way6,
    },
};
use nat_ebpf::host::{self, HostPacket, Limits, Verdict};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use std::collections::BTreeMap;

const FRAMES: u32 = 9000;
/// Flows that a host may open while that is limited.
const MOST: u32 = 4;

/// Few ends, so that packets meet flows of each other.
fn frames() -> BoxedStrategy<(Zone, Vec<u8>)> {
    let zone = select(vec![Zone::Inside, Zone::Outside]);
    let inside = select(vec![
        HOST6,
        HOST6,
        HOST6,
        HOST6_OUTSIDE,
        HOST6_OUTSIDE,
        HOST6_OUTSIDE,
        LAN6,
        LAN6_OUTSIDE,
        NEIGHBOUR6,
        NEIGHBOUR6,
        ONES6,
        ONES6_OUTSIDE,
        LINK_LOCAL,
    ]);
    let outside = select(vec![
        REMOTE6,
        REMOTE6,
        REMOTE6,
        NOWHERE6,
        OTHER6,
        GATEWAY6,
        ROUTES[1].0,
        UNIQUE_LOCAL6,
        HOST6_OUTSIDE,
        LAN6_OUTSIDE,
        [0xff; 16],
    ]);
    let ports = (select(vec![80, 5000, 21]), select(vec![80, 53, 21]));
    (zone, inside, outside, ports, any::<u8>(), body())
        .prop_map(|(zone, inside, outside, (near, far), cut, body)| {
            let (here, there) = ((inside, near), (outside, far));
            let (src, dst) = if zone == Zone::Inside { (here, there) } else { (there, here) };
            let mut frame = body.frame(src, dst);
            // Some are cut off, and say so or not.
            if cut < 16 && frame.len() > 54 {
                frame.truncate(frame.len() - 1 - usize::from(cut) % (frame.len() - 54));
                if cut % 2 == 0 {
                    let payload = (frame.len() - 54) as u16;
                    frame[18..20].copy_from_slice(&payload.to_be_bytes());
                }
            }
            (zone, frame)
        })
        .boxed()
}

/// What is behind the addresses.
#[derive(Clone, Debug)]
enum Body {
    Tcp(Segment),
    /// The same with payload.
    Line(u8),
    Udp,
    Icmp(u8, u16),
    /// An error about what the other end has sent.
    Error(u8, bool),
    /// So many extension headers.
    Extended(Vec<(u8, [u8; 7])>),
    Fragment(u16, bool, u32),
    Other(u8),
}

fn body() -> BoxedStrategy<Body> {
    let flags = [SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0];
    let flags = select(flags.to_vec());
    let extension = (
        select(vec![0, 43, 51, 60, 60]),
        (select(vec![0u8, 1, 2]), select(vec![0u8, 2]), any::<bool>()),
    );
    let extension = extension.prop_map(|(kind, (length, third, left))| {
        (kind, [0, third, u8::from(left), 0, 0, 0, length])
    });
    prop_oneof![
        12 => segment(flags.clone()).prop_map(Body::Tcp),
        5 => flags.prop_map(Body::Line),
        4 => Just(Body::Udp),
        3 => (select(vec![128u8, 129, 135, 3]), select(vec![7u16, 8]))
            .prop_map(|(kind, identifier)| Body::Icmp(kind, identifier)),
        3 => (1u8..6, any::<bool>()).prop_map(|(kind, is_tcp)| Body::Error(kind, is_tcp)),
        2 => prop::collection::vec(extension, 0..11).prop_map(Body::Extended),
        3 => (select(vec![0u16, 0, 2]), any::<bool>(), 0u32..3)
            .prop_map(|(offset, more, id)| Body::Fragment(offset, more, id)),
        1 => select(vec![50u8, 59, 132]).prop_map(Body::Other),
    ]
    .boxed()
}

/// Numbers before, at and behind what the other end is ready for, by a little and by far.
fn segment(flags: impl Strategy<Value = u8>) -> impl Strategy<Value = Segment> {
    let number = || {
        let near = select(vec![0u32, 1, 0x1000, 0x1001, 70_000, 1 << 30]);
        (near, any::<bool>()).prop_map(|(near, is_before)| match is_before {
            true => 0u32.wrapping_sub(near),
            false => near,
        })
    };
    let scale = prop::option::of(0u8..16);
    (flags, number(), number(), select(vec![0u16, 0x1000, 0xffff]), scale, 0u8..3).prop_map(
        |(flags, sequence, acknowledgement, window, scale, payload)| Segment {
            flags,
            sequence,
            acknowledgement,
            window,
            scale,
            payload,
        },
    )
}

impl Body {
    fn frame(&self, src: (Address6, u16), dst: (Address6, u16)) -> Vec<u8> {
        match self {
            Self::Tcp(segment) => segment.frame(src, dst),
            Self::Line(flags) => line(src, dst, *flags),
            Self::Udp => udp(src, dst),
            Self::Icmp(kind, identifier) => icmp(src.0, dst.0, *kind, *identifier, &[0; 20]),
            Self::Error(kind, is_tcp) => {
                let about = if *is_tcp { tcp(dst, src, ACK) } else { udp(dst, src) };
                icmp(src.0, dst.0, *kind, 0, quote(&about))
            }
            Self::Extended(chain) => {
                let mut rest = datagram(src.1, dst.1);
                let mut next = flow::UDP;
                for (kind, [_, third, left, .., length]) in chain.iter().rev() {
                    let mut header = vec![next, *length, *third, *left];
                    let words = if *kind == 51 { length + 2 } else { (length + 1) * 2 };
                    header.resize(usize::from(words) * 4, 0);
                    rest = [header, rest].concat();
                    next = *kind;
                }
                frame(src.0, dst.0, next, &rest)
            }
            Self::Fragment(offset, more, id) => {
                let header = fragment(flow::UDP, *offset, *more, *id);
                frame(src.0, dst.0, 44, &[header, datagram(src.1, dst.1)].concat())
            }
            Self::Other(protocol) => frame(src.0, dst.0, *protocol, b"something"),
        }
    }
}

/// Flows without times, which pass on one side earlier than on the other.
fn timeless(flows: impl Iterator<Item = (Flow6Key, Flow6)>) -> BTreeMap<Flow6Key, String> {
    let way = |way: &Way6| (way.packets, way.bytes, way.seen);
    flows
        .map(|(key, flow)| {
            let ways = [(&flow.outbound, Zone::Inside), (&flow.inbound, Zone::Outside)];
            let ways = ways.map(|(seen, zone)| (way(seen), flow.receiving(zone)));
            let kin = (flow.is_control(), flow.related_session());
            (key, format!("{:?} {:?} {kin:?} {ways:?}", flow.begun(), flow.rule()))
        })
        .collect()
}

#[test]
fn the_programs_judge_and_translate_ipv6_as_the_path_does_on_the_host() {
    lab::run("the_programs_judge_and_translate_ipv6_as_the_path_does_on_the_host", |object| {
        let _sockets = lab::set_up();
        lab::set_up_six();
        let mut object = Object::load(&object, 401);
        object.attach();
        let memory = gateway::memory(Limits::default(), true, Some(PUBLIC));
        {
            let mut state = memory.state();
            for (protocol, port, filter) in [(flow::TCP, 80, 0), (flow::UDP, 80, 3), (ICMPV6, 0, 0)]
            {
                let end = Endpoint6::new(protocol, HOST6, Port::new(port));
                state.forwards6.insert(end, Opening::new(RuleId::new(7), filter));
            }
            let end = Endpoint6::new(flow::TCP, HOST6, Port::new(21));
            state.forwards6.insert(end, Opening::new(RuleId::new(8), 0).control());
            for (zone, src, dst, port) in
                [(Zone::Outside, REMOTE6, HOST6, 5000), (Zone::Inside, HOST6, REMOTE6, 53)]
            {
                let key = Expectation6Key::new(zone, flow::TCP, src, dst, Port::new(port));
                let value = Expectation6::new(SessionId::from_number(9), RuleId::NONE, u32::MAX);
                state.expectations6.insert(key, value);
            }
            state.allowed6 = vec![(3, REMOTE6, 112)];
            state.prefixes = prefixes();
            object.fill(&state);
        }
        let world = gateway::world();
        let mut runner = TestRunner::new(Config::default());
        let mut fates = BTreeMap::new();
        let mut translated = 0;
        for number in 0..FRAMES {
            let (zone, mut frame) = frames().new_tree(&mut runner).unwrap().current();
            let ifindex = if zone == Zone::Inside { LAN } else { WAN };
            frame[5] = ifindex as u8;
            {
                let mut state = memory.state();
                state.now = clock();
                // In the first half they are in the map, and the settings say that there are none.
                let prefixes = u16::from(number >= FRAMES / 2);
                // Few flows a host in the first quarter of either, and what else may pass does in its
                // second half.
                let half = number % (FRAMES / 2);
                let flows_per_host = if half < FRAMES / 8 { MOST } else { 0 };
                let more = u8::from(half > FRAMES / 4);
                let (heartbeat, echo6, unique_local6) = (state.now, more, more);
                let settings = Settings {
                    heartbeat,
                    prefixes,
                    echo6,
                    unique_local6,
                    flows_per_host,
                    ..state.settings
                };
                if state.settings != settings {
                    state.settings = settings;
                    object.settings(settings);
                }
            }
            let answer = object.tc(zone, ifindex, &frame).expect("a test run");
            let mut packet = HostPacket::new(frame.clone(), ifindex, &world);
            let verdict = host::tc_ingress(&mut packet, &mut memory.tables(), zone);
            let code = match verdict {
                Verdict::Pass => object::TC_UNSPEC,
                Verdict::Drop(_) | Verdict::Punted => object::TC_SHOT,
                Verdict::Forward(_) => panic!("{verdict:?}"),
            };
            let what = format!("{number}: {zone:?} {verdict:?} {frame:02x?}");
            translated += u32::from(packet.frame != frame);
            let wanted = packet.frame.clone();
            assert_eq!(answer, object::Answer { code, frame: wanted, mark: 0 }, "{what}");
            // The same frame at the way out.
            if zone == Zone::Inside {
                frame[5] = WAN as u8;
                let answer = object.egress(WAN, LAN, 0, &frame).expect("a test run");
                let mut packet = HostPacket::new(frame.clone(), WAN, &world);
                let verdict = host::outside_egress(&mut packet, &mut memory.tables(), LAN, 0);
                let code = match verdict {
                    Verdict::Pass => object::TC_UNSPEC,
                    Verdict::Drop(_) => object::TC_SHOT,
                    Verdict::Punted | Verdict::Forward(_) => panic!("{verdict:?}"),
                };
                translated += u32::from(packet.frame != frame);
                let wanted = object::Answer { code, frame: packet.frame, mark: 0 };
                assert_eq!(answer, wanted, "{what}");
            }
            let state = memory.state();
            assert_eq!(object.drops(), state.drops.0, "{what}");
            assert_eq!(object.counters(), state.counters, "{what}");
            let here = timeless(state.flows6.iter().map(|(key, flow)| (*key, *flow)));
            assert_eq!(timeless(object.flows6().into_iter()), here, "{what}");
            if number % 50 == 0 {
                let hosts: Vec<Address6> = state.hosts6.keys().copied().collect();
                assert_eq!(object.hosts6(&hosts), state.hosts6, "{what}");
            }
            *fates.entry(format!("{verdict:?}")).or_insert(0) += 1;
        }
        println!("{fates:#?}, {translated} translated");
        assert!(translated > FRAMES / 8, "{translated}");
        assert!(fates["Drop(HostLimit)"] > 10, "{fates:?}");
        assert!(fates["Punted"] > 5 && fates["Drop(TcpWindow)"] > 10, "{fates:?}");
        assert!(fates.contains_key("Drop(UniqueLocal)"), "{fates:?}");
        assert!(fates.len() > 9 && fates["Pass"] > FRAMES / 10, "{fates:?}");
    });
}
