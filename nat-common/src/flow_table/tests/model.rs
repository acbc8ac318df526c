//! One operation after the other, against a map that anybody understands.

use super::{
    super::{
        Hashed, Memory, Refused, SPAN, end, end_pair, find, finish, homes, host::HostMemory,
        insert, load_flow, places, remove, touch,
    },
    invariants,
    samples::{SEEDS, flow, key},
};
use crate::{
    flow::{Flow, FlowKey},
    record::{BYTES, STATE, State},
    tcp,
};
use proptest::prelude::*;
use std::collections::HashMap;

const PLACES: u32 = 150 + SPAN;
/// Keys that come up after the table was filled: three for each place.
const KEYS: u32 = 3 * PLACES;

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u32),
    Remove(u32),
    RemovePair(u32, u32),
    Touch(u32, u8),
    Wait(u32),
    Expire(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS).prop_map(Step::Insert),
        2 => (0..KEYS).prop_map(Step::Remove),
        1 => (0..KEYS, 0..KEYS).prop_map(|(a, b)| Step::RemovePair(a, b)),
        3 => (0..KEYS, 0u8..16).prop_map(|(key, seen)| Step::Touch(key, seen)),
        2 => (1u32..10).prop_map(Step::Wait),
        1 => (5u32..60).prop_map(Step::Expire),
    ]
}

/// The table, and what should be in it.
struct Pair {
    memory: HostMemory,
    model: HashMap<FlowKey, Flow>,
    now: u32,
    variant: u16,
}

impl Pair {
    /// With this many flows in it, of the keys from 0 on.
    fn filled(flows: usize, seed: u64) -> Self {
        let memory = HostMemory::new(PLACES, [SEEDS[0] ^ seed, SEEDS[1]]);
        let mut pair = Self { memory, model: HashMap::new(), now: 1, variant: 0 };
        // Fewer and fewer keys have a free place in their windows.
        for number in 0..1000 * PLACES {
            if pair.model.len() == flows {
                return pair;
            }
            pair.insert(number);
        }
        panic!("no room for more than {} flows", pair.model.len());
    }

    fn line(&self, key: &FlowKey) -> Option<(super::super::Line<u32>, State)> {
        find(&self.memory, &Hashed::new(&self.memory, key)).map(|f| (f.line(), f.state))
    }

    fn insert(&mut self, number: u32) {
        let key = key(number);
        self.variant = self.variant.wrapping_add(1);
        let flow = flow(&key, self.variant, self.now);
        let full = invariants::is_full_for(&self.memory, &key);
        match insert(&self.memory, &Hashed::new(&self.memory, &key), &flow) {
            Ok(found) => {
                assert!(!full && self.model.insert(key, flow).is_none());
                let record = self.memory.record(found.place);
                assert_eq!((record.key(), record.flow()), (key, flow));
                assert_eq!((record.packets(), record.bytes()), (0, 0));
                assert_eq!((record.created(), record.state()), (self.now, found.state));
                self.memory.store(found.place, BYTES / 8, u64::MAX);
            }
            Err(Refused::Exists) => assert!(self.model.contains_key(&key)),
            Err(Refused::Full) => assert!(full && !self.model.contains_key(&key)),
            Err(Refused::Busy) => panic!("nobody else is there"),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Insert(number) => self.insert(number),
            Step::Remove(number) => {
                let line = self.line(&key(number));
                let removed = line.is_some_and(|(line, state)| remove(&self.memory, line, state));
                assert_eq!(removed, self.model.remove(&key(number)).is_some());
            }
            Step::RemovePair(one, other) if one != other => {
                let (one, other) = (key(one), key(other));
                if let (Some(first), Some(second)) = (self.line(&one), self.line(&other)) {
                    let late = State::from_word(second.1.word() ^ 1);
                    assert!(!end_pair(&self.memory, first, (second.0, late)));
                    invariants::check(&self.memory).unwrap();
                    assert!(end_pair(&self.memory, first, second));
                    assert!(self.model.remove(&one).is_some());
                    assert!(self.model.remove(&other).is_some());
                }
            }
            Step::RemovePair(..) => {}
            Step::Touch(number, seen) => self.touch(&key(number), seen),
            Step::Wait(seconds) => self.now += seconds,
            Step::Expire(timeout) => {
                let now = self.now;
                self.model.retain(|_, flow| now - flow.last_seen < timeout);
                for index in 0..self.memory.places() {
                    let state = State::from_word(self.memory.load(index, STATE));
                    if state.is_live() && now - state.last_seen() >= timeout {
                        let line = super::super::Line { place: index, index };
                        assert!(remove(&self.memory, line, state));
                        assert!(!remove(&self.memory, line, state));
                        assert_eq!(touch(&self.memory, index, state, now, 0), None);
                        assert_eq!(load_flow(&self.memory, index, state), None);
                    }
                }
            }
        }
    }

