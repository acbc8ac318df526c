//! The map `flows` as the agent works on it: it reads lines, finds keys, and ends flows.
//!
//! Invariant: the agent makes no flow, so it takes no lock; a flow is ended by the state in which it
//! was read, so that one which a packet has used since then goes on.

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Array, Map, MapData};
use nat_common::{
    flow::FlowKey,
    flow_table::{self, Hashed, Line, Memory},
    layout::Geometry,
    record::{FlowRecord, PACKETS_HIGH, STATE, State, WORDS},
    tcp,
};

use super::error::{PlaneError, Result};
use super::grow::tables;
use super::mapped::Mapped;
use super::maps;
use super::pair::{Pair, Record};

/// A line that may not come out the same on the first look: packets write to it.
const LOOKS: u32 = 4;

/// Lines whose states are read at a time: a page.
const LOOK: usize = 64;

/// The flow records of an instance.
#[derive(Debug)]
pub struct FlowMemory {
    lines: Mapped,
    geometry: Geometry,
}

impl FlowMemory {
    /// Maps the table that is pinned in `pins`.
    ///
    /// # Errors
    /// Where there is none, or its parts do not fit together.
    pub fn open(pins: &Path) -> Result<Self> {
        Self::named(pins, tables::NOW)
    }

    /// The same for the table that is pinned as `name`: while it grows there are two.
    pub(super) fn named(pins: &Path, name: &str) -> Result<Self> {
        Self::of(Mapped::open(pins, name)?, geometry(pins)?.seeds)
    }

