//! Next hops by number, in the map `hops`.

use super::{maps, memory};
use crate::tables::KnownHop;
use core::ptr;
use nat_common::hop::{self, EPOCH, HOP_PROBES, Hop, HopReference, LINK, OWN, WHO, WORDS};

/// A hop that the agent has filled in.
#[inline(always)]
pub fn known(index: u32) -> Option<KnownHop> {
    KnownHop::of(&load(maps::HOP_TABLE.get_ptr_mut(index)?.cast()))
}

/// Reference to the hop of the word `who`, whose place is taken if it has none yet.
#[inline(always)]
pub fn refer(who: u64, mtu: u32, epoch: u32) -> HopReference {
    let start = hop::start(who);
    for probe in 0..HOP_PROBES {
        let index = hop::index(start, probe);
        let Some(place) = maps::HOP_TABLE.get_ptr_mut(index) else { break };
        let place = place.cast::<u64>();
        // SAFETY: a value of an array map, one word at a time.
        let found = unsafe { ptr::read_volatile(place.add(WHO)) };
        if found != who && !(found == 0 && memory::swap(place, 0, who)) {
            continue;
        }
        let hop = load(place);
        if hop.is_closed() {
            continue;
        }
        // SAFETY: as above; every packet of an epoch writes the same.
        unsafe {
            let then = place.cast::<u8>().add(EPOCH).cast::<u32>();
            if ptr::read_volatile(then) != epoch {
                ptr::write_volatile(then, epoch);
            }
        }
        // A route that takes less than its interface is asked about each packet.
        if hop.mtu() == 0 || mtu < hop.mtu() as u32 {
            return HopReference::NONE;
        }
        return HopReference::new(index, epoch);
    }
    HopReference::NONE
}

#[inline(always)]
fn load(place: *mut u64) -> Hop {
    let mut words = [0; WORDS];
    // SAFETY: a value of an array map. The link address comes first: the agent voids it before it
    // changes the others.
    unsafe {
        words[LINK] = ptr::read_volatile(place.add(LINK));
        words[WHO] = ptr::read_volatile(place.add(WHO));
        words[OWN] = ptr::read_volatile(place.add(OWN));
    }
    Hop::from_words(words)
}
