//! The same packets through the programs and through the path on the host.

use crate::{
    common::{
        frame::{ACK, Body, ECHO, FIN, PSH, SYN, Spec, TCP, UDP},
        gateway::{self, LAN, PUBLIC, REMOTE, SERVER, WAN},
        generate::{self, Report, packet, port},
        sums,
    },
    counted::Executions,
    lab,
    object::{self, Answer, Object},
};
use nat_common::{
    clock,
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{FlowKey, Zone},
    flow_table::{SPAN, WINDOW},
    fragment::{FragmentKey, Fragmented},
    harmless,
    hop::{self, Hop},
    layout,
    port::{Owner, Port, PortOwner},
    reason::Reason,
    record::FlowRecord,
    rule::RuleId,
    sequence::Corrections,
    session::{SessionId, Side},
    settings::{Filtering, Mapping},
    vouched::Vouched,
    watch::{self, Watch},
};
use nat_ebpf::{
    host::{self, Drops, HostPacket, Limits, Memory, Verdict, World},
    packet::NextHop,
};
use nix::time::{ClockId, clock_gettime};
use proptest::{
    prelude::*,
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
};

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
    Expect(u16),
    /// The agent writes what it knows of the hops that came up: an MTU, and link addresses or not.
    Fill(bool, u16),
    /// The agent closes the hop that came up first, or frees it with a new epoch.
    Close,
    Reroute,
}

fn step() -> BoxedStrategy<Step> {
    let early = any::<bool>();
    prop_oneof![
        8 => (early, packet(Zone::Inside)).prop_map(|(early, spec)| Step::Packet(early, Zone::Inside, spec)),
        5 => (early, packet(Zone::Outside)).prop_map(|(early, spec)| Step::Packet(early, Zone::Outside, spec)),
        10 => (early, any::<Index>(), packet(Zone::Inside))
            .prop_map(|(early, index, spec)| Step::Known(early, index, spec)),
        2 => (any::<Index>(), packet(Zone::Inside))
            .prop_map(|(index, spec)| Step::LeftToDevice(index, spec)),
        4 => (early, any::<Index>(), generate::report())
            .prop_map(|(early, index, report)| Step::Error(early, index, report)),
        2 => (any::<Index>(), generate::report())
            .prop_map(|(index, report)| Step::Tell(index, report)),
        1 => (prop::sample::select(vec![0, LAN, WAN]), prop::sample::select(vec![0, layout::MARK]), own())
            .prop_map(|(from, mark, spec)| Step::Egress(from, mark, spec)),
        1 => port().prop_map(Step::Expect),
        1 => (any::<bool>(), prop::sample::select(vec![100, 1500, 1501]))
            .prop_map(|(resolved, mtu)| Step::Fill(resolved, mtu)),
        1 => prop_oneof![Just(Step::Close), Just(Step::Reroute)],
    ]
    .boxed()
}

/// The connection that was announced.
fn dial(port: u16, number: u16) -> Spec {
    Spec {
        src: REMOTE,
        dst: PUBLIC,
        ttl: 64,
        id: 1,
        fragment: 0,
        options: 0,
        body: Body::Tcp {
            sport: 40_000 + number,
            dport: port,
            sequence: 1,
            acknowledgement: 0,
            flags: SYN,
            options: vec![],
        },
        payload: vec![],
        trailer: 0,
        damage: 0,
    }
}

/// A packet that leaves by a WAN.
fn own() -> BoxedStrategy<Spec> {
    let sources = vec![PUBLIC, PUBLIC, gateway::OWN, [10, 0, 1, 254], [10, 0, 1, 2]];
    (prop::sample::select(sources), packet(Zone::Inside))
        .prop_map(|(src, spec)| Spec { src, dst: REMOTE, ..spec })
        .boxed()
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
    places: u32,
    lines: u32,
}

/// Every key has two homes and room in either.
pub const ROOMY: Room = Room { places: 401, lines: 401 };
/// One home, the window of which is all that is ever used: it is full when that is.
const NARROW: Room = Room { places: SPAN + 1, lines: WINDOW };

