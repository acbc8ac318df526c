//! Typed handles of all maps that the agent reads or writes.
//!
//! Invariant: a handle stands for the pinned map of the same name and checks key and value size
//! when it is opened. Several handles of one map may exist: the kernel serialises the calls.

use std::{fmt, path::Path};

use aya::maps::{
    Array, DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf,
};
use nat_common::{
    contact::Contact,
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::FlowKey,
    fragment::{FragmentKey, Fragmented},
    interface::{Interface, Paired},
    journal::Journal,
    layout::Geometry,
    port::Endpoint,
    reason::Reason,
    rule::{AllowedKey, EncryptedKey, Forward, OneToOne},
    session::SessionId,
    settings::Settings,
    six::{
        Allowed6Key, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6Key, Opening, Prefix,
        PrefixKey, Watch6Key,
    },
    watch::Watch,
};

use super::error::{PlaneError, Result};
use super::flow_memory::FlowMemory;
use super::owners::Owners;
use super::pair::Record;
use super::session_memory::SessionMemory;
use super::six::Flows6;

/// Every pinned map: the name in the object, in the pin folder and for bpftool.
pub const NAMES: &[&str] = &[
    "layout",
    "geometry",
    "settings",
    "interfaces",
    "paired",
    "redirects",
    "flows",
    "stripes",
    "hops",
    "hosts",
    "hosts6",
    "ports",
    "other_ports",
    "stages",
    "xdp_stages",
    "expectations",
    "fragments",
    "fragment_ids",
    "forwards",
    "contacts",
    "encrypted",
    "flows6",
    "fragments6",
    "forwards6",
    "allowed6",
    "prefixes",
    "controls6",
    "watches6",
    "expectations6",
    "one_to_one",
    "allowed",
    "addresses",
    "uplinks",
    "sessions",
    "watches",
    "journal",
    "drops",
    "agent_drops",
    "counters",
    "punts",
];

/// A hash map.
pub type Hash<K, V> = HashMap<MapData, K, V>;

/// All maps but the ring buffer, which has one reader (see [`ring`]).
pub struct Maps {
    /// Version of the layout, at 0.
    pub layout: Array<MapData, u32>,
    /// Where flows lie, at 0.
    pub geometry: Array<MapData, Geometry>,
    /// Settings, at 0.
    pub settings: Array<MapData, Settings>,
    /// By interface number.
    pub interfaces: Hash<u32, Interface>,
    /// Public addresses that hosts are shared out among, by place.
    pub paired: Array<MapData, Paired>,
    /// Interfaces that XDP may redirect to, by number.
    pub redirects: DevMapHash<MapData>,
    /// Flow records, in the memory of the data plane.
    pub flows: FlowMemory,
    /// Those that have not moved yet, while the table grows.
    pub before: Option<FlowMemory>,
    /// Owners of public ports, in `ports` and `other_ports`.
    pub ports: Owners,
    /// Announced connections.
    pub expectations: Hash<ExpectationKey, Expectation>,
    /// Datagrams that come in fragments.
    pub fragments: Hash<FragmentKey, Fragmented>,
    /// Forwards by public endpoint.
    pub forwards: Hash<Endpoint, Forward>,
    /// Remote addresses that inside endpoints have sent to, and when, where filtering goes by them.
    pub contacts: Hash<Contact, u32>,
    /// Clients that hold an encrypted control session through a rule.
    pub encrypted: Hash<EncryptedKey, SessionId>,
    /// Public addresses by inside address.
    pub one_to_one: Hash<[u8; 4], OneToOne>,
    /// Remote networks of filters.
    pub allowed: LpmTrie<MapData, AllowedKey, u32>,
    /// Flows of IPv6.
    pub flows6: Flows6,
    /// What rules open to IPv6 from outside.
    pub forwards6: Hash<Endpoint6, Opening>,
    /// Remote networks of IPv6 of filters.
    pub allowed6: LpmTrie<MapData, Allowed6Key, u32>,
    /// Prefixes of IPv6 that are translated.
    pub prefixes: LpmTrie<MapData, PrefixKey, Prefix>,
    /// What is known of control connections over IPv6, by their flow.
    pub controls6: Hash<Flow6Key, Control6>,
    /// What is wanted of those that are encrypted, by side.
    pub watches6: Hash<Watch6Key, Watch>,
    /// Announced connections over IPv6.
    pub expectations6: Hash<Expectation6Key, Expectation6>,
    /// Addresses of the gateway itself: which side they are on, and their numbers in `ports`.
    pub addresses: Hash<[u8; 4], u32>,
    /// Interfaces that packets with a public address leave by.
    pub uplinks: Hash<[u8; 4], u32>,
    /// Control connections by place, in the memory of the data plane.
    pub sessions: SessionMemory,
    /// What the agent wants to see of them, by [`nat_common::watch::index`].
    pub watches: Array<MapData, Watch>,
    /// What the FTP engine has to remember, by place of the session.
    pub journal: Hash<u32, Journal>,
    /// Dropped packets by [`Reason`].
    pub drops: PerCpuArray<MapData, u64>,
    /// The same, dropped by the agent.
    pub agent_drops: Array<MapData, u64>,
    /// Everything else that is counted, by [`Counter`].
    pub counters: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Maps {
    /// Opens the maps that are pinned in `pins`.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where there are none, [`PlaneError::Refused`] where one is of
    /// another type.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            layout: open(pins, "layout", Map::Array)?,
            geometry: open(pins, "geometry", Map::Array)?,
            settings: open(pins, "settings", Map::Array)?,
            interfaces: open(pins, "interfaces", Map::HashMap)?,
            paired: open(pins, "paired", Map::Array)?,
            redirects: open(pins, "redirects", Map::DevMapHash)?,
            flows: FlowMemory::open(pins)?,
            before: FlowMemory::before(pins)?,
            ports: Owners::open(pins)?,
            expectations: open(pins, "expectations", Map::HashMap)?,
            fragments: open(pins, "fragments", Map::LruHashMap)?,
            forwards: open(pins, "forwards", Map::HashMap)?,
            contacts: open(pins, "contacts", Map::HashMap)?,
            encrypted: open(pins, "encrypted", Map::HashMap)?,
            one_to_one: open(pins, "one_to_one", Map::HashMap)?,
            allowed: open(pins, "allowed", Map::LpmTrie)?,
            flows6: Flows6::open(pins)?,
            forwards6: open(pins, "forwards6", Map::HashMap)?,
            allowed6: open(pins, "allowed6", Map::LpmTrie)?,
            prefixes: open(pins, "prefixes", Map::LpmTrie)?,
            uplinks: open(pins, "uplinks", Map::HashMap)?,
            controls6: open(pins, "controls6", Map::HashMap)?,
            watches6: open(pins, "watches6", Map::HashMap)?,
            expectations6: open(pins, "expectations6", Map::HashMap)?,
            addresses: open(pins, "addresses", Map::HashMap)?,
            sessions: SessionMemory::open(pins)?,
            watches: open(pins, "watches", Map::Array)?,
            journal: open(pins, "journal", Map::HashMap)?,
            drops: open(pins, "drops", Map::PerCpuArray)?,
            agent_drops: open(pins, "agent_drops", Map::Array)?,
            counters: open(pins, "counters", Map::PerCpuArray)?,
        })
    }

    /// Goes over to the tables of flows that are pinned in `pins` now.
    ///
    /// # Errors
    /// As [`Maps::open`].
    pub fn follow_flows(&mut self, pins: &Path) -> Result<()> {
        self.flows = FlowMemory::open(pins)?;
        self.before = FlowMemory::before(pins)?;
        Ok(())
    }

    /// The flow of packets with `key`, in whichever table it lies.
    pub fn flow(&self, key: &FlowKey) -> Option<Record> {
        let before = || self.before.as_ref().and_then(|before| before.find(key));
        // It may have moved between the first two looks.
        self.flows.find(key).or_else(before).or_else(|| self.flows.find(key))
    }

    /// Dropped packets of a reason, over all CPUs and the agent.
    ///
    /// # Errors
    /// Where the kernel refuses to read.
    pub fn dropped(&self, reason: Reason) -> Result<u64> {
        let what = || format!("read the counter of drop reason {reason}");
        let kernel = self.drops.get(&(reason as u32), 0).map_err(PlaneError::refused(what()))?;
        let agent =
            self.agent_drops.get(&(reason as u32), 0).map_err(PlaneError::refused(what()))?;
        Ok(kernel.iter().sum::<u64>().saturating_add(agent))
    }

    /// Value of a counter, over all CPUs.
    ///
    /// # Errors
    /// Where the kernel refuses to read.
    pub fn counted(&self, counter: Counter) -> Result<u64> {
        let values = self
            .counters
            .get(&(counter as u32), 0)
            .map_err(PlaneError::refused(format!("read the counter {}", counter.name())))?;
        Ok(values.iter().sum())
    }

    /// Counts a packet that the agent has dropped.
    ///
    /// # Errors
    /// Where the kernel refuses to write.
    pub fn count_agent_drop(&mut self, reason: Reason) -> Result<()> {
        let index = reason as u32;
        let what = || format!("count the drop reason {reason}");
        let value = self.agent_drops.get(&index, 0).map_err(PlaneError::refused(what()))?;
        self.agent_drops.set(index, value.wrapping_add(1), 0).map_err(PlaneError::refused(what()))
    }
}

