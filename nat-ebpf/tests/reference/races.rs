//! Packets on two CPUs at once: every order of their table operations that has a few changes of turn.
//!
//! An operation is atomic in the kernel too, so what holds in every order of operations holds on every
//! number of CPUs. Two threads take turns as a plan says: so many operations of one, so many of the
//! other, and the rest.

use crate::{
    common::{
        frame::{ACK, ETHERNET, FIN, RST, SYN, Spec, TCP},
        sums,
    },
    gateway::{self, FAR, Gateway, HOST, LAN, PUBLIC, REMOTE, SERVER, WAN},
};
use nat_common::{
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Direction, FlowKey, Zone},
    port::{Endpoint, Owner, Port, PortOwner},
    punt::PuntHeader,
    reason::Reason,
    rule::RuleId,
    sequence::Corrections,
    session::{Session, SessionId, Side},
    vouched::Vouched,
};
use nat_ebpf::host::{self, HostPacket, LOCK_TRIES, Memory, Operation, Schedule, State, Verdict};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    sync::{Condvar, Mutex},
    thread,
};

/// Whose turn it is: runs of operations, each of the other packet than the one before.
struct Turns {
    turn: Mutex<Turn>,
    changed: Condvar,
}

struct Turn {
    runs: VecDeque<usize>,
    who: usize,
    ended: [bool; 2],
    done: [usize; 2],
    /// Operations in the order in which they were done, and whose.
    trace: Vec<(usize, Operation)>,
}

impl Turns {
    fn new(first: usize, runs: &[usize]) -> Self {
        let runs = runs.iter().copied().collect();
        let turn = Turn { runs, who: first, ended: [false; 2], done: [0; 2], trace: Vec::new() };
        Self { turn: Mutex::new(turn), changed: Condvar::new() }
    }

    /// Returns when packet `who` may do an operation; it ends with its next call, or at its end.
    fn before(&self, who: usize, operation: Option<Operation>) {
        let mut turn = self.turn.lock().unwrap();
        loop {
            if turn.who != who {
                turn = self.changed.wait(turn).unwrap();
                continue;
            }
            let alone = turn.ended[1 - who];
            match turn.runs.front_mut() {
                Some(0) if !alone => {
                    turn.runs.pop_front();
                    turn.who = 1 - who;
                    self.changed.notify_all();
                }
                Some(left) if *left > 0 => {
                    *left -= 1;
                    break;
                }
                Some(_) | None => break,
            }
        }
        turn.done[who] += 1;
        turn.trace.extend(operation.map(|operation| (who, operation)));
    }

    fn end(&self, who: usize) {
        let mut turn = self.turn.lock().unwrap();
        turn.ended[who] = true;
        turn.runs.clear();
        turn.who = 1 - who;
        self.changed.notify_all();
    }
}

/// One of the two packets.
struct Cpu<'a> {
    turns: &'a Turns,
    who: usize,
}

impl Schedule for Cpu<'_> {
    fn before(&self, operation: Operation) {
        self.turns.before(self.who, Some(operation));
    }
}

/// The hook that a packet comes by.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    Ingress(Zone),
    /// The gateway's own packet leaves.
    Egress,
    /// The agent ends this flow, unless it is used.
    Sweep(FlowKey),
    /// The agent releases this port, unless it is used.
    Release(Endpoint),
    /// The same, and then the packet comes from inside.
    ReleaseThen(Endpoint),
    /// The agent vouches for a side of the one control connection, or takes that back.
    Vouch(Side, Option<u32>),
    /// The agent puts other corrections in force, of what comes after all that was sent.
    Correct,
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub struct Ran {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
    /// What is in the ring of it.
    pub punted: Vec<PuntHeader>,
    /// Whether it has looked at a lock as often as a packet does, while the other one had it.
    held_out: bool,
}

pub type Pair = [(Hook, Spec); 2];