    /// The table from which flows move to the one of now; `None` while none does.
    ///
    /// # Errors
    /// As [`FlowMemory::open`].
    pub(super) fn before(pins: &Path) -> Result<Option<Self>> {
        match Self::named(pins, tables::BEFORE) {
            Err(PlaneError::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The table in that memory.
    fn of(lines: Mapped, seeds: [u64; 2]) -> Result<Self> {
        if lines.words().len() < lines.entries() as usize * WORDS {
            return Err(PlaneError::Refused {
                what: "map the flow table".to_owned(),
                why: "its records are too short: remove the instance with `nat-ctl down`"
                    .to_owned(),
            });
        }
        // The size says it too, and is true at any moment of a growth.
        let geometry = Geometry::new(seeds, flow_table::homes(lines.entries()));
        Ok(Self { lines, geometry })
    }

    /// Memory of its own in the same form, for tests.
    #[cfg(test)]
    pub(crate) fn anonymous(places: u32) -> Self {
        Self::of(Mapped::anonymous(places, size_of::<FlowRecord>() as u32), [7, 11])
            .expect("a table")
    }

    /// Makes a flow as the data plane does, for tests.
    #[cfg(test)]
    pub(crate) fn insert(&self, key: &FlowKey, flow: &nat_common::flow::Flow) -> u32 {
        let hashed = Hashed::new(self, key);
        flow_table::insert(self, &hashed, flow).expect("room").line().index
    }

    /// Counts a packet as the data plane does, for tests.
    #[cfg(test)]
    pub(crate) fn count_packet(&self, place: u32) {
        use nat_common::record::PACKETS_LOW;
        let word = self.lines.word(place, PACKETS_LOW / 8).expect("a line");
        word.fetch_add(1 << (PACKETS_LOW % 8 * 8), Ordering::SeqCst);
    }

    /// Number of lines.
    pub fn places(&self) -> u32 {
        self.lines.entries()
    }

    /// The states of the lines from `first` on that are not free, of `count` lines at most, with their
    /// places.
    pub fn states(&self, first: u32, count: u32) -> impl Iterator<Item = (u32, State)> {
        let last = first.saturating_add(count).min(self.places());
        let words = self.lines.words().get(first as usize * WORDS..last as usize * WORDS);
        States {
            read: first..first,
            words: words.unwrap_or_default(),
            seen: [State::default(); LOOK],
            unread: 0,
        }
    }

    /// Number of live lines: two for a flow.
    pub fn used(&self) -> u64 {
        self.states(0, self.places()).filter(|(_, state)| state.is_live()).count() as u64
    }

    /// The flow in a line; `None` where there is none, or it is ending.
    // Not called but copied: who asks for a part of it, a million times, waits for no other part.
    #[inline(always)]
    pub fn record(&self, place: u32) -> Option<Record> {
        let line = self.lines.entry(place)?.first_chunk::<WORDS>()?;
        for _ in 0..LOOKS {
            let before = State::from_word(line[STATE].load(Ordering::Acquire));
            if !before.is_live() {
                return None;
            }
            let mut words = line.each_ref().map(|word| word.load(Ordering::Acquire));
            let after = State::from_word(line[STATE].load(Ordering::Acquire));
            if after.is_live() && after.version() == before.version() {
                words[STATE] = after.word();
                return Some(Record::new(place, FlowRecord::from_words(words)));
            }
        }
        None
    }

    /// The flow of packets with `key`.
    pub fn find(&self, key: &FlowKey) -> Option<Record> {
        let found = flow_table::find(self, &Hashed::new(self, key))?;
        // In between the place may have become another flow's.
        self.record(found.line().index).filter(|record| record.key() == *key)
    }

    /// Has the first words that a search for each of these keys reads brought near, all of them at a
    /// time. Nothing follows from it but the time that [`FlowMemory::find`] takes.
    pub fn expect(&self, keys: impl Iterator<Item = FlowKey>) {
        // Loads that don't wait for each other; a sum that is used, so that none is left out.
        let sum = keys.fold(0, |sum, key| {
            let key = Hashed::new(self, &key);
            // The second home, too: where there are many flows most have left the first.
            sum ^ self.load(key.home(self, 0), STATE) ^ self.load(key.home(self, 1), STATE)
        });
        std::hint::black_box(sum);
    }

    /// The whole flow of a record; `None` for the answer of a flow, which is told of with its
    /// original record.
    pub fn pair(&self, first: Record) -> Option<Pair> {
        Pair::of(first, |key| self.find(key))
    }

    /// Ends both directions of a flow if no packet has used either since they were read.
    pub fn end(&self, pair: &Pair) -> bool {
        let known = |record: &Record| (line(record.place()), record.state());
        match &pair.answer {
            // The answer first: a packet of the initiator in between then makes both anew.
            Some(answer) => flow_table::end_pair(self, known(answer), known(&pair.first)),
            None => {
                let (line, state) = known(&pair.first);
                flow_table::remove(self, line, state)
            }
        }
    }

    /// Notes of a TCP flow that it was reset, as a packet with RST would.
    pub fn close(&self, key: &FlowKey) {
        for _ in 0..LOOKS {
            let Some(record) = self.find(key) else { return };
            let state = record.state();
            let closed = state.touched(state.last_seen(), tcp::RST);
            if self.swap(record.place(), STATE, state.word(), closed.word()) {
                return;
            }
        }
    }

    /// Frees a line that has been `ending` for so long that whoever began to end it is gone.
    pub fn finish(&self, place: u32, ending: State) -> bool {
        self.lines.entry(place).is_some() && flow_table::finish(self, line(place), ending)
    }

    fn word(&self, place: u32, word: usize) -> Option<&AtomicU64> {
        self.lines.word(place, word)
    }
}

/// States of lines, [`LOOK`] at a time: none of the loads waits for another, and no branch for a load.
struct States<'a> {
    /// The place of the first line of those that were read last, and of the line behind them.
    read: Range<u32>,
    /// The lines from there on.
    words: &'a [AtomicU64],
    /// What was read.
    seen: [State; LOOK],
    /// Which of it nobody was given yet, a bit each; free lines are not among it.
    unread: u64,
}

impl States<'_> {
    /// Reads on; `None` at the end.
    fn look(&mut self) -> Option<()> {
        let (lines, rest) = self.words.split_at(self.words.len().min(LOOK * WORDS));
        self.words = rest;
        self.read = self.read.end..self.read.end;
        for (line, seen) in lines.chunks_exact(WORDS).zip(&mut self.seen) {
            *seen = State::from_word(line.get(STATE)?.load(Ordering::Acquire));
            self.unread |= u64::from(!seen.is_free()) << self.read.len();
            self.read.end += 1;
        }
        (!self.read.is_empty()).then_some(())
    }
}

impl Iterator for States<'_> {
    type Item = (u32, State);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while self.unread == 0 {
            self.look()?;
        }
        let bit = self.unread.trailing_zeros();
        self.unread &= self.unread - 1;
        Some((self.read.start + bit, *self.seen.get(bit as usize)?))
    }
}

/// The record in the map `geometry`.
///
/// # Errors
/// Where it can't be read.
pub fn geometry(pins: &Path) -> Result<Geometry> {
    let map: Array<MapData, Geometry> = maps::open(pins, "geometry", Map::Array)?;
    map.get(&0, 0).map_err(PlaneError::refused("read the map geometry"))
}

/// Writes the record in the map `geometry`: what the programs have been loaded with.
///
/// # Errors
/// Where it can't be written.
pub fn set_geometry(pins: &Path, geometry: &Geometry) -> Result<()> {
    let mut map: Array<MapData, Geometry> = maps::open(pins, "geometry", Map::Array)?;
    map.set(0, geometry, 0).map_err(PlaneError::refused("write the map geometry"))
}

const fn line(place: u32) -> Line<u32> {
    Line { place, index: place }
}

