//! Work on one core: where both ends and the gateway share it, no wake-up of another core is in what
//! is measured, and the time that passes is the time that all of them took.

use std::{panic::resume_unwind, process::Command, thread};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, gettid},
};

use crate::process;

/// Ties the calling thread, and what it starts, to a core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("name core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("pin a thread to core {core}"))
}

/// Starts a process that stays on a core and goes first there. From this very thread, as the end of
/// the one that started it would end it.
pub(super) fn start_first_on_core<T>(core: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = Pid::from_raw(0);
    let before = sched_getaffinity(own).context("ask for one's cores")?;
    pin(core)?;
    chrt(gettid(), "--fifo", "1")?;
    let started = start();
    chrt(gettid(), "--other", "0")?;
    sched_setaffinity(own, &before).context("give a thread its cores back")?;
    started
}

/// Lets the main thread of a process go before everything that isn't real-time. Where the machine
/// does something else meanwhile, a measure then shows the work and not the queue for the core. Its
/// other threads stay as they are: what they do aside would else hold up all the rest.
pub(super) fn put_first(process: u32) -> Result<()> {
    let main = i32::try_from(process).context("a process id beyond i32")?;
    chrt(Pid::from_raw(main), "--fifo", "1")
}

/// Runs `work` on a thread of its own, tied to a core.
pub(super) fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(core)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The same, before everything that isn't real-time.
pub(super) fn first_on_core<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_core(core, || {
        chrt(gettid(), "--fifo", "1")?;
        work()
    })
}

/// Sets the policy of one thread.
fn chrt(thread: Pid, policy: &str, priority: &str) -> Result<()> {
    let thread = thread.to_string();
    process::must(Command::new("chrt").args([policy, "--pid", priority, &thread])).map(drop)
}

#[cfg(test)]
mod tests {
    use nix::sched::sched_getaffinity;

    use super::*;

    #[test]
    fn work_is_on_its_core_and_the_caller_stays_free() {
        let own = || sched_getaffinity(Pid::from_raw(0)).map_err(anyhow::Error::from);
        let before = own().unwrap();
        let inside = on_core(0, own).unwrap();
        let cores = (0..CpuSet::count()).filter(|core| inside.is_set(*core).unwrap_or(false));
        assert_eq!(cores.collect::<Vec<_>>(), [0]);
        assert_eq!(own().unwrap(), before);
    }
}