/// Runs both packets with the turns as planned; how many operations each has done.
fn run(state: &State, pair: &Pair, first: usize, runs: &[usize]) -> (State, [Ran; 2], [usize; 2]) {
    let memory = Memory::from(state.clone());
    let turns = Turns::new(first, runs);
    let world = gateway::world();
    let one = |who: usize| {
        let (hook, spec) = &pair[who];
        let cpu = Cpu { turns: &turns, who };
        let mut tables = memory.scheduled(&cpu);
        let ifindex = match hook {
            Hook::Ingress(Zone::Inside) | Hook::ReleaseThen(_) => LAN,
            Hook::Ingress(Zone::Outside)
            | Hook::Egress
            | Hook::Sweep(_)
            | Hook::Release(_)
            | Hook::Vouch(..)
            | Hook::Correct => WAN,
        };
        let mut packet = HostPacket::new(spec.build(), ifindex, &world);
        turns.before(who, None);
        let verdict = match hook {
            Hook::Ingress(zone) => host::tc_ingress(&mut packet, &mut tables, *zone),
            Hook::Egress => host::outside_egress(&mut packet, &mut tables, 0, 0),
            Hook::Sweep(key) => sweep(&memory, &cpu, key),
            Hook::Release(public) => release(&memory, &cpu, public),
            Hook::ReleaseThen(public) => {
                release(&memory, &cpu, public);
                host::tc_ingress(&mut packet, &mut tables, Zone::Inside)
            }
            Hook::Vouch(side, to) => vouch(&memory, &cpu, *side, *to),
            Hook::Correct => correct(&memory, &cpu),
        };
        turns.end(who);
        let punted = packet.punted.into_iter().map(|(header, _)| header).collect();
        Ran { verdict, frame: packet.frame, punted, held_out: false }
    };
    let mut ran = thread::scope(|scope| {
        let other = scope.spawn(|| one(1));
        [one(0), other.join().unwrap()]
    });
    let turn = turns.turn.lock().unwrap();
    for (who, ran) in ran.iter_mut().enumerate() {
        ran.held_out = held_out(&turn.trace, who);
    }
    let state = memory.state().clone();
    (state, ran, turn.done)
}

/// Whether all the looks of packet `who` at its lock came while the other one had it: after the one
/// look by which that one took it, and before it gave it back.
fn held_out(trace: &[(usize, Operation)], who: usize) -> bool {
    let of = |who| {
        let locks =
            trace.iter().enumerate().filter(move |(_, did)| **did == (who, Operation::Lock));
        locks.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let (looks, other) = (of(who), of(1 - who));
    let ([first, .., last], [took, gave]) = (&looks[..], &other[..]) else { return false };
    looks.len() == LOCK_TRIES as usize && took < first && last < gave
}

/// What the agent does with a flow that it takes for idle.
fn sweep(memory: &Memory, cpu: &Cpu<'_>, key: &FlowKey) -> Verdict {
    cpu.before(Operation::Flow);
    let now = memory.state().now;
    let Some(there) = memory.state().flow(key) else { return Verdict::Pass };
    let answer = key.answer(there.flow().rewrite());
    cpu.before(Operation::Flow);
    let Some(back) = memory.state().flow(&answer) else { return Verdict::Pass };
    if there.state().last_seen() == now || back.state().last_seen() == now {
        return Verdict::Pass;
    }
    cpu.before(Operation::WriteFlow);
    if !memory.state().end_flow(key, &there) {
        return Verdict::Pass;
    }
    cpu.before(Operation::WriteFlow);
    let ended = memory.state().end_flow(&answer, &back);
    cpu.before(Operation::WriteFlow);
    if !ended {
        memory.state().put_back_flow(key);
        return Verdict::Pass;
    }
    memory.state().remove_flow(key);
    cpu.before(Operation::WriteFlow);
    memory.state().remove_flow(&answer);
    Verdict::Pass
}

/// What the agent does with a port that it has marked at its last pass.
fn release(memory: &Memory, cpu: &Cpu<'_>, public: &Endpoint) -> Verdict {
    cpu.before(Operation::Port);
    let seen = memory.state().ports.get(public).copied();
    cpu.before(Operation::WritePort);
    let mut state = memory.state();
    if seen.is_some_and(|owner| owner.is_idle()) && state.ports.get(public).copied() == seen {
        state.ports.remove(public);
    }
    Verdict::Pass
}

fn control(state: &mut State) -> &mut Session {
    state.sessions.iter_mut().find(|session| session.claimed != 0).unwrap()
}

/// What the agent does once it has read a segment.
fn vouch(memory: &Memory, cpu: &Cpu<'_>, side: Side, to: Option<u32>) -> Verdict {
    loop {
        cpu.before(Operation::Session);
        let seen = control(&mut memory.state()).vouched[side.index()];
        let is_behind = |to: u32| {
            let now = Vouched::from_word(seen).number();
            now.is_some_and(|now| now.wrapping_sub(to) < 1 << 31)
        };
        if to.is_some_and(is_behind) {
            return Verdict::Pass;
        }
        cpu.before(Operation::Session);
        let mut state = memory.state();
        let word = &mut control(&mut state).vouched[side.index()];
        if *word == seen {
            *word = to.map_or(Vouched::NONE, Vouched::up_to).word();
            return Verdict::Pass;
        }
    }
}

/// What the agent does when a line has changed its length.
fn correct(memory: &Memory, cpu: &Cpu<'_>) -> Verdict {
    cpu.before(Operation::Session);
    let mut corrections = Corrections::IDENTITY;
    corrections.push(1 << 20, 4, 9).unwrap();
    control(&mut memory.state()).copies[1] = [corrections; 2];
    cpu.before(Operation::Session);
    control(&mut memory.state()).generation = 1;
    Verdict::Pass
}

/// Lengths of runs: all, but of a long search for a free port not every turn.
fn lengths(most: usize) -> impl Iterator<Item = usize> + Clone {
    (1..=most).filter(move |length| *length <= 14 || length % 40 == 0 || *length == most)
}

/// Checks every order with up to three changes of turn, after each of which all is sound.
fn in_every_order(state: &State, pair: &Pair, check: impl Fn(&State, &[Ran; 2])) {
    in_any_order(state, pair, |state, ran| {
        sound(state);
        check(state, ran);
    });
}

/// Checks every order with up to three changes of turn.
pub fn in_any_order(state: &State, pair: &Pair, check: impl Fn(&State, &[Ran; 2])) {
    let (_, _, [a, b]) = run(state, pair, 0, &[]);
    let (_, _, [c, d]) = run(state, pair, 1, &[]);
    let most = [a.max(c), b.max(d)];
    for first in 0..2 {
        for i in lengths(most[first]) {
            for j in lengths(most[1 - first]) {
                for k in lengths(most[first]) {
                    let runs = [i, j, k];
                    let (state, ran, _) = run(state, pair, first, &runs);
                    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        for ran in ran.iter().filter(|ran| ran.held_out) {
                            assert_eq!(ran.verdict, BUSY, "a packet does not wait for long");
                        }
                        check(&state, &ran);
                    }));
                    assert!(
                        told.is_ok(),
                        "first {first}, runs {runs:?}: {ran:?}\n{:#?}",
                        state.flows()
                    );
                }
            }
        }
    }
}

