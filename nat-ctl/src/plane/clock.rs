//! The one place that reads a clock.
//!
//! Invariant: the same clock as the data plane's, so that times in maps and times here compare. The
//! data plane reads the coarse clock, which lags by a tick at most: a time in a map is never ahead
//! of [`Now`], and differences saturate at 0 all the same.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Seconds of CLOCK_MONOTONIC, as in all maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(u32);

impl Now {
    /// A moment that is known already: in tests, and from a map.
    pub const fn at(seconds: u32) -> Self {
        Self(seconds)
    }

    /// The seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Seconds that have passed since `then`; 0 where `then` is ahead.
    pub const fn since(self, then: u32) -> u32 {
        self.0.saturating_sub(then)
    }
}

/// The time, now.
pub fn now() -> Now {
    Now(u32::try_from(moment().as_secs()).unwrap_or(u32::MAX))
}

/// The same clock, finer: for what happens between two seconds.
pub fn moment() -> Duration {
    // CLOCK_MONOTONIC exists on every Linux; it cannot fail with a valid pointer (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
