//! The table in the memory of one process: for tests, and for the path on the host.

use super::{Memory, homes};
use crate::record::{FlowRecord, REACH, WORDS};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bits of the word [`REACH`] that are the reach.
const REACH_BITS: u64 = 0xffff;

/// Locks; stripes share them.
const LOCKS: usize = 64;

/// A table of its own memory.
#[derive(Debug)]
pub struct HostMemory {
    words: Vec<AtomicU64>,
    locks: [AtomicU64; LOCKS],
    seeds: [u64; 2],
}

impl HostMemory {
    /// An empty table of this many places.
    pub fn new(places: u32, seeds: [u64; 2]) -> Self {
        let words = std::iter::repeat_with(AtomicU64::default);
        Self {
            words: words.take(places as usize * WORDS).collect(),
            locks: [const { AtomicU64::new(0) }; LOCKS],
            seeds,
        }
    }

    /// How many places it has.
    pub fn places(&self) -> u32 {
        (self.words.len() / WORDS) as u32
    }

    /// The record number `index`, word by word: whole if nobody writes to it.
    pub fn record(&self, index: u32) -> FlowRecord {
        FlowRecord::from_words(std::array::from_fn(|word| self.load(index, word)))
    }

    fn stripe(&self, stripe: u32) -> &AtomicU64 {
        &self.locks[stripe as usize % LOCKS]
    }

    fn word(&self, place: u32, word: usize) -> &AtomicU64 {
        &self.words[place as usize * WORDS + word]
    }
}

impl Memory for HostMemory {
    type Place = u32;

    fn place(&self, index: u32) -> Option<u32> {
        (index < self.places()).then_some(index)
    }

    fn homes(&self) -> u32 {
        homes(self.places())
    }

    fn seeds(&self) -> [u64; 2] {
        self.seeds
    }

    fn load(&self, place: u32, word: usize) -> u64 {
        self.word(place, word).load(SeqCst)
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        self.word(place, word).store(value, SeqCst);
    }

    fn store_created(&self, place: u32, created: u32) {
        let word = self.word(place, REACH);
        word.fetch_and(REACH_BITS, SeqCst);
        word.fetch_or(u64::from(created) << 32, SeqCst);
    }

    fn swap(&self, place: u32, word: usize, old: u64, new: u64) -> bool {
        self.word(place, word).compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    fn set_bits(&self, place: u32, word: usize, bits: u64) {
        self.word(place, word).fetch_or(bits, SeqCst);
    }

    fn clear_bits(&self, place: u32, word: usize, bits: u64) {
        self.word(place, word).fetch_and(!bits, SeqCst);
    }

    fn lock(&self, stripe: u32) -> bool {
        self.stripe(stripe).compare_exchange(0, 1, SeqCst, SeqCst).is_ok()
    }

    fn unlock(&self, stripe: u32) {
        self.stripe(stripe).store(0, SeqCst);
    }
}
