//! When the flow table has to grow, and to what size.
//!
//! Invariant: pure, and cheap while there is room: the table itself is counted only when the flows
//! made since the last count could have filled it.

use nat_common::flow_table;

/// Flows that a fresh table has room for, where the limit is not lower. A burst that fills a table
/// has to wait for the next one, whose programs take most of a second to load: a small table is full
/// before. So only a limit above the default makes a table grow.
pub const FIRST: u32 = 1_048_576;
/// How many times as large the next table is.
const FACTOR: u32 = 16;
/// Per cent of the room that may be taken before the table grows.
const FILLED: u64 = 40;

/// Flows that a table of so many homes has room for: two lines each.
pub const fn room(homes: u32) -> u32 {
    (flow_table::room(homes) / 2) as u32
}

/// Flows that a fresh table has room for, with this limit and where nothing else is asked for. A larger
/// one has to take on all that is in it, and leave room for new flows meanwhile.
pub const fn first(limit: u32, first: u32) -> u32 {
    if limit < first.saturating_mul(2) { limit } else { first }
}

/// The next size of a table with room for so many flows; `None` at the limit.
pub fn larger(flows: u32, limit: u32) -> Option<u32> {
    (flows < limit).then(|| flows.saturating_mul(FACTOR).min(limit))
}

/// Whether so many flows are enough for the next size.
pub const fn is_short(used: u64, room: u32) -> bool {
    used * 100 > room as u64 * FILLED
}

/// What was known of the table when it was counted last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauge {
    used: u64,
    made: u64,
    refused: u64,
    /// The second in which it was counted: a large table takes its time, and once is enough.
    at: u32,
}

impl Gauge {
    /// Whether the table has to grow, when so many flows have ever been made and so many refused for
    /// want of room, by the second `now`. `count` counts the flows in the table.
    pub fn needs(
        &mut self,
        now: u32,
        made: u64,
        refused: u64,
        room: u32,
        count: impl Fn() -> u64,
    ) -> bool {
        if refused > self.refused {
            self.refused = refused;
            return true;
        }
        let most = self.used.saturating_add(made.saturating_sub(self.made));
        if !is_short(most, room) || now == self.at {
            return false;
        }
        *self = Self { used: count(), made, refused, at: now };
        is_short(self.used, room)
    }

    /// Refusals that a predecessor has seen are none of this table's.
    pub fn behind(refused: u64) -> Self {
        Self { refused, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::flow_table::{homes, places};
    use std::cell::Cell;

    #[test]
    fn a_table_has_the_room_that_it_was_made_for() {
        for flows in [1, 64, 65_536, 1_048_576] {
            assert_eq!(room(homes(places(2 * flows))), flows);
        }
    }

    #[test]
    fn a_limit_that_a_fresh_table_would_hardly_grow_to_is_its_size_at_once() {
        assert_eq!(
            [1, 100, 199, 200, 1000].map(|limit| first(limit, 100)),
            [1, 100, 199, 100, 100]
        );
    }

    #[test]
    fn tables_grow_by_sixteen_up_to_the_limit() {
        let mut sizes = vec![65_536];
        while let Some(next) = larger(*sizes.last().unwrap(), 1_500_000) {
            sizes.push(next);
        }
        assert_eq!(sizes, [65_536, 1_048_576, 1_500_000]);
        assert_eq!(larger(100, 100), None);
        assert_eq!(larger(200, 100), None);
    }

    #[test]
    fn a_table_is_counted_only_when_it_may_be_short_and_grows_only_when_it_is() {
        let counts = Cell::new(0);
        let count = |used| {
            let counts = &counts;
            move || {
                counts.set(counts.get() + 1);
                used
            }
        };
        let mut gauge = Gauge::default();
        assert!(!gauge.needs(1, 40, 0, 100, count(40)));
        assert_eq!(counts.get(), 0);
        // Many were made, and are over again.
        assert!(!gauge.needs(1, 41, 0, 100, count(10)));
        assert!(!gauge.needs(2, 71, 0, 100, count(40)));
        assert_eq!(counts.get(), 1);
        // Twice in a second would be too often.
        assert!(!gauge.needs(1, 72, 0, 100, count(41)));
        assert_eq!(counts.get(), 1);
        assert!(gauge.needs(2, 72, 0, 100, count(41)));
        assert_eq!(counts.get(), 2);
    }

    #[test]
    fn a_flow_without_room_makes_the_table_grow_whatever_is_in_it() {
        let mut gauge = Gauge::behind(5);
        assert!(!gauge.needs(1, 1, 5, 100, || 1));
        assert!(gauge.needs(1, 1, 6, 100, || 1));
        assert!(!gauge.needs(1, 1, 6, 100, || 1));
    }
}
