//! Ports of numbered public addresses in the map `ports`, and the locks on mappings.

use super::{maps, memory};
use core::ptr;
use nat_common::{
    flow_table::{self, STRIPES},
    port::{Endpoint, PortOwner, place},
};

/// The word of a port; that of nobody where there is none.
#[inline(always)]
pub fn word(number: u32, public: &Endpoint) -> PortOwner {
    match at(number, public) {
        // SAFETY: a value of an array map, one word.
        Some(word) => PortOwner::from_word(unsafe { ptr::read_volatile(word) }),
        None => PortOwner::NONE,
    }
}

/// Exchanges the word of a port, if it is `old`.
#[inline(always)]
pub fn swap(number: u32, public: &Endpoint, old: PortOwner, new: PortOwner) -> bool {
    at(number, public).is_some_and(|word| memory::swap(word, old.word(), new.word()))
}

/// Takes the lock on the mappings of an inside endpoint; its stripe.
#[inline(always)]
pub fn lock(inside: &Endpoint) -> Option<u32> {
    let stripe = (lot(inside, 0) >> 32) as u32 & (STRIPES - 1);
    let place = maps::LOCKS.get_ptr_mut(stripe)?;
    // SAFETY: a value of an array map; only its address is taken.
    let word = unsafe { &raw mut (*place).mappings };
    if memory::lock(word) { Some(stripe) } else { None }
}

/// Gives the lock back.
#[inline(always)]
pub fn unlock(stripe: u32) {
    if let Some(place) = maps::LOCKS.get_ptr_mut(stripe) {
        // SAFETY: a value of an array map; ours since the lock was taken.
        unsafe { memory::unlock(&raw mut (*place).mappings) };
    }
}

/// How far from the first choice mappings of a stripe lie; under its lock.
#[inline(always)]
pub fn reach(stripe: u32) -> u32 {
    // SAFETY: a value of an array map, read under its lock.
    maps::LOCKS.get_ptr_mut(stripe).map_or(0, |place| unsafe { (*place).reach } as u32)
}

/// Sets that.
#[inline(always)]
pub fn set_reach(stripe: u32, reach: u32) {
    if let Some(place) = maps::LOCKS.get_ptr_mut(stripe) {
        // SAFETY: a value of an array map, written under its lock.
        unsafe { (*place).reach = reach as u64 };
    }
}

/// What falls to an inside endpoint and more by lot: two halves, the first port and the stripe.
#[inline(always)]
pub fn lot(inside: &Endpoint, more: u64) -> u64 {
    flow_table::hash([inside.word(), more], memory::seeds())
}

#[inline(always)]
fn at(number: u32, public: &Endpoint) -> Option<*mut u64> {
    maps::PORTS.get_ptr_mut(place(number, public)?).map(|owner| owner.cast())
}
