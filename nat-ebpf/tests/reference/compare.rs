//! Whether the tables of the path say what the lists of the model say.

use crate::{
    gateway::{self, Gateway},
    model::{self, Connection, End, Filled, Holder, Kin, Model, Owned},
};
use nat_common::{
    contact::Contact,
    counter::Counter,
    flow::{Direction, Flow, FlowKey, Origin, Zone},
    hop::{self, Hop, HopReference, LINK, OWN},
    port::{Endpoint, Owner, Port},
    rule::RuleId,
    session::SessionId,
};
use nat_ebpf::host::{State, Verdict};
use std::collections::{HashMap, HashSet};

/// Exactly one counter moves for a packet, and one for each thing that was made or used.
pub fn counted(before: &State, after: &State, verdict: Verdict, gateway: &Gateway) {
    let mut counters = before.counters;
    let mut drops = before.drops;
    match verdict {
        Verdict::Pass => counters[Counter::Stack as usize] += 1,
        Verdict::Forward(_) => counters[Counter::Tc as usize] += 1,
        Verdict::Punted => counters[Counter::Punted as usize] += 1,
        Verdict::Drop(reason) => drops[reason as usize] += 1,
    }
    counters[Counter::Flows as usize] += u64::from(gateway.model.made);
    counters[Counter::Expected as usize] += u64::from(gateway.model.used);
    assert_eq!(after.counters, counters);
    assert_eq!(after.drops, drops);
}

pub fn key(zone: Zone, protocol: u8, (src, dst): (End, End)) -> FlowKey {
    FlowKey::new(zone, protocol, src.0, Port::new(src.1), dst.0, Port::new(dst.1))
}

pub fn endpoint(protocol: u8, end: End) -> Endpoint {
    Endpoint::new(protocol, end.0, Port::new(end.1))
}

/// The tables of the path say what the lists of the model say.
pub fn same_tables(gateway: &Gateway, state: &State) {
    let model = &gateway.model;
    let flows = state.flows();
    assert_eq!(flows.len(), model.connections.len() * 2);
    let mut sessions = HashSet::new();
    for connection in &model.connections {
        let Connection { from, protocol, arrives, leaves, .. } = *connection;
        let there = flows.get(&key(from, protocol, arrives)).expect("the initiator's record");
        let back = flows
            .get(&key(connection.answered_from(), protocol, (leaves.1, leaves.0)))
            .expect("the answer's record");
        let records = [there, back];
        let (there, back) = (there.flow(), back.flow());
        assert_eq!((there.direction(), back.direction()), (Direction::Original, Direction::Reply));
        let tuple = |flow: &Flow| {
            let rewrite = flow.rewrite();
            ((rewrite.src(), rewrite.sport().number()), (rewrite.dst(), rewrite.dport().number()))
        };
        assert_eq!(tuple(&there), leaves);
        assert_eq!(tuple(&back), (arrives.1, arrives.0));
        for (direction, flow) in [there, back].into_iter().enumerate() {
            assert_eq!(flow.seen, connection.seen[direction]);
            let record = records[direction];
            assert_eq!(record.packets(), connection.packets[direction]);
            assert_eq!(record.bytes(), connection.bytes[direction]);
            let takes = record.receiving();
            let takes = (takes.acknowledged, takes.window);
            assert_eq!(takes, connection.takes[direction].unwrap_or_default());
            assert_eq!(flow.last_seen, connection.last[direction]);
            led(model, state, connection.led[direction], flow.hop);
            match connection.kin {
                Kin::Plain => {
                    assert_eq!(flow.origin(), Origin::Rule(RuleId::new(connection.rule)));
                }
                Kin::Related(session) => {
                    assert_eq!(flow.related_session(), Some(SessionId::new(session)));
                }
                Kin::Control => {
                    let session = flow.control_session().expect("a session");
                    let claimed = &state.sessions[session.index().unwrap() as usize];
                    assert_eq!(claimed.claimed, 1);
                    assert_eq!(*claimed.original(), key(from, protocol, arrives));
                    assert_eq!(claimed.rule(), RuleId::new(connection.rule));
                }
            }
        }
        if connection.kin == Kin::Control {
            assert_eq!(there.control_session(), back.control_session());
            assert!(sessions.insert(there.control_session()), "a session has one connection");
        }
    }
    let owned: HashMap<Endpoint, (Option<Owner>, End, bool)> = state
        .ports
        .iter()
        .map(|(public, owner)| {
            let inside = (owner.inside(), owner.inside_port().number());
            (*public, (owner.owner(), inside, owner.is_idle()))
        })
        .collect();
    let wanted: HashMap<_, _> = model
        .owned
        .iter()
        .map(|Owned { protocol, public, holder, inside, idle }| {
            let owner = match holder {
                Holder::Masquerade => Owner::Masquerade,
                Holder::Expectation => Owner::Expectation,
                Holder::Forward => Owner::Forward,
                Holder::Shared => Owner::Shared,
            };
            (endpoint(*protocol, *public), (Some(owner), *inside, *idle))
        })
        .collect();
    assert_eq!(wanted.len(), model.owned.len(), "no port has two owners");
    assert_eq!(owned, wanted);
    assert_eq!(state.expectations.len(), model.expectations.len());
    let contacts = model.contacts.iter().map(|it| Contact::new(endpoint(it.0, it.1), it.2));
    assert_eq!(state.contacts.keys().copied().collect::<HashSet<_>>(), contacts.collect());
    same_hops(gateway, state);
}

