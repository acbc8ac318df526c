//! When to look for next hops that packets have taken: nobody tells of them.
//!
//! A hop that nobody has seen works, by a question to the kernel for each packet; so what is at stake
//! is speed, and a look at all places (512 KB) is not free either. The beat looks once a second.
//! Between beats there are looks only where new hops are likely: after a neighbour was found that no
//! known hop leads to, after the epoch has moved on, and after a look that found something; at once,
//! then after 20 ms, and each time after twice as long, until the beat is as good. So at rest there
//! is nothing but the beat, and under a stream of new hops a look every 20 ms.
//!
//! Invariant: between two looks there is at least [`FIRST`], but for those of the beat.

use std::time::Duration;

/// Shortest rest.
const FIRST: Duration = Duration::from_millis(20);
/// From this rest on the beat is as good.
const BEAT: Duration = Duration::from_secs(1);

/// When to look.
#[derive(Debug, Default)]
pub struct Rounds {
    last: Option<Duration>,
    next: Option<Duration>,
    rest: Duration,
}

impl Rounds {
    /// New hops are likely.
    pub fn hurry(&mut self, now: Duration) {
        let soon = self.last.map_or(now, |last| now.max(last + FIRST));
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        self.rest = FIRST;
    }

    /// When the next look is due, if one is.
    pub fn due(&self) -> Option<Duration> {
        self.next
    }

    /// There was a look, that has `found` something or not.
    pub fn looked(&mut self, now: Duration, found: bool) {
        self.last = Some(now);
        if found {
            self.rest = FIRST;
        } else if self.next.is_none() {
            return;
        }
        self.next = (self.rest < BEAT).then(|| now + self.rest);
        self.rest *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of the looks in a time in which none finds anything.
    fn looks(rounds: &mut Rounds, times: std::ops::Range<u64>) -> Vec<u64> {
        let due = |millisecond: &u64| {
            let now = Duration::from_millis(*millisecond);
            let due = rounds.due().is_some_and(|due| due <= now);
            if due {
                rounds.looked(now, false);
            }
            due
        };
        times.filter(due).collect()
    }

    #[test]
    fn looks_grow_rare_and_end() {
        let mut rounds = Rounds::default();
        assert!(looks(&mut rounds, 0..100).is_empty());
        rounds.hurry(Duration::from_millis(100));
        let expected = [100, 120, 160, 240, 400, 720, 1360];
        assert_eq!(looks(&mut rounds, 100..100_000), expected);
    }

    #[test]
    fn a_beat_that_finds_nothing_starts_nothing_and_one_that_finds_does() {
        let mut rounds = Rounds::default();
        rounds.looked(Duration::from_secs(1), false);
        assert!(looks(&mut rounds, 1000..9000).is_empty());
        rounds.looked(Duration::from_secs(9), true);
        assert_eq!(looks(&mut rounds, 9000..9200), [9020, 9060, 9140]);
    }

    #[test]
    fn who_hurries_all_the_time_still_rests() {
        let mut rounds = Rounds::default();
        let mut count = 0;
        for microseconds in (0..1_000_000).step_by(100) {
            let now = Duration::from_micros(microseconds);
            rounds.hurry(now);
            if rounds.due().is_some_and(|due| due <= now) {
                rounds.looked(now, true);
                count += 1;
            }
        }
        assert_eq!(count, 50);
    }
}