/// The ring buffer from the data plane. It has one reader: the agent that holds the lock of the
/// instance.
///
/// # Errors
/// Where it is not pinned, or can't be mapped.
pub fn ring(pins: &Path) -> Result<RingBuf<MapData>> {
    open(pins, "punts", Map::RingBuf)
}

/// Tells "there is no such key" from a failure.
///
/// # Errors
/// Every failure but a missing key.
pub fn optional<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a key; `false` where it was gone already.
///
/// # Errors
/// Every failure but a missing key.
pub fn remove<K: aya::Pod, V: aya::Pod>(map: &mut Hash<K, V>, key: &K) -> Result<bool, MapError> {
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, nix::libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Inserts a key that must not exist; `false` where it does. This is how anything is claimed.
///
/// # Errors
/// Every failure but an existing key.
pub fn claim<K: aya::Pod, V: aya::Pod>(
    map: &mut Hash<K, V>,
    key: &K,
    value: &V,
) -> Result<bool, MapError> {
    // bpf(2): BPF_NOEXIST creates a new element only if it didn't exist.
    const NOEXIST: u64 = 1;
    match map.insert(key, value, NOEXIST) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, nix::libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel gave this errno.
pub fn is(error: &MapError, code: i32) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => code == nix::libc::ENOENT,
        other => super::error::Kernel::code(other) == Some(code),
    }
}

pub(super) fn open<T>(pins: &Path, name: &str, kind: fn(MapData) -> Map) -> Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = pins.join(name);
    let what = format!("open the map {}", path.display());
    let data = MapData::from_pin(&path).map_err(|error| {
        if is_missing(&error) {
            return PlaneError::NotFound(format!(
                "{what}: there is no data plane: start it with `nat-ctl run`"
            ));
        }
        PlaneError::refused::<MapError>(&what)(error)
    })?;
    T::try_from(kind(data)).map_err(PlaneError::refused(&what))
}

fn is_missing(error: &MapError) -> bool {
    super::error::Kernel::code(error) == Some(nix::libc::ENOENT)
}
