//! Which flows end before their time, so that a table that is nearly full has room for new ones: those
//! that nobody has answered, and TCP handshakes that nobody has completed, the oldest first.
//!
//! Invariant: pure. A flow that was answered once is never among them, and neither is one that is
//! younger than [`LEAST`]: an answer may be on its way.

use std::ops::Range;

/// From this part of the room on, in percent, flows end early.
const MARK: u64 = 85;

/// So many that this part is left in use.
const TARGET: u64 = 75;

/// Seconds that each may wait for its answer: the first SYN and two repetitions of it have been sent by
/// then (RFC 6298 section 2: after 1 second, and 2 more).
pub const LEAST: u32 = 4;

/// Ages that are told apart, in seconds; the last one has all that are older.
const AGES: Range<u32> = LEAST..300;

/// How old unanswered flows are, and how old they may be.
#[derive(Debug, Default)]
pub struct Pressure {
    /// How many there are of each age.
    ages: Vec<u64>,
    patience: Option<u32>,
}

impl Pressure {
    /// An unanswered flow was met that was made so long ago; whether it has to end.
    pub fn meets(&mut self, age: u32) -> bool {
        if self.patience.is_some_and(|patience| age >= patience) {
            return true;
        }
        if age >= AGES.start {
            let age = age.min(AGES.end - 1) - AGES.start;
            self.ages.resize((AGES.end - AGES.start) as usize, 0);
            if let Some(count) = self.ages.get_mut(age as usize) {
                *count += 1;
            }
        }
        false
    }

    /// Ends a walk that has left so many lines in a table with room for so many, of which each flow has `each`.
    pub fn settle(&mut self, lines: u64, room: u64, each: u64) {
        self.patience = None;
        if lines * 100 >= room * MARK {
            let mut wanted = lines.saturating_sub(room * TARGET / 100) / each.max(1);
            for (age, count) in AGES.zip(&self.ages).rev() {
                if wanted == 0 {
                    break;
                }
                if *count > 0 {
                    self.patience = Some(age);
                    wanted = wanted.saturating_sub(*count);
                }
            }
        }
        self.ages.fill(0);
    }

    /// Whether any flow has to end.
    pub fn is_on(&self) -> bool {
        self.patience.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for so many lines, of which each flow has two.
    const ROOM: u64 = 2000;

    /// How old flows may be after a walk that has met these.
    fn patience(lines: u64, met: impl IntoIterator<Item = u32>) -> Option<u32> {
        let mut pressure = Pressure::default();
        for age in met {
            assert!(!pressure.meets(age), "nothing ends while there is room");
        }
        pressure.settle(lines, ROOM, 2);
        assert_eq!(pressure.is_on(), pressure.patience.is_some());
        pressure.patience
    }

    #[test]
    fn nothing_ends_below_the_mark_and_nothing_young_above_it() {
        assert_eq!(patience(1600, [100; 500]), None);
        assert_eq!(patience(1990, [LEAST - 1; 900]), None);
        assert_eq!(patience(1990, []), None);
    }

    #[test]
    fn the_oldest_end_first_and_as_many_as_are_needed() {
        // 1990 lines, of which 1499 may stay: 246 flows.
        assert_eq!(patience(1990, (0..1000).map(|n| n % 100)), Some(75));
        assert_eq!(patience(1990, (0..300).map(|n| 100 + n % 2)), Some(100));
        assert_eq!(patience(1990, [7, 9, 1000]), Some(7));
    }

    #[test]
    fn what_is_older_than_that_ends_and_the_next_walk_begins_anew() {
        let mut pressure = Pressure::default();
        (0..300).for_each(|_| assert!(!pressure.meets(50)));
        pressure.settle(1990, ROOM, 2);
        assert!(pressure.meets(50) && pressure.meets(299) && !pressure.meets(49));
        pressure.settle(1400, ROOM, 2);
        assert!(!pressure.meets(299));
    }
}
