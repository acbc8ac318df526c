//! Whether the gateway refuses new flows now, because a table or the public ports are full, or
//! a host is at its limit.
//!
//! Invariant: pure; what is told follows from the counters of drops, so that a state and its counter
//! never disagree.

use nat_common::reason::Reason;

use crate::output::OverloadView;

/// The reasons for which new flows are refused.
const REASONS: [Reason; 3] = [Reason::TableFull, Reason::PortsExhausted, Reason::HostLimit];

/// Seconds after the last refusal for which the state holds.
const HOLDS: u32 = 10;

/// What was refused, and when last.
#[derive(Debug, Default)]
pub struct Overload {
    states: [Refusals; REASONS.len()],
    /// Flows that had to make room, counted as refusals.
    pressure: Refusals,
}

#[derive(Debug, Default, Clone, Copy)]
struct Refusals {
    /// The counter, at the last look; none yet at the first one.
    count: Option<u64>,
    /// Since this state began.
    refused: u64,
    began: u32,
    last: u32,
}

impl Overload {
    /// Looks at the counters; once a second. Gives back the states that have begun.
    pub fn look(&mut self, now: u32, mut count: impl FnMut(Reason) -> Option<u64>) -> Vec<Reason> {
        let mut begun = vec![];
        for (reason, state) in REASONS.into_iter().zip(&mut self.states) {
            let Some(count) = count(reason) else { continue };
            let before = state.count.replace(count).unwrap_or(count);
            let more = count.saturating_sub(before);
            if more == 0 {
                continue;
            }
            if state.add(more, now) {
                begun.push(reason);
            }
        }
        begun
    }

    /// So many flows had to make room; whether that has begun now.
    pub fn make_room(&mut self, flows: u64, now: u32) -> bool {
        flows > 0 && self.pressure.add(flows, now)
    }

    /// The states that hold.
    pub fn states(&self, now: u32) -> Vec<OverloadView> {
        let held = REASONS.into_iter().zip(&self.states).filter(|(_, state)| state.holds(now));
        let view = |state: &str, held: &Refusals, refused, ended| OverloadView {
            state: state.to_owned(),
            refused,
            ended,
            for_s: now.saturating_sub(held.began).into(),
            // Who looks at the hosts adds them.
            hosts: vec![],
        };
        let refusing = held.map(|(reason, state)| view(reason.name(), state, state.refused, 0));
        let pressure = Some(&self.pressure).filter(|pressure| pressure.holds(now));
        let ending = pressure.map(|held| view(OverloadView::PRESSURE, held, 0, held.refused));
        refusing.chain(ending).collect()
    }
}

impl Refusals {
    /// Adds to the state; whether it has begun now.
    fn add(&mut self, more: u64, now: u32) -> bool {
        let begins = !self.holds(now);
        if begins {
            (self.began, self.refused) = (now, 0);
        }
        self.refused += more;
        self.last = now;
        begins
    }

    fn holds(&self, now: u32) -> bool {
        self.refused > 0 && now.saturating_sub(self.last) <= HOLDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_begins_with_a_refusal_and_ends_some_time_after_the_last_one() {
        let mut overload = Overload::default();
        let mut look = |now, full: u64| {
            let begun =
                overload.look(now, |reason| Some(u64::from(reason == Reason::TableFull) * full));
            (begun, overload.states(now))
        };
        let full = |refused, for_s| OverloadView {
            state: "table-full".to_owned(),
            refused,
            ended: 0,
            for_s,
            hosts: vec![],
        };
        // What an earlier agent has seen is no news.
        assert_eq!(look(100, 7), (vec![], vec![]));
        assert_eq!(look(101, 9), (vec![Reason::TableFull], vec![full(2, 0)]));
        assert_eq!(look(105, 10), (vec![], vec![full(3, 4)]));
        assert_eq!(look(115, 10), (vec![], vec![full(3, 14)]));
        assert_eq!(look(116, 10), (vec![], vec![]));
        assert_eq!(look(120, 11), (vec![Reason::TableFull], vec![full(1, 0)]));
    }

    #[test]
    fn flows_that_make_room_are_a_state_of_their_own() {
        let mut overload = Overload::default();
        assert!(!overload.make_room(0, 99) && overload.states(99).is_empty());
        assert!(overload.make_room(3, 100) && !overload.make_room(4, 102));
        let pressure = |ended, for_s| OverloadView {
            state: "table-pressure".to_owned(),
            refused: 0,
            ended,
            for_s,
            hosts: vec![],
        };
        assert_eq!(overload.states(105), [pressure(7, 5)]);
        assert!(overload.states(113).is_empty() && overload.make_room(1, 113));
        assert_eq!(overload.states(113), [pressure(1, 0)]);
    }
}
