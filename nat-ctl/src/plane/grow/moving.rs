//! Flows are moved from one table to the other by a program, as packets move those that they need.
#![allow(unsafe_code, reason = "a system call that has no wrapper")]

use nat_common::{
    layout::MOVES,
    record::{Phase, State},
};
use nix::libc::{SYS_membarrier, syscall};

use crate::plane::{error::Result, flow_memory::FlowMemory, object::Object};

/// Looks at the whole table. A flow stays for one more when a packet uses it in that very instant.
const ROUNDS: u32 = 32;

/// Moves all flows out of `before`; gives back how many lines would not go.
///
/// # Errors
/// Where the kernel does not run the program.
pub fn move_all(object: &mut Object, before: &FlowMemory) -> Result<u64> {
    let mut ending: Vec<(u32, State)> = vec![];
    for _ in 0..ROUNDS {
        let mut left: Vec<(u32, State)> = vec![];
        for first in (0..before.places()).step_by(MOVES as usize) {
            if before.states(first, MOVES).next().is_some() {
                object.move_flows(first)?;
                left.extend(before.states(first, MOVES));
            }
        }
        if left.is_empty() {
            return Ok(0);
        }
        // A packet is done with such a line in the time of a round; whoever is not has died.
        for (place, state) in &left {
            if state.phase() == Phase::Ending && ending.contains(&(*place, *state)) {
                before.finish(*place, *state);
            }
        }
        left.retain(|(_, state)| state.phase() == Phase::Ending);
        ending = left;
    }
    Ok(before.states(0, before.places()).count() as u64)
}

/// Waits until every program is done that was at work when this was called.
pub fn wait_for_programs() {
    /// linux/membarrier.h: MEMBARRIER_CMD_GLOBAL, which waits as synchronize_rcu does.
    const GLOBAL: i32 = 1;
    // SAFETY: it takes no memory. Every kernel that has what the programs need has it; and all that
    // hangs on it is one packet in a moment of nanoseconds.
    let _ = unsafe { syscall(SYS_membarrier, GLOBAL, 0, 0) };
}
