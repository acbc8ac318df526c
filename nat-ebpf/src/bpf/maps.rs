//! The maps, each under the name that it is pinned by. Sizes that the agent sets at load are marked.

use super::fib::FibLookup;
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{
        Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf,
    },
    macros::btf_map,
};
use nat_common::{
    contact::{self, Contact},
    counter::COUNTERS,
    expectation::{Expectation, ExpectationKey},
    flow_table::STRIPES,
    fragment::{FRAGMENTED, FragmentKey, Fragmented, IDENTIFICATIONS},
    harmless,
    hop::{HOPS, Hop},
    host::{HOSTS, HOSTS6, Host},
    interface::{Interface, PAIRED, Paired},
    journal::Journal,
    layout::{self, Geometry, Stage},
    port::{Endpoint, PORT_ADDRESSES, PORTS_PER_ADDRESS, PortOwner},
    punt::{MAX_PACKET, PuntHeader},
    reason::REASONS,
    record::FlowRecord,
    rule::{AllowedKey, EncryptedKey, Forward, OneToOne},
    session::{Session, SessionId},
    settings::Settings,
    six::{
        Allowed6Key, Control6, Endpoint6, Expectation6, Expectation6Key, FRAGMENTED6, Flow6,
        Flow6Key, Fragment6Key, Opening, Prefix, PrefixKey, Watch6Key,
    },
    tcp_options,
    watch::Watch,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const MAPPED: usize = BPF_F_MMAPABLE as usize;
const PORTS_ENTRIES: usize = (PORT_ADDRESSES * PORTS_PER_ADDRESS) as usize;
const SESSIONS: usize = layout::SESSIONS as usize;
/// Bytes of a whole record of the ring buffer.
pub const PUNT: usize = size_of::<PuntHeader>() + MAX_PACKET;

/// Locks of what has the same stripe.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stripe {
    /// Of the flows: 0 or 1.
    pub flows: u64,
    /// Of the mappings: 0 or 1.
    pub mappings: u64,
    /// How far from the first choice mappings lie.
    pub reach: u64,
}

/// Refusals that were told of.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Told {
    /// In this second of the clock.
    pub second: u32,
    /// So many.
    pub count: u32,
}

/// The same as in the map `geometry`, set at load: a constant to the verifier and the JIT.
#[unsafe(no_mangle)]
pub static GEOMETRY: Geometry = Geometry::new([0; 2], 65536);

/// That of `flows_before`, while the table grows; else no homes.
#[unsafe(no_mangle)]
pub static GEOMETRY_BEFORE: Geometry = Geometry::new([0; 2], 0);

