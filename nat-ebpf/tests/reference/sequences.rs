//! Sequences of packets with time: the path and the model give the same verdicts, the same bytes and
//! the same tables, and XDP what TC gives or nothing.

use crate::{
    common::{
        frame::{Body, ETHERNET, SYN, Spec, TCP},
        generate::{self, Report, packet, port},
        sums,
    },
    compare::{counted, endpoint, filled, key, link, place, same_tables},
    gateway::{self, Gateway, HOST, LAN, OWN, PUBLIC, REMOTE, SERVER, WAN},
    model::{End, Expectation, Expected, Filled, Holder, Owned, Way},
};
use nat_common::{
    contact::Contact,
    counter::Counter,
    expectation::{self, ExpectationKey},
    flow::{FlowKey, Zone},
    hop::{self, Hop, HopReference, Link},
    port::{Endpoint, Owner, Port, PortOwner},
    punt::Punt,
    reason::Reason,
    record::FlowRecord,
    rule::RuleId,
    session::{Session, SessionId},
    settings::{Filtering, Mapping},
};
use nat_ebpf::{
    host::{self, Checksum, HostPacket, Memory, State, Verdict},
    packet::NextHop,
};
use proptest::{prelude::*, sample::Index};
use std::collections::{HashMap, HashSet};

/// The way of a connection that is announced.
#[derive(Clone, Copy, Debug)]
enum Course {
    Inward,
    Outward,
    Turned,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Packet(Zone, Spec),
    /// A packet of a connection that exists, of either direction, with other flags.
    Known(Index, Spec),
    /// An error about a packet of a connection that exists, of either direction.
    Error(Index, Report),
    Wait(u32),
    /// The agent announces a connection of a session.
    Expect(Course, End, u32),
    /// The agent removes a connection that has expired.
    Expire(Index),
    /// The agent marks ports that nobody uses, and releases those that it has marked before.
    Sweep,
    /// The agent writes what it knows of the hops that came up.
    Fill(Filled),
    /// The agent is about to free a hop.
    Close(Index),
    /// Routes have changed, or the agent says so; it frees what it has closed.
    Reroute,
    Beat,
}

fn step() -> BoxedStrategy<Step> {
    let address = prop_oneof![3 => Just(PUBLIC), 1 => Just(OWN)];
    let course = prop::sample::select(vec![Course::Inward, Course::Outward, Course::Turned]);
    // Less than packets here have, what the routes take, and more than they do.
    let mtu = prop_oneof![1 => Just(100usize), 4 => Just(1500), 1 => Just(1501)];
    prop_oneof![
        10 => packet(Zone::Inside).prop_map(|spec| Step::Packet(Zone::Inside, spec)),
        6 => packet(Zone::Outside).prop_map(|spec| Step::Packet(Zone::Outside, spec)),
        10 => (any::<Index>(), packet(Zone::Inside))
            .prop_map(|(index, spec)| Step::Known(index, spec)),
        6 => (any::<Index>(), generate::report())
            .prop_map(|(index, report)| Step::Error(index, report)),
        1 => prop_oneof![Just(1u32), Just(4), Just(5), Just(300)].prop_map(Step::Wait),
        3 => (course, address, port(), 0u32..20)
            .prop_map(|(course, address, port, life)| Step::Expect(course, (address, port), life)),
        1 => any::<Index>().prop_map(Step::Expire),
        2 => Just(Step::Sweep),
        2 => (prop::bool::weighted(0.8), mtu)
            .prop_map(|(resolved, mtu)| Step::Fill(Filled { resolved, mtu })),
        1 => any::<Index>().prop_map(Step::Close),
        1 => Just(Step::Reroute),
        1 => Just(Step::Beat),
    ]
    .boxed()
}

fn copy(memory: &Memory) -> Memory {
    Memory::from(memory.state().clone())
}

