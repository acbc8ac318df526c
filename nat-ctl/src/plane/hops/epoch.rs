//! The number of the routing that next hops were found in, and when it moves on.
//!
//! Invariant: every change moves it on, the first one at once; changes that follow within
//! [`Epoch::REST`] share the next move, so that a full table of routes costs 100 moves a second and
//! not one for each route.

use std::time::Duration;

/// Which routing the next hops of flows belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    number: u32,
    moved: Option<Duration>,
    changed: bool,
}

impl Epoch {
    /// Time between two moves.
    pub const REST: Duration = Duration::from_millis(10);

    /// The one behind what a predecessor has left (0: none): what changed since nobody knows.
    pub fn after(left: u32) -> Self {
        Self { number: successor(left), moved: None, changed: false }
    }

    /// Its number; never 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The routing has changed: it is to move on.
    pub fn void(&mut self) {
        self.changed = true;
    }

    /// When it may move on again, if that is yet to come.
    pub fn rests_until(&self, now: Duration) -> Option<Duration> {
        self.moved.map(|moved| moved + Self::REST).filter(|until| now < *until)
    }

    /// When it is to move on, if it is.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.changed.then(|| self.rests_until(now).unwrap_or(now))
    }

    /// Moves on, where that is due; the data plane is to be told.
    pub fn advance(&mut self, now: Duration) -> bool {
        let due = self.due(now).is_some_and(|due| due <= now);
        if due {
            *self = Self { number: successor(self.number), moved: Some(now), changed: false };
        }
        due
    }

    /// How many moves ago `earlier` was; for what the data plane read just before a move, and for
    /// numbers from before a wrap, too.
    pub fn age(&self, earlier: u32) -> u32 {
        let age = self.number.wrapping_sub(earlier);
        // A number ahead of this one is that of a successor which has died, at most.
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

fn successor(number: u32) -> u32 {
    match number.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_change_moves_at_once_and_those_that_follow_share_a_move() {
        let mut epoch = Epoch::after(0);
        assert_eq!((epoch.number(), epoch.due(at(0))), (1, None));
        assert!(!epoch.advance(at(0)));
        epoch.void();
        assert!(epoch.advance(at(1000)));
        assert_eq!(epoch.number(), 2);
        for millisecond in 1001..1010 {
            epoch.void();
            assert_eq!(epoch.due(at(millisecond)), Some(at(1010)));
            assert!(!epoch.advance(at(millisecond)));
        }
        assert!(epoch.advance(at(1010)));
        assert_eq!((epoch.number(), epoch.due(at(1010))), (3, None));
        assert!(!epoch.advance(at(5000)));
    }

    #[test]
    fn a_second_of_changes_moves_a_hundred_times() {
        let mut epoch = Epoch::after(7);
        let moves = (0..100_000).filter(|tenth| {
            epoch.void();
            epoch.advance(Duration::from_micros(tenth * 10))
        });
        assert_eq!(moves.count(), 100);
    }

    #[test]
    fn zero_is_skipped() {
        assert_eq!(Epoch::after(u32::MAX).number(), 1);
        let mut epoch = Epoch::after(u32::MAX - 1);
        assert_eq!(epoch.number(), u32::MAX);
        epoch.void();
        assert!(epoch.advance(at(0)));
        assert_eq!(epoch.number(), 1);
        assert_eq!((epoch.age(1), epoch.age(2)), (0, 0));
        assert_eq!(epoch.age(u32::MAX), 2, "one move, and the 0 that it skipped");
    }
}
