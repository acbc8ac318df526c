//! Flows are moved from one table to the other by a program, as packets move those that they need.
//!
//! Invariant: it ends only when nothing is left in the smaller table. A flow whose place in the larger
//! one is taken goes on where it lies, and is tried again.
#![allow(unsafe_code, reason = "a system call that has no wrapper")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nat_common::{
    layout::MOVES,
    record::{Phase, State},
};
use nix::libc::{SYS_membarrier, syscall};

use super::{haste::Haste, tables};
use crate::plane::{
    clock,
    error::{PlaneError, Result},
    flow_memory::FlowMemory,
    hops,
    object::{Needed, Object, Sizes, Table},
};

/// Between two looks at the whole table, at first and at most. A flow stays for one more when a packet
/// uses it in that very instant; or for many, where the larger table has no place for it yet.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// How long a line may be ending. A packet is done with it in microseconds; whoever is not has died.
const ENDING: Duration = Duration::from_secs(2);

/// The thread that moves the flows, and loads the programs that know the larger table alone.
#[derive(Debug)]
pub struct Moving {
    thread: Option<JoinHandle<Result<Option<Object>>>>,
    stopped: Arc<AtomicBool>,
}

/// What the thread works on.
#[derive(Debug)]
pub struct Work {
    /// Where the tables are pinned.
    pub pins: PathBuf,
    /// Of the other maps.
    pub sizes: Sizes,
    /// Which programs are wanted.
    pub needed: Needed,
    /// The epoch of next hops when it begins.
    pub epoch: u32,
}

impl Moving {
    /// Begins, when programs with both tables are attached everywhere.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(work: Work) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = stopped.clone();
        let thread = thread::Builder::new()
            .name("move".to_owned())
            .spawn(move || work.run(&told))
            .map_err(PlaneError::refused("move flows to a larger table"))?;
        Ok(Self { thread: Some(thread), stopped })
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The programs that take over when all flows have moved; `None` where it was stopped.
    ///
    /// # Errors
    /// Where the kernel refused something.
    pub fn end(mut self) -> Result<Option<Object>> {
        let Some(thread) = self.thread.take() else { return Ok(None) };
        thread.join().unwrap_or_else(|_| {
            Err(PlaneError::Refused {
                what: "move flows to a larger table".to_owned(),
                why: "its thread has ended".to_owned(),
            })
        })
    }
}

impl Drop for Moving {
    /// Nothing moves on behind the back of a successor.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has to say is of no use any more.
            let _ended = thread.join();
        }
    }
}

impl Work {
    fn run(self, stopped: &AtomicBool) -> Result<Option<Object>> {
        let _haste = Haste::begin();
        let Self { pins, sizes, needed, epoch } = self;
        let now = Table::pinned(&pins, tables::NOW)?;
        if !move_to(&pins, &sizes, &now, stopped)? {
            return Ok(None);
        }
        hops::forget_before(&pins, epoch)?;
        let mut alone = Object::load(&pins, &sizes, &now, None)?;
        alone.prepare(needed)?;
        Ok(Some(alone))
    }
}

/// Moves all flows to the table `now`; `false` where it was stopped before.
fn move_to(pins: &Path, sizes: &Sizes, now: &Table, stopped: &AtomicBool) -> Result<bool> {
    let before = Table::pinned(pins, tables::BEFORE)?;
    let flows = FlowMemory::named(pins, tables::BEFORE)?;
    let mut mover = Object::load(pins, sizes, now, Some(&before))?;
    wait_for_programs();
    let mut ending = HashMap::new();
    let [mut pause, longest] = PAUSES;
    loop {
        let mut left = 0_u64;
        let mut seen = HashMap::new();
        for first in (0..flows.places()).step_by(MOVES as usize) {
            if stopped.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if with_key(&flows, first).next().is_none() {
                continue;
            }
            mover.move_flows(first)?;
            for (place, state) in with_key(&flows, first) {
                left += 1;
                if state.phase() == Phase::Ending {
                    seen.insert(place, state);
                }
            }
        }
        if left == 0 {
            return Ok(true);
        }
        finish_left(&flows, &mut ending, &seen);
        thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// Lines with a flow, live or ending, among those that one run of the program looks at.
fn with_key(flows: &FlowMemory, first: u32) -> impl Iterator<Item = (u32, State)> {
    flows.states(first, MOVES).filter(|(_, state)| state.has_key())
}

/// Frees lines that have been ending for too long; `ending` has those of before, and since when.
fn finish_left(
    flows: &FlowMemory,
    ending: &mut HashMap<u32, (State, Duration)>,
    seen: &HashMap<u32, State>,
) {
    let now = clock::moment();
    ending.retain(|place, (state, _)| seen.get(place) == Some(state));
    for (place, state) in seen {
        let (_, since) = *ending.entry(*place).or_insert((*state, now));
        if now.saturating_sub(since) >= ENDING {
            flows.finish(*place, *state);
        }
    }
}

/// Waits until every program is done that was at work when this was called.
fn wait_for_programs() {
    /// linux/membarrier.h: MEMBARRIER_CMD_GLOBAL, which waits as synchronize_rcu does.
    const GLOBAL: i32 = 1;
    // SAFETY: it takes no memory. Every kernel that has what the programs need has it; and all that
    // hangs on it is one packet in a moment of nanoseconds.
    let _ = unsafe { syscall(SYS_membarrier, GLOBAL, 0, 0) };
}
