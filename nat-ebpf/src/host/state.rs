//! What the tables hold: plain data that tests fill and read, and the operations of the agent on it.

use super::tables::STRIPES;
use crate::{public_port::PROBES, tables::Refused};
use nat_common::{
    contact::Contact,
    counter::{COUNTERS, Counter},
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragmented},
    hop::Hop,
    interface::{Interface, Paired},
    port::{Endpoint, PortOwner},
    reason::{REASONS, Reason},
    record::{FlowRecord, Phase},
    rule::{EncryptedKey, Forward, OneToOne},
    session::{Session, SessionId},
    settings::Settings,
    six::{
        Address6, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key,
        Fragment6Key, Opening, Prefix, PrefixKey, Watch6Key,
    },
    watch::Watch,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::{Deref, DerefMut},
};

/// How much the tables hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flow records, two for each flow.
    pub flows: usize,
    /// Flows of IPv6.
    pub flows6: usize,
    /// Control connections.
    pub sessions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 65536, flows6: 65536, sessions: 64 }
    }
}

/// Drops by reason. (An array of so many has no default of its own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops(pub [u64; REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

impl Deref for Drops {
    type Target = [u64; REASONS];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Drops {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// All tables, and the clock. Plain data: tests fill and read it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Seconds of the clock.
    pub now: u32,
    /// What places and lots are drawn with, as in [`nat_common::layout::Geometry`].
    pub seeds: [u64; 2],
    /// How many refusals were told of in a second, and in which.
    pub told: (u32, u32),
    /// Next random numbers; when none are left they follow from a count.
    pub random: VecDeque<u32>,
    /// What the agent has set.
    pub settings: Settings,
    /// Interfaces that packets with a public address leave by.
    pub uplinks: HashMap<[u8; 4], u32>,
    /// Managed interfaces by number.
    pub interfaces: HashMap<u32, Interface>,
    /// Public addresses that hosts are shared out among, by place.
    pub paired: HashMap<u32, Paired>,
    /// Addresses of the gateway, as in the map of that name.
    pub addresses: HashMap<[u8; 4], u32>,
    /// Public ports and their owners.
    pub ports: HashMap<Endpoint, PortOwner>,
    /// Flows that inside hosts have opened.
    pub hosts: HashMap<[u8; 4], u64>,
    /// Public ports that they have taken.
    pub host_ports: HashMap<[u8; 4], u64>,
    /// Next hops by number.
    pub hops: HashMap<u32, Hop>,
    /// Announced connections.
    pub expectations: HashMap<ExpectationKey, Expectation>,
    /// Datagrams that come in fragments.
    pub fragments: HashMap<FragmentKey, Fragmented>,
    /// How many identifications were given out, as in the map of that name.
    pub fragment_ids: HashMap<u32, u64>,
    /// Forwards by public endpoint.
    pub forwards: HashMap<Endpoint, Forward>,
    /// Remote networks by number of the filter: network and bits of its prefix.
    pub allowed: Vec<(u32, [u8; 4], u32)>,
    /// Remote addresses that inside endpoints have sent to, where filtering goes by them.
    pub contacts: HashMap<Contact, u32>,
    /// Clients that hold an encrypted control session through a rule.
    pub encrypted: HashMap<EncryptedKey, SessionId>,
    /// Public address of inside hosts.
    pub one_to_one: HashMap<[u8; 4], OneToOne>,
    /// Flows of IPv6.
    pub flows6: HashMap<Flow6Key, Flow6>,
    /// Flows of IPv6 that inside hosts have opened.
    pub hosts6: HashMap<Address6, u64>,
    /// Datagrams of IPv6 in fragments.
    pub fragments6: HashMap<Fragment6Key, Flow6Key>,
    /// What rules open to IPv6 from outside.
    pub forwards6: HashMap<Endpoint6, Opening>,
    /// Remote networks of IPv6 by number of the filter: network and bits of its prefix.
    pub allowed6: Vec<(u32, Address6, u32)>,
    /// Prefixes of IPv6 that are translated: view and network, bits of the network, and how.
    pub prefixes: Vec<(PrefixKey, u32, Prefix)>,
    /// Control connections over IPv6, by their flow.
    pub controls6: HashMap<Flow6Key, Control6>,
    /// What the agent wants to see of those that are encrypted, by side.
    pub watches6: HashMap<Watch6Key, Watch>,
    /// Announced connections over IPv6.
    pub expectations6: HashMap<Expectation6Key, Expectation6>,
    /// Control connections by index.
    pub sessions: Vec<Session>,
    /// What the agent wants to see of them, by [`nat_common::watch::index`].
    pub watches: Vec<Watch>,
    /// Drops by reason.
    pub drops: Drops,
    /// Counters.
    pub counters: [u64; COUNTERS],
    pub(super) slots: HashMap<FlowKey, usize>,
    pub(super) records: Vec<FlowRecord>,
    free: Vec<usize>,
    pub(super) locked: HashSet<u32>,
    pub(super) reach: HashMap<u32, u32>,
    pub(super) limits: Limits,
    drawn: u32,
}

impl State {
    /// Empty tables.
    pub fn new(limits: Limits) -> Self {
        let sessions = vec![Session::default(); limits.sessions as usize];
        let watches = vec![Watch::LINES; 2 * limits.sessions as usize];
        Self { sessions, watches, limits, ..Self::default() }
    }