/// The public port that the path has given to a packet: that of its flow; without one, that which
/// has another word than before; or else that of its source.
fn mapped(before: &State, after: &State, spec: &Spec) -> Option<u16> {
    let transport = ETHERNET + 20 + usize::from(spec.options) * 4;
    let at = transport + if spec.protocol() == 1 { 4 } else { 0 };
    let frame = spec.build();
    if let Body::Other { .. } = spec.body {
        return None;
    }
    let port = Port::new(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let dport = match spec.protocol() {
        1 => Port::NONE,
        _ => Port::new(u16::from_be_bytes([*frame.get(at + 2)?, *frame.get(at + 3)?])),
    };
    let key = FlowKey::new(Zone::Inside, spec.protocol(), spec.src, port, spec.dst, dport);
    if let Some(record) = after.flow(&key) {
        return Some(record.flow().rewrite().sport().number());
    }
    let owns = PortOwner::new(Owner::Masquerade, spec.src, port);
    let is_its = |public: &&Endpoint| {
        public.protocol() == spec.protocol() && after.ports[public].idle(false) == owns
    };
    let changed =
        |public: &&Endpoint| before.ports.get(public) != after.ports.get(public) && !is_its(public);
    let found = after.ports.keys().find(changed).or_else(|| after.ports.keys().find(is_its));
    found.map(|public| public.port().number())
}

/// The source port or identifier that a packet left with.
fn chosen(spec: &Spec, frame: &[u8]) -> Option<u16> {
    let transport = ETHERNET + 20 + usize::from(spec.options) * 4;
    let at = transport + if spec.protocol() == 1 { 4 } else { 0 };
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// The frame without its transport checksum, which may be written in two ways.
fn unsummed(spec: &Spec, frame: &[u8]) -> Vec<u8> {
    let transport = ETHERNET + 20 + usize::from(spec.options) * 4;
    let at = match spec.protocol() {
        TCP => Some(16),
        17 => Some(6),
        1 => Some(2),
        _ => None,
    };
    let mut frame = frame.to_vec();
    if let Some(at) = at {
        frame[transport + at..transport + at + 2].fill(0);
    }
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    if let Some(quote) = sums::quote(&frame) {
        let network = quote.header.start + 10;
        frame[network..network + 2].fill(0);
        if let Some(at) = quote.field {
            frame[at..at + 2].fill(0);
        }
    }
    frame
}

/// Checksums are as right as they were, quoted ones too.
fn same_residues(spec: &Spec, frame: &[u8], out: &[u8]) {
    let (was, is) = (sums::residues(frame), sums::residues(out));
    assert_eq!(was.network, is.network, "{spec:?}");
    assert_eq!(was.transport, is.transport, "a checksum is as right as it was");
    assert_eq!(sums::quoted(frame), sums::quoted(out), "a quoted one too");
}

/// Runs one packet through path and model.
fn run(gateway: &mut Gateway, zone: Zone, spec: &Spec) {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let frame = spec.build();
    let early = copy(&gateway.memory);
    let by_device = copy(&gateway.memory);
    let before = gateway.memory.state().clone();

    let mut packet = HostPacket::new(frame.clone(), ifindex, &gateway.world);
    let verdict = host::tc_ingress(&mut packet, &mut gateway.memory.tables(), zone);
    let after = gateway.memory.state().clone();
    gateway.model.identified =
        u16::from_be_bytes([packet.frame[ETHERNET + 4], packet.frame[ETHERNET + 5]]);
    let expected = gateway.model.packet(zone, spec, mapped(&before, &after, spec));
    match (&expected, verdict) {
        (Expected::Pass, Verdict::Pass) => {
            assert_eq!(packet.frame, frame);
            assert_eq!(packet.punted.len(), usize::from(gateway.model.copied));
            assert!(packet.punted.iter().all(|(header, _)| header.is_copy()));
        }
        (Expected::Cut(out), Verdict::Punted) => {
            assert_eq!(unsummed(out, &packet.frame), unsummed(out, &out.build()));
            same_residues(spec, &frame, &packet.frame);
            let [(header, bytes)] = &packet.punted[..] else { panic!("one record is punted") };
            assert_eq!(*bytes, packet.frame[ETHERNET..ETHERNET + spec.length()]);
            assert_eq!((header.kind(), header.ifindex()), (Punt::Long(1500), WAN));
        }
        (Expected::Drop(wanted), Verdict::Drop(reason)) => {
            assert_eq!(*wanted, reason);
            // A host inside that had no room for a flow is told so.
            let refused = matches!(reason, Reason::TableFull | Reason::PortsExhausted);
            let told = refused && zone == Zone::Inside && gateway.model.is_alive();
            assert_eq!(packet.punted.len(), usize::from(told));
            for (header, bytes) in &packet.punted {
                assert_eq!((header.kind(), header.ifindex()), (Punt::Refused, LAN));
                assert_eq!(*bytes, frame[ETHERNET..frame.len().min(ETHERNET + 128)]);
            }
        }
        (Expected::Punt, Verdict::Punted) => {
            assert_eq!(packet.frame, frame);
            let [(header, bytes)] = &packet.punted[..] else { panic!("one record is punted") };
            assert_eq!(*bytes, frame[ETHERNET..ETHERNET + spec.length()]);
            assert_eq!((header.length(), header.ifindex()), (spec.length(), ifindex));
        }
        (Expected::Told(out), Verdict::Pass) => {
            assert_eq!(unsummed(out, &packet.frame), unsummed(out, &out.build()));
            same_residues(spec, &frame, &packet.frame);
        }
        (Expected::Forward(out, way), Verdict::Forward(hop)) => {
            assert_eq!(hop, next_hop(way));
            let mut wanted = out.build();
            if let Some(link) = hop.link {
                wanted[..ETHERNET - 2].copy_from_slice(&link.bytes());
            }
            assert_eq!(unsummed(out, &packet.frame), unsummed(out, &wanted));
            same_residues(spec, &frame, &packet.frame);
            left_to_device(gateway, &by_device, zone, spec, out);
        }
        (expected, verdict) => panic!("expected {expected:?}, got {verdict:?}"),
    }
    counted(&before, &after, verdict, gateway);
    same_tables(gateway, &after);
    early_hook(gateway, &early, zone, &frame, &expected, verdict, &packet.frame);
}

/// The hop that a packet leaves by which goes this way.
fn next_hop(way: &Way) -> NextHop {
    let ifindex = gateway::interface(way.place);
    let link = match way.by_agent {
        Some(Filled { resolved: true, .. }) => {
            Some(Link::new(link(way.neighbour), [6, 0, 0, 0, 0, ifindex as u8]))
        }
        // TC leaves it to the kernel to resolve the neighbour.
        Some(Filled { resolved: false, .. }) | None => None,
    };
    NextHop { ifindex, neighbour: way.neighbour, link }
}

/// The link addresses that the kernel has for a hop on this interface.
fn kernel_link(ifindex: u32) -> Link {
    Link::new([2, 0, 0, 0, 1, ifindex as u8], [2, 0, 0, 0, 0, ifindex as u8])
}

/// A packet whose checksum was left to a device still needs one, and only that.
fn left_to_device(gateway: &Gateway, memory: &Memory, zone: Zone, spec: &Spec, out: &Spec) {
    if !matches!(spec.body, Body::Tcp { .. } | Body::Udp { summed: true, .. })
        || spec.is_later_fragment()
    {
        return;
    }
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let mut packet = HostPacket::new(spec.build_left_to_device(), ifindex, &gateway.world);
    packet.checksum = Checksum::LeftToDevice;
    memory.state().random = [3].into();
    host::tc_ingress(&mut packet, &mut memory.tables(), zone);
    let (Body::Tcp { sport, .. } | Body::Udp { sport, .. }) = out.body else { return };
    assert_eq!(chosen(spec, &packet.frame), Some(sport), "lots fall the same");
    let at =
        ETHERNET + 20 + usize::from(spec.options) * 4 + if spec.protocol() == TCP { 16 } else { 6 };
    let sum = [packet.frame[at], packet.frame[at + 1]];
    let wanted = out.build_left_to_device();
    let (sum, wanted) = (u16::from_be_bytes(sum), u16::from_be_bytes([wanted[at], wanted[at + 1]]));
    assert_eq!(sum % 0xffff, wanted % 0xffff);
}

/// XDP does what TC does, or leaves the packet as it is: then TC does the same after it as alone.
fn early_hook(
    gateway: &Gateway,
    memory: &Memory,
    zone: Zone,
    frame: &[u8],
    expected: &Expected,
    verdict: Verdict,
    out: &[u8],
) {
    let ifindex = if zone == Zone::Inside { LAN } else { WAN };
    let mut packet = HostPacket::<false>::new(frame.to_vec(), ifindex, &gateway.world);
    let before = memory.state().counters;
    let early = host::xdp_ingress(&mut packet, &mut memory.tables(), zone);
    let mut by_early = 0;
    match early {
        Verdict::Pass => {
            assert_eq!(packet.frame, frame);
            let counters = memory.state().counters;
            for counter in [Counter::Stack, Counter::Tc, Counter::Xdp, Counter::Punted] {
                assert_eq!(counters[counter as usize], before[counter as usize]);
            }
            let mut packet = HostPacket::new(frame.to_vec(), ifindex, &gateway.world);
            let late = host::tc_ingress(&mut packet, &mut memory.tables(), zone);
            assert_eq!(late, verdict);
            assert_eq!(packet.frame, out);
        }
        Verdict::Forward(way) => {
            let Verdict::Forward(wanted) = verdict else { panic!("{early:?}, not {verdict:?}") };
            // What TC leaves to the kernel XDP has asked it.
            let link = wanted.link.unwrap_or(kernel_link(way.ifindex));
            assert_eq!(way, NextHop { link: Some(link), ..wanted });
            assert_eq!(packet.frame[..ETHERNET - 2], link.bytes());
            assert_eq!(packet.frame[ETHERNET - 2..ETHERNET + 10], out[ETHERNET - 2..ETHERNET + 10]);
            let (a, b) = (sums::residues(&packet.frame), sums::residues(out));
            assert_eq!(a.network, b.network);
            // A checksum that looks as if it was left to a device was made anew.
            assert!(a.transport == b.transport || a.transport == Some(0));
            by_early = 1;
        }
        Verdict::Drop(_) => assert_eq!(early, verdict),
        Verdict::Punted => panic!("XDP hands nothing to the agent"),
    }
    let (ours, theirs) = (memory.state(), gateway.memory.state());
    let (flows, wanted) = (ours.flows(), theirs.flows());
    // Where the agent knows no link address, XDP has led the flow by what the kernel said.
    let unresolved = |way: &Way| way.by_agent.is_some_and(|filled| !filled.resolved);
    if by_early == 1 && matches!(expected, Expected::Forward(_, way) if unresolved(way)) {
        let unled = |flows: HashMap<FlowKey, FlowRecord>| -> HashMap<_, _> {
            let unled = |(key, record): (_, FlowRecord)| (key, record.led(HopReference::NONE));
            flows.into_iter().map(unled).collect()
        };
        assert_eq!(unled(flows), unled(wanted));
    } else {
        assert_eq!(flows, wanted);
        assert_eq!(ours.hops, theirs.hops);
    }
    assert_eq!(ours.ports, theirs.ports);
    assert_eq!(ours.expectations, theirs.expectations);
    assert_eq!(ours.fragments, theirs.fragments);
    assert_eq!(ours.drops, theirs.drops);
    let mut counters = theirs.counters;
    counters[Counter::Tc as usize] -= by_early;
    counters[Counter::Xdp as usize] += by_early;
    assert_eq!(ours.counters, counters);
}

/// What the agent does when it announces a connection.
fn expect(gateway: &mut Gateway, course: Course, end: End, life: u32) {
    let Gateway { memory, model, .. } = gateway;
    let mut state = memory.state();
    let expires = state.now + life;
    let (session, rule) = (9, 3);
    let (zone, src, dst, to) = match course {
        Course::Inward => (Zone::Outside, REMOTE, end, (SERVER, 2000)),
        Course::Outward => (Zone::Inside, SERVER, (REMOTE, end.1), (end.0, 0)),
        Course::Turned => (Zone::Inside, SERVER, end, (HOST, 2000)),
    };
    let (dport, to_port) = (Port::new(dst.1), Port::new(to.1));
    let (session_id, rule_id) = (SessionId::new(session), RuleId::new(rule));
    let inbound = expectation::Expectation::inbound(to.0, to_port, session_id, rule_id, expires);
    let (key, value, turned) = match course {
        Course::Inward => (ExpectationKey::new(zone, TCP, src, dst.0, dport), inbound, None),
        Course::Outward => (
            ExpectationKey::new(zone, TCP, src, dst.0, dport),
            expectation::Expectation::outbound(to.0, session_id, rule_id, expires),
            None,
        ),
        // With another public address than the one that the host would be given.
        Course::Turned => (
            ExpectationKey::turning(TCP, src, dst.0, dport),
            expectation::Expectation::turned(to.0, to_port, OWN, session_id, rule_id, expires),
            Some(OWN),
        ),
    };
    if let Some(public) = key.public() {
        let owner = PortOwner::new(Owner::Expectation, to.0, to_port);
        if state.ports.contains_key(&public) {
            return;
        }
        state.ports.insert(public, owner);
        model.owned.push(Owned {
            protocol: TCP,
            public: dst,
            holder: Holder::Expectation,
            inside: to,
            idle: false,
        });
    }
    state.expectations.insert(key, value);
    let other = |it: &Expectation| (it.zone, it.turned, it.src, it.dst) != (zone, turned, src, dst);
    model.expectations.retain(other);
    model.expectations.push(Expectation { zone, src, dst, to, turned, session, rule, expires });
}

/// What the agent does with connection number `index`.
fn expire(gateway: &mut Gateway, index: usize) {
    let Gateway { memory, model, .. } = gateway;
    let mut state = memory.state();
    let gone = model.connections.remove(index);
    state.remove_flow(&key(gone.from, gone.protocol, gone.arrives));
    state.remove_flow(&key(gone.answered_from(), gone.protocol, (gone.leaves.1, gone.leaves.0)));
}

/// What the agent does with ports that no connection has: marked at first, free the next time.
/// Expectations here keep none.
fn sweep(gateway: &mut Gateway) {
    let Gateway { memory, model, .. } = gateway;
    let mut state = memory.state();
    let connections = model.connections.clone();
    let (expected, now) = (model.expectations.clone(), model.now);
    let in_use = |owned: &Owned| {
        owned.holder == Holder::Forward
            || expected
                .iter()
                .filter(|it| it.zone == Zone::Outside || it.turned.is_some())
                .any(|it| it.dst == owned.public && now < it.expires)
            || connections.iter().any(|connection| {
                let source = (connection.from == Zone::Inside).then_some(connection.leaves.0);
                let dialled = connection.from == Zone::Outside || connection.turns_back();
                let dialled = dialled.then_some(connection.arrives.1);
                connection.protocol == owned.protocol
                    && [source, dialled].contains(&Some(owned.public))
            })
    };
    model.owned.retain(|owned| in_use(owned) || !owned.idle);
    for owned in &mut model.owned {
        // One in use that still has the mark keeps it: the next pass does not ask the mark alone.
        owned.idle |= !in_use(owned);
    }
    let idle = |public: &Endpoint| {
        let owned = model.owned.iter().find(|o| endpoint(o.protocol, o.public) == *public);
        owned.map(|owned| owned.idle)
    };
    // What has no connection from inside is no contact any more.
    let dials = |contact: &(u8, End, [u8; 4])| {
        connections.iter().any(|it| {
            (it.from, it.protocol, it.leaves.0, it.leaves.1.0)
                == (Zone::Inside, contact.0, contact.1, contact.2)
        })
    };
    model.contacts.retain(dials);
    let left = model.contacts.iter().map(|it| Contact::new(endpoint(it.0, it.1), it.2));
    let left: HashSet<Contact> = left.collect();
    state.contacts.retain(|contact, _| left.contains(contact));
    state.ports.retain(|public, _| idle(public).is_some());
    for (public, owner) in &mut state.ports {
        *owner = owner.idle(idle(public) == Some(true));
    }
}

/// What the agent does with the hops that it keeps.
fn keep_hops(gateway: &mut Gateway, step: &Step) {
    let Gateway { memory, model, .. } = gateway;
    let mut state = memory.state();
    match step {
        Step::Fill(said) => {
            model.hops.iter_mut().filter(|hop| !hop.closed && !hop.freed).for_each(|hop| {
                hop.filled = Some(*said);
            });
            state.hops.values_mut().filter(|hop| !hop.is_closed()).for_each(|hop| {
                *hop = filled(hop, *said);
            });
        }
        Step::Close(index) => {
            let is_open = |at: &usize| !model.hops[*at].closed && !model.hops[*at].freed;
            let open: Vec<usize> = (0..model.hops.len()).filter(is_open).collect();
            if open.is_empty() {
                return;
            }
            let at = *index.get(&open);
            model.hops[at].closed = true;
            let hop = state.hops.get_mut(&place(model, &model.hops[at])).expect("a hop");
            let mut words = hop.words();
            (words[hop::LINK], words[hop::OWN]) = (Hop::CLOSED, 0);
            *hop = Hop::from_words(words);
        }
        _ => {
            model.epoch += 1;
            state.settings.epoch += 1;
            for hop in model.hops.iter_mut().filter(|hop| hop.closed) {
                (hop.closed, hop.freed) = (false, true);
            }
            state.hops.retain(|_, hop| !hop.is_closed());
        }
    }
}

/// Frees the records of control connections that no flow names.
fn free_sessions(memory: &Memory) {
    let mut state = memory.state();
    let named: HashSet<_> =
        state.flows().values().filter_map(|record| record.flow().control_session()).collect();
    for (index, session) in state.sessions.iter_mut().enumerate() {
        if !named.contains(&SessionId::new(index as u32)) {
            *session = Session::default();
        }
    }
}

fn play(mut gateway: Gateway, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Packet(zone, spec) => run(&mut gateway, *zone, spec),
            Step::Known(index, spec) => {
                let keys = generate::in_order(gateway.memory.state().flows().keys());
                if !keys.is_empty() {
                    let key = index.get(&keys);
                    run(&mut gateway, key.zone(), &generate::known(key, spec));
                }
            }
            Step::Error(index, report) => {
                let keys = generate::in_order(gateway.memory.state().flows().keys());
                if !keys.is_empty() {
                    let key = index.get(&keys);
                    run(&mut gateway, key.zone(), &generate::error(key, report));
                }
            }
            Step::Wait(seconds) => {
                gateway.model.now += seconds;
                gateway.memory.state().now += seconds;
            }
            Step::Expect(course, end, life) => expect(&mut gateway, *course, *end, *life),
            Step::Sweep => sweep(&mut gateway),
            Step::Fill(_) | Step::Close(_) | Step::Reroute => keep_hops(&mut gateway, step),
            Step::Expire(index) => {
                if !gateway.model.connections.is_empty() {
                    let index = index.index(gateway.model.connections.len());
                    expire(&mut gateway, index);
                }
            }
            Step::Beat => {
                gateway.model.heartbeat = gateway.model.now;
                let mut state = gateway.memory.state();
                state.settings.heartbeat = state.now;
            }
        }
        free_sessions(&gateway.memory);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_path_does_what_the_model_says(
        steps in prop::collection::vec(step(), 1..60),
        flows in prop_oneof![Just(8usize), Just(64)],
    ) {
        play(gateway::gateway(flows, true, Some(PUBLIC)), &steps);
    }

    #[test]
    fn every_choice_of_mapping_and_filtering_is_what_the_model_says(
        steps in prop::collection::vec(step(), 1..60),
        by_remote_end in any::<bool>(),
        by_address in any::<bool>(),
    ) {
        let (mapping, filtering) = match (by_remote_end, by_address) {
            (true, _) => (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent),
            (false, true) => (Mapping::EndpointIndependent, Filtering::AddressDependent),
            (false, false) => (Mapping::EndpointIndependent, Filtering::EndpointIndependent),
        };
        play(gateway::gateway(64, true, Some(PUBLIC)).behaving(mapping, filtering), &steps);
    }

    #[test]
    fn no_connection_announces_more_than_the_inside_takes(
        steps in prop::collection::vec(step(), 1..30),
        mtu in prop::sample::select(vec![576usize, 1400]),
    ) {
        let mut gateway = gateway::gateway(64, true, Some(PUBLIC));
        gateway.narrow_inside(mtu);
        play(gateway, &steps);
    }

    #[test]
    fn no_connection_announces_more_than_was_set(
        steps in prop::collection::vec(step(), 1..30),
        most in prop::sample::select(vec![28u16, 255, 1000, 1459, 1461]),
    ) {
        let mut gateway = gateway::gateway(64, true, Some(PUBLIC));
        gateway.memory.state().settings.mss_most = most;
        gateway.model.narrow = usize::from(most) + 40;
        play(gateway, &steps);
    }

    #[test]
    fn to_and_from_exempt_networks_nothing_is_translated_and_everything_else_is(
        steps in prop::collection::vec(step(), 1..60),
        masquerade in any::<bool>(),
    ) {
        play(gateway::gateway(64, masquerade, Some(PUBLIC)).exempting(), &steps);
    }

    #[test]
    fn each_host_has_its_public_address_of_several(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        play(gateway::gateway(64, true, Some(PUBLIC)).pairing(), &steps);
    }

    #[test]
    fn public_ports_are_odd_or_even_as_inside_ports_are_while_there_are_such(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        play(gateway::gateway(64, true, Some(PUBLIC)).keeping_parity(), &steps);
    }

    #[test]
    fn without_masquerade_or_without_address_only_rules_let_out(
        steps in prop::collection::vec(step(), 1..30),
        masquerade in any::<bool>(),
    ) {
        play(gateway::gateway(64, masquerade, None), &steps);
    }
}

#[test]
fn a_pool_that_announcements_hold_gives_no_port_and_the_way_is_known() {
    let holds = |port| Step::Expect(Course::Turned, (PUBLIC, port), 5);
    let mut steps: Vec<Step> = gateway::POOL.into_iter().map(holds).collect();
    let opens = Spec::tcp((HOST, 40000), (REMOTE, 80), SYN);
    steps.push(Step::Packet(Zone::Inside, opens));
    play(gateway::gateway(64, true, Some(PUBLIC)), &steps);
}