/// What holds whatever happens: flows have both their records, a port leads from one remote end to one
/// host, an inside end has one port of its own, and locks are given back.
fn sound(state: &State) {
    let flows = state.flows();
    let mut owners: HashMap<_, _> = HashMap::new();
    for (key, flow) in &flows {
        assert!(flow.state().is_live());
        let flow = flow.flow();
        let answer = key.answer(flow.rewrite());
        let other = flows.get(&answer).expect("a flow has both its records").flow();
        assert_eq!(answer.answer(other.rewrite()), *key, "each record leads to the other");
        assert_eq!(flow.control_session(), other.control_session());
        if flow.direction() == Direction::Original && key.zone() == Zone::Inside {
            let public = (key.protocol(), flow.rewrite().src(), flow.rewrite().sport());
            let inside = (key.src(), key.sport());
            let remote = (key.dst(), key.dport());
            let owned = owners.entry((public, remote)).or_insert(inside);
            assert_eq!(*owned, inside, "one port and remote end, one host");
            let owner = state.ports[&endpoint(public.0, public.1, flow.rewrite().sport().number())];
            let shares = matches!(owner.owner(), Some(Owner::Masquerade | Owner::Shared));
            assert!(owner.is(inside.0, inside.1) || shares, "a used port has its owner");
            assert!(!owner.is_idle(), "and is kept");
        }
        if let Some(session) = flow.control_session() {
            let record = &state.sessions[session.index().unwrap() as usize];
            assert_eq!(record.claimed, 1);
            assert!(record.original() == key || record.reply() == key);
        }
    }
    let mut mapped = HashSet::new();
    for (public, owner) in &state.ports {
        if owner.owner() == Some(Owner::Masquerade) {
            let inside = Endpoint::new(public.protocol(), owner.inside(), owner.inside_port());
            assert!(mapped.insert((inside, public.address())), "one end, one port");
        }
    }
    assert_eq!(state.locks(), 0);
}

/// Records of sessions that are claimed and that no flow names. The agent frees them.
fn sessions_lost(state: &State) -> usize {
    let flows = state.flows();
    let named: HashSet<_> =
        flows.values().filter_map(|flow| flow.flow().control_session()).collect();
    let claimed = state.sessions.iter().filter(|session| session.claimed != 0).count();
    claimed - named.len()
}

