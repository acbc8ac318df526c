//! The object in the kernel: its maps filled from and read as a [`State`] of the host, its programs
//! run on frames.

use crate::common::{
    frame::{ICMP, TCP, UDP},
    gateway::{PUBLIC, SECOND, SEEDS, number_of},
};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions,
    maps::{
        Array, HashMap, LpmTrie, MapData, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key,
        xdp::DevMapHash,
    },
    programs::{ProgramError, SchedClassifier, Xdp, XdpMode},
};
use nat_common::{
    counter::COUNTERS,
    expectation::{Expectation, ExpectationKey},
    flow::{FlowKey, Zone},
    flow_table::{self, Hashed, Memory as _, homes, host::HostMemory},
    fragment::{FragmentKey, Fragmented, IDENTIFICATIONS},
    hop::{HOPS, Hop},
    host::{self, HOSTS, HOSTS6, Host},
    interface::Paired,
    layout::{Geometry, Stage},
    port::{Endpoint, PORT_ADDRESSES, PORTS_PER_ADDRESS, Port, PortOwner, place},
    punt::PuntHeader,
    reason::REASONS,
    record::{FlowRecord, WORDS},
    rule::AllowedKey,
    session::Session,
    settings::Settings,
    six::{Address6, Allowed6Key, Flow6, Flow6Key, Prefix, PrefixKey},
    watch::Watch,
};
use nat_ebpf::host::State;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    collections::HashMap as Table, ffi::c_void, hash::Hash, num::NonZero, os::fd::AsFd,
    ptr::NonNull,
};
use zerocopy::FromBytes as _;

