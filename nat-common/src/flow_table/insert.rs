//! Inserting a flow: claim a place, write the line, make it findable, publish it.

use super::{CHOICES, Found, Hashed, LOCK_TRIES, Memory, Refused, SPILLED, distance, find, window};
use crate::{
    flow::{Flow, FlowKey},
    opaque::opaque,
    record::{ACTION, BYTES, FlowRecord, KEY, PACKETS_LOW, Phase, REACH, STATE, State},
};

/// Bits of the word of the reach that are the high half of the packet count.
const PACKETS_HIGH_BITS: u64 = 0xffff_0000;

/// Inserts `flow` for packets with `key`, unless the key has a line.
///
/// # Errors
/// Why not; nothing has changed then.
#[inline(always)]
pub fn insert<M: Memory>(
    memory: &M,
    key: &Hashed,
    flow: &Flow,
) -> Result<Found<M::Place>, Refused> {
    let line = FlowRecord::new(State::default(), &FlowKey::from_words(key.words), flow);
    let words = line.words();
    insert_line(memory, key, |word| words[word])
}

/// Inserts a line with the counts that it has, told by its words; its version and its reach are those of
/// another place.
///
/// # Errors
/// As [`insert`].
#[inline(always)]
pub fn insert_line<M: Memory>(
    memory: &M,
    key: &Hashed,
    line: impl Fn(usize) -> u64,
) -> Result<Found<M::Place>, Refused> {
    let stripe = key.stripe();
    if !lock(memory, stripe) {
        return Err(Refused::Busy);
    }
    let inserted = insert_locked(memory, key, line);
    memory.unlock(stripe);
    inserted
}

#[inline(always)]
fn lock<M: Memory>(memory: &M, stripe: u32) -> bool {
    for _ in 0..LOCK_TRIES {
        if memory.lock(stripe) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn insert_locked<M: Memory>(
    memory: &M,
    key: &Hashed,
    line: impl Fn(usize) -> u64,
) -> Result<Found<M::Place>, Refused> {
    if let Some(found) = find(memory, key) {
        return Err(if found.state.is_live() { Refused::Exists } else { Refused::Busy });
    }
    let Some(claimed) = claim(memory, key) else {
        return Err(Refused::Full);
    };
    publish(memory, key, line, claimed)
}

/// Takes the first free place of the first window that has one.
#[inline(always)]
fn claim<M: Memory>(memory: &M, key: &Hashed) -> Option<Found<M::Place>> {
    for choice in 0..CHOICES {
        let home = key.home(memory, choice);
        for offset in 0..window(choice) {
            let place = memory.place(home.wrapping_add(distance(offset)))?;
            let free = State::from_word(memory.load(place, STATE));
            if free.is_free() {
                let state = free.with_phase(Phase::Claimed);
                if memory.swap(place, STATE, free.word(), state.word()) {
                    // Whichever it is: what follows is the same.
                    let offset = opaque(offset as u64) as u32;
                    return Some(Found { place, home, offset, state });
                }
            }
        }
    }
    None
}

/// Fills a claimed line. The bit in the reach comes before the state: who ends a live line must
/// find the bit that he is to clear.
#[inline(always)]
fn publish<M: Memory>(
    memory: &M,
    key: &Hashed,
    line: impl Fn(usize) -> u64,
    claimed: Found<M::Place>,
) -> Result<Found<M::Place>, Refused> {
    let Found { place, home, offset, state } = claimed;
    memory.store(place, KEY, line(KEY));
    memory.store(place, KEY + 1, line(KEY + 1));
    memory.store(place, ACTION, line(ACTION));
    memory.store(place, ACTION + 1, line(ACTION + 1));
    let made = line(REACH);
    memory.store_created(place, (made >> 32) as u32);
    let packets_high = made & PACKETS_HIGH_BITS;
    if packets_high != 0 {
        memory.set_bits(place, REACH, packets_high);
    }
    memory.store(place, PACKETS_LOW / 8, line(PACKETS_LOW / 8));
    memory.store(place, BYTES / 8, line(BYTES / 8));
    for choice in 0..CHOICES {
        let passed = key.home(memory, choice);
        if passed == home {
            break;
        }
        mark(memory, passed, SPILLED);
    }
    mark(memory, home, 1 << offset);
    let live = State::from_word(line(STATE)).moved_to(state);
    if memory.swap(place, STATE, state.word(), live.word()) {
        Ok(Found { state: live, ..claimed })
    } else {
        Err(Refused::Busy)
    }
}

/// Sets bits in the reach of a home.
#[inline(always)]
fn mark<M: Memory>(memory: &M, home: u32, bits: u64) {
    if let Some(place) = memory.place(home)
        && memory.load(place, REACH) & bits == 0
    {
        memory.set_bits(place, REACH, bits);
    }
}