fn endpoint(protocol: u8, address: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(protocol, address, Port::new(port))
}

fn empty() -> State {
    gateway::gateway(64, true, Some(PUBLIC)).memory.state().clone()
}

/// The state after some packets, one after the other.
pub fn after(packets: &[(Zone, Spec)]) -> State {
    let Gateway { world, memory, .. } = gateway::gateway(64, true, Some(PUBLIC));
    for (zone, spec) in packets {
        let mut packet = HostPacket::new(spec.build(), LAN, &world);
        host::tc_ingress(&mut packet, &mut memory.tables(), *zone);
    }
    memory.state().clone()
}

pub const INSIDE: Hook = Hook::Ingress(Zone::Inside);
const OUTSIDE: Hook = Hook::Ingress(Zone::Outside);

pub fn is_forwarded(ran: &Ran) -> bool {
    matches!(ran.verdict, Verdict::Forward(_))
}

const BUSY: Verdict = Verdict::Drop(Reason::FlowBusy);

/// Whether one was dropped because the other had its lock for too long, as only a plan of turns here
/// or a stopped CPU makes it; that other one got through.
fn is_one_held_out(ran: &[Ran; 2]) -> bool {
    let held_out = ran.iter().position(|ran| ran.held_out);
    if let Some(who) = held_out {
        assert!(is_forwarded(&ran[1 - who]));
    }
    held_out.is_some()
}

fn left_the_same(ran: &[Ran; 2]) {
    if is_one_held_out(ran) {
        return;
    }
    assert!(is_forwarded(&ran[0]) && is_forwarded(&ran[1]));
    assert_eq!(ran[0].frame, ran[1].frame);
    assert_eq!(sums::residues(&ran[0].frame).transport, Some(0));
}

fn public_port(ran: &Ran) -> [u8; 2] {
    [ran.frame[ETHERNET + 20], ran.frame[ETHERNET + 21]]
}

#[test]
fn two_packets_of_a_new_flow_leave_with_the_same_tuple() {
    for sport in [40000, 5000] {
        let udp = (INSIDE, Spec::udp((HOST, sport), (REMOTE, 53)).with(b"x"));
        in_every_order(&empty(), &[udp.clone(), udp], |state, ran| {
            left_the_same(ran);
            assert_eq!(state.flows().len(), 2);
        });
    }
    let syn = (INSIDE, Spec::tcp((HOST, 5000), (REMOTE, 80), SYN));
    in_every_order(&empty(), &[syn.clone(), syn], |_, ran| left_the_same(ran));
    let echo = (INSIDE, Spec::echo(HOST, REMOTE, 8, 0));
    in_every_order(&empty(), &[echo.clone(), echo], |_, ran| left_the_same(ran));
}

#[test]
fn an_inside_endpoint_has_one_public_port_for_all_destinations() {
    let a = (INSIDE, Spec::udp((HOST, 5000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp((HOST, 5000), (FAR, 123)));
    in_every_order(&empty(), &[a, b], |_, ran| {
        if is_one_held_out(ran) {
            return;
        }
        assert!(is_forwarded(&ran[0]) && is_forwarded(&ran[1]));
        assert_eq!(public_port(&ran[0]), public_port(&ran[1]));
    });
}

#[test]
fn two_hosts_never_share_a_port() {
    let a = (INSIDE, Spec::udp((HOST, 40000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 40000), (REMOTE, 53)));
    in_every_order(&empty(), &[a, b], |_, ran| {
        if is_one_held_out(ran) {
            return;
        }
        assert!(is_forwarded(&ran[0]) && is_forwarded(&ran[1]));
        assert_ne!(public_port(&ran[0]), public_port(&ran[1]));
    });
}

/// Other hosts have all ports of the pool but `free`, each with a flow to `remote`.
fn crowded(free: &[u16], remote: ([u8; 4], u16)) -> State {
    let taken = [40000, 40001, 40002, 65535].into_iter().filter(|port| !free.contains(port));
    let taken = taken.map(|port| (Zone::Inside, Spec::udp(([10, 0, 1, 5], port), remote)));
    after(&taken.collect::<Vec<_>>())
}

#[test]
fn the_last_port_goes_to_one_and_the_other_shares_it_or_another() {
    let a = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 6000), (REMOTE, 53)));
    let orders = Cell::new(0);
    in_every_order(&crowded(&[40002], (FAR, 1)), &[a, b], |state, ran| {
        orders.set(orders.get() + 1);
        if is_one_held_out(ran) {
            return;
        }
        assert!(ran.iter().all(is_forwarded));
        assert_ne!(public_port(&ran[0]), public_port(&ran[1]), "one remote end, two ports");
        let last = state.ports[&endpoint(17, PUBLIC, 40002)];
        assert_eq!(last.owner(), Some(Owner::Masquerade));
        assert!(ran.iter().any(|ran| public_port(ran) == 40002u16.to_be_bytes()));
    });
    assert!(orders.get() > 100);
}

