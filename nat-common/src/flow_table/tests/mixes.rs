//! Long rows of operations on few keys, in random schedules.

use super::{
    super::{
        Found, Hashed, Line, Memory, SPAN, end_pair, find, host::HostMemory, insert, load_flow,
        remove, touch,
    },
    invariants,
    samples::{Dice, SEEDS, flow, key},
    schedule::{self, Operation},
    stepped::Stepped,
};
use crate::{
    flow::FlowKey,
    record::{KEY, STATE, State},
};

/// Keys that all threads use; there are three homes, so that they share places.
const KEYS: u32 = 6;
const THREADS: usize = 3;
const OPERATIONS: u32 = 10;

/// What a thread has done to the number of lines.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    inserted: usize,
    ended: usize,
    /// Flows that were read, used, or seen in use.
    read: usize,
    wrong: Option<&'static str>,
}

/// One thread's row of operations.
struct Mix<'m, 'a, 'b> {
    memory: &'m Stepped<'a, 'b>,
    dice: Dice,
    done: Done,
}

impl Mix<'_, '_, '_> {
    fn run(mut self) -> Done {
        for _ in 0..OPERATIONS {
            let number = self.dice.below(KEYS);
            match self.dice.below(8) {
                0..=2 => self.insert(number),
                3 => self.remove(number),
                4 => self.end_pair(number, (number + 1) % KEYS),
                5 => self.sweep(),
                _ => self.use_flow(number),
            }
        }
        self.done
    }

    fn find(&self, number: u32) -> Option<Found<u32>> {
        find(self.memory, &Hashed::new(self.memory, &key(number)))
    }

    fn insert(&mut self, number: u32) {
        // The port of the flow says of which key it is.
        let variant = (number << 8 | self.dice.below(256)) as u16;
        let hashed = Hashed::new(self.memory, &key(number));
        let inserted = insert(self.memory, &hashed, &flow(&key(number), variant, 1));
        self.done.inserted += usize::from(inserted.is_ok());
    }

    fn remove(&mut self, number: u32) {
        if let Some(found) = self.find(number) {
            let removed = remove(self.memory, found.line(), found.state);
            self.done.ended += usize::from(removed);
        }
    }

    fn end_pair(&mut self, one: u32, other: u32) {
        if let (Some(first), Some(second)) = (self.find(one), self.find(other))
            && end_pair(self.memory, (first.line(), first.state), (second.line(), second.state))
        {
            self.done.ended += 2;
        }
    }

    /// Ends what lies in some place near the homes.
    fn sweep(&mut self) {
        let index = self.dice.below(12);
        let state = State::from_word(self.memory.load(index, STATE));
        let ended = remove(self.memory, Line { place: index, index }, state);
        self.done.ended += usize::from(ended);
    }

    fn use_flow(&mut self, number: u32) {
        let Some(found) = self.find(number) else { return };
        let Some((flow, state)) = load_flow(self.memory, found.place, found.state) else { return };
        self.done.read += 1;
        if flow.rewrite().sport().number() >> 8 != number as u16 {
            self.done.wrong = Some("a flow of another key");
        }
        let now = 1 + self.dice.below(4);
        if let Some(used) = touch(self.memory, found.place, state, now, 1)
            && (used.last_seen() < now || used.version() != state.version())
        {
            self.done.wrong = Some("a use that is not noted");
        }
    }
}

/// One random row for each thread, in one random schedule.
fn mix(seed: u64) -> Result<(usize, usize), String> {
    let memory = HostMemory::new(SPAN + 3, SEEDS);
    let operations = (0..THREADS).map(|thread| -> Operation<'_, Done> {
        let memory = &memory;
        Box::new(move |turns, me| {
            let memory = &Stepped::new(memory, turns, me, None);
            let dice = Dice::new(seed << 16 | (thread as u64) << 8);
            Mix { memory, dice, done: Done::default() }.run()
        })
    });
    let done = schedule::random(!seed, operations.collect())?;
    if let Some(wrong) = done.iter().find_map(|done| done.wrong) {
        return Err(wrong.into());
    }
    let lines = invariants::check(&memory)?;
    let inserted: usize = done.iter().map(|done| done.inserted).sum();
    let ended: usize = done.iter().map(|done| done.ended).sum();
    if lines.len() + ended != inserted {
        return Err(format!("{} lines after {done:?}", lines.len()));
    }
    let known = |place: &u32| {
        let words = [memory.load(*place, KEY), memory.load(*place, KEY + 1)];
        let found = FlowKey::from_words(words);
        (0..KEYS).any(|number| key(number) == found)
    };
    if !lines.values().all(known) {
        return Err("a key that nobody has inserted".into());
    }
    Ok((ended, done.iter().map(|done| done.read).sum()))
}

#[test]
fn long_mixes_leave_every_line_where_it_belongs() {
    let (mut ended, mut read) = (0, 0);
    for seed in 0..1000 {
        let (more_ended, more_read) = mix(seed).unwrap_or_else(|f| panic!("seed {seed}: {f}"));
        ended += more_ended;
        read += more_read;
    }
    // Else the mixes would show little.
    assert!(ended > 1000 && read > 1000, "only {ended} flows ended, {read} read");
}
