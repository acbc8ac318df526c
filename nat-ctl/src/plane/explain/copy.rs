//! A copy of the maps, as far as one packet can come to see them.
//!
//! Invariant: of the flows those are copied that have an end of the packet in one of their records:
//! no other can be its flow, or be in the way of the one that it would make.

use std::{net::Ipv4Addr, ops::ControlFlow, path::Path};

use aya::maps::MapError;
use nat_common::{
    host, layout,
    port::{Endpoint, Port},
    session::Side,
    six::{Allowed6Key, Flow6Key, PrefixKey},
    watch,
};
use nat_ebpf::host::{Limits, State};

use super::asked::Asked;
use crate::plane::{
    clock, dump,
    error::{PlaneError, Result},
    flow_memory::{self, FlowMemory},
    host_memory::HostMemory,
    maps::Maps,
    pair::Record,
};

/// The state that the packet path sees.
///
/// # Errors
/// Where a map can't be read.
pub fn state(maps: &Maps, pins: &Path, asked: &Asked<Ipv4Addr>) -> Result<State> {
    let limits = Limits { flows: usize::MAX, sessions: layout::SESSIONS, ..Limits::default() };
    let mut state = State::new(limits);
    state.now = clock::now().seconds();
    state.seeds = flow_memory::geometry(pins)?.seeds;
    state.look_everywhere();
    let hosts = HostMemory::open(pins)?;
    state.hosts = hosts.listed().map(|listed| (host::address(listed.who), listed.flows)).collect();
    fill(&mut state, maps).map_err(PlaneError::refused("copy the maps"))?;
    let protocol = asked.protocol.number();
    let ends = [(asked.src, asked.sport), (asked.dst, asked.dport)]
        .map(|(address, port)| Endpoint::new(protocol, address.octets(), Port::new(port)));
    for table in [Some(&maps.flows), maps.before.as_ref()].into_iter().flatten() {
        flows(&mut state, table, &ends);
    }
    Ok(state)
}

/// The same for a packet of IPv6 of the flow `key`, of which the state has no other.
///
/// # Errors
/// Where a map can't be read.
pub fn state6(
    maps: &Maps,
    pins: &Path,
    key: impl FnOnce(&State) -> Result<Flow6Key>,
) -> Result<State> {
    let room = maps.flows6.room().saturating_sub(maps.flows6.used()?);
    let mut state = State::new(Limits { flows6: room as usize, sessions: 0, ..Limits::default() });
    state.now = clock::now().seconds();
    fill6(&mut state, maps).map_err(PlaneError::refused("copy the maps"))?;
    let key = key(&state)?;
    state.flows6.extend(maps.flows6.find(&key)?.map(|flow| (key, flow)));
    let who = host::who6(host::words6(&key.inside()), flow_memory::geometry(pins)?.seeds);
    let flows = HostMemory::open6(pins)?.flows(who);
    state.hosts6.extend(flows.map(|flows| (key.inside(), flows)));
    Ok(state)
}

fn fill6(state: &mut State, maps: &Maps) -> Result<(), MapError> {
    ours(state, maps)?;
    state.expectations6 = maps.expectations6.iter().collect::<Result<_, _>>()?;
    state.forwards6 = maps.forwards6.iter().collect::<Result<_, _>>()?;
    for entry in maps.allowed6.iter() {
        let (key, _) = entry?;
        let bits = key.prefix_len().saturating_sub(Allowed6Key::FILTER_BITS);
        state.allowed6.push((key.data().filter(), key.data().remote(), bits));
    }
    for entry in maps.prefixes.iter() {
        let (key, prefix) = entry?;
        let bits = key.prefix_len().saturating_sub(PrefixKey::SCOPE_BITS);
        state.prefixes.push((key.data(), bits, prefix));
    }
    Ok(())
}

/// What either family is judged by.
fn ours(state: &mut State, maps: &Maps) -> Result<(), MapError> {
    state.settings = maps.settings.get(&0, 0)?;
    state.interfaces = maps.interfaces.iter().collect::<Result<_, _>>()?;
    state.paired = (0..).zip(maps.paired.iter().collect::<Result<Vec<_>, _>>()?).collect();
    Ok(())
}

fn fill(state: &mut State, maps: &Maps) -> Result<(), MapError> {
    ours(state, maps)?;
    state.addresses = maps.addresses.iter().collect::<Result<_, _>>()?;
    state.ports = maps.ports.all()?.into_iter().collect();
    state.expectations = maps.expectations.iter().collect::<Result<_, _>>()?;
    state.forwards = maps.forwards.iter().collect::<Result<_, _>>()?;
    state.contacts = maps.contacts.iter().collect::<Result<_, _>>()?;
    state.encrypted = maps.encrypted.iter().collect::<Result<_, _>>()?;
    state.uplinks = maps.uplinks.iter().collect::<Result<_, _>>()?;
    state.one_to_one = maps.one_to_one.iter().collect::<Result<_, _>>()?;
    for entry in maps.allowed.iter() {
        let (key, _) = entry?;
        let bits = key.prefix_len().saturating_sub(nat_common::rule::AllowedKey::FILTER_BITS);
        state.allowed.push((key.data().filter(), key.data().remote(), bits));
    }
    for place in maps.sessions.taken() {
        if let (Some(session), Some(slot)) =
            (maps.sessions.get(place), state.sessions.get_mut(place as usize))
        {
            *slot = session;
        }
        for side in [Side::Originator, Side::Responder] {
            let index = watch::index(place, side);
            if let Some(slot) = state.watches.get_mut(index as usize) {
                *slot = maps.watches.get(&index, 0)?;
            }
        }
    }
    Ok(())
}

/// Copies the flows that have one of these ends.
fn flows(state: &mut State, table: &FlowMemory, ends: &[Endpoint]) {
    let about = |record: &Record| {
        let key = record.key();
        ends.contains(&key.source()) || ends.contains(&key.destination())
    };
    let _ = dump::flows(table, |pair| {
        let records = [Some(pair.first), pair.answer];
        if records.iter().flatten().any(about) {
            for record in records.into_iter().flatten() {
                // One that is in both tables while these grow is the same.
                let _known = state.insert_flow(&record.key(), &record.flow());
            }
        }
        ControlFlow::Continue(())
    });
}