#[test]
fn of_two_that_would_share_the_last_port_to_a_remote_end_one_gets_it() {
    // All ports have owners, and all but one a flow to that remote end.
    let mut state = crowded(&[40001], (REMOTE, 53));
    let third = PortOwner::new(Owner::Masquerade, [10, 0, 1, 6], Port::new(9));
    state.ports.insert(endpoint(17, PUBLIC, 40001), third);
    let a = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 6000), (REMOTE, 53)));
    let won = RefCell::new(HashSet::new());
    in_every_order(&state, &[a, b], |state, ran| {
        if is_one_held_out(ran) {
            return;
        }
        let winners: Vec<usize> = (0..2).filter(|who| is_forwarded(&ran[*who])).collect();
        let [winner] = winners[..] else { panic!("one wins") };
        assert_eq!(public_port(&ran[winner]), 40001u16.to_be_bytes());
        assert_eq!(ran[1 - winner].verdict, Verdict::Drop(Reason::PortsExhausted));
        assert_eq!(state.ports[&endpoint(17, PUBLIC, 40001)], third, "it keeps its owner");
        won.borrow_mut().insert(winner);
    });
    assert_eq!(won.into_inner().len(), 2);
}

#[test]
fn two_packets_of_a_flow_that_shares_a_port_leave_with_the_same_tuple() {
    let udp = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    in_every_order(&crowded(&[], (FAR, 1)), &[udp.clone(), udp], |state, ran| {
        left_the_same(ran);
        assert_eq!(state.flows().len(), 2 * 4 + 2);
    });
    // Another one ends in the same instant, so that they may come to different ports.
    let remote = (REMOTE, 53);
    let full = crowded(&[], remote);
    let mut full_later = full.clone();
    full_later.now += 100;
    full_later.settings.heartbeat = full_later.now;
    let other = |port| FlowKey::new(Zone::Inside, 17, [10, 0, 1, 5], port, REMOTE, Port::new(53));
    let udp = (INSIDE, Spec::udp((HOST, 6000), remote));
    for port in [40000, 65535] {
        let sweep = (Hook::Sweep(other(Port::new(port))), Spec::udp((HOST, 1), (REMOTE, 1)));
        in_every_order(&full_later, &[udp.clone(), sweep], |_, ran| match ran[0].verdict {
            Verdict::Forward(_) => assert_eq!(public_port(&ran[0]), port.to_be_bytes()),
            verdict => assert!(
                matches!(verdict, Verdict::Drop(Reason::PortsExhausted | Reason::FlowBusy)),
                "{verdict:?}"
            ),
        });
    }
}

#[test]
fn who_comes_to_another_port_for_one_flow_adopts_the_winner_and_releases_its_own() {
    let udp = Spec::udp((HOST, 6000), (REMOTE, 53));
    let (mut state, public) = (crowded(&[], (FAR, 1)), endpoint(17, PUBLIC, 40001));
    let gone = FlowKey::new(Zone::Outside, 17, FAR, Port::new(1), PUBLIC, Port::new(40001));
    let answer = state.flow(&gone).unwrap().flow();
    state.remove_flow(&gone.answer(answer.rewrite()));
    state.remove_flow(&gone);
    let word = state.ports.get_mut(&public).unwrap();
    *word = word.idle(true);
    let ports = RefCell::new(HashSet::new());
    let pair = [(INSIDE, udp.clone()), (Hook::ReleaseThen(public), udp)];
    in_any_order(&state, &pair, |state, ran| {
        left_the_same(ran);
        assert_eq!(state.flows().len(), 2 * 3 + 2, "the loser leaves nothing");
        ports.borrow_mut().insert(public_port(&ran[0]));
    });
    assert!(ports.into_inner().len() > 1, "the two came to different ports");
}