/// Both sides.
pub struct Both {
    object: Object,
    memory: Memory,
    world: World,
    began: u32,
    lines: u32,
    /// Flows that were led to a hop, at each look.
    led: usize,
    /// Packets that TC sent with the link addresses of a hop.
    linked: usize,
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

    fn egress(&mut self, from: u32, mark: u32, spec: &Spec) {
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
        assert_eq!(answer, Answer { code, frame: packet.frame, mark }, "egress: {verdict:?}");
        self.same_tables();
    }

    fn expect(&mut self, port: u16) {
        let key = ExpectationKey::new(Zone::Outside, TCP, REMOTE, PUBLIC, Port::new(port));
        let (session, rule) = (SessionId::new(9), RuleId::new(3));
        let expires = self.began + 3600;
        let value = Expectation::inbound(SERVER, Port::new(2000), session, rule, expires);
        self.object.expect(&key, &value);
        self.memory.state().expectations.insert(key, value);
    }

    /// The agent is at work, and both clocks are the same.
    fn beat(&mut self) {
        let now = clock();
        let mut state = self.memory.state();
        state.now = now;
        if state.settings.heartbeat != now {
            state.settings.heartbeat = now;
            self.object.settings(state.settings);
        }
    }

    /// Draws the random number of the kernel: the session that it has found.
    fn follow(&mut self) {
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
    fn same_tables(&mut self) {
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
const LONGEST: usize = 3000;

#[test]
fn the_programs_do_what_the_path_does_on_the_host() {
    side_by_side(
        "the_programs_do_what_the_path_does_on_the_host",
        ROOMY,
        2400,
        Programs::AsTheyAre,
    );
}

#[test]
fn a_full_table_refuses_on_both_sides_alike() {
    side_by_side("a_full_table_refuses_on_both_sides_alike", NARROW, 3000, Programs::AsTheyAre);
}

#[test]
fn a_copy_that_counts_what_it_executes_does_the_same() {
    side_by_side(
        "a_copy_that_counts_what_it_executes_does_the_same",
        ROOMY,
        900,
        Programs::Counting,
    );
}

/// Which programs run in the kernel.
enum Programs {
    AsTheyAre,
    /// Those of a copy that counts what it executes.
    Counting,
}

/// So many steps on both sides.
fn side_by_side(name: &str, room: Room, steps_taken: u16, programs: Programs) {
    lab::run(name, move |object| {
        let _sockets = lab::set_up();
        let mut executions = Executions::new();
        let object = match programs {
            Programs::AsTheyAre => object,
            Programs::Counting => executions.instrument(&object),
        };
        let mut both = Both::new(&object, room);
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let steps = step();
        for number in 0..steps_taken {
            if number % 60 == 0 {
                both.reset();
            }
            let step = steps.new_tree(&mut runner).expect("a step").current();
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &step {
                Step::Packet(early, zone, spec) if spec.length() < LONGEST => {
                    both.packet(*early, *zone, &spec.build());
                }
                Step::Known(_, index, spec) | Step::LeftToDevice(index, spec) => {
                    let keys = generate::in_order(both.memory.state().flows().keys());
                    if keys.is_empty() || spec.length() >= LONGEST {
                        return;
                    }
                    let key = index.get(&keys);
                    let spec = generate::known(key, spec);
                    match step {
                        Step::LeftToDevice(..) if matches!(key.protocol(), TCP | UDP) => {
                            both.packet(true, key.zone(), &spec.build_left_to_device());
                        }
                        Step::Known(early, ..) => {
                            both.packet(early, key.zone(), &spec.build());
                        }
                        _ => {}
                    }
                }
                Step::Error(_, index, report) | Step::Tell(index, report) => {
                    let keys = generate::in_order(both.memory.state().flows().keys());
                    if keys.is_empty() {
                        return;
                    }
                    let key = index.get(&keys);
                    let spec = generate::error(key, report);
                    match step {
                        Step::Error(early, ..) => both.packet(early, key.zone(), &spec.build()),
                        _ => both.egress(0, 0, &Spec { src: PUBLIC, ..spec }),
                    }
                }
                Step::Egress(from, mark, spec) if spec.length() < LONGEST => {
                    both.egress(*from, *mark, spec);
                }
                Step::Expect(port) => {
                    both.expect(*port);
                    // Whether a packet dials it by chance is nothing to rely on.
                    let spec = dial(*port, number);
                    both.packet(false, Zone::Outside, &spec.build());
                }
                Step::Fill(..) | Step::Close | Step::Reroute => both.keep_hops(&step),
                Step::Packet(..) | Step::Egress(..) => {}
            }));
            if let Err(panic) = told {
                eprintln!("step {number}: {step:?}");
                std::panic::resume_unwind(panic);
            }
        }
        let drops = both.object.drops();
        let counters = both.object.counters();
        println!("drops {drops:?}, counters {counters:?}");
        assert!(counters.iter().filter(|count| **count > 0).count() >= 6, "{counters:?}");
        assert!(both.led > 0, "no flow was led to a hop");
        assert!(both.linked > 0, "TC sent nothing by a hop alone");
        let full = drops[Reason::TableFull as usize];
        assert_eq!(full > 0, room.lines == WINDOW, "{full} did not fit");
    });
}

#[test]
fn lines_for_the_agent_keep_their_bytes() {
    lab::run("lines_for_the_agent_keep_their_bytes", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        let syn = Spec::tcp(client, server, SYN);
        both.packet(true, Zone::Inside, &syn.build());
        let lengths = [1, 2, 3, 100, 1459, 1460];
        for length in lengths {
            let line = Spec::tcp(client, server, PSH | ACK).with(&vec![b'x'; length]);
            both.packet(true, Zone::Inside, &line.build());
        }
        assert_eq!(both.object.counters()[Counter::Punted as usize], lengths.len() as u64);
    });
}

