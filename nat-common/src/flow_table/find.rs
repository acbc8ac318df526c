//! Finding the line of a key, and reading what it says.

use super::{CHOICES, Found, Hashed, Memory, SPILLED, WINDOW, distance};
use crate::{
    flow::Flow,
    opaque::opaque,
    record::{ACTION, FlowRecord, KEY, KEY_MASK, PACKETS_LOW, REACH, STATE, State, WORDS},
};

/// What a home of a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHome<P> {
    /// Here it is.
    Found(Found<P>),
    /// It may lie at another home.
    Spilled,
    /// There is none.
    None,
}

/// The line that has `key`, live or ending.
#[inline(always)]
pub fn find<M: Memory>(memory: &M, key: &Hashed) -> Option<Found<M::Place>> {
    match find_near(memory, key) {
        AtHome::Found(found) => Some(found),
        AtHome::Spilled => find_far(memory, key),
        AtHome::None => None,
    }
}

/// The same at its first home: what nearly every packet needs while flows are few.
#[inline(always)]
pub fn find_near<M: Memory>(memory: &M, key: &Hashed) -> AtHome<M::Place> {
    find_at(memory, key, key.home(memory, 0))
}

/// The same at one of its homes.
#[inline(always)]
pub fn find_at<M: Memory>(memory: &M, key: &Hashed, home: u32) -> AtHome<M::Place> {
    let Some(place) = memory.place(home) else { return AtHome::None };
    let reach = memory.load(place, REACH);
    match probe(memory, key, home, reach) {
        Some(found) => AtHome::Found(found),
        None if reach & SPILLED != 0 => AtHome::Spilled,
        None => AtHome::None,
    }
}

/// The same at its other homes.
#[inline(always)]
fn find_far<M: Memory>(memory: &M, key: &Hashed) -> Option<Found<M::Place>> {
    for choice in 1..CHOICES {
        match find_at(memory, key, key.home(memory, choice)) {
            AtHome::Found(found) => return Some(found),
            AtHome::Spilled => {}
            AtHome::None => return None,
        }
    }
    None
}

/// The line of `key` among those of a home.
#[inline(always)]
fn probe<M: Memory>(memory: &M, key: &Hashed, home: u32, reach: u64) -> Option<Found<M::Place>> {
    let mut bits = reach & (SPILLED - 1);
    for offset in 0..WINDOW {
        if bits == 0 {
            return None;
        }
        if bits & 1 != 0 {
            let place = memory.place(home.wrapping_add(distance(offset)))?;
            let state = State::from_word(memory.load(place, STATE));
            let [first, second] = [memory.load(place, KEY), memory.load(place, KEY + 1)];
            // One branch, for all that the verifier goes through is multiplied by them.
            let differs = (first ^ key.words[0]) | ((second & KEY_MASK) ^ key.words[1]);
            if differs == 0 && state.has_key() {
                return Some(Found { place, home, offset: opaque(offset as u64) as u32, state });
            }
        }
        // Whatever was seen of the bits before.
        bits = opaque(bits >> 1);
    }
    None
}

/// The flow in a line that was found in the state `observed`, and the state it is in now; `None` if
/// that flow is ending or gone.
#[inline(always)]
pub fn load_flow<M: Memory>(memory: &M, place: M::Place, observed: State) -> Option<(Flow, State)> {
    let mut words = [0; WORDS];
    words[KEY + 1] = memory.load(place, KEY + 1);
    words[ACTION] = memory.load(place, ACTION);
    words[ACTION + 1] = memory.load(place, ACTION + 1);
    words[PACKETS_LOW / 8] = memory.load(place, PACKETS_LOW / 8);
    let state = State::from_word(memory.load(place, STATE));
    if !state.lives_on(observed) {
        return None;
    }
    words[STATE] = state.word();
    Some((FlowRecord::from_words(words).flow(), state))
}