#[test]
fn the_owner_of_a_port_shares_another_where_its_own_leads_back_to_somebody_else() {
    // The host has a port; somebody shares it to a remote end that the host dials next.
    let mut state = crowded(&[], (FAR, 1));
    let owner = [10, 0, 1, 5];
    let first = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    let nothing = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    let (shared, ran, _) = run(&state, &[first, nothing], 0, &[]);
    let port = u16::from_be_bytes(public_port(&ran[0]));
    state = shared;
    let a = (INSIDE, Spec::udp((owner, port), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 7), (REMOTE, 53)));
    in_every_order(&state, &[a, b], |_, ran| {
        if is_one_held_out(ran) {
            return;
        }
        assert!(ran.iter().all(is_forwarded));
        let ports = [public_port(&ran[0]), public_port(&ran[1]), port.to_be_bytes()];
        assert_eq!(HashSet::from(ports).len(), 3);
    });
}

#[test]
fn a_shared_port_is_not_released_under_a_flow() {
    let mut state = crowded(&[], (FAR, 1));
    for key in state.flows().keys() {
        state.remove_flow(key);
    }
    for word in state.ports.values_mut().filter(|word| word.owner() == Some(Owner::Masquerade)) {
        *word = word.idle(true);
    }
    let udp = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    for port in [40000, 40001, 40002, 65535] {
        let release = Hook::Release(endpoint(17, PUBLIC, port));
        let release = (release, Spec::udp((HOST, 1), (REMOTE, 1)));
        in_every_order(&state, &[udp.clone(), release], |state, ran| {
            assert!(is_forwarded(&ran[0]));
            let port = u16::from_be_bytes(public_port(&ran[0]));
            let word = state.ports[&endpoint(17, PUBLIC, port)];
            assert!(!word.is_none() && !word.is_idle());
        });
    }
}

#[test]
fn a_syn_that_is_there_twice_begins_one_connection_anew() {
    let ended = [
        (Zone::Inside, Spec::tcp((HOST, 40000), (REMOTE, 80), SYN)),
        (Zone::Outside, Spec::tcp((REMOTE, 80), (PUBLIC, 40000), SYN | ACK)),
        (Zone::Inside, Spec::tcp((HOST, 40000), (REMOTE, 80), FIN | ACK)),
    ];
    let syn = (INSIDE, Spec::tcp((HOST, 40000), (REMOTE, 80), SYN));
    in_every_order(&after(&ended), &[syn.clone(), syn], |state, ran| {
        assert!(ran.iter().any(is_forwarded));
        assert!(state.flows().values().all(|flow| flow.state().seen() & 12 == 0));
    });
}

#[test]
fn a_control_connection_has_one_session_and_its_syn_gets_through() {
    let syn = (INSIDE, Spec::tcp((HOST, 5000), (REMOTE, 21), SYN));
    in_every_order(&empty(), &[syn.clone(), syn], |state, ran| {
        left_the_same(ran);
        assert_eq!((state.flows().len(), sessions_lost(state)), (2, 0));
    });
    let syn = (OUTSIDE, Spec::tcp((REMOTE, 5000), (PUBLIC, 21), SYN));
    in_every_order(&empty(), &[syn.clone(), syn], |state, ran| {
        left_the_same(ran);
        assert_eq!((state.flows().len(), sessions_lost(state)), (2, 0));
    });
}

#[test]
fn a_control_connection_that_is_begun_anew_twice_has_one_session() {
    let ended = [
        (Zone::Inside, Spec::tcp((HOST, 40000), (REMOTE, 21), SYN)),
        (Zone::Outside, Spec::tcp((REMOTE, 21), (PUBLIC, 40000), RST | ACK)),
    ];
    let mut state = after(&ended);
    assert_eq!(state.flows().len(), 2);
    state.settings.heartbeat = 0;
    let syn = (INSIDE, Spec::tcp((HOST, 40000), (REMOTE, 21), SYN));
    let pair = [syn.clone(), syn];
    in_any_order(&state, &pair, |state, _| {
        // One that was given up is begun anew by the next SYN, also where the records of two sessions
        // met and the one that gave up has left a record alone.
        let (state, ran, _) = run(state, &pair, 0, &[]);
        sound(&state);
        assert!(is_forwarded(&ran[1]));
        assert_eq!(state.flows().len(), 2);
    });
}

