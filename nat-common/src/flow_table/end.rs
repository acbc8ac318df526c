//! Ending flows: by a packet that makes room, by the agent that sweeps or is told to.
//!
//! An ending line still has its key, so that no second line of the key is made before the first
//! can't be found any more. Who was stopped between the two steps leaves a line that stays ending;
//! the sweep that sees it unchanged for long ends it by [`finish`].

use super::{CHOICES, Hashed, Line, Memory, WINDOW, distance};
use crate::{
    opaque::opaque,
    record::{KEY, Phase, REACH, STATE, State},
};

/// Ends the flow in `line` if it is live and still in the state `observed`: whether it was. No
/// packet has used it since `observed` was read.
#[inline(always)]
pub fn remove<M: Memory>(memory: &M, line: Line<M::Place>, observed: State) -> bool {
    match end(memory, line.place, observed) {
        Some(ending) => finish(memory, line, ending),
        None => false,
    }
}

/// Ends both directions of a flow, or neither.
///
/// A packet that arrives while the first is ending and the second proves to be used is refused,
/// though its flow goes on.
#[inline(always)]
pub fn end_pair<M: Memory>(
    memory: &M,
    (first, first_observed): (Line<M::Place>, State),
    (second, second_observed): (Line<M::Place>, State),
) -> bool {
    let Some(first_ending) = end(memory, first.place, first_observed) else {
        return false;
    };
    let Some(second_ending) = end(memory, second.place, second_observed) else {
        put_back(memory, first.place, first_ending);
        return false;
    };
    finish(memory, first, first_ending);
    finish(memory, second, second_ending)
}

/// Takes a live line that is still in the state `observed` from all packets; gives the state it is
/// in then.
#[inline(always)]
pub fn end<M: Memory>(memory: &M, place: M::Place, observed: State) -> Option<State> {
    let ending = observed.with_phase(Phase::Ending);
    if observed.is_live() && memory.swap(place, STATE, observed.word(), ending.word()) {
        Some(ending)
    } else {
        None
    }
}

/// Gives a line back to packets that [`end`] took from them; whether it was still `ending`.
#[inline(always)]
pub fn put_back<M: Memory>(memory: &M, place: M::Place, ending: State) -> bool {
    let live = ending.with_phase(Phase::Live);
    memory.swap(place, STATE, ending.word(), live.word())
}

/// Frees a line that [`end`] took: its bit in the reach first, then the place. Whether it was still
/// `ending`.
#[inline(always)]
pub fn finish<M: Memory>(memory: &M, line: Line<M::Place>, ending: State) -> bool {
    let words = [memory.load(line.place, KEY), memory.load(line.place, KEY + 1)];
    let key = Hashed::from_words(memory, words);
    // One of the homes has the bit. The place is ours until it is free, so a bit for it in another one
    // can be nobody's.
    for choice in 0..CHOICES {
        memory.clear_reach(key.home(memory, choice), line.index);
    }
    memory.swap(line.place, STATE, ending.word(), ending.freed().word())
}

/// Clears the bit that stands for the record number `index` in the reach of a home, if it has one.
#[inline(always)]
pub fn clear_reach<M: Memory>(memory: &M, home: u32, index: u32) {
    let bit = bit(home, index);
    if bit != 0
        && let Some(place) = memory.place(home)
        && memory.load(place, REACH) & bit != 0
    {
        memory.clear_bits(place, REACH, bit);
    }
}

/// The bit in the reach of a home that stands for the record number `index`; 0 if none does.
#[inline(always)]
fn bit(home: u32, index: u32) -> u64 {
    let mut bit = 0;
    for offset in 0..WINDOW {
        if home.wrapping_add(distance(offset)) == index {
            bit = 1 << offset;
        }
    }
    opaque(bit)
}
