//! Frames that are none, or that lie about their lengths.

use crate::{
    common::frame::{ETHERNET, SYN, Spec},
    gateway::{self, HOST, LAN, PUBLIC, REMOTE, WAN},
};
use nat_common::{flow::Zone, reason::Reason};
use nat_ebpf::{
    host::{self, HostPacket, Verdict},
    packet::NextHop,
};
use proptest::prelude::*;

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let inside = prop::sample::select(vec![
        Spec::tcp((HOST, 5000), (REMOTE, 21), SYN).with(b"odd"),
        Spec::udp((HOST, 40000), (REMOTE, 53)).with(b"question"),
        Spec::echo(HOST, REMOTE, 8, 7).with(b"ping"),
        Spec::tcp((REMOTE, 5000), (PUBLIC, 21), SYN),
    ]);
    let byte = prop_oneof![
        Just(0u8),
        Just(1),
        Just(0x45),
        Just(0x4f),
        Just(0x44),
        Just(0xff),
        any::<u8>()
    ];
    let cut = prop_oneof![2 => Just(usize::MAX), 1 => 0..80usize];
    (inside, prop::collection::vec((12..60usize, byte), 0..4), cut).prop_map(
        |(spec, bytes, cut)| {
            let mut frame = spec.build();
            for (at, byte) in bytes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(cut);
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_passed_dropped_or_translated_within_their_headers(
        frame in frame(),
        zone in prop::sample::select(vec![Zone::Inside, Zone::Outside]),
    ) {
        let gateway = gateway::gateway(64, true, Some(PUBLIC));
        let ifindex = if zone == Zone::Inside { LAN } else { WAN };
        for _again in 0..2 {
            let mut early = HostPacket::<false>::new(frame.clone(), ifindex, &gateway.world);
            let first = host::xdp_ingress(&mut early, &mut gateway.memory.tables(), zone);
            let mut packet = HostPacket::new(frame.clone(), ifindex, &gateway.world);
            let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
            prop_assert_eq!(packet.frame.len(), frame.len());
            let is_told = verdict == Verdict::Pass && zone == Zone::Outside;
            if !matches!(verdict, Verdict::Forward(_)) && !is_told {
                prop_assert_eq!(&packet.frame, &frame);
            }
            if first == Verdict::Pass {
                prop_assert_eq!(&early.frame, &frame);
            } else if let Verdict::Forward(hop) = first {
                // To a hop that the agent says nothing of TC lets the kernel find the way.
                prop_assert!(hop.link.is_some());
                prop_assert_eq!(verdict, Verdict::Forward(NextHop { link: None, ..hop }));
                prop_assert_eq!(&early.frame[ETHERNET..], &packet.frame[ETHERNET..]);
            }
        }
    }
}

#[test]
fn each_broken_header_has_its_reason() {
    let cases: [(usize, u8, Reason); 7] = [
        (ETHERNET, 0x65, Reason::BadHeader),
        (ETHERNET, 0x44, Reason::BadHeader),
        (ETHERNET + 3, 19, Reason::BadHeader),
        (ETHERNET + 3, 0, Reason::BadHeader),
        (ETHERNET + 3, 200, Reason::Truncated),
        (ETHERNET + 20 + 12, 0x40, Reason::BadHeader),
        (ETHERNET + 20 + 12, 0xf0, Reason::BadHeader),
    ];
    for (at, byte, reason) in cases {
        let gateway = gateway::gateway(64, true, Some(PUBLIC));
        let mut frame = Spec::tcp((HOST, 5000), (REMOTE, 80), SYN).build();
        frame[at] = byte;
        let mut packet = HostPacket::new(frame, LAN, &gateway.world);
        let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
        assert_eq!(verdict, Verdict::Drop(reason), "byte {at} = {byte:#x}");
        assert_eq!(gateway.memory.state().dropped(reason), 1);
    }
}

/// Linux's `iph_totlen`: what has no length is as long as its frame if it is to be cut, and broken if not.
#[test]
fn a_super_packet_of_more_than_64_kb_has_no_length() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let mut frame = Spec::tcp((HOST, 5000), (REMOTE, 80), SYN).build();
    frame[ETHERNET + 2..ETHERNET + 4].fill(0);
    let mut packet = HostPacket::new(frame, LAN, &gateway.world);
    packet.gso_size = 1400;
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
}

#[test]
fn frames_of_others_and_of_other_protocols_are_left_to_the_kernel() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let frame = Spec::udp((HOST, 5000), (REMOTE, 80)).build();
    let mut packet = HostPacket::new(frame.clone(), LAN, &gateway.world);
    packet.tag = 5;
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    assert_eq!(verdict, Verdict::Pass);
    let mut packet = HostPacket::new(frame.clone(), LAN, &gateway.world);
    packet.is_overheard = true;
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    assert_eq!(verdict, Verdict::Pass);
    let mut group = frame.clone();
    group[0] |= 1;
    let mut packet = HostPacket::<false>::new(group, LAN, &gateway.world);
    let verdict = host::xdp_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
    assert_eq!(verdict, Verdict::Pass);
    for ethertype in [[0x08, 0x06], [0x86, 0xdd], [0x81, 0x00]] {
        let mut frame = frame.clone();
        frame[12..14].copy_from_slice(&ethertype);
        let mut packet = HostPacket::<false>::new(frame, LAN, &gateway.world);
        let verdict = host::xdp_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
        assert_eq!(verdict, Verdict::Pass);
    }
}
