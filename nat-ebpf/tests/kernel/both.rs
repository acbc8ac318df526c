//! A gateway twice: its programs in the kernel, and the path on the host, which are to do the same.

use crate::{
    common::{
        frame::{Spec, TCP},
        gateway::{self, LAN, PUBLIC, REMOTE, SERVER, WAN},
        generate::Report,
        sums,
    },
    object::{self, Answer, Object},
};
use nat_common::{
    clock,
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{FlowKey, Zone},
    flow_table::{SPAN, WINDOW},
    fragment::{FragmentKey, Fragmented},
    hop::{self, Hop},
    layout,
    port::Port,
    record::FlowRecord,
    rule::RuleId,
    session::SessionId,
};
use nat_ebpf::{
    host::{self, Drops, HostPacket, Limits, Memory, Verdict, World},
    packet::NextHop,
};
use nix::time::{ClockId, clock_gettime};
use proptest::sample::Index;
use std::{collections::HashMap, fmt::Debug};

/// What happens next; a packet comes by XDP first, or only by TC.
#[derive(Clone, Debug)]
pub enum Step {
    Packet(bool, Zone, Spec),
    Known(bool, Index, Spec),
    /// An error about a packet of a flow; by XDP first, or only by TC.
    Error(bool, Index, Report),
    /// An error that the gateway sends about a packet of a flow.
    Tell(Index, Report),
    /// By XDP first, with only the pseudo-header in its checksum.
    LeftToDevice(Index, Spec),
    Egress(u32, u32, Spec),
    /// The agent sends what it has translated.
    Sent(Index, Spec),
    Expect(u16),
    /// The agent writes what it knows of the hops that came up: an MTU, and link addresses or not.
    Fill(bool, u16),
    /// The agent closes the hop that came up first, or frees it with a new epoch.
    Close,
    Reroute,
}

/// The frame, addressed to the interface that it arrives on.
fn arriving(ifindex: u32, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[5] = ifindex as u8;
    frame
}

/// The clock of the programs, seconds of the kernel's coarse monotonic one.
pub fn clock() -> u32 {
    let moment = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    clock::seconds(moment.tv_sec() as u64 * 1_000_000_000 + moment.tv_nsec() as u64)
}

/// Places of the kernel's table, and the lines that fit in, which is what the host's counts.
#[derive(Clone, Copy)]
pub struct Room {
    pub places: u32,
    pub lines: u32,
}

/// Every key has two homes and room in either.
pub const ROOMY: Room = Room { places: 401, lines: 401 };
/// One home, the window of which is all that is ever used: it is full when that is.
pub const NARROW: Room = Room { places: SPAN + 1, lines: WINDOW };

/// Both sides.
pub struct Both {
    pub object: Object,
    pub memory: Memory,
    pub world: World,
    pub began: u32,
    pub lines: u32,
    /// Flows that were led to a hop, at each look.
    pub led: usize,
    /// Packets that TC sent with the link addresses of a hop.
    pub linked: usize,
}

impl Both {
    pub fn new(object: &[u8], Room { places, lines }: Room) -> Self {
        let mut object = Object::load(object, places);
        object.attach();
        let began = clock();
        let memory = memory(began, lines);
        object.fill(&memory.state());
        Self { object, memory, world: gateway::world(), began, lines, led: 0, linked: 0 }
    }

    /// Empties what packets have filled.
    pub fn reset(&mut self) {
        let sessions: Vec<_> = self
            .object
            .flows()
            .values()
            .filter_map(|record| record.flow().control_session())
            .collect();
        for session in sessions {
            self.object.set_session(session.index().unwrap(), Default::default());
        }
        let (drops, counters) = (self.object.drops(), self.object.counters());
        self.began = clock();
        let hops = self.memory.state().hops.len();
        self.memory = memory(self.began, self.lines);
        assert!(self.object.is_unlocked());
        assert_eq!(self.object.hops_taken(), hops);
        let mut state = self.memory.state();
        (state.drops, state.counters) = (Drops(drops), counters);
        self.object.fill(&state);
    }

    /// What the programs have counted.
    pub fn counted(&mut self, counter: Counter) -> u64 {
        self.object.counters()[counter as usize]
    }