#[test]
fn harmless_lines_pass_in_the_kernel_as_on_the_host() {
    lab::run("harmless_lines_pass_in_the_kernel_as_on_the_host", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        both.packet(true, Zone::Inside, &Spec::tcp(client, server, SYN).build());
        let keys: Vec<_> = both.memory.state().flows().keys().copied().collect();
        let long = [&b"STOR "[..], &[b'y'; harmless::LONGEST - 7], b"\r\n"].concat();
        let longer = [&b"STOR "[..], &[b'y'; harmless::LONGEST - 6], b"\r\n"].concat();
        let texts: [&[u8]; 12] = [
            b"RETR a\r\n",
            b"pwd\r\n",
            b"PORT 10,0,1,2,4,5\r\n",
            b"NOOP\r\nNOOP\r\n",
            b"NOOP\n",
            b"NOOP \xf0\r\n",
            b"226 done\r\n",
            b"226-more\r\n",
            b"227 (1,2,3,4,5,6)\r\n",
            b"x",
            &long,
            &longer,
        ];
        let mut corrections = Corrections::IDENTITY;
        corrections.push(10, 4, 9).unwrap();
        for key in &keys {
            let id = both.memory.state().flows()[key].flow().control_session().unwrap();
            let place = id.index().unwrap();
            for (text, (vouched, flags)) in texts.iter().flat_map(|text| {
                let cases = [(1000, PSH | ACK), (1001, ACK), (1000, ACK | FIN), (0, PSH)];
                cases.map(|case| (text, case))
            }) {
                let mut record = both.object.session(place);
                record.vouched = [Vouched::up_to(vouched).word(); 2];
                record.copies = [[corrections; 2]; 2];
                both.object.set_session(place, record);
                both.memory.state().sessions[place as usize] = record;
                let (src, dst) = ((key.src(), key.sport()), (key.dst(), key.dport()));
                let ends = ((src.0, src.1.number()), (dst.0, dst.1.number()));
                let spec = Spec::tcp(ends.0, ends.1, flags).with(text);
                both.packet(true, key.zone(), &spec.build());
            }
        }
        // Of the client RETR, PWD and the long STOR, of the server 226; with FIN nothing.
        assert_eq!(both.object.counters()[Counter::Copied as usize], 4);
    });
}