/// A record leads where the connection does, or to nothing that is true.
fn led(model: &Model, state: &State, wanted: Option<(usize, u32)>, reference: HopReference) {
    let led = reference.in_epoch(model.epoch).map(|index| state.hops[&index]);
    match wanted {
        Some((name, epoch)) if epoch == model.epoch => {
            let hop = model.hops.iter().find(|hop| hop.name == name).expect("a hop of this epoch");
            let led = led.expect("a reference of this epoch");
            let who = (led.ifindex(), led.neighbour());
            assert_eq!(who, (gateway::interface(hop.place), hop.neighbour));
            assert_eq!(u32::from(reference.index()), place(model, hop));
            assert_eq!(led.is_closed(), hop.closed);
        }
        Some(_) => assert_eq!(led, None),
        None => assert_eq!(reference, HopReference::NONE),
    }
}

/// The place of a hop of the model.
pub fn place(model: &Model, hop: &model::Hop) -> u32 {
    let start = hop::start(Hop::who(hop.neighbour, gateway::interface(hop.place)));
    hop::index(start, model.seat(hop) as u32)
}

/// What the agent writes of a hop on an interface: link addresses that the kernel does not have.
pub fn filled(hop: &Hop, filled: Filled) -> Hop {
    let mut words = hop.words();
    words[LINK] = if filled.resolved { Hop::resolved(link(hop.neighbour())) } else { 0 };
    words[OWN] = Hop::own([6, 0, 0, 0, 0, hop.ifindex() as u8], filled.mtu as u16);
    Hop::from_words(words)
}

/// The link address of a neighbour, as the agent knows it.
pub fn link([a, b, c, d]: [u8; 4]) -> [u8; 6] {
    [6, 1, a, b, c, d]
}

/// The same hops, of the same epoch and with the same said of them.
fn same_hops(gateway: &Gateway, state: &State) {
    let mut hops: Vec<_> = state.hops.values().map(|hop| (hop.words(), hop.is_closed())).collect();
    let taken = gateway.model.hops.iter().filter(|hop| !hop.freed);
    let wanted = taken.map(|hop| {
        let who = Hop::who(hop.neighbour, gateway::interface(hop.place));
        let fresh = Hop::from_words([who, 0, 0, 0]).in_epoch(hop.epoch);
        let known = hop.filled.map_or(fresh, |said| filled(&fresh, said));
        let mut words = known.words();
        if hop.closed {
            (words[LINK], words[OWN]) = (Hop::CLOSED, 0);
        }
        (words, hop.closed)
    });
    let mut wanted: Vec<_> = wanted.collect();
    hops.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(hops, wanted);
}
