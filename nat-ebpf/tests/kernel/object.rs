//! The object in the kernel: its maps filled from and read as a [`State`] of the host, its programs
//! run on frames.

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions,
    maps::{
        Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf, lpm_trie::Key, xdp::DevMapHash,
    },
    programs::{ProgramError, SchedClassifier, Xdp, XdpMode},
};
use nat_common::{
    counter::COUNTERS,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey, Zone},
    port::{Endpoint, Mapping, MappingKey, PortOwner},
    punt::PuntHeader,
    reason::REASONS,
    rule::AllowedKey,
    session::Session,
    settings::Settings,
};
use nat_ebpf::host::State;
use std::{collections::HashMap as Table, hash::Hash};

/// Entries of the maps that are sized at load: few, so that they fill up.
pub const FLOWS: u32 = 24;
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
}

impl Object {
    pub fn load(object: &[u8]) -> Self {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("flows", FLOWS);
        for name in ["ports", "mappings", "expectations"] {
            loader.map_max_entries(name, OTHERS);
        }
        let mut ebpf = loader.load(object).expect("the object is read and its maps are made");
        for (_, program) in ebpf.programs_mut() {
            if let Ok(program) = TryInto::<&mut Xdp>::try_into(&mut *program) {
                program.load().expect("the verifier takes an XDP program");
            } else if let Ok(program) = TryInto::<&mut SchedClassifier>::try_into(program) {
                program.load().expect("the verifier takes a TC program");
            }
        }
        Self { ebpf }
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

    /// Makes all maps say what `state` says.
    pub fn fill(&mut self, state: &State) {
        self.settings(state.settings);
        self.write("interfaces", &state.interfaces);
        self.write("addresses", &state.addresses);
        self.write("flows", &state.flows());
        self.write("ports", &state.ports);
        self.write("mappings", &state.mappings);
        self.write("expectations", &state.expectations);
        self.write("forwards", &state.forwards);
        self.write("one_to_one", &state.one_to_one);
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

    pub fn flows(&mut self) -> Table<FlowKey, Flow> {
        self.read("flows")
    }

    pub fn ports(&mut self) -> Table<Endpoint, PortOwner> {
        self.read("ports")
    }

    pub fn mappings(&mut self) -> Table<MappingKey, Mapping> {
        self.read("mappings")
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

/// The header and the packet of a record of the ring buffer.
pub fn record(bytes: &[u8]) -> ((u32, usize, u32), Vec<u8>) {
    const HEADER: usize = size_of::<PuntHeader>();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    ((word(0), word(8) as usize, word(12)), bytes[HEADER..].to_vec())
}