#[test]
fn the_first_datagram_from_inside_leaves_by_xdp_and_a_syn_by_tc() {
    lab::run("the_first_datagram_from_inside_leaves_by_xdp_and_a_syn_by_tc", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (host, remote) = ((gateway::HOST, 40000), (REMOTE, 80));
        both.packet(true, Zone::Inside, &Spec::udp(host, remote).build());
        let counted = |both: &mut Both| {
            [Counter::Flows, Counter::Xdp, Counter::Tc].map(|counter| both.counted(counter))
        };
        assert_eq!(counted(&mut both), [1, 1, 0]);
        both.packet(true, Zone::Inside, &Spec::tcp(host, remote, SYN).build());
        assert_eq!(counted(&mut both), [2, 1, 1]);
    });
}

#[test]
fn a_full_pool_is_shared_by_both_sides_alike() {
    lab::run("a_full_pool_is_shared_by_both_sides_alike", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let mut send = |early, host, port, to| {
            both.packet(early, Zone::Inside, &Spec::udp(([10, 0, 1, host], port), to).build());
        };
        let (near, far) = ((REMOTE, 9), (gateway::FAR, 9));
        for port in gateway::POOL {
            send(true, 2, port, near);
        }
        for early in [true, false] {
            for host in [3, 5] {
                send(early, host, 7, far);
                send(early, host, 7, near);
                send(early, host, 7 + u16::from(early), far);
            }
        }
        let state = both.memory.state().clone();
        assert_eq!(state.flows().len(), 2 * 2 * gateway::POOL.len());
        assert_eq!(state.dropped(Reason::PortsExhausted), 2 * 2);
        let is_shared = |(key, record): &(&FlowKey, &FlowRecord)| {
            let rewrite = *record.flow().rewrite();
            key.zone() == Zone::Inside && key.sport() != rewrite.sport()
        };
        assert_eq!(state.flows().iter().filter(is_shared).count(), gateway::POOL.len());
    });
}

#[test]
fn a_host_at_its_limit_is_refused_on_both_sides_alike() {
    lab::run("a_host_at_its_limit_is_refused_on_both_sides_alike", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let settings = {
            let mut state = both.memory.state();
            state.settings.flows_per_host = 3;
            state.settings
        };
        both.object.settings(settings);
        let (near, far) = ((REMOTE, 9), (gateway::FAR, 9));
        let mut send = |early, host, port, to| {
            both.packet(early, Zone::Inside, &Spec::udp(([10, 0, 1, host], port), to).build());
        };
        // The last two of the one are refused, again and again; what it has goes on.
        for port in [1, 2, 3, 4, 5, 4, 1, 2, 3] {
            send(port % 2 == 0, 2, 2000 + port, near);
        }
        for port in [1, 2, 3] {
            send(true, 3, 2000 + port, far);
        }
        // What cannot be made counts for nobody.
        assert_eq!(gateway::POOL.len(), 3 + 1);
        for port in [1, 2] {
            send(true, 5, 2000 + port, near);
        }
        // The same for what would turn back.
        let forward = gateway::RULES[0].1;
        both.packet(true, Zone::Inside, &Spec::tcp(([10, 0, 1, 3], 7), forward, SYN).build());
        let state = both.memory.state().clone();
        assert_eq!(state.dropped(Reason::HostLimit), 3 + 1);
        assert_eq!(state.dropped(Reason::PortsExhausted), 1);
        assert_eq!(state.flows().len(), 2 * (3 + 3 + 1));
        let hosts = [(2, 3), (3, 3), (5, 1)].map(|(host, flows)| ([10, 0, 1, host], flows));
        assert_eq!(state.hosts, HashMap::from(hosts));
        assert_eq!(both.object.hosts(), state.hosts);
    });
}

