//! A small table, and operations that may be raced on it.

use super::{
    super::{
        Found, Hashed, Line, Refused, SPAN, end_pair, find, host::HostMemory, insert, load_flow,
        remove, touch,
    },
    invariants,
    samples::{SEEDS, flow, key},
    schedule::{Operation, Turns},
    stepped::{Mistake, Stepped},
};
use crate::{
    flow::{Flow, FlowKey},
    record::State,
    tcp,
};

/// A table with two near homes and two others.
pub struct Table {
    /// Its memory.
    pub memory: HostMemory,
    mistake: Option<Mistake>,
}

/// What came out of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Where it was inserted, or why not.
    Inserted(Result<u32, Refused>),
    /// Whether it was ended by this operation.
    Ended(bool),
    /// What was found and read.
    Read(Option<Flow>),
    /// What the state was after it was used.
    Used(Option<State>),
}

/// Variant of flows that are there before the race.
pub const OLD: u16 = 0x1111;
/// Variant of flows that come in it.
pub const NEW: u16 = 0x2222;

impl Table {
    pub fn new(mistake: Option<Mistake>) -> Self {
        Self { memory: HostMemory::new(SPAN + 4, SEEDS), mistake }
    }

    /// Keys with these homes, the second, counted from the first one that is not near, also the others;
    /// always the same ones.
    pub fn keys(&self, homes: [u32; 2]) -> impl Iterator<Item = FlowKey> {
        (0..u32::MAX).map(key).filter(move |key| {
            let hashed = Hashed::new(&self.memory, key);
            [0, 1, 2, 3].map(|choice| hashed.home(&self.memory, choice))
                == [homes[0], 2 + homes[1], 2 + homes[1], 2 + homes[1]]
        })
    }

    /// The key number `number` of those with these homes.
    pub fn key(&self, homes: [u32; 2], number: usize) -> FlowKey {
        self.keys(homes).nth(number).unwrap()
    }

    /// Puts a flow in before the race begins.
    pub fn with(&self, key: &FlowKey, variant: u16) -> (Line<u32>, State) {
        let hashed = Hashed::new(&self.memory, key);
        let found = insert(&self.memory, &hashed, &flow(key, variant, 1)).unwrap();
        (found.line(), found.state)
    }

    fn memory<'a, 'b>(&'a self, turns: &'a Turns<'b>, me: usize) -> Stepped<'a, 'b> {
        Stepped::new(&self.memory, turns, me, self.mistake)
    }

    /// An operation on this table.
    pub fn does<'a>(
        &'a self,
        operation: impl Fn(&Stepped<'_, '_>) -> Outcome + Send + 'a,
    ) -> Operation<'a, Outcome> {
        Box::new(move |turns, me| operation(&self.memory(turns, me)))
    }

    pub fn inserts<'a>(&'a self, key: FlowKey, variant: u16) -> Operation<'a, Outcome> {
        self.does(move |memory| inserted(memory, &key, variant))
    }

    pub fn removes<'a>(&'a self, (line, state): (Line<u32>, State)) -> Operation<'a, Outcome> {
        self.does(move |memory| Outcome::Ended(remove(memory, line, state)))
    }

    pub fn reads<'a>(&'a self, key: FlowKey) -> Operation<'a, Outcome> {
        self.does(move |memory| read(memory, &key))
    }

    /// Finds the flow and notes a packet at second 50.
    pub fn uses<'a>(&'a self, key: FlowKey) -> Operation<'a, Outcome> {
        self.does(move |memory| {
            let found = search(memory, &key);
            Outcome::Used(found.and_then(|f| touch(memory, f.place, f.state, 50, tcp::FIN)))
        })
    }

    /// Ends both, as they were before the race.
    pub fn ends_pair<'a>(&'a self, pair: [(Line<u32>, State); 2]) -> Operation<'a, Outcome> {
        self.does(move |memory| Outcome::Ended(end_pair(memory, pair[0], pair[1])))
    }

    /// How many live lines there are, if all is as it must be at rest.
    pub fn lines(&self) -> Result<usize, String> {
        Ok(invariants::check(&self.memory)?.len())
    }
}

pub fn search(memory: &Stepped<'_, '_>, key: &FlowKey) -> Option<Found<u32>> {
    find(memory, &Hashed::new(memory, key))
}

pub fn inserted(memory: &Stepped<'_, '_>, key: &FlowKey, variant: u16) -> Outcome {
    let result = insert(memory, &Hashed::new(memory, key), &flow(key, variant, 1));
    Outcome::Inserted(result.map(|found| found.line().index))
}

pub fn read(memory: &Stepped<'_, '_>, key: &FlowKey) -> Outcome {
    let found = search(memory, key);
    Outcome::Read(found.and_then(|f| load_flow(memory, f.place, f.state)).map(|(flow, _)| flow))
}