#[test]
fn an_expectation_lets_in_one_connection() {
    let mut state = empty();
    let key = ExpectationKey::new(Zone::Outside, TCP, REMOTE, PUBLIC, Port::new(40000));
    let expires = state.now + 30;
    let value =
        Expectation::inbound(SERVER, Port::new(2000), SessionId::new(3), RuleId::new(3), expires);
    state.expectations.insert(key, value);
    let a = (OUTSIDE, Spec::tcp((REMOTE, 20), (PUBLIC, 40000), SYN));
    let b = (OUTSIDE, Spec::tcp((REMOTE, 6000), (PUBLIC, 40000), SYN));
    in_every_order(&state, &[a.clone(), b], |state, ran| {
        assert_eq!(ran.iter().filter(|ran| is_forwarded(ran)).count(), 1);
        assert_eq!(state.flows().len(), 2);
    });
    in_every_order(&state, &[a.clone(), a], |_, ran| assert!(ran.iter().any(is_forwarded)));
}

#[test]
fn two_forwards_to_one_inside_port_do_not_mix_their_answers() {
    let a = (OUTSIDE, Spec::tcp((REMOTE, 6000), (PUBLIC, 8080), SYN));
    let b = (OUTSIDE, Spec::tcp((REMOTE, 6000), (PUBLIC, 8081), SYN));
    in_every_order(&empty(), &[a.clone(), b], |state, ran| {
        assert_eq!(ran.iter().filter(|ran| is_forwarded(ran)).count(), 1);
        assert!(ran.iter().any(|ran| ran.verdict == Verdict::Drop(Reason::TupleTaken)));
        assert_eq!(state.flows().len(), 2);
    });
    in_every_order(&empty(), &[a.clone(), a], |_, ran| left_the_same(ran));
}

#[test]
fn a_port_of_a_socket_of_the_gateway_is_not_given_away() {
    let own = (Hook::Egress, Spec::udp((PUBLIC, 40000), (REMOTE, 53)));
    let inside = (INSIDE, Spec::udp((HOST, 40000), (REMOTE, 53)));
    in_every_order(&empty(), &[own, inside], |state, ran| {
        assert_eq!(ran[0].verdict, Verdict::Pass);
        assert!(is_forwarded(&ran[1]));
        let owner = state.ports[&endpoint(17, PUBLIC, 40000)].owner();
        let gave_way = public_port(&ran[1]) != 40000u16.to_be_bytes();
        assert_eq!(owner == Some(Owner::Gateway), gave_way);
        assert_eq!(state.counted(Counter::PortClash) == 1, !gave_way);
    });
}

#[test]
fn answers_and_packets_of_a_flow_do_not_disturb_each_other() {
    let begun = [(Zone::Inside, Spec::tcp((HOST, 40000), (REMOTE, 80), SYN))];
    let there = (INSIDE, Spec::tcp((HOST, 40000), (REMOTE, 80), ACK));
    let back = (OUTSIDE, Spec::tcp((REMOTE, 80), (PUBLIC, 40000), SYN | ACK));
    in_every_order(&after(&begun), &[there, back], |state, ran| {
        assert!(ran.iter().all(is_forwarded));
        let key = FlowKey::new(Zone::Inside, TCP, HOST, Port::new(40000), REMOTE, Port::new(80));
        assert_eq!(state.flow(&key).unwrap().packets(), 2);
    });
}

/// The state after some packets, a good while later.
fn idle(packets: &[(Zone, Spec)]) -> State {
    let mut state = after(packets);
    state.now += 100;
    state.settings.heartbeat = state.now;
    state
}

#[test]
fn a_packet_is_dropped_when_its_lock_is_taken_at_every_look_and_only_then() {
    let udp = (INSIDE, Spec::udp((HOST, 5000), (REMOTE, 53)));
    let (held_out, through) = (Cell::new(0), Cell::new(0));
    let pair = [udp.clone(), udp];
    in_every_order(&empty(), &pair, |state, ran| {
        for ran in ran {
            assert_eq!(ran.verdict == BUSY, ran.held_out);
            let count = if ran.held_out { &held_out } else { &through };
            count.set(count.get() + 1);
        }
        let dropped = ran.iter().filter(|ran| ran.held_out).count();
        assert_eq!(state.dropped(Reason::FlowBusy), dropped as u64);
        // What was dropped gets through when it is repeated.
        let (_, again, _) = run(state, &pair, 0, &[]);
        assert!(again.iter().all(is_forwarded));
    });
    assert!(held_out.get() > 0 && through.get() > held_out.get());
}

