//! The memory of the flow table: records in the map `flows`, locks in `stripes`; and the atomic
//! operations on words of maps.

use super::{global, maps};
use core::{
    intrinsics::{self, AtomicOrdering::SeqCst},
    ptr,
};
use nat_common::{
    flow_table::{self, LOCK_TRIES, Memory},
    hop::HopReference,
    layout::Geometry,
    record::{
        self, ACKNOWLEDGED, BYTES, CREATED, FlowRecord, HOP, PACKETS_HIGH, PACKETS_LOW, Use, WINDOW,
    },
    tcp_window::Receiving,
};

/// A table in a map.
pub struct Table<const BEFORE: bool>;

/// The table in the map `flows`.
pub const NOW: Table<false> = Table;
/// The one in the map `flows_before`, from which flows move to the other while the table grows.
pub const BEFORE: Table<true> = Table;

/// Whether the table grows: a constant to the verifier.
#[inline(always)]
pub fn is_growing() -> bool {
    BEFORE.homes() != 0
}

/// Whether packets may add a line while flows move to the table.
#[inline(always)]
pub fn may_add() -> bool {
    maps::ADDED.get(0).is_some_and(|added| {
        // SAFETY: a value of an array map.
        let added = unsafe { ptr::read_volatile(added) };
        added < flow_table::allowance(NOW.homes(), BEFORE.homes())
    })
}

/// Counts a line that a packet has added since.
#[inline(always)]
pub fn note_added() {
    if let Some(added) = maps::ADDED.get_ptr_mut(0) {
        // SAFETY: a value of an array map.
        unsafe { intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(added, 1) };
    }
}

impl<const BEFORE: bool> Table<BEFORE> {
    #[inline(always)]
    fn geometry() -> *const Geometry {
        if BEFORE { &raw const maps::GEOMETRY_BEFORE } else { &raw const maps::GEOMETRY }
    }
}

impl<const BEFORE: bool> Memory for Table<BEFORE> {
    type Place = *mut FlowRecord;

    #[inline(always)]
    fn place(&self, index: u32) -> Option<*mut FlowRecord> {
        if BEFORE { maps::FLOWS_BEFORE.get_ptr_mut(index) } else { maps::FLOWS.get_ptr_mut(index) }
    }

    #[inline(always)]
    fn homes(&self) -> u32 {
        // SAFETY: a constant, set at load.
        unsafe { ptr::read_volatile(&raw const (*Self::geometry()).homes) }
    }

    #[inline(always)]
    fn near_homes(&self) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*Self::geometry()).near_homes) }
    }

    #[inline(always)]
    fn seeds(&self) -> [u64; 2] {
        seeds()
    }

    #[inline(always)]
    fn load(&self, place: *mut FlowRecord, word: usize) -> u64 {
        // SAFETY: a value of an array map, and one of its words.
        unsafe { ptr::read_volatile(place.cast::<u64>().add(word)) }
    }

    #[inline(always)]
    fn store(&self, place: *mut FlowRecord, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(place.cast::<u64>().add(word), value) };
    }

    #[inline(always)]
    fn store_created(&self, place: *mut FlowRecord, created: u32) {
        // SAFETY: as above; narrow, so that the reach beside it stays whole.
        unsafe {
            ptr::write_volatile(place.cast::<u8>().add(PACKETS_HIGH).cast::<u16>(), 0);
            ptr::write_volatile(place.cast::<u8>().add(CREATED).cast::<u32>(), created);
        }
    }

    #[inline(always)]
    fn swap(&self, place: *mut FlowRecord, word: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above; the arithmetic stays in the record.
        swap(unsafe { place.cast::<u64>().add(word) }, old, new)
    }

    #[inline(always)]
    fn set_bits(&self, place: *mut FlowRecord, word: usize, bits: u64) {
        // SAFETY: as above.
        unsafe {
            intrinsics::atomic_or::<u64, u64, { SeqCst }>(place.cast::<u64>().add(word), bits)
        };
    }

    #[inline(always)]
    fn clear_bits(&self, place: *mut FlowRecord, word: usize, bits: u64) {
        // SAFETY: as above.
        unsafe {
            intrinsics::atomic_and::<u64, u64, { SeqCst }>(place.cast::<u64>().add(word), !bits);
        }
    }

    #[inline(always)]
    fn clear_reach(&self, home: u32, index: u32) {
        if BEFORE {
            flow_table::clear_reach(self, home, index);
        } else {
            // For all homes of a line the verifier goes through it once.
            global::nat_clear_reach(home, index);
        }
    }

    #[inline(always)]
    fn lock(&self, stripe: u32) -> bool {
        maps::LOCKS.get_ptr_mut(stripe).is_some_and(|place| {
            // SAFETY: a value of an array map; only its address is taken.
            swap(unsafe { &raw mut (*place).flows }, 0, 1)
        })
    }

    #[inline(always)]
    fn unlock(&self, stripe: u32) {
        if let Some(place) = maps::LOCKS.get_ptr_mut(stripe) {
            // SAFETY: a value of an array map; ours since the lock was taken.
            unsafe { unlock(&raw mut (*place).flows) };
        }
    }
}

