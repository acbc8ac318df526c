//! Moving a line to another table, of another size: how the table grows while it is in use.
//!
//! ```text
//!   before  Live -> Ending ----------------------> Free
//!   now              copied: Free -> Claimed -> Live
//! ```
//!
//! A packet that looks for the key in between finds the ending line, and is refused; it is repeated,
//! and finds the flow in its new place. What packets do with two tables is in [`super::growing`].

use super::{Found, Hashed, Memory, Refused, end, finish, insert::insert_line, put_back};
use crate::{
    flow::FlowKey,
    record::{KEY, STATE},
};

/// Moves the flow in the line `found` of the table `before` to the table `now`; both have the same
/// seeds.
///
/// # Errors
/// [`Refused::Busy`] when a packet used it just now, or others have its lock; [`Refused::Full`]. It is
/// where it was then.
#[inline(always)]
pub fn relocate<B: Memory, N: Memory>(
    before: &B,
    now: &N,
    found: Found<B::Place>,
) -> Result<Found<N::Place>, Refused> {
    let Some(ending) = end(before, found.place, found.state) else {
        return Err(Refused::Busy);
    };
    // Ours, so that it may be read word by word while it is written where it goes.
    let line = |word| match word {
        STATE => ending.word(),
        _ => before.load(found.place, word),
    };
    let key = Hashed::new(now, &FlowKey::from_words([line(KEY), line(KEY + 1)]));
    let moved = insert_line(now, &key, line);
    match moved {
        // What is in both tables counts in the new one alone.
        Ok(_) | Err(Refused::Exists) => {
            finish(before, found.line(), ending);
        }
        Err(Refused::Busy | Refused::Full) => {
            put_back(before, found.place, ending);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::{Direction, Flow, Origin, Rewrite, Zone},
        flow_table::{find, host::HostMemory, insert, load_flow, places, touch},
        port::Port,
        record::{BYTES, PACKETS_LOW, REACH},
        rule::RuleId,
    };

    const SEEDS: [u64; 2] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321];

    fn key(number: u16) -> FlowKey {
        let far = [198, 51, 100, 7];
        FlowKey::new(Zone::Inside, 17, [10, 0, 0, 2], Port::new(number), far, Port::new(53))
    }

    #[test]
    fn every_flow_of_a_full_table_is_in_the_larger_one_with_all_that_it_had() {
        let before = HostMemory::new(places(500), SEEDS);
        let now = HostMemory::new(places(2000), SEEDS);
        let mut inserted = vec![];
        for number in 1..=500 {
            let key = key(number);
            let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(number));
            let origin = Origin::Rule(RuleId::new(number.into()));
            let flow = Flow::new(Direction::Reply, out, origin, 100);
            let hashed = Hashed::new(&before, &key);
            let found = insert(&before, &hashed, &flow).unwrap();
            touch(&before, found.place, found.state, 200, 5).unwrap();
            before.set_bits(found.place, REACH, 7 << 16);
            before.store(found.place, PACKETS_LOW / 8, 0x1111_2222_0000_0000 | u64::from(number));
            before.store(found.place, BYTES / 8, u64::from(number) * 1000);
            inserted.push((key, flow));
        }
        for (key, flow) in &inserted {
            let found = find(&before, &Hashed::new(&before, key)).unwrap();
            let moved = relocate(&before, &now, found).unwrap();
            assert!(find(&before, &Hashed::new(&before, key)).is_none());
            let (read, state) = load_flow(&now, moved.place, moved.state).unwrap();
            assert_eq!((read.rewrite(), read.origin()), (flow.rewrite(), flow.origin()));
            assert_eq!((state.last_seen(), state.seen()), (200, 5));
            let number = u64::from(key.sport().number());
            let word = |word| now.load(moved.place, word);
            assert_eq!(word(REACH) & !0xffff, 100 << 32 | 7 << 16);
            assert_eq!(word(PACKETS_LOW / 8), 0x1111_2222_0000_0000 | number);
            assert_eq!(word(BYTES / 8), number * 1000);
        }
        for (key, _) in &inserted {
            assert!(find(&now, &Hashed::new(&now, key)).is_some_and(|found| found.state.is_live()));
        }
    }

    #[test]
    fn a_flow_that_was_just_used_or_has_no_room_stays_where_it_is() {
        let before = HostMemory::new(places(16), SEEDS);
        let now = HostMemory::new(places(16), SEEDS);
        let key = key(7);
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(7));
        let origin = Origin::Rule(RuleId::NONE);
        let flow = Flow::new(Direction::Original, out, origin, 100);
        let hashed = Hashed::new(&before, &key);
        let old = insert(&before, &hashed, &flow).unwrap();
        touch(&before, old.place, old.state, 200, 0).unwrap();
        assert_eq!(relocate(&before, &now, old), Err(Refused::Busy));
        let found = find(&before, &hashed).unwrap();
        assert!(now.lock(hashed.stripe()));
        assert_eq!(relocate(&before, &now, found), Err(Refused::Busy));
        now.unlock(hashed.stripe());
        let found = find(&before, &hashed).unwrap();
        assert!(found.state.is_live());
        assert!(relocate(&before, &now, found).is_ok());
    }
}