    /// Runs a packet on both sides.
    pub fn packet(&mut self, early: bool, zone: Zone, frame: &[u8]) {
        let ifindex = if zone == Zone::Inside { LAN } else { WAN };
        let frame = &arriving(ifindex, frame);
        self.beat();
        if early {
            let answer = self.object.xdp(zone, ifindex, frame).expect("a test run");
            self.follow();
            let mut packet = HostPacket::<false>::new(frame.to_vec(), ifindex, &self.world);
            let verdict = host::xdp_ingress(&mut packet, &mut self.memory.tables(), zone);
            let code = match verdict {
                Verdict::Pass => object::XDP_PASS,
                Verdict::Forward(_) => object::XDP_REDIRECT,
                Verdict::Drop(_) => object::XDP_DROP,
                Verdict::Punted => unreachable!("XDP hands nothing to the agent"),
            };
            assert_eq!(answer, Answer { code, frame: packet.frame, mark: 0 }, "XDP: {verdict:?}");
            self.same_tables();
            if verdict != Verdict::Pass {
                return;
            }
        }
        let answer = self.object.tc(zone, ifindex, frame).expect("a test run");
        self.follow();
        let mut packet = HostPacket::new(frame.to_vec(), ifindex, &self.world);
        let verdict = host::tc_ingress(&mut packet, &mut self.memory.tables(), zone);
        let (code, mark) = match verdict {
            Verdict::Pass => (object::TC_UNSPEC, 0),
            Verdict::Forward(_) => (object::TC_REDIRECT, layout::MARK),
            Verdict::Drop(_) | Verdict::Punted => (object::TC_SHOT, 0),
        };
        assert_eq!(sums::residues(&answer.frame).network, sums::residues(frame).network);
        if matches!(verdict, Verdict::Forward(_)) {
            assert_eq!(sums::residues(&answer.frame), sums::residues(frame), "checksums");
        }
        if let Verdict::Forward(NextHop { link: Some(link), .. }) = verdict {
            assert_eq!(answer.frame[..12], link.bytes());
            self.linked += 1;
        }
        assert_eq!(answer, Answer { code, frame: packet.frame, mark }, "TC: {verdict:?}");
        let records: Vec<_> =
            self.object.punted().iter().map(|bytes| object::record(bytes)).collect();
        assert_eq!(records, packet.punted);
        self.same_tables();
    }

    pub fn egress(&mut self, from: u32, mark: u32, spec: &Spec) {
        // A test run takes the type of the packet from where it is addressed to.
        let frame = arriving(WAN, &spec.build());
        let answer = self.object.egress(WAN, from, mark, &frame).expect("a test run");
        let mut packet = HostPacket::new(frame, WAN, &self.world);
        let verdict = host::outside_egress(&mut packet, &mut self.memory.tables(), from, mark);
        let code = match verdict {
            Verdict::Pass => object::TC_UNSPEC,
            Verdict::Drop(_) => object::TC_SHOT,
            Verdict::Forward(_) | Verdict::Punted => unreachable!("the guard sends nothing"),
        };
        // What is let out for the agent is not judged again by what is below.
        let mark = match (mark, verdict) {
            (layout::AGENT_MARK, Verdict::Pass) => layout::MARK,
            _ => mark,
        };
        assert_eq!(answer, Answer { code, frame: packet.frame, mark }, "egress: {verdict:?}");
        self.same_tables();
    }

    pub fn expect(&mut self, port: u16) {
        let key = ExpectationKey::new(Zone::Outside, TCP, REMOTE, PUBLIC, Port::new(port));
        let (session, rule) = (SessionId::new(9), RuleId::new(3));
        let expires = self.began + 3600;
        let value = Expectation::inbound(SERVER, Port::new(2000), session, rule, expires);
        self.object.expect(&key, &value);
        self.memory.state().expectations.insert(key, value);
    }

    /// The agent is at work, and both clocks are the same.
    pub fn beat(&mut self) {
        let now = clock();
        let mut state = self.memory.state();
        state.now = now;
        if state.settings.heartbeat != now {
            state.settings.heartbeat = now;
            self.object.settings(state.settings);
        }
    }

    /// Draws the random number of the kernel: the session that it has found.
    pub fn follow(&mut self) {
        let flows = self.object.flows();
        let mut state = self.memory.state();
        state.random.clear();
        let session = |record: &FlowRecord| record.flow().control_session();
        let known = state.flows();
        let found = flows
            .iter()
            .filter(|(key, record)| {
                known.get(key).is_none_or(|known| session(known) != session(record))
            })
            .find_map(|(_, record)| session(record));
        state.random.extend(found.and_then(|session| session.index()));
    }

