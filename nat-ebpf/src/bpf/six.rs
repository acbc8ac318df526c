//! IPv6 at the TC hooks: the packet, the kernel's routing, and the tables in BPF maps.

use super::{Maps, fib::Fib6Lookup, global, maps, skb::TcPacket, tables};
use crate::{
    packet::Packet,
    six::{Course, Line6, Packet6, Tables6},
    tables::Refused,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use core::{
    intrinsics::{self, AtomicOrdering::SeqCst},
    mem::{MaybeUninit, offset_of},
    ptr,
};
use nat_common::{
    checksum::Delta,
    flow::Zone,
    host::words6,
    reason::Reason,
    record::Use,
    six::{
        Address6, Allowed6Key, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key,
        Fragment6Key, Opening, PrefixKey, Watch6Key, Way6,
    },
    tcp,
    tcp_window::{Receiver, Receiving},
    watch::Watch,
};

/// Where what was seen lies in its word, of which the second of the last packet is the other half.
const SEEN_SHIFT: u32 = if cfg!(target_endian = "little") { 32 } else { 24 };
const _: () = assert!(offset_of!(Way6, seen) == offset_of!(Way6, last) + 4);
const _: () = assert!(offset_of!(Way6, last) % 8 == 0);

impl Packet6 for TcPacket {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes N bytes or fails.
        unsafe {
            let to = bytes.as_mut_ptr().cast();
            if bpf_skb_load_bytes(self.context().as_ptr(), at as u32, to, N as u32) != 0 {
                return Err(Reason::Truncated);
            }
            Ok(bytes.assume_init())
        }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
        let from = (&raw const bytes).cast();
        // SAFETY: the helper reads N bytes. The sum stays, so that nothing has to be told of it.
        match unsafe { bpf_skb_store_bytes(self.context().skb.skb, at as u32, from, N as u32, 0) } {
            0 => Ok(()),
            _ => Err(Reason::WriteFailed),
        }
    }

    #[inline(always)]
    fn course(&self, ifindex: u32, src: &Address6, dst: &Address6) -> Course {
        let Some(lookup) = maps::FIB_SCRATCH.get_ptr_mut(0) else { return Course::Nowhere };
        let lookup = lookup.cast::<Fib6Lookup>();
        // SAFETY: this CPU's own value, of the same size, and the program's context.
        unsafe { (*lookup).ask(self.context().as_ptr(), ifindex, src, dst) }
    }

    #[inline(always)]
    fn route_mtu(&self, src: &Address6, dst: &Address6) -> u32 {
        let Some(lookup) = maps::FIB_SCRATCH.get_ptr_mut(0) else { return 0 };
        let lookup = lookup.cast::<Fib6Lookup>();
        // SAFETY: as above.
        unsafe { (*lookup).mtu(self.context().as_ptr(), self.ifindex(), src, dst) }
    }

    #[inline(always)]
    fn mend(&mut self, at: usize, delta: Delta) -> Result<(), Reason> {
        // SAFETY: the helper takes integers: by how much the sum changed, which is no pseudo-header's.
        match unsafe {
            bpf_l4_csum_replace(self.context().skb.skb, at as u32, 0, delta.raw().into(), 0)
        } {
            0 => Ok(()),
            _ => Err(Reason::WriteFailed),
        }
    }
}

/// A value of the map `flows6`.
#[derive(Clone, Copy)]
pub struct FlowLine(*mut Flow6);

impl FlowLine {
    /// What was seen of the packets from `zone`.
    #[inline(always)]
    fn way(&self, zone: Zone) -> *mut Way6 {
        // SAFETY: a value of a map; only an address is taken.
        unsafe {
            match zone {
                Zone::Inside => &raw mut (*self.0).outbound,
                Zone::Outside => &raw mut (*self.0).inbound,
            }
        }
    }

    /// Where what they acknowledged lies.
    #[inline(always)]
    fn acknowledged(&self, zone: Zone) -> *mut u32 {
        let place = match zone {
            Zone::Inside => 0,
            Zone::Outside => 1,
        };
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).acknowledged).cast::<u32>().add(place) }
    }
}