#[test]
fn records_are_followed_as_on_the_host() {
    lab::run("records_are_followed_as_on_the_host", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        both.packet(true, Zone::Inside, &Spec::tcp(client, server, SYN).build());
        let flows = both.object.flows();
        let session = flows.values().find_map(|record| record.flow().control_session()).unwrap();
        let place = watch::index(session.index().unwrap(), Side::Originator);
        let from = 1000;
        let record = |length: usize| [&[23, 3, 3, 0, length as u8][..], &vec![7; length]].concat();
        let begin = Watch::records(from, from);
        for (payload, seen) in [
            (record(40), false),
            (record(100).repeat(8), false),
            (record(9)[..5].to_vec(), false),
            (record(1)[..4].to_vec(), true),
            (record(1).repeat(9), true),
            (b"PWD\r\n".to_vec(), true),
            ([record(3), b"PWD\r\n".to_vec()].concat(), true),
        ] {
            both.object.set_watch(place, begin);
            both.memory.state().watches[place as usize] = begin;
            let before = both.object.counters()[Counter::Punted as usize];
            let spec = Spec::tcp(client, server, PSH | ACK).with(&payload);
            both.packet(true, Zone::Inside, &spec.build());
            let now = both.object.watch(place);
            assert_eq!(now, both.memory.state().watches[place as usize]);
            let handed = both.object.counters()[Counter::Punted as usize] - before;
            assert_eq!((handed > 0, now == begin), (seen, seen), "{} bytes", payload.len());
        }
        let begin = Watch::nothing(from);
        both.object.set_watch(place, begin);
        both.memory.state().watches[place as usize] = begin;
        let spec = Spec::tcp(client, server, PSH | ACK).with(b"more than two bytes");
        both.packet(true, Zone::Inside, &spec.build());
    });
}

#[test]
fn exempt_networks_contacts_and_other_protocols_are_the_same_on_both_sides() {
    lab::run("exempt_networks_contacts_and_other_protocols_are_the_same_on_both_sides", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let set = |both: &mut Both, exempt: u8, filtering: Filtering| {
            let mut state = both.memory.state();
            (state.settings.exempt, state.settings.filtering) = (exempt, filtering as u16);
            both.object.settings(state.settings);
        };
        // One packet, and how many flows there are then.
        let mut wanted = 0;
        let mut send = |both: &mut Both, zone, spec: &Spec, more: usize| {
            both.packet(true, zone, &spec.build());
            wanted += 2 * more;
            assert_eq!(both.memory.state().flows().len(), wanted, "{spec:?}");
        };
        set(&mut both, 1, Filtering::AddressAndPortDependent);
        let (host, remote) = ((gateway::HOST, 5000), (REMOTE, 9));
        send(&mut both, Zone::Inside, &Spec::udp(host, remote), 1);
        send(&mut both, Zone::Outside, &Spec::udp(remote, host), 0);
        send(&mut both, Zone::Outside, &Spec::tcp(remote, host, ACK), 0);
        send(&mut both, Zone::Outside, &Spec::tcp(remote, host, SYN), 1);
        send(&mut both, Zone::Outside, &Spec::udp((gateway::FAR, 9), host), 0);
        let as_it_is = |(key, record): (&FlowKey, &FlowRecord)| {
            let rewrite = *record.flow().rewrite();
            (key.src(), key.sport()) == (rewrite.src(), rewrite.sport())
        };
        assert!(both.memory.state().flows().iter().all(as_it_is));

        set(&mut both, 0, Filtering::AddressDependent);
        let mapped = (gateway::HOST, 40000);
        send(&mut both, Zone::Inside, &Spec::udp(mapped, (gateway::FAR, 80)), 1);
        send(&mut both, Zone::Outside, &Spec::udp((gateway::FAR, 81), (PUBLIC, 40000)), 1);
        send(&mut both, Zone::Outside, &Spec::udp((REMOTE, 80), (PUBLIC, 40000)), 0);

        let other = |src, dst, protocol| {
            Spec::of(src, dst, Body::Other { protocol }).with(b"whatever it is")
        };
        let (own, far) = (gateway::ONE_TO_ONE, gateway::FAR);
        for protocol in [47, 50, 132] {
            send(&mut both, Zone::Inside, &other(own, far, protocol), 1);
            send(&mut both, Zone::Outside, &other(far, gateway::OWN, protocol), 0);
            send(&mut both, Zone::Outside, &other(REMOTE, gateway::OWN, protocol), 1);
            send(&mut both, Zone::Inside, &other(own, REMOTE, protocol), 0);
            send(&mut both, Zone::Inside, &other(gateway::HOST, far, protocol), 0);
        }
        send(&mut both, Zone::Inside, &other(own, far, 136), 0);
        assert_eq!(both.memory.state().dropped(Reason::Protocol), 3 + 1);

        // Each host behind its own of several addresses.
        gateway::pair(&mut both.memory.state());
        let state = both.memory.state().clone();
        both.object.hide(&state);
        for last in 11..14 {
            let host = ([10, 0, 1, last], 1000 + u16::from(last));
            send(&mut both, Zone::Inside, &Spec::tcp(host, (gateway::FAR, 443), SYN), 1);
            send(&mut both, Zone::Inside, &Spec::echo(host.0, gateway::FAR, ECHO, host.1), 1);
        }
        let publics: HashSet<[u8; 4]> = (both.memory.state().ports.iter())
            .filter(|(_, word)| matches!(word.inside(), [10, 0, 1, 11..14]))
            .map(|(public, _)| public.address())
            .collect();
        assert_eq!(publics, [PUBLIC, gateway::SECOND].into());

        // Four ports of the pool, two of them odd: the third odd endpoint gets an even one.
        both.memory.state().settings.parity = 1;
        let settings = both.memory.state().settings;
        both.object.settings(settings);
        for last in [30, 33, 36] {
            send(
                &mut both,
                Zone::Inside,
                &Spec::udp(([10, 0, 1, last], 7), (gateway::FAR, 443)),
                1,
            );
        }
        let odd = (both.memory.state().ports.iter())
            .filter(|(_, word)| matches!(word.inside(), [10, 0, 1, 30 | 33 | 36]))
            .filter(|(public, _)| public.port().number() % 2 == 1)
            .count();
        assert_eq!(odd, 2);
    });
}