    /// What the agent does with the hops that it keeps.
    pub fn keep_hops(&mut self, step: &Step) {
        let mut state = self.memory.state();
        let mut places: Vec<u32> = state.hops.keys().copied().collect();
        places.sort_unstable();
        if let Step::Reroute = step {
            state.settings.epoch += 1;
            self.object.settings(state.settings);
        }
        for index in places {
            let hop = state.hops[&index];
            let mut words = hop.words();
            match step {
                Step::Fill(resolved, mtu) if !hop.is_closed() => {
                    let [a, b, c, d] = hop.neighbour();
                    let link = Hop::resolved([6, 1, a, b, c, d]);
                    words[hop::LINK] = if *resolved { link } else { 0 };
                    words[hop::OWN] = Hop::own([6, 0, 0, 0, 0, hop.ifindex() as u8], *mtu);
                }
                Step::Close if !hop.is_closed() => {
                    (words[hop::LINK], words[hop::OWN]) = (Hop::CLOSED, 0);
                }
                Step::Reroute if hop.is_closed() => {
                    state.hops.remove(&index);
                    self.object.set_hop(index, Hop::default());
                    continue;
                }
                _ => continue,
            }
            let hop = Hop::from_words(words);
            state.hops.insert(index, hop);
            self.object.set_hop(index, hop);
            if let Step::Close = step {
                break;
            }
        }
    }

    /// Flows, hops, ports, expectations, counters and drops are the same.
    pub fn same_tables(&mut self) {
        let now = clock();
        let state = self.memory.state();
        let (flows, wanted) = (self.object.flows(), state.flows());
        assert_eq!(fields(&flows, self.began, now), fields(&wanted, self.began, now));
        assert_eq!(self.object.ports(), state.ports);
        assert_eq!(self.object.hops(state.hops.keys().copied()), state.hops);
        assert_eq!(self.object.expectations(), state.expectations);
        assert_eq!(datagrams(&self.object.fragments()), datagrams(&state.fragments));
        assert_eq!(self.object.counters(), state.counters);
        assert_eq!(self.object.drops(), *state.drops);
        for record in wanted.values() {
            self.led += usize::from(record.flow().hop.in_epoch(state.settings.epoch).is_some());
            if let Some(session) = record.flow().control_session() {
                let ours = state.sessions[session.index().unwrap() as usize];
                let theirs = self.object.session(session.index().unwrap());
                assert_eq!((theirs.original(), theirs.reply()), (ours.original(), ours.reply()));
                assert_eq!((theirs.mss, theirs.claimed), (ours.mss, ours.claimed));
                assert_eq!(theirs.vouched, ours.vouched);
            }
        }
    }
}

/// What is known of datagrams, but for when that ends.
fn datagrams(
    known: &HashMap<FragmentKey, Fragmented>,
) -> HashMap<FragmentKey, impl Debug + PartialEq> {
    let fields =
        |it: &Fragmented| (it.ports(), it.identification(), it.addresses(), it.ifindex(), it.mtu());
    known.iter().map(|(key, it)| (*key, fields(it))).collect()
}

/// The fields of flow records; times are only checked to be of this run.
fn fields(
    flows: &HashMap<FlowKey, FlowRecord>,
    began: u32,
    now: u32,
) -> HashMap<FlowKey, impl Debug + PartialEq> {
    let fields = |record: &FlowRecord| {
        let flow = record.flow();
        assert!(began <= record.created() && record.created() <= flow.last_seen, "{record:?}");
        assert!(flow.last_seen <= now, "{record:?} at {now}");
        let counts = (flow.seen, record.packets(), record.bytes());
        (flow.direction(), *flow.rewrite(), flow.origin(), flow.hop, counts)
    };
    flows.iter().map(|(key, flow)| (*key, fields(flow))).collect()
}

fn memory(now: u32, lines: u32) -> Memory {
    let limits = Limits { flows: lines as usize, sessions: layout::SESSIONS, ..Limits::default() };
    let memory = gateway::memory(limits, true, Some(PUBLIC));
    let mut state = memory.state();
    state.now = now;
    state.settings.heartbeat = now;
    drop(state);
    memory
}

/// What fits a page with the kernel's own needs, which is what a test run takes.
pub const LONGEST: usize = 3000;