/// Version of the layout of all of these.
#[btf_map(name = "layout")]
pub static LAYOUT: Array<u32, 1> = Array::new();
/// What the agent has set.
#[btf_map(name = "settings")]
pub static SETTINGS: Array<Settings, 1> = Array::new();
/// Managed interfaces by number.
#[btf_map(name = "interfaces")]
pub static INTERFACES: HashMap<u32, Interface, 256, ON_DEMAND> = HashMap::new();
/// Public addresses that hosts are shared out among, those of each interface in a row.
#[btf_map(name = "paired")]
pub static PAIRED_ADDRESSES: Array<Paired, { PAIRED as usize }> = Array::new();
/// Interfaces that XDP may redirect to, by number.
#[btf_map(name = "redirects")]
pub static REDIRECTS: DevMapHash<256> = DevMapHash::new();
/// The gateway's own addresses: in the low half 1 on an inside interface, 2 on an outside one; in the
/// high half the number of an address whose ports are in `ports`, plus one.
#[btf_map(name = "addresses")]
pub static ADDRESSES: HashMap<[u8; 4], u32, 4096, ON_DEMAND> = HashMap::new();
/// Number of the interface that packets with a public address leave by, where there are several WANs
/// or a rule says so.
#[btf_map(name = "uplinks")]
pub static UPLINKS: HashMap<[u8; 4], u32, 4096, ON_DEMAND> = HashMap::new();
/// Where flows lie in `flows`; programs have it as [`GEOMETRY`].
#[btf_map(name = "geometry")]
pub static GEOMETRIES: Array<Geometry, 1> = Array::new();
/// Flow records, placed by [`nat_common::flow_table`]. Sized at load.
#[btf_map(name = "flows")]
pub static FLOWS: Array<FlowRecord, 65551, MAPPED> = Array::new();
/// The table that `flows` takes over from while it grows. Sized at load.
#[btf_map(name = "flows_before")]
pub static FLOWS_BEFORE: Array<FlowRecord, 1, MAPPED> = Array::new();
/// How many lines packets have added since these programs look at two tables; each growth has its own.
#[btf_map(name = "added")]
pub static ADDED: Array<u64, 1> = Array::new();
/// Locks: whoever makes a flow or a mapping holds that of its stripe.
#[btf_map(name = "stripes")]
pub static LOCKS: Array<Stripe, { STRIPES as usize }> = Array::new();
/// Next hops by number.
#[btf_map(name = "hops")]
pub static HOP_TABLE: Array<Hop, { HOPS as usize }, MAPPED> = Array::new();
/// Inside hosts, and how many flows each has opened.
#[btf_map(name = "hosts")]
pub static HOST_TABLE: Array<Host, { HOSTS as usize }, MAPPED> = Array::new();
/// The same by their addresses of IPv6.
#[btf_map(name = "hosts6")]
pub static HOST_TABLE6: Array<Host, { HOSTS6 as usize }, MAPPED> = Array::new();
/// Owners of the ports of numbered public addresses, by [`nat_common::port::place`].
#[btf_map(name = "ports")]
pub static PORTS: Array<PortOwner, PORTS_ENTRIES, MAPPED> = Array::new();
/// Owners of the ports of other public addresses. Sized at load.
#[btf_map(name = "other_ports")]
pub static OTHER_PORTS: HashMap<Endpoint, PortOwner, 65536, ON_DEMAND> = HashMap::new();
/// Programs that go on where another one ends, by [`super::stages`].
#[btf_map(name = "stages")]
pub static STAGES: ProgramArray<{ Stage::ALL.len() }> = ProgramArray::new();
/// The same for XDP.
#[btf_map(name = "xdp_stages")]
pub static XDP_STAGES: ProgramArray<{ Stage::ALL.len() }> = ProgramArray::new();
/// Announced connections. Sized at load.
#[btf_map(name = "expectations")]
pub static EXPECTATIONS: HashMap<ExpectationKey, Expectation, 65536> = HashMap::new();
/// Datagrams that come in fragments.
#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragmented, { FRAGMENTED as usize }> =
    LruHashMap::new();
/// How many identifications were given out, by [`nat_common::fragment::counter`].
#[btf_map(name = "fragment_ids")]
pub static FRAGMENT_IDS: Array<u64, { IDENTIFICATIONS as usize }> = Array::new();
/// Forwards by public endpoint.
#[btf_map(name = "forwards")]
pub static FORWARDS: HashMap<Endpoint, Forward, 131072, ON_DEMAND> = HashMap::new();
/// Remote networks that filters of rules let in.
#[btf_map(name = "allowed")]
pub static ALLOWED: LpmTrie<AllowedKey, u32, 65536> = LpmTrie::new();
/// Remote addresses that inside endpoints have sent to, where filtering goes by them.
#[btf_map(name = "contacts")]
pub static CONTACTS: HashMap<Contact, u32, { contact::CONTACTS as usize }, ON_DEMAND> =
    HashMap::new();
/// Clients that hold an encrypted control session through a rule: to them its passive range is open.
#[btf_map(name = "encrypted")]
pub static ENCRYPTED: HashMap<EncryptedKey, SessionId, SESSIONS, ON_DEMAND> = HashMap::new();
/// Public address of inside hosts that have one of their own.
#[btf_map(name = "one_to_one")]
pub static ONE_TO_ONE: HashMap<[u8; 4], OneToOne, 4096, ON_DEMAND> = HashMap::new();
/// Flows of IPv6. Sized at load.
#[btf_map(name = "flows6")]
pub static FLOWS6: HashMap<Flow6Key, Flow6, 131072> = HashMap::new();
/// Datagrams of IPv6 that come in fragments, and the flow of each.
#[btf_map(name = "fragments6")]
pub static FRAGMENTS6: LruHashMap<Fragment6Key, Flow6Key, { FRAGMENTED6 as usize }> =
    LruHashMap::new();
