//! Noting that a packet uses a flow: the one place where use and expiry meet.

use super::{Memory, TOUCH_TRIES};
use crate::record::{STATE, State};

/// Notes in a line that was in the state `observed` that a packet at `now` uses it and adds `seen`.
/// Whoever wants to end the flow by a word that he read before can't any more.
///
/// Gives the state as it is then; `None` if that flow is ending or gone, so that the packet must not
/// use it. Nothing is written where nothing changes: a flow that was used in this very second is not
/// idle to anybody.
#[inline(always)]
pub fn touch<M: Memory>(
    memory: &M,
    place: M::Place,
    observed: State,
    now: u32,
    seen: u8,
) -> Option<State> {
    let mut state = observed;
    for _ in 0..TOUCH_TRIES {
        if !state.lives_on(observed) {
            return None;
        }
        // The clock of another CPU may be ahead: time in a line never goes back.
        let last_seen = if now > state.last_seen() { now } else { state.last_seen() };
        let used = state.touched(last_seen, seen);
        if used.word() == state.word() || memory.swap(place, STATE, state.word(), used.word()) {
            return Some(used);
        }
        state = State::from_word(memory.load(place, STATE));
    }
    None
}
