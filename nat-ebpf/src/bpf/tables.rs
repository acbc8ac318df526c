//! The tables in BPF maps.

use super::{global, maps};
use crate::tables::{Refused, Shifted, Slot, Tables, Turn};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_ktime_get_coarse_ns, bpf_loop},
    },
};
use core::{ffi::c_void, intrinsics, ptr};
use nat_common::{
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    interface::Interface,
    port::{Endpoint, Mapping, MappingKey, PortOwner},
    reason::Reason,
    rule::{AllowedKey, Forward, OneToOne, RuleId},
    session::{Session, SessionId, Side},
    settings::Settings,
    tcp_options,
};

const EEXIST: i32 = -17;
const SECOND: u64 = 1_000_000_000;
/// Places that are tried for the record of a control connection.
const SESSION_PROBES: u32 = 16;

/// The maps of this object.
pub struct Maps;

/// The place of a flow record in the map `flows`.
#[derive(Clone, Copy)]
pub struct FlowSlot(*mut Flow);

impl Slot for FlowSlot {
    #[inline(always)]
    fn load(&self) -> Flow {
        // SAFETY: a value of the preallocated map; the kernel never unmaps it under a program.
        unsafe { *self.0 }
    }

    #[inline(always)]
    fn record(&self, now: u32, bytes: u32, seen: u8) {
        // SAFETY: as above. Only packets of this direction write it; two CPUs that do so at once
        // may lose one count, never more.
        let flow = unsafe { &mut *self.0 };
        flow.packets = flow.packets.wrapping_add(1);
        flow.bytes = flow.bytes.wrapping_add(bytes as u64);
        if flow.last_seen != now {
            flow.last_seen = now;
        }
        if flow.seen | seen != flow.seen {
            flow.seen |= seen;
        }
    }
}

#[inline(always)]
fn refused(result: Result<(), i32>) -> Result<(), Refused> {
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
        (unsafe { bpf_ktime_get_coarse_ns() } / SECOND) as u32
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
    fn interface(&self, ifindex: u32) -> Option<Interface> {
        // SAFETY: copied at once; a value replaced meanwhile is one or the other, eight bytes.
        unsafe { maps::INTERFACES.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn is_inside_address(&self, address: [u8; 4]) -> bool {
        // SAFETY: as above.
        unsafe { maps::ADDRESSES.get(address) }.is_some_and(|role| *role == 1)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowSlot> {
        maps::FLOWS.get_ptr_mut(key).map(FlowSlot)
    }

    #[inline(always)]
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused> {
        refused(maps::FLOWS.insert(key, flow, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn remove_flow(&mut self, key: &FlowKey) {
        let _absent = maps::FLOWS.remove(key);
    }

    #[inline(always)]
    fn mapping(&self, key: &MappingKey) -> Option<Mapping> {
        // SAFETY: copied at once, four bytes.
        unsafe { maps::MAPPINGS.get(key) }.copied()
    }

    #[inline(always)]
    fn insert_mapping(&mut self, key: &MappingKey, mapping: &Mapping) -> Result<(), Refused> {
        refused(maps::MAPPINGS.insert(key, mapping, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn port_owner(&self, public: &Endpoint) -> Option<PortOwner> {
        // SAFETY: copied at once; an owner is never replaced, only removed.
        unsafe { maps::PORTS.get(public) }.copied()
    }

    #[inline(always)]
    fn claim_port(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<(), Refused> {
        refused(maps::PORTS.insert(public, owner, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn release_port(&mut self, public: &Endpoint) {
        let _absent = maps::PORTS.remove(public);
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
            // SAFETY: a value of an array map; the word is only ever moved by compare-and-swap from
            // here and zeroed by the agent.
            let (_, won) = unsafe {
                intrinsics::atomic_cxchg::<
                    u64,
                    { intrinsics::AtomicOrdering::SeqCst },
                    { intrinsics::AtomicOrdering::SeqCst },
                >(&raw mut (*session).claimed, 0, 1)
            };
            if won {
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
    fn edit_syn(&self, _area: &mut [u8; tcp_options::BUFFER], length: usize) -> u16 {
        global::nat_syn(length as u32) as u16
    }

    #[inline(always)]
    fn repeat<B: Turn<Self>>(&mut self, turns: u32, body: &mut B) {
        // SAFETY: the callback gets the body back, and its type is the one given here; both live
        // during the call.
        unsafe { bpf_loop(turns, callback::<B> as *mut c_void, ptr::from_mut(body).cast(), 0) };
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

/// A turn for `bpf_loop`: 0 goes on, 1 ends the loop.
unsafe extern "C" fn callback<B: Turn<Maps>>(_turn: u32, body: *mut B) -> i64 {
    // SAFETY: `repeat` gave the body.
    if unsafe { &mut *body }.turn(&mut Maps) { 0 } else { 1 }
}

#[inline(always)]
fn session(id: SessionId) -> Option<*mut Session> {
    maps::CONTROL.get_ptr_mut(id.index()?)
}

#[inline(always)]
fn shifted(answer: u64) -> Result<u32, Reason> {
    if answer == global::BUSY { Err(Reason::AlgBusy) } else { Ok(answer as u32) }
}
