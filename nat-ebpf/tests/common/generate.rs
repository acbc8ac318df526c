//! Packets by chance, most of them at a border of something.

use super::{
    frame::{
        ACK, Body, DONT, ECHO, ECHO_REPLY, FIN, ICMP, MORE, Opt, PSH, RST, SYN, Spec, TCP, UDP,
        WINDOW,
    },
    gateway::{self, FAR, HOST, NOWHERE, ONE_TO_ONE, OWN, PUBLIC, REMOTE, SERVER},
};
use nat_common::flow::{FlowKey, Zone};
use proptest::prelude::*;

/// A port or identifier, most often one at a border.
pub fn port() -> BoxedStrategy<u16> {
    prop_oneof![
        4 => prop::sample::select(gateway::POOL.to_vec()),
        3 => prop::sample::select(vec![21, 22, 53, 80, 2121, 5353, 8080, 8081]),
        2 => prop::sample::select(vec![0, 1, 20, 1023, 1024, 39999, 40003, 65534]),
        1 => any::<u16>(),
    ]
    .boxed()
}

fn address(zone: Zone) -> BoxedStrategy<[u8; 4]> {
    let hosts = vec![HOST, HOST, [10, 0, 1, 3], [10, 0, 1, 5], SERVER, ONE_TO_ONE];
    let remotes = vec![REMOTE, REMOTE, [198, 51, 100, 2], FAR, [203, 0, 113, 9]];
    let odd = vec![
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [10, 0, 1, 254],
        NOWHERE,
        [192, 168, 9, 9],
        [1, 0, 0, 0],
        [223, 255, 255, 255],
        [240, 0, 0, 1],
    ];
    let usual = match zone {
        Zone::Inside => hosts,
        Zone::Outside => remotes,
    };
    prop_oneof![16 => prop::sample::select(usual), 1 => prop::sample::select(odd)].boxed()
}

fn destination(zone: Zone) -> BoxedStrategy<[u8; 4]> {
    match zone {
        Zone::Inside => prop_oneof![
            12 => address(Zone::Outside), 1 => address(Zone::Inside), 3 => Just(PUBLIC), 1 => Just(OWN),
        ]
        .boxed(),
        Zone::Outside => prop_oneof![
            10 => Just(PUBLIC), 4 => Just(OWN), 1 => address(Zone::Inside), 1 => address(Zone::Outside),
        ]
        .boxed(),
    }
}

fn options() -> BoxedStrategy<Vec<Opt>> {
    let mss = prop_oneof![
        Just(0u16),
        Just(255),
        Just(256),
        Just(257),
        Just(296),
        Just(1460),
        any::<u16>()
    ];
    prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![Opt::Nop, Opt::Nop, Opt::Timestamps(1, 2)]),
        1 => Just(vec![Opt::Nop, Opt::Nop, Opt::Sack(5, 9)]),
        3 => (mss, any::<u32>(), any::<[u8; 2]>(), scale()).prop_map(|(mss, at, multi, scale)| {
            let time = Opt::Timestamps(at, 0);
            vec![Opt::Mss(mss), Opt::SackPermitted, time, Opt::Mptcp(multi), Opt::Nop, scale]
        }),
    ]
    .boxed()
}

fn scale() -> BoxedStrategy<Opt> {
    prop_oneof![Just(0u8), Just(1), Just(7), Just(14), Just(15), any::<u8>()]
        .prop_map(Opt::Scale)
        .boxed()
}

fn flags() -> BoxedStrategy<u8> {
    prop_oneof![
        6 => Just(SYN), 2 => Just(SYN | ACK), 3 => Just(ACK), 2 => Just(PSH | ACK),
        2 => Just(FIN | ACK), 1 => Just(RST), 1 => Just(RST | ACK), 1 => any::<u8>(),
    ]
    .boxed()
}

fn body() -> BoxedStrategy<Body> {
    // The ends of windows from 0 and from 1 on, and what is old by as much as it may be.
    let window = u32::from(WINDOW);
    let edges = vec![0, 1, u32::MAX, window - 1, window, window + 1, window << 7, window << 14];
    let old = [65_534, 65_535, 65_536].map(u32::wrapping_neg);
    let edges = prop::sample::select([edges, old.to_vec()].concat());
    let word = prop_oneof![4 => edges, 1 => any::<u32>()];
    let icmp =
        prop_oneof![5 => Just(ECHO), 3 => Just(ECHO_REPLY), 1 => Just(3u8), 1 => any::<u8>()];
    prop_oneof![
        5 => (port(), port(), flags(), options(), word.clone(), word).prop_map(
            |(sport, dport, flags, options, sequence, acknowledgement)| {
                Body::Tcp { sport, dport, flags, options, sequence, acknowledgement }
            }
        ),
        4 => (port(), port(), prop::bool::weighted(0.8))
            .prop_map(|(sport, dport, summed)| Body::Udp { sport, dport, summed }),
        2 => (icmp, port()).prop_map(|(kind, identifier)| Body::Icmp { kind, identifier }),
        1 => prop_oneof![Just(47u8), Just(50), Just(132), Just(136), Just(0), Just(255)]
            .prop_map(|protocol| Body::Other { protocol }),
    ]
    .boxed()
}

fn payload() -> BoxedStrategy<Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
    prop_oneof![
        3 => Just(Vec::new()),
        3 => prop::collection::vec(byte, 0..24),
        1 => prop::sample::select(vec![511usize, 1460, 4000]).prop_map(|length| vec![0xab; length]),
    ]
    .boxed()
}