impl Memory for FlowMemory {
    type Place = u32;

    fn place(&self, index: u32) -> Option<u32> {
        (index < self.places()).then_some(index)
    }

    fn homes(&self) -> u32 {
        self.geometry.homes
    }

    fn seeds(&self) -> [u64; 2] {
        self.geometry.seeds
    }

    // A place that was given out lies in the map: the other outcomes below have no reader.
    fn load(&self, place: u32, word: usize) -> u64 {
        self.word(place, word).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        if let Some(word) = self.word(place, word) {
            word.store(value, Ordering::Release);
        }
    }

    fn store_created(&self, place: u32, created: u32) {
        const REACH: u64 = 0xffff;
        if let Some(word) = self.word(place, PACKETS_HIGH / 8) {
            word.fetch_and(REACH, Ordering::AcqRel);
            word.fetch_or(u64::from(created) << 32, Ordering::AcqRel);
        }
    }

    fn swap(&self, place: u32, word: usize, old: u64, new: u64) -> bool {
        self.word(place, word).is_some_and(|word| {
            word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    fn set_bits(&self, place: u32, word: usize, bits: u64) {
        if let Some(word) = self.word(place, word) {
            word.fetch_or(bits, Ordering::SeqCst);
        }
    }

    fn clear_bits(&self, place: u32, word: usize, bits: u64) {
        if let Some(word) = self.word(place, word) {
            word.fetch_and(!bits, Ordering::SeqCst);
        }
    }

    /// Tests alone make flows here, one at a time; the agent is refused.
    fn lock(&self, _stripe: u32) -> bool {
        cfg!(test)
    }

    fn unlock(&self, _stripe: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::pair::tests::masqueraded;
    use nat_common::{flow::TCP, record::Phase};

    /// A masqueraded flow in a table, as packets find it.
    fn table() -> (FlowMemory, Pair) {
        let memory = FlowMemory::anonymous(256);
        let (original, reply) = masqueraded(TCP, 10);
        let place = memory.insert(&original.key(), &original.flow());
        memory.insert(&reply.key(), &reply.flow());
        let pair = memory.pair(memory.record(place).unwrap()).unwrap();
        (memory, pair)
    }

    #[test]
    fn a_flow_is_found_by_either_key_and_told_of_once() {
        let (memory, pair) = table();
        let answer = pair.answer.unwrap();
        assert_eq!(memory.find(&pair.first.key()), Some(pair.first));
        assert_eq!(memory.find(&pair.first.answer()), Some(answer));
        assert_eq!(memory.pair(answer), None);
        let met: Vec<u32> = memory.states(0, 256).map(|(place, _)| place).collect();
        let mut places = [pair.first.place(), answer.place()];
        places.sort_unstable();
        assert_eq!(met, places);
        assert_eq!(memory.used(), 2);
        assert_eq!(memory.states(256, 64).count(), 0);
    }

    #[test]
    fn both_directions_end_together() {
        let (memory, pair) = table();
        assert!(memory.end(&pair));
        assert_eq!(memory.states(0, 256).count(), 0);
        assert!(memory.find(&pair.first.key()).is_none());
        assert!(!memory.end(&pair));
    }

    #[test]
    fn a_flow_that_a_packet_has_used_meanwhile_goes_on_in_both_directions() {
        for used in [0, 1] {
            let (memory, pair) = table();
            let record = [pair.first, pair.answer.unwrap()][used];
            flow_table::touch(&memory, record.place(), record.state(), 11, 0).unwrap();
            assert!(!memory.end(&pair));
            assert_eq!(memory.used(), 2);
            let now = memory.pair(memory.find(&pair.first.key()).unwrap()).unwrap();
            assert_eq!([now.first, now.answer.unwrap()][used].state().last_seen(), 11);
            assert!(memory.end(&now));
        }
    }

    #[test]
    fn a_line_that_was_left_ending_is_no_flow_and_can_be_freed() {
        let (memory, pair) = table();
        let place = pair.first.place();
        let ending = flow_table::end(&memory, place, pair.first.state()).unwrap();
        assert_eq!(memory.record(place), None);
        assert_eq!(memory.find(&pair.first.key()), None);
        assert_eq!(
            memory.states(place, 1).next().map(|(_, state)| state.phase()),
            Some(Phase::Ending)
        );
        assert!(memory.finish(place, ending));
        assert!(!memory.finish(place, ending));
        assert_eq!(memory.states(place, 1).count(), 0);
    }

    #[test]
    fn a_table_of_other_records_is_refused() {
        assert!(FlowMemory::of(Mapped::anonymous(256, 64), [1, 2]).is_ok());
        assert!(FlowMemory::of(Mapped::anonymous(256, 32), [1, 2]).is_err());
    }
}
