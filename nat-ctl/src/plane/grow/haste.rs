//! Work of a growth comes before everything that is not real-time itself.
//!
//! Packets may take all of the CPUs, and then an agent with an ordinary priority comes late just when
//! the table fills. It is a second or two in the life of a gateway; the kernel keeps some per cent of
//! each CPU from real-time work in any case (Documentation/scheduler/sched-rt-group.rst).
#![allow(unsafe_code, reason = "system calls that have no wrapper")]

use std::mem;

use nix::libc::{
    SCHED_FIFO, SCHED_OTHER, SCHED_RESET_ON_FORK, c_int, sched_param, sched_setscheduler,
};

/// Holds the calling thread in the lowest real-time priority, until its end.
#[derive(Debug)]
pub struct Haste(());

impl Haste {
    /// From now on; where the kernel refuses, nothing changes. Threads that are made meanwhile are
    /// ordinary ones.
    pub fn begin() -> Self {
        set(SCHED_FIFO | SCHED_RESET_ON_FORK, 1);
        Self(())
    }
}

impl Drop for Haste {
    fn drop(&mut self) {
        set(SCHED_OTHER, 0);
    }
}

fn set(policy: c_int, priority: c_int) {
    // SAFETY: a record of integers, for which zero is a value.
    let mut parameters: sched_param = unsafe { mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: it reads the record, for the calling thread (0). Without the right to it the work takes
    // longer, and that is all.
    let _ = unsafe { sched_setscheduler(0, policy, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{libc::sched_getscheduler, unistd::geteuid};

    #[test]
    fn a_thread_is_in_haste_until_the_end_of_its_work() {
        // SAFETY: no memory is involved.
        let policy = || unsafe { sched_getscheduler(0) };
        if !geteuid().is_root() {
            eprintln!("SKIPPED a_thread_is_in_haste: needs root");
            return;
        }
        let before = policy();
        let haste = Haste::begin();
        assert_eq!(policy(), SCHED_FIFO | SCHED_RESET_ON_FORK);
        assert_eq!(std::thread::spawn(policy).join().unwrap(), SCHED_OTHER);
        drop(haste);
        assert_eq!(policy(), before);
    }
}
