//! The memory of a table, one turn an access; and the same with the mistakes that one could have
//! made in the algorithm.

use super::{
    super::{Memory, SPILLED, host::HostMemory},
    schedule::Turns,
};
use crate::record::{KEY, KEY_MASK, Phase, STATE, State};
use std::cell::RefCell;

/// A mistake. Each must be found by a check, or the checks are worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A line is live before it is written.
    PublishBeforeBody,
    /// The reach is told of a line after it is live.
    ReachAfterPublish,
    /// The reach is cleared after the place is free.
    ClearAfterFree,
    /// Generations of a line look alike.
    NoVersion,
    /// Inserts of one key don't wait for each other.
    NoLock,
    /// A pair of which one direction is in use loses the other.
    NoPutBack,
    /// A line is ended though it was used meanwhile.
    EndDespiteUse,
    /// Nothing tells that a key lies by its second home.
    NoSpilled,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PublishBeforeBody,
        Self::ReachAfterPublish,
        Self::ClearAfterFree,
        Self::NoVersion,
        Self::NoLock,
        Self::NoPutBack,
        Self::EndDespiteUse,
        Self::NoSpilled,
    ];
}

/// A write that a mistake puts off until the next line is published or freed.
#[derive(Clone, Copy)]
enum Late {
    Store(u32, usize, u64),
    Set(u32, usize, u64),
    Clear(u32, usize, u64),
}

/// The memory as one thread sees it.
pub struct Stepped<'a, 'b> {
    memory: &'a HostMemory,
    turns: &'a Turns<'b>,
    me: usize,
    mistake: Option<Mistake>,
    late: RefCell<Vec<Late>>,
}

impl<'a, 'b> Stepped<'a, 'b> {
    /// For the thread `me`.
    pub fn new(
        memory: &'a HostMemory,
        turns: &'a Turns<'b>,
        me: usize,
        mistake: Option<Mistake>,
    ) -> Self {
        Self { memory, turns, me, mistake, late: RefCell::default() }
    }

    /// Something is not as it must be.
    pub fn report(&self, fault: String) {
        self.turns.report(fault);
    }

    fn step(&self) {
        self.turns.step(self.me);
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn write_late(&self) {
        let late: Vec<Late> = self.late.borrow_mut().drain(..).collect();
        for write in late {
            self.step();
            match write {
                Late::Store(place, word, value) => self.memory.store(place, word, value),
                Late::Set(place, word, bits) => self.memory.set_bits(place, word, bits),
                Late::Clear(place, word, bits) => self.memory.clear_bits(place, word, bits),
            }
        }
    }

    /// No other line of the key in this place is live.
    fn check_alone(&self, place: u32) {
        let key =
            |place| [self.memory.load(place, KEY), self.memory.load(place, KEY + 1) & KEY_MASK];
        for other in 0..self.memory.places() {
            let state = State::from_word(self.memory.load(other, STATE));
            if other != place && state.is_live() && key(other) == key(place) {
                self.turns.report(format!("two live lines of a key: {place} and {other}"));
            }
        }
    }

    /// The state swap that a mistake makes of another; `None` if it does nothing.
    fn mistaken(&self, place: u32, old: State, new: State) -> Option<(u64, u64)> {
        match self.mistake {
            Some(Mistake::NoVersion) if new.is_free() => Some((old.word(), 0)),
            Some(Mistake::NoPutBack) if old.phase() == Phase::Ending && new.is_live() => None,
            Some(Mistake::EndDespiteUse) if old.is_live() && new.phase() == Phase::Ending => {
                let now = State::from_word(self.memory.load(place, STATE));
                let live = now.is_live() && now.version() == old.version();
                Some((if live { now.word() } else { old.word() }, new.word()))
            }
            _ => Some((old.word(), new.word())),
        }
    }
}

impl Memory for Stepped<'_, '_> {
    type Place = u32;

    fn place(&self, index: u32) -> Option<u32> {
        self.memory.place(index)
    }

    fn homes(&self) -> u32 {
        self.memory.homes()
    }

    fn seeds(&self) -> [u64; 2] {
        self.memory.seeds()
    }

    fn load(&self, place: u32, word: usize) -> u64 {
        self.step();
        self.memory.load(place, word)
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        if self.has(Mistake::PublishBeforeBody) {
            self.late.borrow_mut().push(Late::Store(place, word, value));
            return;
        }
        self.step();
        self.memory.store(place, word, value);
    }

    fn store_created(&self, place: u32, created: u32) {
        self.step();
        self.memory.store_created(place, created);
    }

    fn swap(&self, place: u32, word: usize, old: u64, new: u64) -> bool {
        assert_eq!(word, STATE);
        self.step();
        let state = State::from_word(new);
        let Some((old, new)) = self.mistaken(place, State::from_word(old), state) else {
            return true;
        };
        let done = self.memory.swap(place, word, old, new);
        if done && (state.is_live() || state.is_free()) {
            self.write_late();
        }
        if done && state.is_live() {
            self.check_alone(place);
        }
        done
    }

    fn set_bits(&self, place: u32, word: usize, bits: u64) {
        if bits == SPILLED && self.has(Mistake::NoSpilled) {
            return;
        }
        if self.has(Mistake::ReachAfterPublish) {
            self.late.borrow_mut().push(Late::Set(place, word, bits));
            return;
        }
        self.step();
        self.memory.set_bits(place, word, bits);
    }

    fn clear_bits(&self, place: u32, word: usize, bits: u64) {
        if self.has(Mistake::ClearAfterFree) {
            self.late.borrow_mut().push(Late::Clear(place, word, bits));
            return;
        }
        self.step();
        self.memory.clear_bits(place, word, bits);
    }

    fn lock(&self, stripe: u32) -> bool {
        self.step();
        let taken = self.has(Mistake::NoLock) || self.memory.lock(stripe);
        if !taken {
            // Trying again changes nothing until whoever has it goes on.
            self.turns.give_way(self.me);
        }
        taken
    }

    fn unlock(&self, stripe: u32) {
        self.step();
        self.memory.unlock(stripe);
    }
}