impl Line6 for FlowLine {
    #[inline(always)]
    fn seen(&self) -> u8 {
        // SAFETY: a value of a map, which stays one while the program runs.
        unsafe {
            let outbound = ptr::read_volatile(&raw const (*self.0).outbound.seen);
            let inbound = ptr::read_volatile(&raw const (*self.0).inbound.seen);
            outbound | inbound
        }
    }

    #[inline(always)]
    fn is_control(&self) -> bool {
        // SAFETY: as above; written once, before the flow can be found.
        unsafe { (*self.0).is_control() }
    }

    #[inline(always)]
    fn begun(&self) -> Zone {
        // SAFETY: as above.
        unsafe { (*self.0).begun() }
    }

    #[inline(always)]
    fn receiver(&self, zone: Zone) -> Receiver {
        // SAFETY: as above.
        let seen = unsafe { ptr::read_volatile(&raw const (*self.way(zone.other())).seen) };
        Receiver { seen, receiving: self.receiving(zone.other()) }
    }

    #[inline(always)]
    fn receiving(&self, zone: Zone) -> Receiving {
        // SAFETY: as above; each is the last that somebody said, if not of the same segment.
        unsafe {
            let acknowledged = ptr::read_volatile(self.acknowledged(zone));
            let window = ptr::read_volatile(&raw const (*self.way(zone)).window);
            Receiving { acknowledged, window }
        }
    }

    #[inline(always)]
    fn note(&self, zone: Zone, by: Use) {
        let Use { now, bytes, seen, receiving } = by;
        let way = self.way(zone);
        // SAFETY: a value of a map, and fields of it, which are only ever added to, but for the second
        // and what the sender is ready to receive, of which the last writer's is as good as any.
        unsafe {
            ptr::write_volatile(self.acknowledged(zone), receiving.acknowledged);
            ptr::write_volatile(&raw mut (*way).window, receiving.window);
            intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(&raw mut (*way).packets, 1);
            intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(&raw mut (*way).bytes, bytes.into());
            if ptr::read_volatile(&raw const (*way).last) != now {
                ptr::write_volatile(&raw mut (*way).last, now);
            }
            let before = ptr::read_volatile(&raw const (*way).seen);
            if before & seen != seen {
                // This CPU version has no atomic operation on a part of a word; the others, which are
                // the second of the last packet and the window, get zeros.
                let word = (&raw mut (*way).last).cast::<u64>();
                let bits = u64::from(seen) << SEEN_SHIFT;
                intrinsics::atomic_or::<u64, u64, { SeqCst }>(word, bits);
            }
            if before & !seen & tcp::RST != 0 {
                // Who goes on takes it back: all of the word stays but that bit.
                let word = (&raw mut (*way).last).cast::<u64>();
                let rest = !(u64::from(tcp::RST) << SEEN_SHIFT);
                intrinsics::atomic_and::<u64, u64, { SeqCst }>(word, rest);
            }
        }
    }
}

impl Tables6 for Maps {
    type Line = FlowLine;

    #[inline(always)]
    fn flow6(&self, key: &Flow6Key) -> Option<FlowLine> {
        maps::FLOWS6.get_ptr_mut(key).map(FlowLine)
    }