/// What rules open to the outside, by end inside.
#[btf_map(name = "forwards6")]
pub static FORWARDS6: HashMap<Endpoint6, Opening, 65536, ON_DEMAND> = HashMap::new();
/// Remote networks of IPv6 that filters of rules let in.
#[btf_map(name = "allowed6")]
pub static ALLOWED6: LpmTrie<Allowed6Key, u32, 65536> = LpmTrie::new();
/// Prefixes of IPv6 that are translated, both ways.
#[btf_map(name = "prefixes")]
pub static PREFIXES: LpmTrie<PrefixKey, Prefix, { layout::PREFIXES as usize }> = LpmTrie::new();
/// What the agent knows of control connections over IPv6, by their flow.
#[btf_map(name = "controls6")]
pub static CONTROLS6: HashMap<Flow6Key, Control6, SESSIONS, ON_DEMAND> = HashMap::new();
/// What the agent wants to see of those that are encrypted, by side.
#[btf_map(name = "watches6")]
pub static WATCHES6: HashMap<Watch6Key, Watch, { 2 * SESSIONS }, ON_DEMAND> = HashMap::new();
/// Announced connections over IPv6.
#[btf_map(name = "expectations6")]
pub static EXPECTATIONS6: HashMap<Expectation6Key, Expectation6, SESSIONS, ON_DEMAND> =
    HashMap::new();
/// Control connections.
#[btf_map(name = "sessions")]
pub static CONTROL: Array<Session, SESSIONS, MAPPED> = Array::new();
/// What the agent wants to see of them.
#[btf_map(name = "watches")]
pub static WATCHES: Array<Watch, { 2 * SESSIONS }> = Array::new();
/// What the FTP engine remembers; for the agent alone.
#[btf_map(name = "journal")]
pub static JOURNAL: HashMap<u32, Journal, SESSIONS, ON_DEMAND> = HashMap::new();
/// Drops by reason.
#[btf_map(name = "drops")]
pub static DROPS: PerCpuArray<u64, REASONS> = PerCpuArray::new();
/// Drops of the agent by reason; for the agent alone.
#[btf_map(name = "agent_drops")]
pub static AGENT_DROPS: Array<u64, REASONS> = Array::new();
/// Other counters.
#[btf_map(name = "counters")]
pub static COUNTED: PerCpuArray<u64, COUNTERS> = PerCpuArray::new();
/// Segments of control connections on their way to the agent.
#[btf_map(name = "punts")]
pub static PUNTS: RingBuf<(), { layout::RING as usize }> = RingBuf::new();
/// Where a record of the ring buffer is put together.
#[btf_map(name = "punt_scratch")]
pub static PUNT_SCRATCH: PerCpuArray<[u8; PUNT], 1> = PerCpuArray::new();
/// How many refusals were told of in a second.
#[btf_map(name = "told")]
pub static TOLD: PerCpuArray<Told, 1> = PerCpuArray::new();
/// A line that may be harmless.
#[btf_map(name = "line_scratch")]
pub static LINE_SCRATCH: PerCpuArray<[u8; harmless::LONGEST], 1> = PerCpuArray::new();
/// Where TCP options are edited.
#[btf_map(name = "options_scratch")]
pub static OPTIONS_SCRATCH: PerCpuArray<[u8; tcp_options::BUFFER], 1> = PerCpuArray::new();
/// Where XDP sums up a packet whose checksum was left to a device, and a word more.
#[btf_map(name = "sum_scratch")]
pub static SUM_SCRATCH: PerCpuArray<[u8; 520], 1> = PerCpuArray::new();
/// A flow record that is to be added.
#[btf_map(name = "flow_scratch")]
pub static FLOW_SCRATCH: PerCpuArray<FlowRecord, 1> = PerCpuArray::new();
/// Where a route is asked for: the stack is short.
#[btf_map(name = "fib_scratch")]
pub static FIB_SCRATCH: PerCpuArray<FibLookup, 1> = PerCpuArray::new();

/// Number of the interface that packets with a public address leave by; 0 where the kernel's routing
/// decides alone.
#[inline(always)]
pub fn uplink(public: [u8; 4]) -> u32 {
    if public == [0; 4] || SETTINGS.get(0).is_none_or(|settings| settings.uplinks == 0) {
        return 0;
    }
    // SAFETY: copied at once, four bytes.
    unsafe { UPLINKS.get(public) }.copied().unwrap_or(0)
}