#[test]
fn mapping_by_remote_end_and_filtering_of_nobody_are_the_same_on_both_sides() {
    lab::run(
        "mapping_by_remote_end_and_filtering_of_nobody_are_the_same_on_both_sides",
        |object| {
            let _sockets = lab::set_up();
            let mut both = Both::new(&object, ROOMY);
            let behave = |both: &mut Both, mapping: Mapping, filtering: Filtering| {
                let mut state = both.memory.state();
                (state.settings.mapping, state.settings.filtering) =
                    (mapping as u16, filtering as u16);
                both.object.settings(state.settings);
            };
            behave(&mut both, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
            for (early, port) in [(true, 9), (false, 10), (true, 11), (false, 12)] {
                let spec = Spec::udp((gateway::HOST, 5000), (REMOTE, port));
                both.packet(early, Zone::Inside, &spec.build());
            }
            let state = both.memory.state().clone();
            assert!(state.ports.values().any(|word| *word == PortOwner::SHARED));
            assert!(!state.ports.values().any(|word| word.owner() == Some(Owner::Masquerade)));
            assert_eq!(state.flows().len(), 2 * 4);

            behave(&mut both, Mapping::EndpointIndependent, Filtering::EndpointIndependent);
            let mapped = Spec::tcp((gateway::HOST, 40000), (REMOTE, 80), SYN);
            both.packet(true, Zone::Inside, &mapped.build());
            let flows = both.memory.state().flows().len();
            let stranger = (gateway::FAR, 1234);
            for (flags, more) in [(ACK, 0), (SYN, 2), (ACK, 2)] {
                let spec = Spec::tcp(stranger, (PUBLIC, 40000), flags);
                both.packet(true, Zone::Outside, &spec.build());
                assert_eq!(both.memory.state().flows().len(), flows + more);
            }
            let answer = Spec::tcp((gateway::HOST, 40000), stranger, SYN | ACK);
            both.packet(true, Zone::Inside, &answer.build());
            assert_eq!(both.memory.state().dropped(Reason::Unsolicited), 1);
            // Nobody is mapped here, or everybody.
            for port in [40001, 40002] {
                let spec = Spec::udp(stranger, (PUBLIC, port));
                both.packet(false, Zone::Outside, &spec.build());
            }
            assert_eq!(both.memory.state().dropped(Reason::Unsolicited), 3);
        },
    );
}
