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
    port::{Endpoint, MappingKey, Owner, Port},
    reason::Reason,
    rule::RuleId,
    session::SessionId,
};
use nat_ebpf::host::{self, HostPacket, Memory, Operation, Schedule, State, Verdict};
use std::{
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
}

impl Turns {
    fn new(first: usize, runs: &[usize]) -> Self {
        let runs = runs.iter().copied().collect();
        let turn = Turn { runs, who: first, ended: [false; 2], done: [0; 2] };
        Self { turn: Mutex::new(turn), changed: Condvar::new() }
    }

    /// Returns when packet `who` may do an operation; it ends with its next call, or at its end.
    fn before(&self, who: usize) {
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
    fn before(&self, _operation: Operation) {
        self.turns.before(self.who);
    }
}

/// The hook that a packet comes by.
#[derive(Clone, Copy, Debug)]
enum Hook {
    Ingress(Zone),
    /// The gateway's own packet leaves.
    Egress,
}

/// What became of a packet.
#[derive(Clone, Debug)]
struct Ran {
    verdict: Verdict,
    frame: Vec<u8>,
}

type Pair = [(Hook, Spec); 2];

/// Runs both packets with the turns as planned; how many operations each has done.
fn run(state: &State, pair: &Pair, first: usize, runs: &[usize]) -> (State, [Ran; 2], [usize; 2]) {
    let memory = Memory::from(state.clone());
    let turns = Turns::new(first, runs);
    let world = gateway::world();
    let one = |who: usize| {
        let (hook, spec) = &pair[who];
        let cpu = Cpu { turns: &turns, who };
        let mut tables = memory.scheduled(&cpu);
        let ifindex = if let Hook::Ingress(Zone::Inside) = hook { LAN } else { WAN };
        let mut packet = HostPacket::new(spec.build(), ifindex, &world);
        turns.before(who);
        let verdict = match hook {
            Hook::Ingress(zone) => host::tc_ingress(&mut packet, &mut tables, *zone),
            Hook::Egress => host::outside_egress(&packet, &mut tables, 0, 0),
        };
        turns.end(who);
        Ran { verdict, frame: packet.frame }
    };
    let ran = thread::scope(|scope| {
        let other = scope.spawn(|| one(1));
        [one(0), other.join().unwrap()]
    });
    let done = turns.turn.lock().unwrap().done;
    let state = memory.state().clone();
    (state, ran, done)
}

/// Lengths of runs: all, but of a long search for a free port not every turn.
fn lengths(most: usize) -> impl Iterator<Item = usize> + Clone {
    (1..=most).filter(move |length| *length <= 14 || length % 40 == 0 || *length == most)
}

/// Checks every order with up to three changes of turn.
fn in_every_order(state: &State, pair: &Pair, check: impl Fn(&State, &[Ran; 2])) {
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
                        sound(&state);
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

/// What holds whatever happens: flows have both their records, ports have one owner and a use.
fn sound(state: &State) {
    let flows = state.flows();
    let mut owners: HashMap<_, _> = HashMap::new();
    for (key, flow) in &flows {
        let answer = key.answer(flow.rewrite());
        let other = flows.get(&answer).expect("a flow has both its records");
        assert_eq!(answer.answer(other.rewrite()), *key, "each record leads to the other");
        assert_eq!(flow.control_session(), other.control_session());
        if flow.direction() == Direction::Original && key.zone() == Zone::Inside {
            let public = (key.protocol(), flow.rewrite().src(), flow.rewrite().sport());
            let inside = (key.src(), key.sport());
            assert_eq!(*owners.entry(public).or_insert(inside), inside, "one port, one owner");
        }
        if let Some(session) = flow.control_session() {
            let record = &state.sessions[session.index().unwrap() as usize];
            assert_eq!(record.claimed, 1);
            assert!(record.original() == key || record.reply() == key);
        }
    }
    for (key, mapping) in &state.mappings {
        let public = endpoint(key.inside().protocol(), key.public(), mapping.port().number());
        let owner = state.ports.get(&public).expect("a mapped port has an owner");
        assert!(owner.is(key.inside().address(), key.inside().port()));
    }
    for (public, owner) in &state.ports {
        if owner.owner() == Some(Owner::Masquerade) {
            let inside = Endpoint::new(public.protocol(), owner.inside(), owner.inside_port());
            let mapping = state.mappings.get(&MappingKey::new(inside, public.address()));
            assert_eq!(mapping.map(|m| m.port()), Some(public.port()), "no port is lost");
        }
    }
}

/// Records of sessions that are claimed and that no flow names. The agent frees them.
fn sessions_lost(state: &State) -> usize {
    let flows = state.flows();
    let named: HashSet<_> = flows.values().filter_map(|flow| flow.control_session()).collect();
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
fn after(packets: &[(Zone, Spec)]) -> State {
    let Gateway { world, memory, .. } = gateway::gateway(64, true, Some(PUBLIC));
    for (zone, spec) in packets {
        let mut packet = HostPacket::new(spec.build(), LAN, &world);
        host::tc_ingress(&mut packet, &mut memory.tables(), *zone);
    }
    memory.state().clone()
}

const INSIDE: Hook = Hook::Ingress(Zone::Inside);
const OUTSIDE: Hook = Hook::Ingress(Zone::Outside);

fn is_forwarded(ran: &Ran) -> bool {
    matches!(ran.verdict, Verdict::Forward(_))
}

fn left_the_same(ran: &[Ran; 2]) {
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
        assert!(is_forwarded(&ran[0]) && is_forwarded(&ran[1]));
        assert_eq!(public_port(&ran[0]), public_port(&ran[1]));
    });
}

#[test]
fn two_hosts_never_share_a_port() {
    let a = (INSIDE, Spec::udp((HOST, 40000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 40000), (REMOTE, 53)));
    in_every_order(&empty(), &[a, b], |_, ran| {
        assert!(is_forwarded(&ran[0]) && is_forwarded(&ran[1]));
        assert_ne!(public_port(&ran[0]), public_port(&ran[1]));
    });
}

#[test]
fn the_last_port_goes_to_one() {
    let taken: Vec<_> = [40000, 40001, 65535]
        .map(|port| (Zone::Inside, Spec::udp(([10, 0, 1, 5], port), (FAR, 1))))
        .into();
    let a = (INSIDE, Spec::udp((HOST, 6000), (REMOTE, 53)));
    let b = (INSIDE, Spec::udp(([10, 0, 1, 3], 6000), (REMOTE, 53)));
    in_every_order(&after(&taken), &[a, b], |_, ran| {
        assert_eq!(ran.iter().filter(|ran| is_forwarded(ran)).count(), 1);
        let refused = Verdict::Drop(Reason::PortsExhausted);
        assert!(ran.iter().any(|ran| ran.verdict == refused));
    });
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
        assert!(state.flows().values().all(|flow| flow.seen & 12 == 0));
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
    in_every_order(&state, &pair, |state, _| {
        // One that was given up is begun anew by the next SYN.
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
        assert_eq!(state.flow(&key).unwrap().packets, 2);
    });
}
