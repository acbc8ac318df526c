//! Whether the tables of the path say what the lists of the model say.

use crate::{
    gateway::Gateway,
    model::{Connection, End, Holder, Kin, Owned},
};
use nat_common::{
    counter::Counter,
    flow::{Direction, FlowKey, Zone},
    port::{Endpoint, MappingKey, Owner, Port},
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
            .get(&key(from.other(), protocol, (leaves.1, leaves.0)))
            .expect("the answer's record");
        assert_eq!((there.direction(), back.direction()), (Direction::Original, Direction::Reply));
        let tuple = |flow: &nat_common::flow::Flow| {
            let rewrite = flow.rewrite();
            ((rewrite.src(), rewrite.sport().number()), (rewrite.dst(), rewrite.dport().number()))
        };
        assert_eq!(tuple(there), leaves);
        assert_eq!(tuple(back), (arrives.1, arrives.0));
        for (direction, flow) in [there, back].into_iter().enumerate() {
            assert_eq!(flow.seen, connection.seen[direction]);
            assert_eq!(flow.packets, connection.packets[direction]);
            assert_eq!(flow.bytes, connection.bytes[direction]);
            assert_eq!(flow.last_seen, connection.last[direction]);
            assert_eq!(flow.rule(), RuleId::new(connection.rule));
            match connection.kin {
                Kin::Plain => {
                    assert_eq!((flow.control_session(), flow.related_session()), (None, None))
                }
                Kin::Related(session) => {
                    assert_eq!(flow.related_session(), Some(SessionId::new(session)));
                }
                Kin::Control => {
                    let session = flow.control_session().expect("a session");
                    let record = &state.sessions[session.index().unwrap() as usize];
                    assert_eq!(record.claimed, 1);
                    assert_eq!(*record.original(), key(from, protocol, arrives));
                }
            }
        }
        if connection.kin == Kin::Control {
            assert_eq!(there.control_session(), back.control_session());
            assert!(sessions.insert(there.control_session()), "a session has one connection");
        }
    }
    let owned: HashMap<Endpoint, (Option<Owner>, [u8; 4], u16)> = state
        .ports
        .iter()
        .map(|(public, owner)| {
            (*public, (owner.owner(), owner.inside(), owner.inside_port().number()))
        })
        .collect();
    let wanted: HashMap<_, _> = model
        .owned
        .iter()
        .map(|Owned { protocol, public, holder, inside }| {
            let owner = match holder {
                Holder::Masquerade => Owner::Masquerade,
                Holder::Expectation => Owner::Expectation,
                Holder::Forward => Owner::Forward,
            };
            (endpoint(*protocol, *public), (Some(owner), inside.0, inside.1))
        })
        .collect();
    assert_eq!(wanted.len(), model.owned.len(), "no port has two owners");
    assert_eq!(owned, wanted);
    let mapped: HashMap<MappingKey, u16> =
        state.mappings.iter().map(|(key, mapping)| (*key, mapping.port().number())).collect();
    let wanted: HashMap<_, _> = model
        .mapped
        .iter()
        .map(|m| (MappingKey::new(endpoint(m.protocol, m.inside), m.public.0), m.public.1))
        .collect();
    assert_eq!(mapped, wanted);
    assert_eq!(state.expectations.len(), model.expectations.len());
}
