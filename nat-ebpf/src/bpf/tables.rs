//! The tables in BPF maps.

use super::{
    flows::{self, FlowSlot},
    global, hops,
    maps::{self, Told},
    memory, ports,
};
use crate::{
    packet::NextHop,
    refusal,
    tables::{KnownHop, Refused, Shifted, Tables, Turn},
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_ktime_get_coarse_ns, bpf_loop},
    },
};
use core::{ffi::c_void, ptr};
use nat_common::{
    clock,
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragmented},
    hop::{Hop, HopReference},
    interface::{Interface, Paired},
    port::{Endpoint, Pool, Port, PortOwner},
    reason::Reason,
    rule::{AllowedKey, EncryptedKey, Forward, OneToOne, RuleId},
    session::{Session, SessionId, Side},
    settings::Settings,
    tcp_options,
    vouched::Vouched,
    watch::{self, Watch},
};

const EEXIST: i32 = -17;
/// Places that are tried for the record of a control connection.
const SESSION_PROBES: u32 = 16;

/// The maps of this object.
pub struct Maps;

#[inline(always)]
pub(super) fn refused(result: Result<(), i32>) -> Result<(), Refused> {
    match result {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(Refused::Exists),
        Err(_) => Err(Refused::Full),
    }
}

impl Tables for Maps {
    type Slot = FlowSlot;

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: reads a clock.
        clock::seconds(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: reads the kernel's random numbers.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        maps::SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn pool(&self) -> Option<Pool> {
        maps::SETTINGS.get(0).map(|settings| settings.pool)
    }

