//! The tables in memory: hash maps with a capacity each, a clock and random numbers that are set.
//!
//! Several packets may be under way at once, each with its own [`HostTables`] on one [`Memory`]: an
//! operation is atomic, as it is in the kernel, and before each a [`Schedule`] may let another packet
//! go first. Slots of flows that were removed are used again at once, as the kernel does with
//! preallocated maps.

use super::state::{Limits, State};
use crate::{
    packet::NextHop,
    refusal,
    tables::{KnownHop, Refused, Shifted, Slot, Tables, Turn},
};
use nat_common::{
    contact::Contact,
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    flow_table::{self, LOCK_TRIES},
    fragment::{self, FragmentKey, Fragmented},
    hop::{self, HOP_PROBES, Hop, HopReference, WORDS},
    host,
    interface::{Interface, Paired},
    port::{Endpoint, PortOwner},
    reason::Reason,
    record::Use,
    rule::{EncryptedKey, Forward, OneToOne, RuleId},
    session::{SessionId, Side},
    settings::Settings,
    tcp_options,
    tcp_window::Receiving,
    vouched::Vouched,
    watch::{self, Watch},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Places that are tried for the record of a control connection.
const SESSION_PROBES: u32 = 16;
/// Stripes of the locks on mappings; few, so that endpoints share them.
pub(super) const STRIPES: u32 = 8;

/// An operation on a table that other packets may see or have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A look at a flow, or a count in it.
    Flow,
    /// A flow record is added or removed.
    WriteFlow,
    /// A look at the owner of a port.
    Port,
    /// A flow of an inside host is counted.
    Host,
    /// A port is claimed.
    WritePort,
    /// The lock on mappings is taken or given back.
    Lock,
    /// An expectation is looked at or taken.
    Expectation,
    /// A record of a control connection is claimed, given back, read or written.
    Session,
}

/// Says when an operation may go on.
pub trait Schedule: Sync {
    /// Returns when it is the turn of this operation.
    fn before(&self, operation: Operation);
}

/// The memory behind the tables of any number of packets.
#[derive(Debug, Default)]
pub struct Memory(Mutex<State>);

impl Memory {
    /// Empty tables.
    pub fn new(limits: Limits) -> Self {
        Self(Mutex::new(State::new(limits)))
    }

    /// The state, to fill or to read; nothing goes on while it is held.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tables for one packet after another.
    pub fn tables(&self) -> HostTables<'_> {
        HostTables { memory: self, schedule: None }
    }

    /// Tables whose operations wait for their turn.
    pub fn scheduled<'a>(&'a self, schedule: &'a dyn Schedule) -> HostTables<'a> {
        HostTables { memory: self, schedule: Some(schedule) }
    }
}

/// The tables as one packet uses them.
#[derive(Clone, Copy)]
pub struct HostTables<'a> {
    memory: &'a Memory,
    schedule: Option<&'a dyn Schedule>,
}

impl<'a> HostTables<'a> {
    /// The state, when it is the turn of `operation`.
    pub(super) fn at(&self, operation: Operation) -> MutexGuard<'a, State> {
        if let Some(schedule) = self.schedule {
            schedule.before(operation);
        }
        self.memory.state()
    }

    /// The state, for what never changes under a packet.
    pub(super) fn still(&self) -> MutexGuard<'a, State> {
        self.memory.state()
    }
}

/// The place of a flow record; it may hold another one by the time that it is read.
#[derive(Clone, Copy)]
pub struct HostSlot<'a> {
    tables: HostTables<'a>,
    index: usize,
    version: u8,
}

impl Slot for HostSlot<'_> {
    fn load(&self) -> Option<Flow> {
        let record = self.tables.at(Operation::Flow).records[self.index];
        let same = record.state().is_live() && record.state().version() == self.version;
        same.then(|| record.flow())
    }

    fn touch(&self, flow: &Flow, by: Use) -> bool {
        let mut state = self.tables.at(Operation::Flow);
        let record = &mut state.records[self.index];
        if !record.state().is_live() || record.state().version() != flow.state().version() {
            return false;
        }
        *record = record.used(by);
        true
    }

    fn receiving(&self) -> Receiving {
        self.tables.at(Operation::Flow).records[self.index].receiving()
    }

    fn lead(&self, flow: &Flow, hop: HopReference) {
        let mut state = self.tables.at(Operation::Flow);
        let record = &mut state.records[self.index];
        if record.state().is_live() && record.state().version() == flow.state().version() {
            *record = record.led(hop);
        }
    }
}