/// Entries of the maps that are sized at load.
pub const OTHERS: u32 = 64;
/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT` of include/uapi/linux/pkt_cls.h.
pub const TC_UNSPEC: u32 = u32::MAX;
pub const TC_SHOT: u32 = 2;
pub const TC_REDIRECT: u32 = 7;
/// `XDP_DROP`, `XDP_PASS`, `XDP_REDIRECT` of include/uapi/linux/bpf.h.
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;

// Offsets in `struct __sk_buff`, and its size.
const SKB_MARK: usize = 8;
const SKB_INGRESS_IFINDEX: usize = 36;
const SKB_IFINDEX: usize = 40;
const SKB: usize = 192;
const XDP_MD: usize = 24;

/// What a program answered, what the frame is now, and its mark.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u32,
    pub frame: Vec<u8>,
    pub mark: u32,
}

pub struct Object {
    ebpf: Ebpf,
    /// Places of flow records.
    places: u32,
    ports: Ports,
    /// The kernel empties them when nobody has them any more.
    _stages: [ProgramArray<MapData>; 2],
}

impl Object {
    /// Loads the programs with room for `places` records of flows.
    pub fn load(object: &[u8], places: u32) -> Self {
        let geometry = Geometry::new(SEEDS, homes(places));
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("flows", places);
        for name in ["other_ports", "expectations"] {
            loader.map_max_entries(name, OTHERS);
        }
        loader.override_global("GEOMETRY", &geometry, true);
        let mut ebpf = loader.load(object).expect("the object is read and its maps are made");
        for (_, program) in ebpf.programs_mut() {
            if let Ok(program) = TryInto::<&mut Xdp>::try_into(&mut *program) {
                program.load().expect("the verifier takes an XDP program");
            } else if let Ok(program) = TryInto::<&mut SchedClassifier>::try_into(program) {
                program.load().expect("the verifier takes a TC program");
            }
        }
        let mut stages = ProgramArray::try_from(ebpf.take_map("stages").unwrap()).unwrap();
        for stage in Stage::ALL {
            let program = ebpf.program(stage.program()).expect("a program for each stage");
            let program: &SchedClassifier = program.try_into().unwrap();
            stages.set(stage as u32, program.fd().unwrap(), 0).expect("a place for each stage");
        }
        let mut xdp_stages = ProgramArray::try_from(ebpf.take_map("xdp_stages").unwrap()).unwrap();
        for stage in Stage::ALL {
            let Some(name) = stage.xdp_program() else { continue };
            let program: &Xdp = ebpf.program(name).expect("a program").try_into().unwrap();
            xdp_stages.set(stage as u32, program.fd().unwrap(), 0).expect("a place for each stage");
        }
        let ports = Ports::of(&mut ebpf);
        Self { ebpf, places, ports, _stages: [stages, xdp_stages] }
    }

    /// Puts the XDP programs on their interfaces: only then do those have receive queues that a test
    /// run may name.
    pub fn attach(&mut self) {
        for (name, interface) in [("xdp_inside", "lan0"), ("xdp_outside", "wan0")] {
            let program: &mut Xdp = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.attach(interface, XdpMode::Driver).expect("native XDP on a veth");
        }
        let mut redirects = DevMapHash::try_from(self.ebpf.map_mut("redirects").unwrap()).unwrap();
        for interface in [crate::common::gateway::LAN, crate::common::gateway::WAN] {
            redirects.insert(interface, interface, None, 0).unwrap();
        }
    }

    /// Verified instructions of each program.
    pub fn verified(&self) -> Vec<(String, u32)> {
        let mut counts: Vec<_> = self
            .ebpf
            .programs()
            .map(|(name, program)| {
                let info = program.info().expect("information about a loaded program");
                (name.to_owned(), info.verified_instruction_count().expect("kernel 5.16 or later"))
            })
            .collect();
        counts.sort_unstable();
        counts
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// Makes a map say what `table` says.
    fn write<K: Pod + Eq + Hash, V: Pod>(&mut self, name: &str, table: &Table<K, V>) {
        let mut map = self.hash::<K, V>(name);
        let old: Vec<K> = map.keys().map(Result::unwrap).collect();
        for key in old {
            map.remove(&key).unwrap();
        }
        for (key, value) in table {
            map.insert(key, value, 0).unwrap();
        }
    }

    fn read<K: Pod + Eq + Hash, V: Pod>(&mut self, name: &str) -> Table<K, V> {
        self.hash::<K, V>(name).iter().map(Result::unwrap).collect()
    }

    pub fn settings(&mut self, settings: Settings) {
        let mut map = Array::try_from(self.ebpf.map_mut("settings").unwrap()).unwrap();
        map.set(0, settings, 0).unwrap();
    }

    /// Makes interfaces and addresses what they are in `state`.
    pub fn hide(&mut self, state: &State) {
        self.write("interfaces", &state.interfaces);
        let mut paired: Array<_, Paired> =
            Array::try_from(self.ebpf.map_mut("paired").unwrap()).unwrap();
        for (place, address) in &state.paired {
            paired.set(*place, address, 0).unwrap();
        }
        self.write("addresses", &state.addresses);
    }

    /// Makes all maps say what `state` says.
    pub fn fill(&mut self, state: &State) {
        self.settings(state.settings);
        self.hide(state);
        self.write_flows(&state.flows());
        self.write_ports(&state.ports);
        self.write_hops(&state.hops);
        self.write("expectations", &state.expectations);
        self.write("forwards", &state.forwards);
        self.write_identifications(&state.fragment_ids);
        self.write("one_to_one", &state.one_to_one);
        self.write("forwards6", &state.forwards6);
        self.write("expectations6", &state.expectations6);
        let mut allowed6: LpmTrie<_, Allowed6Key, u32> =
            LpmTrie::try_from(self.ebpf.map_mut("allowed6").unwrap()).unwrap();
        for (filter, network, bits) in &state.allowed6 {
            let key = Allowed6Key::new(*filter, *network);
            allowed6.insert(&Key::new(Allowed6Key::FILTER_BITS + bits, key), 1, 0).unwrap();
        }
        let mut prefixes: LpmTrie<_, PrefixKey, Prefix> =
            LpmTrie::try_from(self.ebpf.map_mut("prefixes").unwrap()).unwrap();
        for (key, bits, prefix) in &state.prefixes {
            let key = Key::new(PrefixKey::SCOPE_BITS + bits, *key);
            prefixes.insert(&key, prefix, 0).unwrap();
        }
        let mut allowed: LpmTrie<_, AllowedKey, u32> =
            LpmTrie::try_from(self.ebpf.map_mut("allowed").unwrap()).unwrap();
        for (filter, network, bits) in &state.allowed {
            let key = Key::new(AllowedKey::FILTER_BITS + bits, AllowedKey::new(*filter, *network));
            allowed.insert(&key, 1, 0).unwrap();
        }
    }

    pub fn expect(&mut self, key: &ExpectationKey, value: &Expectation) {
        self.hash::<ExpectationKey, Expectation>("expectations").insert(key, value, 0).unwrap();
    }

    /// Writes flows where the algorithm of the table puts them.
    fn write_flows(&mut self, flows: &Table<FlowKey, FlowRecord>) {
        let table = HostMemory::new(self.places, SEEDS);
        for (key, record) in flows {
            let hashed = Hashed::new(&table, key);
            let found = flow_table::insert(&table, &hashed, &record.flow()).expect("room");
            let (words, state) = (record.words(), table.load(found.place, 0));
            assert_eq!(words[0], state, "a flow of the first generation");
            for (word, value) in words.iter().enumerate().filter(|(word, _)| [6, 7].contains(word))
            {
                table.store(found.place, word, *value);
            }
        }
        let mut map = Array::try_from(self.ebpf.map_mut("flows").unwrap()).unwrap();
        for index in 0..self.places {
            let words: [u64; WORDS] = std::array::from_fn(|word| table.load(index, word));
            map.set(index, FlowRecord::from_words(words), 0).unwrap();
        }
    }

    /// All flows, each of which packets find.
    pub fn flows(&mut self) -> Table<FlowKey, FlowRecord> {
        let map: Array<_, FlowRecord> = Array::try_from(self.ebpf.map("flows").unwrap()).unwrap();
        let table = HostMemory::new(self.places, SEEDS);
        let mut flows = Table::new();
        for index in 0..self.places {
            let record = map.get(&index, 0).unwrap();
            for (word, value) in record.words().into_iter().enumerate() {
                table.store(index, word, value);
            }
            assert!(record.state().is_live() || record.state().is_free(), "{record:?}");
            if record.state().is_live() {
                assert_eq!(flows.insert(record.key(), record), None, "a key lies in one place");
            }
        }
        for (key, record) in &flows {
            let found = flow_table::find(&table, &Hashed::new(&table, key)).expect("is found");
            assert_eq!(found.state, record.state());
        }
        flows
    }

    /// Whether no lock is taken.
    pub fn is_unlocked(&mut self) -> bool {
        let map: Array<_, [u64; 3]> = Array::try_from(self.ebpf.map("stripes").unwrap()).unwrap();
        (0..map.len()).all(|index| {
            let [flows, mappings, _reach] = map.get(&index, 0).unwrap();
            flows == 0 && mappings == 0
        })
    }

    fn write_hops(&mut self, hops: &Table<u32, Hop>) {
        let mut map = Array::try_from(self.ebpf.map_mut("hops").unwrap()).unwrap();
        for index in 0..HOPS {
            let hop = hops.get(&index).copied().unwrap_or_default();
            map.set(index, hop, 0).unwrap();
        }
    }

    /// Writes a hop as the agent does.
    pub fn set_hop(&mut self, index: u32, hop: Hop) {
        let mut map = Array::try_from(self.ebpf.map_mut("hops").unwrap()).unwrap();
        map.set(index, hop, 0).unwrap();
    }

    /// The hops at these places.
    pub fn hops(&mut self, places: impl Iterator<Item = u32>) -> Table<u32, Hop> {
        let map: Array<_, Hop> = Array::try_from(self.ebpf.map("hops").unwrap()).unwrap();
        places.map(|index| (index, map.get(&index, 0).unwrap())).collect()
    }

    /// How many hops there are in all places.
    pub fn hops_taken(&mut self) -> usize {
        let map: Array<_, Hop> = Array::try_from(self.ebpf.map("hops").unwrap()).unwrap();
        (0..HOPS).filter(|index| map.get(index, 0).unwrap().is_taken()).count()
    }

    /// Flows that inside hosts have opened.
    pub fn hosts(&mut self) -> Table<[u8; 4], [u64; 2]> {
        let map: Array<_, Host> = Array::try_from(self.ebpf.map("hosts").unwrap()).unwrap();
        let places = (0..HOSTS).map(|index| map.get(&index, 0).unwrap());
        let taken = places.filter(|place| place.who != 0);
        let counts = |place: Host| {
            [host::since(place.made, place.base), host::since(place.taken, place.taken_base)]
        };
        taken.map(|place| (host::address(place.who), counts(place))).collect()
    }

    /// The same of those of these hosts that have opened flows of IPv6; how many others there are must be 0.
    pub fn hosts6(&mut self, known: &[Address6]) -> Table<Address6, u64> {
        let map: Array<_, Host> = Array::try_from(self.ebpf.map("hosts6").unwrap()).unwrap();
        let places = (0..HOSTS6).map(|index| map.get(&index, 0).unwrap());
        let of = |who| known.iter().find(|it| host::who6(host::words6(it), SEEDS) == who);
        let taken = places.filter(|place| place.who != 0);
        taken
            .map(|place| {
                let address = of(place.who).expect("a host that is known");
                (*address, host::since(place.made, place.base))
            })
            .collect()
    }

    fn write_identifications(&mut self, counts: &Table<u32, u64>) {
        let mut map = Array::try_from(self.ebpf.map_mut("fragment_ids").unwrap()).unwrap();
        for place in 0..IDENTIFICATIONS {
            map.set(place, counts.get(&place).copied().unwrap_or_default(), 0).unwrap();
        }
        let mut fragments = self.hash::<FragmentKey, Fragmented>("fragments");
        let old: Vec<FragmentKey> = fragments.keys().map(Result::unwrap).collect();
        for key in old {
            fragments.remove(&key).unwrap();
        }
    }

    pub fn flows6(&mut self) -> Table<Flow6Key, Flow6> {
        self.read("flows6")
    }

    pub fn fragments(&mut self) -> Table<FragmentKey, Fragmented> {
        self.read("fragments")
    }

    fn write_ports(&mut self, ports: &Table<Endpoint, PortOwner>) {
        let numbered = |public: &Endpoint| number_of(public.address()).is_some();
        let (array, hash): (Table<_, _>, Table<_, _>) =
            ports.iter().map(|(public, owner)| (*public, *owner)).partition(|(p, _)| numbered(p));
        self.write("other_ports", &hash);
        let old: Vec<u32> = self.ports.taken().map(|(index, _)| index).collect();
        let mut map = Array::try_from(self.ebpf.map_mut("ports").unwrap()).unwrap();
        for index in old {
            map.set(index, PortOwner::NONE, 0).unwrap();
        }
        for (public, owner) in array {
            let number = number_of(public.address()).expect("a numbered address");
            let index = place(number.into(), &public).expect("a protocol with ports");
            map.set(index, owner, 0).unwrap();
        }
    }

    /// All ports, of numbered addresses and of others.
    pub fn ports(&mut self) -> Table<Endpoint, PortOwner> {
        let mut ports = self.read("other_ports");
        assert!(ports.keys().all(|public: &Endpoint| number_of(public.address()).is_none()));
        for (index, word) in self.ports.taken() {
            let number = index / PORTS_PER_ADDRESS;
            let is_its = |address: &[u8; 4]| number_of(*address).map(u32::from) == Some(number);
            let address = [PUBLIC, SECOND].into_iter().find(is_its).expect("a numbered address");
            let protocol = [TCP, UDP, ICMP][((index % PORTS_PER_ADDRESS) >> 16) as usize];
            let public = Endpoint::new(protocol, address, Port::new(index as u16));
            ports.insert(public, PortOwner::from_word(word));
        }
        ports
    }

    pub fn expectations(&mut self) -> Table<ExpectationKey, Expectation> {
        self.read("expectations")
    }

    pub fn session(&mut self, index: u32) -> Session {
        let map = Array::try_from(self.ebpf.map_mut("sessions").unwrap()).unwrap();
        map.get(&index, 0).unwrap()
    }

    pub fn set_session(&mut self, index: u32, session: Session) {
        let mut map = Array::try_from(self.ebpf.map_mut("sessions").unwrap()).unwrap();
        map.set(index, session, 0).unwrap();
    }

    pub fn watch(&mut self, place: u32) -> Watch {
        let map = Array::try_from(self.ebpf.map_mut("watches").unwrap()).unwrap();
        map.get(&place, 0).unwrap()
    }

    pub fn set_watch(&mut self, place: u32, watch: Watch) {
        let mut map = Array::try_from(self.ebpf.map_mut("watches").unwrap()).unwrap();
        map.set(place, watch, 0).unwrap();
    }

    fn sums<const N: usize>(&mut self, name: &str) -> [u64; N] {
        let map: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map_mut(name).unwrap()).unwrap();
        let mut sums = [0; N];
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = map.get(&(index as u32), 0).unwrap().iter().sum();
        }
        sums
    }

    pub fn drops(&mut self) -> [u64; REASONS] {
        self.sums("drops")
    }

    pub fn counters(&mut self) -> [u64; COUNTERS] {
        self.sums("counters")
    }

    /// Records of the ring buffer since the last time.
    pub fn punted(&mut self) -> Vec<Vec<u8>> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut("punts").unwrap()).unwrap();
        let mut records = Vec::new();
        while let Some(record) = ring.next() {
            records.push(record.to_vec());
        }
        records
    }

    /// Runs the TC program of an ingress hook.
    pub fn tc(&self, zone: Zone, ifindex: u32, frame: &[u8]) -> Result<Answer, ProgramError> {
        let name = if zone == Zone::Inside { "tc_inside" } else { "tc_outside" };
        self.skb(name, ifindex, 0, 0, frame)
    }

    /// Runs the TC program of the egress hook, on a packet that came in by `from`.
    pub fn egress(
        &self,
        ifindex: u32,
        from: u32,
        mark: u32,
        frame: &[u8],
    ) -> Result<Answer, ProgramError> {
        self.skb("tc_outside_egress", ifindex, from, mark, frame)
    }

    fn skb(
        &self,
        name: &str,
        ifindex: u32,
        from: u32,
        mark: u32,
        frame: &[u8],
    ) -> Result<Answer, ProgramError> {
        let mut context = [0; SKB];
        context[SKB_MARK..SKB_MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        context[SKB_INGRESS_IFINDEX..SKB_INGRESS_IFINDEX + 4].copy_from_slice(&from.to_ne_bytes());
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 64];
        let mut context_out = [0; SKB];
        let program: &SchedClassifier = self.ebpf.program(name).unwrap().try_into().unwrap();
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        let mark = &context_out[SKB_MARK..SKB_MARK + 4];
        let mark = u32::from_ne_bytes(mark.try_into().unwrap());
        Ok(Answer { code: result.return_value, frame: out, mark })
    }

    /// Runs the XDP program of an interface.
    pub fn xdp(&self, zone: Zone, ifindex: u32, frame: &[u8]) -> Result<Answer, ProgramError> {
        let name = if zone == Zone::Inside { "xdp_inside" } else { "xdp_outside" };
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context = [0; XDP_MD];
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 64];
        let program: &Xdp = self.ebpf.program(name).unwrap().try_into().unwrap();
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(Answer { code: result.return_value, frame: out, mark: 0 })
    }
}

/// The map `ports` as memory: looking at each of its words by a call would take seconds a packet.
struct Ports(NonNull<c_void>);

impl Ports {
    const WORDS: usize = (PORT_ADDRESSES * PORTS_PER_ADDRESS) as usize;
    /// Words that are skipped at once while they are zero.
    const BLOCK: usize = 4096;

    fn of(ebpf: &mut Ebpf) -> Self {
        let map: Array<_, PortOwner> = Array::try_from(ebpf.map("ports").unwrap()).unwrap();
        assert_eq!(map.len() as usize, Self::WORDS);
        let length = NonZero::new(Self::WORDS * 8).unwrap();
        let aya::maps::Map::Array(data) = ebpf.map("ports").unwrap() else { unreachable!() };
        let fd = data.fd().as_fd();
        // SAFETY: a new mapping, wherever the kernel puts it; released when this is dropped.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd, 0) };
        Self(start.expect("the map is made to be mapped"))
    }

    /// Words of ports that somebody owns, by their places.
    fn taken(&self) -> impl Iterator<Item = (u32, u64)> {
        // SAFETY: the mapping has so many words. Programs run only when these tests tell them to, and
        // no such slice outlives the call that it is made in.
        let words =
            unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u64>(), Self::WORDS) };
        let mut taken = Vec::new();
        for (block, words) in words.chunks(Self::BLOCK).enumerate() {
            if words == [0; Self::BLOCK] {
                continue;
            }
            for (at, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
                taken.push(((block * Self::BLOCK + at) as u32, *word));
            }
        }
        taken.into_iter()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of that length.
        unsafe { munmap(self.0, Self::WORDS * 8) }.expect("a mapping");
    }
}

/// The header and the packet of a record of the ring buffer.
pub fn record(bytes: &[u8]) -> (PuntHeader, Vec<u8>) {
    let (header, packet) = PuntHeader::read_from_prefix(bytes).unwrap();
    (header, packet.to_vec())
}
