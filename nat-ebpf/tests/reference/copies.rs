//! Harmless lines of control connections that pass at once: which, and what two CPUs and the agent
//! make of them.

use crate::{
    common::frame::{ACK, Body, FIN, PSH, SYN, Spec},
    gateway::{self, HOST, LAN, REMOTE},
    races::{Hook, INSIDE, after, in_any_order, is_forwarded},
};
use nat_common::{
    counter::Counter,
    layout::HEARTBEAT_STALE,
    reason::Reason,
    sequence::Corrections,
    session::{Session, Side},
    vouched::Vouched,
};
use nat_ebpf::host::{self, HostPacket, Memory, State, Verdict};

const X: u32 = u32::MAX - 2;
const LINE: &[u8] = b"RETR a\r\n";
const Y: u32 = X.wrapping_add(LINE.len() as u32);
const Z: u32 = Y.wrapping_add(LINE.len() as u32);
const NOTHING: Vouched = Vouched::NONE;

/// A control connection whose client is resolved up to X.
fn control() -> State {
    let syn = Spec::tcp((HOST, 40000), (REMOTE, 21), SYN);
    let mut state = after(&[(nat_common::flow::Zone::Inside, syn)]);
    state.counters = Default::default();
    session(&mut state).vouched[0] = Vouched::up_to(X).word();
    state
}

fn session(state: &mut State) -> &mut Session {
    state.sessions.iter_mut().find(|session| session.claimed != 0).unwrap()
}

fn vouched(state: &State) -> Vouched {
    Vouched::from_word(session(&mut state.clone()).vouched[0])
}

fn segment(at: u32, flags: u8, payload: &[u8]) -> Spec {
    let mut spec = Spec::tcp((HOST, 40000), (REMOTE, 21), flags).with(payload);
    if let Body::Tcp { sequence, .. } = &mut spec.body {
        *sequence = at;
    }
    spec
}

fn line(at: u32) -> Spec {
    segment(at, PSH | ACK, LINE)
}

/// What becomes of a segment: the verdict, whether a copy is in the ring, what is vouched for.
fn pass(state: &State, spec: &Spec) -> (Verdict, Vec<bool>, Vouched) {
    pass_in(&gateway::world(), state, spec)
}

fn pass_in(world: &host::World, state: &State, spec: &Spec) -> (Verdict, Vec<bool>, Vouched) {
    let memory = Memory::from(state.clone());
    let mut packet = HostPacket::new(spec.build(), LAN, world);
    let zone = nat_common::flow::Zone::Inside;
    let verdict = host::tc_ingress(&mut packet, &mut memory.tables(), zone);
    let copies: Vec<bool> = packet.punted.iter().map(|(header, _)| header.is_copy()).collect();
    let state = memory.state();
    let counted = |counter: Counter| state.counters[counter as usize];
    assert_eq!(counted(Counter::Punted), u64::from(verdict == Verdict::Punted));
    assert_eq!(counted(Counter::Copied), u64::from(copies.contains(&true)));
    (verdict, copies, vouched(&state))
}

#[test]
fn a_harmless_line_passes_and_leaves_a_copy_where_the_agent_has_vouched() {
    let (verdict, copies, vouched) = pass(&control(), &line(X));
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    assert_eq!((copies, vouched), (vec![true], Vouched::up_to(Y)));
}

#[test]
fn everything_else_waits() {
    for spec in [
        line(X.wrapping_sub(1)),
        line(Y),
        segment(X, PSH | ACK, b"PORT 10,0,1,2,4,5\r\n"),
        segment(X, PSH | ACK, b"RETR a\r\nPORT 10,0,1,2,4,5\r\n"),
        segment(X, PSH | ACK, b"RETR a"),
        segment(X, PSH | ACK | FIN, LINE),
        segment(X, PSH | ACK | 32, LINE),
        segment(X, PSH | ACK, b"\xff\xf4NOOP\r\n"),
        segment(X, PSH | ACK, &[b"RETR ", &[b'x'; 510][..], b"\r\n"].concat()),
        segment(X, FIN | ACK, b""),
    ] {
        let (verdict, copies, vouched) = pass(&control(), &spec);
        assert_eq!((verdict, copies), (Verdict::Punted, vec![false]), "{spec:?}");
        assert_eq!(vouched, Vouched::up_to(X));
    }
    let mut state = control();
    session(&mut state).vouched[0] = NOTHING.word();
    assert_eq!(pass(&state, &line(X)), (Verdict::Punted, vec![false], NOTHING));
}

