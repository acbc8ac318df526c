//! What holds of a table at rest, checked line by line without the search that is under test.

use super::super::{
    CHOICES, Hashed, Memory, SPILLED, WINDOW, distance, find, host::HostMemory, window,
};
use crate::{
    flow::FlowKey,
    record::{KEY, REACH, STATE, State},
};
use std::collections::HashMap;

/// All keys of live lines, with the number of their records; or what is wrong.
///
/// # Errors
/// The first thing that must not be so while no operation is under way.
pub fn check(memory: &HostMemory) -> Result<HashMap<FlowKey, u32>, String> {
    let mut lines = HashMap::new();
    let mut reach = vec![0u64; memory.places() as usize];
    for index in 0..memory.places() {
        let state = State::from_word(memory.load(index, STATE));
        if state.is_free() {
            continue;
        }
        if !state.is_live() {
            return Err(format!("place {index} is left {:?}", state.phase()));
        }
        let key = FlowKey::from_words([memory.load(index, KEY), memory.load(index, KEY + 1)]);
        if let Some(other) = lines.insert(key, index) {
            return Err(format!("{key:?} lies in {other} and in {index}"));
        }
        let (home, bit) = placed_from(memory, &key, index)?;
        reach[home as usize] |= bit;
        match find(memory, &Hashed::new(memory, &key)) {
            Some(found) if found.line().index == index => {}
            other => return Err(format!("{key:?} lies in {index}, found is {other:?}")),
        }
    }
    for (home, wanted) in reach.iter().enumerate() {
        let bits = memory.load(home as u32, REACH) & (SPILLED - 1);
        if bits != *wanted {
            return Err(format!("reach of {home} is {bits:#b}, its lines are {wanted:#b}"));
        }
    }
    Ok(lines)
}

/// From which home a line was placed, and its bit there.
fn placed_from(memory: &HostMemory, key: &FlowKey, index: u32) -> Result<(u32, u64), String> {
    let hashed = Hashed::new(memory, key);
    for choice in 0..CHOICES {
        let home = hashed.home(memory, choice);
        let offset = (0..WINDOW).find(|offset| home + distance(*offset) == index);
        if let Some(offset) = offset
            && memory.load(home, REACH) & 1 << offset != 0
        {
            for before in (0..choice).map(|choice| hashed.home(memory, choice)) {
                if before != home && memory.load(before, REACH) & SPILLED == 0 {
                    return Err(format!("{key:?} lies in {index}, but {before} has not spilled"));
                }
            }
            return Ok((home, 1 << offset));
        }
    }
    Err(format!("{key:?} lies in {index}, which no home of it reaches"))
}

/// Whether every place that the key may lie in is taken.
pub fn is_full_for(memory: &HostMemory, key: &FlowKey) -> bool {
    let hashed = Hashed::new(memory, key);
    (0..CHOICES).all(|choice| {
        let home = hashed.home(memory, choice);
        (0..window(choice))
            .all(|offset| !State::from_word(memory.load(home + distance(offset), STATE)).is_free())
    })
}

/// Whether no lock is taken.
pub fn is_unlocked(memory: &HostMemory) -> bool {
    (0..super::super::STRIPES).all(|stripe| {
        let free = memory.lock(stripe);
        if free {
            memory.unlock(stripe);
        }
        free
    })
}