    #[inline(always)]
    fn insert_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused> {
        tables::refused(maps::FLOWS6.insert(key, flow, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn replace_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused> {
        tables::refused(maps::FLOWS6.insert(key, flow, BPF_ANY.into()))
    }

    #[inline(always)]
    fn open_host6(&mut self, host: &Address6) -> Result<(), Reason> {
        let [first, second] = words6(host);
        tables::opened(global::nat_open_host6(first, second))
    }

    #[inline(always)]
    fn close_host6(&mut self, host: &Address6) {
        let [first, second] = words6(host);
        global::nat_close_host6(first, second);
    }

    #[inline(always)]
    fn refuse_host6(&mut self, host: &Address6) {
        let [first, second] = words6(host);
        global::nat_refuse_host6(first, second);
    }

    #[inline(always)]
    fn fragmented6(&self, datagram: &Fragment6Key) -> Option<Flow6Key> {
        // SAFETY: copied at once; a value is written over only by a first fragment with the same key.
        unsafe { maps::FRAGMENTS6.get(datagram) }.copied()
    }

    #[inline(always)]
    fn note_fragmented6(&mut self, datagram: &Fragment6Key, flow: &Flow6Key) {
        // Where it fails, later fragments are dropped: that is counted.
        let _ = maps::FRAGMENTS6.insert(datagram, flow, 0);
    }

    #[inline(always)]
    fn take_expectation6(&mut self, key: &Expectation6Key) -> Option<Expectation6> {
        // SAFETY: copied before the removal; only who removes it uses the copy.
        let expectation = *unsafe { maps::EXPECTATIONS6.get(key) }?;
        maps::EXPECTATIONS6.remove(key).ok().map(|()| expectation)
    }

    #[inline(always)]
    fn forget_control6(&mut self, key: &Flow6Key) {
        // There is none as a rule.
        let _ = maps::CONTROLS6.remove(key);
    }

    #[inline(always)]
    fn control6(&self, key: &Flow6Key) -> Option<Control6> {
        // SAFETY: one word of the copy is used; the map frees replaced values only after a grace period.
        unsafe { maps::CONTROLS6.get(key) }.copied()
    }

    #[inline(always)]
    fn watch6(&self, side: &Watch6Key) -> Watch {
        // SAFETY: copied at once; the agent first writes all but what it says, and the map frees replaced
        // values only after a grace period.
        unsafe { maps::WATCHES6.get(side) }.copied().unwrap_or(Watch::LINES)
    }

    #[inline(always)]
    fn move_boundary6(&mut self, side: &Watch6Key, boundary: u32) {
        if let Some(watch) = maps::WATCHES6.get_ptr_mut(side) {
            // SAFETY: a value of a map, one word of it.
            unsafe { (*watch).boundary = boundary };
        }
    }

    #[inline(always)]
    fn opening(&self, end: &Endpoint6) -> Option<Opening> {
        // SAFETY: copied at once; the map frees replaced values only after a grace period.
        unsafe { maps::FORWARDS6.get(end) }.copied()
    }

    #[inline(always)]
    fn allowed6(&self, filter: u32, remote: &Address6) -> bool {
        let bits = Allowed6Key::FILTER_BITS + 128;
        maps::ALLOWED6.get(&Key::new(bits, Allowed6Key::new(filter, *remote))).is_some()
    }

    #[inline(always)]
    fn translate(&self, key: &mut PrefixKey) -> Result<Option<u32>, Reason> {
        let mut whole = Key::new(PrefixKey::SCOPE_BITS + 128, *key);
        let found = translate(&mut whole);
        if found == ONES {
            return Err(Reason::PrefixOnes);
        }
        *key = whole.data;
        Ok(if found == 0 { None } else { Some(found) })
    }

    #[inline(always)]
    fn is_public6(&self, address: &Address6) -> bool {
        is_public(address)
    }

    #[inline(always)]
    fn is_translated6(&self, wan: u32, address: &Address6) -> bool {
        is_translated(wan, address)
    }
}

/// No interface has this number.
const ONES: u32 = u32::MAX;

/// A function of its own, for its stack.
#[inline(never)]
fn is_public(address: &Address6) -> bool {
    let bits = PrefixKey::SCOPE_BITS + 128;
    maps::PREFIXES.get(&Key::new(bits, PrefixKey::public(*address))).is_some()
}

/// The same.
#[inline(never)]
fn is_translated(wan: u32, address: &Address6) -> bool {
    let bits = PrefixKey::SCOPE_BITS + 128;
    maps::PREFIXES.get(&Key::new(bits, PrefixKey::leaving(wan, *address))).is_some()
}

/// Puts the translated address into the key, and gives the interface of the pair; 0 where there is none. A
/// function of its own, since its stack is then free again when others are called.
#[inline(never)]
fn translate(key: &mut Key<PrefixKey>) -> u32 {
    let Some(prefix) = maps::PREFIXES.get(key) else { return 0 };
    let mut data = key.data;
    let Some(address) = prefix.translate(data.address()) else { return ONES };
    data.set_address(address);
    *key = Key::new(PrefixKey::SCOPE_BITS + 128, data);
    prefix.wan()
}