/// A packet that arrives from `zone`, most often between hosts that know each other.
pub fn packet(zone: Zone) -> BoxedStrategy<Spec> {
    let fragment = prop_oneof![
        20 => Just(DONT), 12 => Just(0), 4 => Just(MORE), 1 => Just(MORE | 1), 1 => Just(0x1fff),
        2 => Just(MORE | 185), 3 => Just(370), 1 => Just(DONT | MORE),
    ];
    let id = prop::sample::select(vec![0x1234u16, 0x1234, 0, 7]);
    let ttl =
        prop_oneof![8 => Just(64u8), 1 => Just(0), 1 => Just(1), 2 => Just(2), 1 => Just(255)];
    let words = prop_oneof![12 => Just(0u8), 1 => Just(1), 1 => Just(10)];
    let damage = prop_oneof![8 => Just(0u16), 1 => Just(1), 1 => Just(0xffff), 1 => Just(0x8000)];
    let trailer = prop_oneof![Just(0usize), Just(6)];
    let numbers = (ttl, id, fragment, words);
    (address(zone), destination(zone), numbers, body(), payload(), trailer, damage)
        .prop_map(|(src, dst, (ttl, id, fragment, options), body, payload, trailer, damage)| Spec {
            // Short packets are filled up to the least length of a frame.
            trailer: if payload.len() < 24 { trailer } else { 0 },
            src,
            dst,
            ttl,
            id,
            fragment,
            options,
            body,
            payload,
            damage,
        })
        .boxed()
}

/// A packet that has the flow record of `key`, with everything else from `spec`.
pub fn known(key: &FlowKey, spec: &Spec) -> Spec {
    let (sport, dport) = (key.sport().number(), key.dport().number());
    let body = match (key.protocol(), spec.body.clone()) {
        (TCP, Body::Tcp { flags, options, sequence, acknowledgement, .. }) => {
            Body::Tcp { sport, dport, flags, options, sequence, acknowledgement }
        }
        (TCP, _) => Spec::tcp((key.src(), sport), (key.dst(), dport), ACK).body,
        (UDP, Body::Udp { summed, .. }) => Body::Udp { sport, dport, summed },
        (UDP, _) => Body::Udp { sport, dport, summed: true },
        (protocol, _) if protocol != ICMP => Body::Other { protocol },
        _ if dport != 0 => Body::Icmp { kind: ECHO_REPLY, identifier: dport },
        _ => Body::Icmp { kind: ECHO, identifier: sport },
    };
    Spec { src: key.src(), dst: key.dst(), body, ..spec.clone() }
}

/// The keys of flow records, in an order that does not depend on a hash.
pub fn in_order<'a>(keys: impl Iterator<Item = &'a FlowKey>) -> Vec<FlowKey> {
    let mut keys: Vec<FlowKey> = keys.copied().collect();
    keys.sort_unstable_by_key(|key| {
        let zone = key.zone() == Zone::Inside;
        (zone, key.protocol(), key.src(), key.sport(), key.dst(), key.dport())
    });
    keys
}

/// An ICMP error, but for the packet that it is about.
#[derive(Clone, Debug)]
pub struct Report {
    kind: u8,
    /// Bytes of the quote.
    cut: usize,
    /// Words of the quote, if the error says.
    said: u8,
    /// Whether something follows the quote.
    extended: bool,
    /// Not from who the quoted packet was for, but from the way to it.
    on_the_way: bool,
    /// For another host than the one that has sent what is quoted.
    astray: bool,
    /// The packet that is quoted, but for its ends; and the error itself, but for its body.
    about: Spec,
    outer: Spec,
}

/// Errors with quotes of all lengths.
pub fn report() -> BoxedStrategy<Report> {
    let kind = prop::sample::select(vec![3u8, 3, 11, 11, 12]);
    let cut = prop_oneof![2 => 28..60usize, 1 => 0..28usize, 2 => Just(128usize)];
    let said = prop_oneof![3 => Just(0u8), 1 => 1..40u8, 1 => Just(32)];
    let rare = || prop::bool::weighted(0.1);
    (
        (kind, cut, said, any::<bool>(), any::<bool>(), rare()),
        packet(Zone::Inside),
        packet(Zone::Inside),
    )
        .prop_map(|((kind, cut, said, extended, on_the_way, astray), about, outer)| Report {
            kind,
            cut,
            said,
            extended,
            on_the_way,
            astray,
            about,
            outer,
        })
        .boxed()
}

/// An error from the zone of `key` about a packet to which one with that key would be the answer.
pub fn error(key: &FlowKey, report: &Report) -> Spec {
    let sent = FlowKey::new(
        key.zone().other(),
        key.protocol(),
        key.dst(),
        key.dport(),
        key.src(),
        key.sport(),
    );
    let mut quote = known(&sent, &report.about).build()[super::frame::ETHERNET..].to_vec();
    quote.resize(report.cut, 0);
    if report.extended {
        // A structure of RFC 4884: version, checksum, one object.
        quote.extend([0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 1, 2, 3, 4]);
    }
    let router = match key.zone() {
        Zone::Inside => [10, 0, 1, 3],
        Zone::Outside => [198, 51, 100, 2],
    };
    let body = Body::Icmp { kind: report.kind, identifier: report.said.into() };
    Spec {
        src: if report.on_the_way { router } else { key.src() },
        dst: if report.astray { OWN } else { key.dst() },
        body,
        payload: quote,
        trailer: 0,
        ..report.outer.clone()
    }
}