#[test]
fn without_an_agent_or_room_nothing_passes_unread() {
    let mut state = control();
    state.now += HEARTBEAT_STALE + 2;
    let gone = Verdict::Drop(Reason::AlgNoAgent);
    assert_eq!(pass(&state, &line(X)), (gone, vec![], Vouched::up_to(X)));
    let mut world = gateway::world();
    world.ring_fills = true;
    let waits = (Verdict::Punted, vec![false], Vouched::up_to(X));
    assert_eq!(pass_in(&world, &control(), &line(X)), waits);
    world.ring_full = true;
    let full = Verdict::Drop(Reason::AlgRingFull);
    assert_eq!(pass_in(&world, &control(), &line(X)), (full, vec![], Vouched::up_to(X)));
}

#[test]
fn a_line_that_passes_has_the_numbers_of_its_receiver() {
    let mut state = control();
    let mut corrections = Corrections::IDENTITY;
    corrections.push(X.wrapping_sub(10), 4, 9).unwrap();
    session(&mut state).copies[0][0] = corrections;
    let memory = Memory::from(state);
    let world = gateway::world();
    let mut packet = HostPacket::new(line(X).build(), LAN, &world);
    let zone = nat_common::flow::Zone::Inside;
    host::tc_ingress(&mut packet, &mut memory.tables(), zone);
    assert_eq!(packet.frame[38..42], X.wrapping_add(5).to_be_bytes());
    assert_eq!(packet.frame[54..], *LINE);
}

#[test]
fn of_one_line_on_two_cpus_at_least_one_passes() {
    in_any_order(&control(), &[(INSIDE, line(X)), (INSIDE, line(X))], |state, ran| {
        assert_eq!(vouched(state), Vouched::up_to(Y));
        assert!(ran.iter().any(is_forwarded));
        for ran in ran {
            assert_eq!(is_forwarded(ran), ran.punted[0].is_copy());
        }
    });
}

#[test]
fn a_line_passes_only_behind_the_copy_of_the_one_before() {
    in_any_order(&control(), &[(INSIDE, line(X)), (INSIDE, line(Y))], |state, ran| {
        assert!(is_forwarded(&ran[0]));
        let second = is_forwarded(&ran[1]);
        assert_eq!(vouched(state), Vouched::up_to(if second { Z } else { Y }));
        assert_eq!(ran[1].punted[0].is_copy(), second);
    });
}

#[test]
fn what_the_agent_takes_back_stays_taken_back() {
    let withdraw = (Hook::Vouch(Side::Originator, None), line(0));
    in_any_order(&control(), &[(INSIDE, line(X)), withdraw], |state, ran| {
        assert_eq!(vouched(state), NOTHING);
        assert_eq!(is_forwarded(&ran[0]), ran[0].punted[0].is_copy());
    });
}

#[test]
fn an_agent_that_is_behind_does_not_take_back_what_has_passed() {
    let late = (Hook::Vouch(Side::Originator, Some(X)), line(0));
    in_any_order(&control(), &[(INSIDE, line(X)), late], |state, ran| {
        assert!(is_forwarded(&ran[0]));
        assert_eq!(vouched(state), Vouched::up_to(Y));
    });
}

#[test]
fn a_line_that_meets_a_change_of_corrections_leaves_no_copy_or_passes() {
    let change = (Hook::Correct, line(0));
    in_any_order(&control(), &[(INSIDE, line(X)), change], |state, ran| match ran[0].verdict {
        Verdict::Drop(Reason::AlgBusy) => {
            assert_eq!((ran[0].punted.len(), vouched(state)), (0, Vouched::up_to(X)));
        }
        _ => {
            assert!(is_forwarded(&ran[0]) && ran[0].punted[0].is_copy());
            assert_eq!(ran[0].frame[38..42], X.to_be_bytes());
        }
    });
}