/// What the hash of this table is keyed with.
#[inline(always)]
pub fn seeds() -> [u64; 2] {
    // SAFETY: a constant, set at load.
    unsafe { ptr::read_volatile(&raw const maps::GEOMETRY.seeds) }
}

/// Counts a packet, and notes what it is ready to receive. Only packets of one direction write here; two CPUs that do so at once
/// may lose one, never more.
#[inline(always)]
pub fn count(record: *mut FlowRecord, by: Use) {
    // SAFETY: a value of an array map, and fields of it.
    unsafe {
        let low = record.cast::<u8>().add(PACKETS_LOW).cast::<u32>();
        let packets = ptr::read_volatile(low).wrapping_add(1);
        ptr::write_volatile(low, packets);
        if packets == 0 {
            let high = record.cast::<u8>().add(PACKETS_HIGH).cast::<u16>();
            ptr::write_volatile(high, ptr::read_volatile(high).wrapping_add(1));
        }
        let acknowledged = record.cast::<u8>().add(ACKNOWLEDGED).cast::<u32>();
        ptr::write_volatile(acknowledged, by.receiving.acknowledged);
        let bytes = record.cast::<u8>().add(BYTES).cast::<u64>();
        let counted = record::counted(ptr::read_volatile(bytes), by.bytes, by.receiving.window);
        ptr::write_volatile(bytes, counted);
    }
}

/// What the last segment of a record's direction said of its sender.
#[inline(always)]
pub fn receiving(record: *mut FlowRecord) -> Receiving {
    // SAFETY: a value of an array map, and fields of it.
    unsafe {
        let acknowledged = ptr::read_volatile(record.cast::<u8>().add(ACKNOWLEDGED).cast::<u32>());
        let window = ptr::read_volatile(record.cast::<u8>().add(WINDOW).cast::<u16>());
        Receiving { acknowledged, window }
    }
}

/// Notes where packets of a record leave.
#[inline(always)]
pub fn lead(record: *mut FlowRecord, hop: HopReference) {
    // SAFETY: a value of an array map, and a field of it.
    unsafe { ptr::write_volatile(record.cast::<u8>().add(HOP).cast::<u32>(), hop.half()) };
}

/// Writes `new` to a word of a map if it is `old`, and says whether it was.
#[inline(always)]
pub fn swap(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: a word of a value of an array map (of the caller).
    let (_, swapped) =
        unsafe { intrinsics::atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(word, old, new) };
    swapped
}

/// Takes a lock, unless others have it for too long.
#[inline(always)]
pub fn lock(word: *mut u64) -> bool {
    for _try in 0..LOCK_TRIES {
        if swap(word, 0, 1) {
            return true;
        }
    }
    false
}

/// Gives a lock back.
///
/// # Safety
/// The caller has it.
#[inline(always)]
pub unsafe fn unlock(word: *mut u64) {
    // SAFETY: of the caller. An exchange and not a store: what was written under the lock is seen
    // before.
    unsafe { intrinsics::atomic_xchg::<u64, { SeqCst }>(word, 0) };
}