    fn touch(&mut self, key: &FlowKey, seen: u8) {
        let Some((line, state)) = self.line(key) else {
            assert!(!self.model.contains_key(key));
            return;
        };
        let touched = touch(&self.memory, line.place, state, self.now, seen).unwrap();
        let flow = self.model.get_mut(key).unwrap();
        flow.last_seen = self.now;
        // A RST is forgotten with the next packet.
        flow.seen = flow.seen & !tcp::RST | seen;
        let earlier = touch(&self.memory, line.place, touched, self.now - 1, seen & tcp::RST);
        assert_eq!(earlier, Some(touched));
    }

    fn check(&self) {
        let lines = invariants::check(&self.memory).unwrap();
        assert_eq!(lines.len(), self.model.len());
        for (key, flow) in &self.model {
            let (line, state) = self.line(key).unwrap();
            assert_eq!(Some(&line.index), lines.get(key));
            assert_eq!(load_flow(&self.memory, line.place, state), Some((*flow, state)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_table_does_as_a_map_does_at_every_load(
        percent in prop_oneof![Just(0), Just(50), Just(75), Just(90), Just(100)],
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut pair = Pair::filled((PLACES * percent / 100) as usize, seed);
        pair.check();
        for step in steps {
            pair.take(step);
            pair.check();
        }
        prop_assert!(invariants::is_unlocked(&pair.memory));
    }
}

#[test]
fn a_table_too_small_for_a_window_refuses_without_a_fault() {
    for places in [0, 1, SPAN] {
        let memory = HostMemory::new(places, SEEDS);
        let key = key(1);
        let hashed = Hashed::new(&memory, &key);
        for _ in 0..=places {
            let inserted = insert(&memory, &hashed, &flow(&key, 1, 1));
            assert!(inserted.is_ok() || inserted == Err(Refused::Full) || places > 0);
        }
        assert_eq!(find(&memory, &hashed).is_some(), places > 0);
    }
}

#[test]
fn ending_all_lines_leaves_no_bit_in_any_reach() {
    let mut pair = Pair::filled(PLACES as usize, 7);
    let keys: Vec<FlowKey> = pair.model.keys().copied().collect();
    for key in keys {
        let (line, state) = pair.line(&key).unwrap();
        assert!(remove(&pair.memory, line, state));
        pair.model.remove(&key);
        pair.check();
    }
    assert_eq!(invariants::check(&pair.memory), Ok(HashMap::new()));
}

#[test]
fn a_line_that_somebody_left_ending_is_refused_until_another_ends_it() {
    let mut pair = Pair::filled(20, 7);
    let key = key(5);
    let hashed = Hashed::new(&pair.memory, &key);
    let (line, state) = pair.line(&key).unwrap();
    let ending = end(&pair.memory, line.place, state).unwrap();
    assert_eq!(insert(&pair.memory, &hashed, &flow(&key, 1, 1)), Err(Refused::Busy));
    assert_eq!(touch(&pair.memory, line.place, ending, 9, 0), None);
    assert_eq!(touch(&pair.memory, line.place, state, 9, 0), None);
    assert_eq!(load_flow(&pair.memory, line.place, state), None);
    assert_eq!(find(&pair.memory, &hashed).map(|found| found.state), Some(ending));
    assert_eq!(end(&pair.memory, line.place, ending), None);
    assert!(finish(&pair.memory, line, ending) && !finish(&pair.memory, line, ending));
    pair.model.remove(&key);
    pair.check();
    pair.insert(5);
    pair.check();
}

#[test]
fn an_insert_gives_up_on_a_lock_that_is_not_given_back() {
    let memory = HostMemory::new(PLACES, SEEDS);
    let key = key(1);
    let hashed = Hashed::new(&memory, &key);
    assert!(memory.lock(hashed.stripe()));
    assert_eq!(insert(&memory, &hashed, &flow(&key, 1, 1)), Err(Refused::Busy));
    assert_eq!(invariants::check(&memory), Ok(HashMap::new()));
    memory.unlock(hashed.stripe());
    assert!(insert(&memory, &hashed, &flow(&key, 1, 1)).is_ok());
}

#[test]
fn a_table_made_for_some_lines_has_places_for_half_as_many_more() {
    assert_eq!((places(0), places(1), places(999)), (SPAN + 1, SPAN + 2, SPAN + 1499));
    assert_eq!((homes(places(999)), homes(SPAN - 1), places(u32::MAX)), (1499, 0, u32::MAX));
}