    /// Has mappings looked for as far as they can lie from their first choice: for tables that were
    /// filled from others, whose stripes know it.
    pub fn look_everywhere(&mut self) {
        self.reach = (0..STRIPES).map(|stripe| (stripe, PROBES)).collect();
    }

    /// Drops for one reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.drops[reason as usize]
    }

    /// Value of a counter.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// A flow record.
    pub fn flow(&self, key: &FlowKey) -> Option<FlowRecord> {
        self.slots.get(key).map(|index| self.records[*index])
    }

    /// Locks on mappings that somebody has.
    pub fn locks(&self) -> usize {
        self.locked.len()
    }

    /// All flow records.
    pub fn flows(&self) -> HashMap<FlowKey, FlowRecord> {
        self.slots.iter().map(|(key, index)| (*key, self.records[*index])).collect()
    }

    /// Takes a flow record from all packets if nobody has used it since `observed` was read, as the
    /// sweep of the agent does; whether it did.
    pub fn end_flow(&mut self, key: &FlowKey, observed: &FlowRecord) -> bool {
        let Some(index) = self.slots.get(key) else { return false };
        let state = self.records[*index].state();
        let is_same = state.is_live() && state == observed.state();
        if is_same {
            self.records[*index] = self.records[*index].in_phase(Phase::Ending);
        }
        is_same
    }

    /// Gives a record back to packets that [`State::end_flow`] took from them.
    pub fn put_back_flow(&mut self, key: &FlowKey) {
        if let Some(index) = self.slots.get(key) {
            self.records[*index] = self.records[*index].in_phase(Phase::Live);
        }
    }

    /// Removes a flow record, whoever uses it.
    pub fn remove_flow(&mut self, key: &FlowKey) {
        if let Some(index) = self.slots.remove(key) {
            self.records[index] = self.records[index].freed();
            self.free.push(index);
        }
    }

    /// Adds a flow record.
    ///
    /// # Errors
    /// When the key exists, or there is no room.
    pub fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused> {
        if let Some(index) = self.slots.get(key) {
            let is_live = self.records[*index].state().is_live();
            return Err(if is_live { Refused::Exists } else { Refused::Busy });
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.records.len() < self.limits.flows => {
                self.records.push(FlowRecord::default());
                self.records.len() - 1
            }
            None => return Err(Refused::Full),
        };
        self.records[index] = FlowRecord::new(self.records[index].state(), key, flow);
        self.slots.insert(*key, index);
        Ok(())
    }

    pub(super) fn draw(&mut self) -> u32 {
        self.drawn = self.drawn.wrapping_add(1);
        self.random.pop_front().unwrap_or(self.drawn.wrapping_mul(0x9e37_79b1) >> 7)
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.index()? as usize)
    }
}