    #[inline(always)]
    fn keeps_parity(&self) -> bool {
        maps::SETTINGS.get(0).is_some_and(|settings| settings.parity != 0)
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<Interface> {
        // SAFETY: copied at once; of a value replaced meanwhile its words are of one or the other.
        unsafe { maps::INTERFACES.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn paired(&self, place: u32) -> Option<Paired> {
        let paired = maps::PAIRED_ADDRESSES.get_ptr(place)?.cast::<u64>();
        // SAFETY: eight bytes of the map, which the agent writes in one.
        let paired: Paired = zerocopy::transmute!(unsafe { paired.read_volatile() });
        (paired.address != [0; 4]).then_some(paired)
    }

    #[inline(always)]
    fn is_inside_address(&self, address: [u8; 4]) -> bool {
        // SAFETY: as above.
        unsafe { maps::ADDRESSES.get(address) }.is_some_and(|code| *code & 0xffff == 1)
    }

    #[inline(always)]
    fn is_own_address(&self, address: [u8; 4]) -> bool {
        // SAFETY: as above.
        unsafe { maps::ADDRESSES.get(address) }.is_some()
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowSlot> {
        flows::find(key)
    }

    #[inline(always)]
    fn flow_often(&self, key: &FlowKey) -> Option<FlowSlot> {
        flows::find_inline(key)
    }

    #[inline(always)]
    fn flow_in_place(&self, key: &FlowKey) -> Option<FlowSlot> {
        flows::find_in_place(key)
    }

    #[inline(always)]
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused> {
        flows::insert(key, flow)
    }

    #[inline(always)]
    fn remove_flow(&mut self, key: &FlowKey) {
        flows::remove(key);
    }

    #[inline(always)]
    fn open_host(&mut self, host: [u8; 4]) -> Result<(), Reason> {
        opened(global::nat_open_host(u32::from_ne_bytes(host)))
    }

    #[inline(always)]
    fn refuse_host(&mut self, host: [u8; 4]) {
        global::nat_refuse_host(u32::from_ne_bytes(host));
    }

    #[inline(always)]
    fn close_host(&mut self, host: [u8; 4]) {
        global::nat_close_host(u32::from_ne_bytes(host));
    }

    #[inline(always)]
    fn open_port(&mut self, host: [u8; 4]) -> Result<(), Reason> {
        opened(global::nat_open_port(u32::from_ne_bytes(host)))
    }

    #[inline(always)]
    fn close_port(&mut self, host: [u8; 4]) {
        global::nat_close_port(u32::from_ne_bytes(host));
    }

    #[inline(always)]
    fn hop(&self, index: u32) -> Option<KnownHop> {
        hops::known(index)
    }

    #[inline(always)]
    fn refer(&mut self, hop: &NextHop, mtu: u32, epoch: u32) -> HopReference {
        let who = Hop::who(hop.neighbour, hop.ifindex);
        HopReference::from_half(global::nat_refer(who, mtu, epoch) as u32)
    }

    #[inline(always)]
    fn uplink(&self, public: [u8; 4]) -> u32 {
        maps::uplink(public)
    }

    #[inline(always)]
    fn address_number(&self, address: [u8; 4]) -> Option<u32> {
        // SAFETY: copied at once, four bytes.
        let code = unsafe { maps::ADDRESSES.get(address) }.copied()?;
        (code >> 16).checked_sub(1)
    }

    #[inline(always)]
    fn port_owner(&self, public: &Endpoint) -> Option<PortOwner> {
        if let Some(number) = self.address_number(public.address()) {
            let owner = self.port_word(number, public);
            return if owner.is_none() { None } else { Some(owner) };
        }
        // SAFETY: copied at once; an owner is never replaced, only removed.
        unsafe { maps::OTHER_PORTS.get(public) }.copied()
    }

    #[inline(always)]
    fn claim_port(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<(), Refused> {
        if let Some(number) = self.address_number(public.address()) {
            let claimed = self.swap_port(number, public, PortOwner::NONE, *owner);
            return if claimed { Ok(()) } else { Err(Refused::Exists) };
        }
        refused(maps::OTHER_PORTS.insert(public, owner, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn port_word(&self, number: u32, public: &Endpoint) -> PortOwner {
        ports::word(number, public)
    }

    #[inline(always)]
    fn swap_port(
        &mut self,
        number: u32,
        public: &Endpoint,
        old: PortOwner,
        new: PortOwner,
    ) -> bool {
        ports::swap(number, public, old, new)
    }

    #[inline(always)]
    fn lock_mappings(&mut self, inside: &Endpoint) -> Option<u32> {
        ports::lock(inside)
    }

    #[inline(always)]
    fn unlock_mappings(&mut self, stripe: u32) {
        ports::unlock(stripe);
    }

    #[inline(always)]
    fn mapping_reach(&self, stripe: u32) -> u32 {
        ports::reach(stripe)
    }

    #[inline(always)]
    fn set_mapping_reach(&mut self, stripe: u32, reach: u32) {
        ports::set_reach(stripe, reach);
    }

    #[inline(always)]
    fn lot(&self, inside: &Endpoint, more: u64) -> u32 {
        ports::lot(inside, more) as u32
    }

    #[inline(always)]
    fn public_port(
        &mut self,
        inside: Endpoint,
        public: [u8; 4],
        number: u32,
    ) -> Result<Port, Reason> {
        match global::nat_public_port(inside.word(), u32::from_ne_bytes(public), number) {
            global::EXHAUSTED => Err(Reason::PortsExhausted),
            global::AT_LIMIT => Err(Reason::HostLimit),
            global::BUSY_KEY => Err(Reason::FlowBusy),
            port => Ok(Port::new(port as u16)),
        }
    }

    #[inline(always)]
    fn shared_port(&mut self, key: &FlowKey, public: [u8; 4], number: u32) -> Result<Port, Reason> {
        let [first, second] = key.words();
        let start = global::nat_shared_start(first, second);
        if start == global::EXHAUSTED {
            return Err(Reason::PortsExhausted);
        }
        let public = u32::from_ne_bytes(public);
        match global::nat_shared_port(first, second, public, number, start as u32) {
            global::EXHAUSTED => Err(Reason::PortsExhausted),
            port => Ok(Port::new(port as u16)),
        }
    }

    #[inline(always)]
    fn fragmented(&self, key: &FragmentKey) -> Option<Fragmented> {
        // SAFETY: copied at once; a value is written over only by a first fragment with the same key.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn note_fragmented(&mut self, key: &FragmentKey, value: &Fragmented) {
        // Where it fails, later fragments wait in vain: that is counted.
        let _ = maps::FRAGMENTS.insert(key, value, 0);
    }

    #[inline(always)]
    fn identification(&mut self, src: [u8; 4], dst: [u8; 4], protocol: u8) -> u16 {
        let (src, dst) = (u32::from_ne_bytes(src), u32::from_ne_bytes(dst));
        global::nat_identification(src, dst, protocol.into()) as u16
    }

    #[inline(always)]
    fn take_expectation(&mut self, key: &ExpectationKey) -> Option<Expectation> {
        // SAFETY: copied before the removal; only who removes it uses the copy.
        let expectation = *unsafe { maps::EXPECTATIONS.get(key) }?;
        maps::EXPECTATIONS.remove(key).ok().map(|()| expectation)
    }

    #[inline(always)]
    fn forward(&self, public: &Endpoint) -> Option<Forward> {
        // SAFETY: copied at once; the map frees replaced values only after a grace period.
        unsafe { maps::FORWARDS.get(public) }.copied()
    }

    #[inline(always)]
    fn allowed(&self, filter: u32, remote: [u8; 4]) -> bool {
        let bits = AllowedKey::FILTER_BITS + 32;
        maps::ALLOWED.get(&Key::new(bits, AllowedKey::new(filter, remote))).is_some()
    }

    #[inline(always)]
    fn note_contact(&mut self, public: &Endpoint, remote: [u8; 4], now: u32) {
        global::nat_note_contact(public.word(), u32::from_ne_bytes(remote), now);
    }

    #[inline(always)]
    fn is_contact(&self, public: &Endpoint, remote: [u8; 4]) -> bool {
        global::nat_is_contact(public.word(), u32::from_ne_bytes(remote)) != 0
    }

    #[inline(always)]
    fn encrypted(&self, rule: RuleId, client: [u8; 4]) -> Option<SessionId> {
        // SAFETY: copied at once, four bytes.
        unsafe { maps::ENCRYPTED.get(EncryptedKey::new(rule, client)) }.copied()
    }

    #[inline(always)]
    fn one_to_one(&self, inside: [u8; 4]) -> Option<OneToOne> {
        // SAFETY: copied at once; the map frees replaced values only after a grace period.
        unsafe { maps::ONE_TO_ONE.get(inside) }.copied()
    }

    #[inline(always)]
    fn claim_session(
        &mut self,
        original: &FlowKey,
        reply: &FlowKey,
        rule: RuleId,
    ) -> Option<SessionId> {
        let start = self.random();
        for probe in 0..SESSION_PROBES {
            let index = start.wrapping_add(probe) % nat_common::layout::SESSIONS;
            let session = maps::CONTROL.get_ptr_mut(index)?;
            // SAFETY: a value of an array map; only its address is taken. The word is only ever moved
            // by compare-and-swap from here and zeroed by the agent.
            if memory::swap(unsafe { &raw mut (*session).claimed }, 0, 1) {
                // SAFETY: ours since the swap.
                unsafe { (*session).open(original, reply, rule, self.now()) };
                return Some(SessionId::new(index));
            }
        }
        None
    }

    #[inline(always)]
    fn release_session(&mut self, id: SessionId) {
        if let Some(session) = session(id) {
            // SAFETY: claimed by this packet, and no flow names it.
            unsafe {
                (*session).close();
                ptr::write_volatile(&raw mut (*session).claimed, 0);
            }
        }
    }

    #[inline(always)]
    fn note_mss(&mut self, id: SessionId, side: Side, mss: u16) {
        if let Some(session) = session(id) {
            // SAFETY: a value of an array map; the packets of one side write one field.
            unsafe {
                match side {
                    Side::Originator => (*session).mss[0] = mss,
                    Side::Responder => (*session).mss[1] = mss,
                }
            }
        }
    }

    #[inline(always)]
    fn shift(
        &self,
        id: SessionId,
        side: Side,
        sequence: u32,
        acknowledgement: u32,
    ) -> Result<Shifted, Reason> {
        let index = id.index().ok_or(Reason::AlgUnknown)?;
        Ok(Shifted {
            sequence: shifted(global::nat_sequence(index, side.index() as u32, sequence))?,
            acknowledgement: shifted(global::nat_acknowledgement(
                index,
                side.other().index() as u32,
                acknowledgement,
            ))?,
        })
    }

    #[inline(always)]
    fn watch(&self, id: SessionId, side: Side) -> Watch {
        // SAFETY: a value of an array map, copied at once. The agent first writes all but what it says.
        self::watch(id, side).map_or(Watch::LINES, |watch| unsafe { *watch })
    }

    #[inline(always)]
    fn move_boundary(&mut self, id: SessionId, side: Side, boundary: u32) {
        if let Some(watch) = self::watch(id, side) {
            // SAFETY: a value of an array map, one word of it.
            unsafe { (*watch).boundary = boundary };
        }
    }

    #[inline(always)]
    fn is_vouched(&self, id: SessionId, side: Side, sequence: u32) -> bool {
        let word = Vouched::up_to(sequence).word();
        // An exchange and not a load: what is read of the corrections is read after it.
        vouched(id, side).is_some_and(|place| memory::swap(place, word, word))
    }

    #[inline(always)]
    fn vouch(&mut self, id: SessionId, side: Side, sequence: u32, next: u32) {
        if let Some(place) = vouched(id, side) {
            let (old, new) = (Vouched::up_to(sequence), Vouched::up_to(next));
            memory::swap(place, old.word(), new.word());
        }
    }

    #[inline(always)]
    fn map_sack(
        &self,
        id: SessionId,
        side: Side,
        _area: &mut [u8; tcp_options::BUFFER],
        length: usize,
    ) {
        if let Some(index) = id.index() {
            global::nat_sack(index, side.other().index() as u32, length as u32);
        }
    }

    #[inline(always)]
    fn edit_syn(&self, _area: &mut [u8; tcp_options::BUFFER], length: usize, most: u16) -> u16 {
        global::nat_syn(length as u32, most.into()) as u16
    }

    #[inline(always)]
    fn lower_mss(&self, _area: &mut [u8; tcp_options::BUFFER], length: usize, most: u16) {
        global::nat_lower_mss(length as u32, most.into());
    }

    #[inline(always)]
    fn repeat<B: Turn<Self>>(&mut self, turns: u32, body: &mut B) {
        // SAFETY: the callback gets the body back, and its type is the one given here; both live
        // during the call.
        unsafe { bpf_loop(turns, callback::<B> as *mut c_void, ptr::from_mut(body).cast(), 0) };
    }

    #[inline(always)]
    fn may_tell(&mut self, now: u32, takes: u32) -> bool {
        let Some(told) = maps::TOLD.get_ptr_mut(0) else { return false };
        // SAFETY: this CPU's own value.
        let told = unsafe { &mut *told };
        if told.second != now {
            *told = Told { second: now, count: 0 };
        }
        told.count += takes;
        told.count < refusal::TOLD + takes
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        if let Some(count) = maps::COUNTED.get_ptr_mut(counter as u32) {
            // SAFETY: this CPU's own value.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn count_drop(&mut self, reason: Reason) {
        if let Some(count) = maps::DROPS.get_ptr_mut(reason as u32) {
            // SAFETY: this CPU's own value.
            unsafe { *count += 1 };
        }
    }
}

/// What [`global::nat_open_host`] has answered.
#[inline(always)]
pub(super) fn opened(answer: u64) -> Result<(), Reason> {
    match answer {
        global::AT_LIMIT => Err(Reason::HostLimit),
        global::BUSY_KEY => Err(Reason::FlowBusy),
        _ => Ok(()),
    }
}

/// A turn for `bpf_loop`: 0 goes on, 1 ends the loop.
unsafe extern "C" fn callback<B: Turn<Maps>>(_turn: u32, body: *mut B) -> i64 {
    // SAFETY: `repeat` gave the body.
    if unsafe { &mut *body }.turn(&mut Maps) { 0 } else { 1 }
}

#[inline(always)]
fn session(id: SessionId) -> Option<*mut Session> {
    maps::CONTROL.get_ptr_mut(id.index()?)
}

/// The word of a side.
#[inline(always)]
fn vouched(id: SessionId, side: Side) -> Option<*mut u64> {
    let session = session(id)?;
    // SAFETY: a value of an array map; only an address is taken, whose word is only moved by
    // compare-and-swap from here on.
    Some(unsafe {
        match side {
            Side::Originator => &raw mut (*session).vouched[0],
            Side::Responder => &raw mut (*session).vouched[1],
        }
    })
}

#[inline(always)]
fn watch(id: SessionId, side: Side) -> Option<*mut Watch> {
    maps::WATCHES.get_ptr_mut(watch::index(id.index()?, side))
}

#[inline(always)]
fn shifted(answer: u64) -> Result<u32, Reason> {
    if answer == global::BUSY { Err(Reason::AlgBusy) } else { Ok(answer as u32) }
}
