//! IPv6 in user space.

use super::{
    packet::HostPacket,
    tables::{HostTables, Operation},
};
use crate::{
    packet::Packet,
    six::{Course, Line6, Packet6, Tables6},
    tables::Refused,
};
use nat_common::{
    checksum::Delta,
    flow::Zone,
    host,
    reason::Reason,
    record::Use,
    six::{
        Address6, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key,
        Fragment6Key, Opening, PrefixKey, Watch6Key,
    },
    tcp_window::{Receiver, Receiving},
    watch::Watch,
};

impl<const COMPLETE: bool> Packet6 for HostPacket<'_, COMPLETE> {
    fn load<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        self.read(at)
    }

    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
        self.write(at, bytes)
    }

    fn course(&self, _ifindex: u32, _src: &Address6, dst: &Address6) -> Course {
        let routes = self.world.routes6.iter();
        let found = routes
            .filter(|(network, bits, _)| is_in(dst, network, *bits))
            .max_by_key(|(_, bits, _)| *bits);
        found.map_or(Course::Nowhere, |(_, _, course)| *course)
    }

    fn route_mtu(&self, src: &Address6, dst: &Address6) -> u32 {
        match self.course(self.ifindex, src, dst) {
            Course::To(_) => self.world.mtu6,
            Course::Own | Course::Nowhere => 0,
        }
    }

    fn mend(&mut self, at: usize, delta: Delta) -> Result<(), Reason> {
        self.replace(at, delta, false, false).ok_or(Reason::WriteFailed)
    }
}

fn is_in(address: &Address6, network: &Address6, bits: u32) -> bool {
    let differ = u128::from_be_bytes(*address) ^ u128::from_be_bytes(*network);
    differ.checked_shr(128 - bits).unwrap_or(0) == 0
}

/// The place of a flow.
#[derive(Clone, Copy)]
pub struct HostLine<'a> {
    tables: HostTables<'a>,
    key: Flow6Key,
}

impl Line6 for HostLine<'_> {
    fn seen(&self) -> u8 {
        let state = self.tables.at(Operation::Flow);
        let flow = state.flows6.get(&self.key).copied().unwrap_or_default();
        flow.outbound.seen | flow.inbound.seen
    }

    fn is_control(&self) -> bool {
        let state = self.tables.at(Operation::Flow);
        state.flows6.get(&self.key).is_some_and(Flow6::is_control)
    }

    fn begun(&self) -> Zone {
        let state = self.tables.at(Operation::Flow);
        state.flows6.get(&self.key).copied().unwrap_or_default().begun()
    }

    fn receiver(&self, zone: Zone) -> Receiver {
        let state = self.tables.at(Operation::Flow);
        state.flows6.get(&self.key).copied().unwrap_or_default().receiver(zone)
    }

    fn receiving(&self, zone: Zone) -> Receiving {
        let state = self.tables.at(Operation::Flow);
        state.flows6.get(&self.key).copied().unwrap_or_default().receiving(zone)
    }

    fn note(&self, zone: Zone, by: Use) {
        let mut state = self.tables.at(Operation::Flow);
        if let Some(flow) = state.flows6.get_mut(&self.key) {
            *flow = flow.used(zone, by);
        }
    }
}

impl<'a> Tables6 for HostTables<'a> {
    type Line = HostLine<'a>;

    fn flow6(&self, key: &Flow6Key) -> Option<HostLine<'a>> {
        let is_there = self.at(Operation::Flow).flows6.contains_key(key);
        is_there.then_some(HostLine { tables: *self, key: *key })
    }

    fn insert_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused> {
        let mut state = self.at(Operation::WriteFlow);
        if state.flows6.contains_key(key) {
            return Err(Refused::Exists);
        }
        if state.flows6.len() >= state.limits.flows6 {
            return Err(Refused::Full);
        }
        state.flows6.insert(*key, *flow);
        Ok(())
    }

    fn replace_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused> {
        self.at(Operation::WriteFlow).flows6.insert(*key, *flow);
        Ok(())
    }

    fn open_host6(&mut self, host: &Address6) -> Result<(), Reason> {
        let mut state = self.at(Operation::Host);
        let limit = state.settings.flows_per_host;
        let opened = state.hosts6.entry(*host).or_default();
        if host::is_at_limit(*opened, limit) {
            return Err(Reason::HostLimit);
        }
        *opened += 1;
        Ok(())
    }

    fn close_host6(&mut self, host: &Address6) {
        let mut state = self.at(Operation::Host);
        let opened = state.hosts6.entry(*host).or_default();
        *opened = opened.saturating_sub(1);
    }

    /// Nobody reads it here.
    fn refuse_host6(&mut self, _host: &Address6) {}

    fn fragmented6(&self, datagram: &Fragment6Key) -> Option<Flow6Key> {
        self.still().fragments6.get(datagram).copied()
    }

    fn note_fragmented6(&mut self, datagram: &Fragment6Key, flow: &Flow6Key) {
        self.still().fragments6.insert(*datagram, *flow);
    }

    fn take_expectation6(&mut self, key: &Expectation6Key) -> Option<Expectation6> {
        self.at(Operation::Expectation).expectations6.remove(key)
    }

    fn forget_control6(&mut self, key: &Flow6Key) {
        self.still().controls6.remove(key);
    }

    fn control6(&self, key: &Flow6Key) -> Option<Control6> {
        self.still().controls6.get(key).copied()
    }

    fn watch6(&self, side: &Watch6Key) -> Watch {
        self.still().watches6.get(side).copied().unwrap_or(Watch::LINES)
    }

    fn move_boundary6(&mut self, side: &Watch6Key, boundary: u32) {
        if let Some(watch) = self.still().watches6.get_mut(side) {
            watch.boundary = boundary;
        }
    }

    fn opening(&self, end: &Endpoint6) -> Option<Opening> {
        self.still().forwards6.get(end).copied()
    }

    fn allowed6(&self, filter: u32, remote: &Address6) -> bool {
        let state = self.still();
        state
            .allowed6
            .iter()
            .any(|(number, network, bits)| *number == filter && is_in(remote, network, *bits))
    }

    fn translate(&self, key: &mut PrefixKey) -> Result<Option<u32>, Reason> {
        let state = self.still();
        let found = state.prefixes.iter().filter(|(network, bits, _)| {
            network.scope() == key.scope() && is_in(&key.address(), &network.address(), *bits)
        });
        let Some((_, _, prefix)) = found.max_by_key(|(_, bits, _)| *bits) else { return Ok(None) };
        key.set_address(prefix.translate(key.address()).ok_or(Reason::PrefixOnes)?);
        Ok(Some(prefix.wan()))
    }

    fn is_public6(&self, address: &Address6) -> bool {
        self.translate(&mut PrefixKey::public(*address)) != Ok(None)
    }

    fn is_translated6(&self, wan: u32, address: &Address6) -> bool {
        self.translate(&mut PrefixKey::leaving(wan, *address)) != Ok(None)
    }
}
