//! Waits on conditions, never on the clock alone.
//!
//! Invariant: every wait has a deadline, says at its end what it waited for, and ends early once the
//! user has interrupted the run.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::interrupt;

/// The shortest pause between two looks at a condition, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(50)];

/// Of the time that was waited already, the part that is waited before the next look. Many looks start
/// programs, and whoever waits for seconds must not keep a core from those that are waited for.
const PART: u32 = 16;

/// Looks at `condition` until it gives a value; an error of the condition ends the wait.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        interrupt::check()?;
        let waited = start.elapsed();
        if waited > limit {
            bail!("waited {:.1} s for {what}, in vain", limit.as_secs_f64());
        }
        let [shortest, longest] = PAUSES;
        thread::sleep((waited / PART).clamp(shortest, longest));
    }
}

/// Like [`until`], for conditions that are only true or not yet.
pub fn until_true(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(limit, what, || Ok(condition()?.then_some(())))
}