#[test]
fn a_flow_that_a_packet_uses_is_not_swept_away() {
    let port = 40000;
    let tcp = [
        (Zone::Inside, Spec::tcp((HOST, port), (REMOTE, 80), SYN)),
        (Zone::Outside, Spec::tcp((REMOTE, 80), (PUBLIC, port), SYN | ACK)),
    ];
    let key = |protocol, dport| {
        FlowKey::new(Zone::Inside, protocol, HOST, Port::new(port), REMOTE, Port::new(dport))
    };
    let udp = [(Zone::Inside, Spec::udp((HOST, port), (REMOTE, 53)))];
    let nothing = Spec::udp((HOST, 1), (REMOTE, 1));
    let cases = [
        (&udp[..], INSIDE, Spec::udp((HOST, port), (REMOTE, 53)), key(17, 53), BUSY),
        (
            &udp[..],
            OUTSIDE,
            Spec::udp((REMOTE, 53), (PUBLIC, port)),
            key(17, 53),
            Verdict::Drop(Reason::Unsolicited),
        ),
        (
            &tcp[..],
            INSIDE,
            Spec::tcp((HOST, port), (REMOTE, 80), ACK),
            key(TCP, 80),
            Verdict::Drop(Reason::NoSyn),
        ),
    ];
    for (begun, hook, spec, key, afterwards) in cases {
        let seen = RefCell::new(HashSet::new());
        let answer = idle(begun).flow(&key).unwrap();
        let answer = key.answer(answer.flow().rewrite());
        // The sweep may come upon either record first.
        for swept in [key, answer] {
            let pair = [(hook, spec.clone()), (Hook::Sweep(swept), nothing.clone())];
            in_every_order(&idle(begun), &pair, |state, ran| {
                let flows = state.flows().len();
                match ran[0].verdict {
                    Verdict::Forward(_) => assert_eq!(flows, 2, "what is used lives"),
                    verdict => assert!(verdict == BUSY || verdict == afterwards, "{verdict:?}"),
                }
                assert!(flows == 0 || flows == 2);
                let is_forwarded = is_forwarded(&ran[0]);
                seen.borrow_mut().insert((is_forwarded, ran[0].verdict == BUSY, flows));
            });
        }
        // Used before, and swept while it was on its way. What the sweep puts back was never gone.
        let seen = seen.into_inner();
        assert!(seen.contains(&(true, false, 2)) && seen.contains(&(false, true, 0)), "{seen:?}");
    }
}

#[test]
fn a_port_that_is_about_to_be_released_is_kept_by_whoever_uses_it() {
    for (sport, public) in [(40000, 40000), (5000, 0)] {
        let begun = [(Zone::Inside, Spec::udp((HOST, sport), (REMOTE, 53)))];
        let mut state = after(&begun);
        for key in state.flows().keys() {
            state.remove_flow(key);
        }
        let owner = PortOwner::new(Owner::Masquerade, HOST, Port::new(sport));
        let (port, word) = state.ports.iter_mut().find(|(_, word)| **word == owner).unwrap();
        *word = word.idle(true);
        let port = *port;
        assert!(public == 0 || port.port().number() == public);
        let udp = (INSIDE, Spec::udp((HOST, sport), (FAR, 53)));
        let release = (Hook::Release(port), Spec::udp((HOST, 1), (REMOTE, 1)));
        let kept = Cell::new(0);
        in_every_order(&state, &[udp, release], |state, ran| {
            // Nobody else wants a port: the flow has it, whether kept or claimed anew.
            assert!(is_forwarded(&ran[0]));
            assert_eq!(state.ports[&port], owner);
            kept.set(kept.get() + 1);
        });
        assert!(kept.get() > 0);
    }
}

#[test]
fn a_port_that_an_announced_connection_keeps_is_not_released_under_it() {
    let mut state = empty();
    let key = ExpectationKey::new(Zone::Inside, TCP, SERVER, REMOTE, Port::new(2000));
    let expires = state.now + 30;
    let value = Expectation::outbound(PUBLIC, SessionId::new(3), RuleId::new(3), expires);
    state.expectations.insert(key, value);
    let public = endpoint(TCP, PUBLIC, 40000);
    let owner = PortOwner::new(Owner::Expectation, SERVER, Port::new(40000));
    state.ports.insert(public, owner.idle(true));
    let syn = (INSIDE, Spec::tcp((SERVER, 40000), (REMOTE, 2000), SYN));
    let release = (Hook::Release(public), Spec::udp((HOST, 1), (REMOTE, 1)));
    in_every_order(&state, &[syn, release], |state, ran| {
        assert!(is_forwarded(&ran[0]));
        let owner = state.ports[&public];
        assert!(owner.is(SERVER, Port::new(40000)) && !owner.is_idle());
    });
}