impl<'a> Tables for HostTables<'a> {
    type Slot = HostSlot<'a>;

    fn now(&self) -> u32 {
        self.still().now
    }

    fn random(&self) -> u32 {
        self.still().draw()
    }

    fn settings(&self) -> Settings {
        self.still().settings
    }

    fn interface(&self, ifindex: u32) -> Option<Interface> {
        self.still().interfaces.get(&ifindex).copied()
    }

    fn paired(&self, place: u32) -> Option<Paired> {
        let paired = self.still().paired.get(&place).copied();
        paired.filter(|paired| paired.address != [0; 4])
    }

    fn uplink(&self, public: [u8; 4]) -> u32 {
        self.still().uplinks.get(&public).copied().unwrap_or(0)
    }

    fn is_inside_address(&self, address: [u8; 4]) -> bool {
        self.still().addresses.get(&address).is_some_and(|code| code & 0xffff == 1)
    }

    fn is_own_address(&self, address: [u8; 4]) -> bool {
        self.still().addresses.contains_key(&address)
    }

    fn flow(&self, key: &FlowKey) -> Option<HostSlot<'a>> {
        let state = self.at(Operation::Flow);
        let index = *state.slots.get(key)?;
        let version = state.records[index].state().version();
        Some(HostSlot { tables: *self, index, version })
    }

    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused> {
        self.at(Operation::WriteFlow).insert_flow(key, flow)
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        let mut state = self.at(Operation::WriteFlow);
        // What is ending is in the hand of whoever ends it.
        if state.flow(key).is_some_and(|record| record.state().is_live()) {
            state.remove_flow(key);
        }
    }

    fn open_host(&mut self, host: [u8; 4]) -> Result<(), Reason> {
        let mut state = self.at(Operation::Host);
        let limit = state.settings.flows_per_host;
        let opened = state.hosts.entry(host).or_default();
        if host::is_at_limit(*opened, limit) {
            return Err(Reason::HostLimit);
        }
        *opened += 1;
        Ok(())
    }

    /// Nobody reads it here.
    fn refuse_host(&mut self, _host: [u8; 4]) {}

    fn close_host(&mut self, host: [u8; 4]) {
        let mut state = self.at(Operation::Host);
        let opened = state.hosts.entry(host).or_default();
        *opened = opened.saturating_sub(1);
    }

    fn open_port(&mut self, host: [u8; 4]) -> Result<(), Reason> {
        let mut state = self.at(Operation::Host);
        let limit = state.settings.ports_per_host;
        let taken = state.host_ports.entry(host).or_default();
        if host::is_at_limit(*taken, limit) {
            return Err(Reason::HostLimit);
        }
        *taken += 1;
        Ok(())
    }

    fn close_port(&mut self, host: [u8; 4]) {
        let mut state = self.at(Operation::Host);
        let taken = state.host_ports.entry(host).or_default();
        *taken = taken.saturating_sub(1);
    }

    fn hop(&self, index: u32) -> Option<KnownHop> {
        KnownHop::of(self.still().hops.get(&index)?)
    }

    fn refer(&mut self, hop: &NextHop, mtu: u32, epoch: u32) -> HopReference {
        let who = Hop::who(hop.neighbour, hop.ifindex);
        let mut state = self.still();
        let start = hop::start(who);
        for probe in 0..HOP_PROBES {
            let index = hop::index(start, probe);
            let place = state.hops.entry(index).or_default();
            if place.is_taken() && Hop::who(place.neighbour(), place.ifindex()) != who
                || place.is_closed()
            {
                continue;
            }
            let mut words: [u64; WORDS] = place.words();
            words[hop::WHO] = who;
            *place = Hop::from_words(words).in_epoch(epoch);
            if place.mtu() == 0 || mtu < place.mtu().into() {
                return HopReference::NONE;
            }
            return HopReference::new(index, epoch);
        }
        HopReference::NONE
    }

    fn address_number(&self, address: [u8; 4]) -> Option<u32> {
        (self.still().addresses.get(&address)? >> 16).checked_sub(1)
    }

    fn port_owner(&self, public: &Endpoint) -> Option<PortOwner> {
        self.at(Operation::Port).ports.get(public).copied()
    }

    fn claim_port(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<(), Refused> {
        match self.swap_port(0, public, PortOwner::NONE, *owner) {
            true => Ok(()),
            false => Err(Refused::Exists),
        }
    }

    fn port_word(&self, _number: u32, public: &Endpoint) -> PortOwner {
        self.at(Operation::Port).ports.get(public).copied().unwrap_or(PortOwner::NONE)
    }

    fn swap_port(
        &mut self,
        _number: u32,
        public: &Endpoint,
        old: PortOwner,
        new: PortOwner,
    ) -> bool {
        let mut state = self.at(Operation::WritePort);
        if state.ports.get(public).copied().unwrap_or(PortOwner::NONE) != old {
            return false;
        }
        state.ports.insert(*public, new);
        true
    }

    fn lock_mappings(&mut self, inside: &Endpoint) -> Option<u32> {
        let stripe = self.lot(inside, 0) % STRIPES;
        for _try in 0..LOCK_TRIES {
            if self.at(Operation::Lock).locked.insert(stripe) {
                return Some(stripe);
            }
        }
        None
    }

    fn unlock_mappings(&mut self, stripe: u32) {
        self.at(Operation::Lock).locked.remove(&stripe);
    }

    fn mapping_reach(&self, stripe: u32) -> u32 {
        self.still().reach.get(&stripe).copied().unwrap_or(0)
    }

    fn set_mapping_reach(&mut self, stripe: u32, reach: u32) {
        self.still().reach.insert(stripe, reach);
    }

    fn lot(&self, inside: &Endpoint, more: u64) -> u32 {
        flow_table::hash([inside.word(), more], self.still().seeds) as u32
    }

    fn fragmented(&self, key: &FragmentKey) -> Option<Fragmented> {
        self.still().fragments.get(key).copied()
    }

    fn note_fragmented(&mut self, key: &FragmentKey, value: &Fragmented) {
        self.still().fragments.insert(*key, *value);
    }

    fn identification(&mut self, src: [u8; 4], dst: [u8; 4], protocol: u8) -> u16 {
        let mut state = self.still();
        let place = fragment::counter(src, dst, protocol, state.seeds);
        let count = state.fragment_ids.entry(place).or_default();
        *count += 1;
        fragment::identification(*count - 1)
    }

    fn take_expectation(&mut self, key: &ExpectationKey) -> Option<Expectation> {
        let expectation = *self.at(Operation::Expectation).expectations.get(key)?;
        self.at(Operation::Expectation).expectations.remove(key).map(|_removed| expectation)
    }

    fn forward(&self, public: &Endpoint) -> Option<Forward> {
        self.still().forwards.get(public).copied()
    }

    fn allowed(&self, filter: u32, remote: [u8; 4]) -> bool {
        self.still().allowed.iter().any(|(number, network, bits)| {
            let differ = u32::from_be_bytes(remote) ^ u32::from_be_bytes(*network);
            *number == filter && differ.checked_shr(32 - bits).unwrap_or(0) == 0
        })
    }

    fn note_contact(&mut self, public: &Endpoint, remote: [u8; 4], now: u32) {
        let contact = Contact::new(*public, remote);
        self.at(Operation::WritePort).contacts.insert(contact, now);
    }

    fn is_contact(&self, public: &Endpoint, remote: [u8; 4]) -> bool {
        self.at(Operation::Port).contacts.contains_key(&Contact::new(*public, remote))
    }

    fn encrypted(&self, rule: RuleId, client: [u8; 4]) -> Option<SessionId> {
        self.still().encrypted.get(&EncryptedKey::new(rule, client)).copied()
    }

    fn one_to_one(&self, inside: [u8; 4]) -> Option<OneToOne> {
        self.still().one_to_one.get(&inside).copied()
    }

    fn claim_session(
        &mut self,
        original: &FlowKey,
        reply: &FlowKey,
        rule: RuleId,
    ) -> Option<SessionId> {
        let start = self.random();
        for probe in 0..SESSION_PROBES {
            let mut state = self.at(Operation::Session);
            let now = state.now;
            let index = start.wrapping_add(probe) % state.limits.sessions.max(1);
            let session = state.sessions.get_mut(index as usize)?;
            if session.claimed == 0 {
                session.claimed = 1;
                session.open(original, reply, rule, now);
                return Some(SessionId::new(index));
            }
        }
        None
    }

    fn release_session(&mut self, id: SessionId) {
        if let Some(session) = self.at(Operation::Session).session(id) {
            session.close();
            session.claimed = 0;
        }
    }

    fn note_mss(&mut self, id: SessionId, side: Side, mss: u16) {
        if let Some(session) = self.at(Operation::Session).session(id) {
            session.mss[side.index()] = mss;
        }
    }

    fn shift(
        &self,
        id: SessionId,
        side: Side,
        sequence: u32,
        acknowledgement: u32,
    ) -> Result<Shifted, Reason> {
        let mut state = self.at(Operation::Session);
        let session = *state.session(id).ok_or(Reason::AlgUnknown)?;
        std::mem::drop(state);
        // What the kernel's reader sees last; a writer may come between.
        let after = self.at(Operation::Session).session(id).map(|session| session.generation);
        if after != Some(session.generation) {
            return Err(Reason::AlgBusy);
        }
        Ok(Shifted {
            sequence: session.corrections(side).map_seq(sequence),
            acknowledgement: session.corrections(side.other()).map_ack(acknowledgement),
        })
    }

    fn watch(&self, id: SessionId, side: Side) -> Watch {
        let place = id.index().map(|session| watch::index(session, side) as usize);
        let state = self.at(Operation::Session);
        place.and_then(|place| state.watches.get(place)).copied().unwrap_or(Watch::LINES)
    }

    fn move_boundary(&mut self, id: SessionId, side: Side, boundary: u32) {
        let place = id.index().map(|session| watch::index(session, side) as usize);
        let mut state = self.at(Operation::Session);
        if let Some(watch) = place.and_then(|place| state.watches.get_mut(place)) {
            watch.boundary = boundary;
        }
    }

    fn is_vouched(&self, id: SessionId, side: Side, sequence: u32) -> bool {
        let mut state = self.at(Operation::Session);
        let word = state.session(id).map(|session| session.vouched[side.index()]);
        word == Some(Vouched::up_to(sequence).word())
    }

    fn vouch(&mut self, id: SessionId, side: Side, sequence: u32, next: u32) {
        if let Some(session) = self.at(Operation::Session).session(id) {
            let word = &mut session.vouched[side.index()];
            if *word == Vouched::up_to(sequence).word() {
                *word = Vouched::up_to(next).word();
            }
        }
    }

    fn map_sack(
        &self,
        id: SessionId,
        side: Side,
        area: &mut [u8; tcp_options::BUFFER],
        length: usize,
    ) {
        if let Some(session) = self.at(Operation::Session).session(id) {
            let corrections = session.corrections(side.other());
            if !corrections.is_identity() {
                tcp_options::map_sack(area, length, |edge, round| corrections.unmap(edge, round));
            }
        }
    }

    fn repeat<B: Turn<Self>>(&mut self, turns: u32, body: &mut B) {
        for _turn in 0..turns {
            if !body.turn(self) {
                break;
            }
        }
    }

    fn may_tell(&mut self, now: u32, takes: u32) -> bool {
        let mut state = self.still();
        if state.told.0 != now {
            state.told = (now, 0);
        }
        state.told.1 += takes;
        state.told.1 < refusal::TOLD + takes
    }

    fn count(&mut self, counter: Counter) {
        self.still().counters[counter as usize] += 1;
    }

    fn count_drop(&mut self, reason: Reason) {
        self.still().drops[reason as usize] += 1;
    }
}

impl From<State> for Memory {
    /// Memory that begins with a copy of another's state.
    fn from(state: State) -> Self {
        Self(Mutex::new(state))
    }
}
