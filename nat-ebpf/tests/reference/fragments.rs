//! What the ends of a datagram see of it, whichever way its fragments come.

use crate::{
    common::{
        frame::{ETHERNET, MORE, SYN, Spec},
        gateway::{HOST, PUBLIC, REMOTE, SERVER},
    },
    gateway::{self, Gateway, LAN, WAN},
};
use nat_common::{
    flow::Zone,
    fragment::LIFETIME,
    punt::{Punt, PuntHeader},
    reason::Reason,
};
use nat_ebpf::host::{self, HostPacket, Verdict};

struct Seen {
    verdict: Verdict,
    frame: Vec<u8>,
    punted: Vec<(PuntHeader, Vec<u8>)>,
}

impl Seen {
    fn identification(&self) -> [u8; 2] {
        [self.frame[ETHERNET + 4], self.frame[ETHERNET + 5]]
    }

    fn source(&self) -> &[u8] {
        &self.frame[ETHERNET + 12..ETHERNET + 16]
    }

    fn leaves(&self) -> bool {
        matches!(self.verdict, Verdict::Forward(_))
    }
}

fn send(gateway: &Gateway, zone: Zone, spec: &Spec) -> Seen {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let mut packet = HostPacket::new(spec.build(), ifindex, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
    Seen { verdict, frame: packet.frame, punted: packet.punted }
}

fn datagram(host: [u8; 4], id: u16, fragment: u16) -> Spec {
    let spec = Spec::udp((host, 40001), (REMOTE, 53)).with(&[7; 64]);
    Spec { id, fragment, ..spec }
}

#[test]
fn fragments_of_two_hosts_leave_as_those_of_two_datagrams() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let (one, other) = (HOST, SERVER);
    let first = [one, other].map(|host| send(&gateway, Zone::Inside, &datagram(host, 5, MORE)));
    let later = [one, other].map(|host| send(&gateway, Zone::Inside, &datagram(host, 5, 9)));
    for (first, later) in first.iter().zip(&later) {
        assert!(first.leaves() && later.leaves());
        assert_eq!(first.source(), PUBLIC);
        assert_eq!(later.source(), PUBLIC);
        assert_eq!(first.identification(), later.identification());
    }
    assert_ne!(first[0].identification(), first[1].identification());
    // The first one again is the same one.
    let again = send(&gateway, Zone::Inside, &datagram(one, 5, MORE));
    assert_eq!(again.identification(), first[0].identification());
}

#[test]
fn a_later_fragment_waits_in_the_agent_before_its_first_one_and_long_after_it() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let later = datagram(HOST, 5, 9);
    let waits = |seen: Seen| {
        assert_eq!(seen.verdict, Verdict::Punted);
        let [(header, bytes)] = &seen.punted[..] else { panic!("one record") };
        assert_eq!(header.kind(), Punt::Fragment(Zone::Inside));
        assert!(!header.is_copy());
        assert_eq!(*bytes, later.build()[ETHERNET..]);
    };
    waits(send(&gateway, Zone::Inside, &later));
    assert!(send(&gateway, Zone::Inside, &datagram(HOST, 5, MORE)).leaves());
    assert!(send(&gateway, Zone::Inside, &later).leaves());
    let heartbeat = {
        let mut state = gateway.memory.state();
        state.now += LIFETIME;
        state.settings.heartbeat = state.now;
        state.now
    };
    waits(send(&gateway, Zone::Inside, &later));
    // Without an agent none waits.
    gateway.memory.state().now = heartbeat + 60;
    let seen = send(&gateway, Zone::Inside, &later);
    assert_eq!(seen.verdict, Verdict::Drop(Reason::FragmentAlone));
}

#[test]
fn an_answer_in_fragments_keeps_its_identification_and_one_to_the_gateway_passes() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    assert!(send(&gateway, Zone::Inside, &datagram(HOST, 5, 0)).leaves());
    let answer = |fragment| {
        let spec = Spec::udp((REMOTE, 53), (PUBLIC, 40001)).with(&[8; 64]);
        Spec { id: 0x77, fragment, ..spec }
    };
    // Too early it may be the gateway's own: the kernel gets it, and the agent a copy.
    let early = send(&gateway, Zone::Outside, &answer(9));
    assert_eq!(early.verdict, Verdict::Pass);
    assert!(early.punted[0].0.is_copy());
    for fragment in [MORE, MORE | 5, 9] {
        let seen = send(&gateway, Zone::Outside, &answer(fragment));
        assert!(seen.leaves(), "{fragment:x}");
        assert_eq!(seen.identification(), [0, 0x77]);
        assert_eq!(seen.frame[ETHERNET + 16..ETHERNET + 20], HOST);
    }
}

#[test]
fn a_first_fragment_that_hides_flags_is_dropped() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let syn = Spec { fragment: MORE, ..Spec::tcp((HOST, 40001), (REMOTE, 80), SYN) };
    for length in [8, 16] {
        let mut frame = syn.build();
        frame.truncate(ETHERNET + 20 + length);
        frame[ETHERNET + 3] = 20 + length as u8;
        let mut packet = HostPacket::new(frame, LAN, &gateway.world);
        let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside);
        assert_eq!(verdict, Verdict::Drop(Reason::Truncated), "{length} bytes of TCP");
    }
    assert!(send(&gateway, Zone::Inside, &syn).leaves());
    // Nor does one behind it write other flags over those.
    let over = Spec { fragment: 1, ..syn.clone() };
    let seen = send(&gateway, Zone::Inside, &over);
    assert_eq!(seen.verdict, Verdict::Drop(Reason::Fragment));
    assert!(send(&gateway, Zone::Inside, &Spec { fragment: 3, ..syn }).leaves());
}

#[test]
fn control_connections_have_no_fragments() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let syn = Spec { fragment: MORE, ..Spec::tcp((HOST, 40001), (REMOTE, 21), SYN) };
    let seen = send(&gateway, Zone::Inside, &syn);
    assert_eq!(seen.verdict, Verdict::Drop(Reason::Fragment));
}
