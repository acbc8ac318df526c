//! How full the table may be, measured: `cargo test --release -p nat-common load -- --ignored
//! --nocapture`.

use super::{
    super::{Hashed, Memory, Refused, SPILLED, find, host::HostMemory, insert, remove},
    samples::{SEEDS, flow, key},
};
use crate::record::REACH;
use std::cell::RefCell;

/// Notes which lines are read.
struct Counting<'a> {
    memory: &'a HostMemory,
    lines: RefCell<Vec<u32>>,
}

impl Counting<'_> {
    /// Lines that a search of this key reads.
    fn lines(&self, key: &Hashed) -> usize {
        self.lines.borrow_mut().clear();
        find(self, key);
        self.lines.borrow().len()
    }
}

impl Memory for Counting<'_> {
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
        let mut lines = self.lines.borrow_mut();
        if !lines.contains(&place) {
            lines.push(place);
        }
        self.memory.load(place, word)
    }
    fn store(&self, _: u32, _: usize, _: u64) {
        unreachable!("a search writes nothing");
    }
    fn store_created(&self, _: u32, _: u32) {
        unreachable!("a search writes nothing");
    }
    fn swap(&self, _: u32, _: usize, _: u64, _: u64) -> bool {
        unreachable!("a search writes nothing");
    }
    fn set_bits(&self, _: u32, _: usize, _: u64) {
        unreachable!("a search writes nothing");
    }
    fn clear_bits(&self, _: u32, _: usize, _: u64) {
        unreachable!("a search writes nothing");
    }
    fn lock(&self, _: u32) -> bool {
        unreachable!("a search takes no lock");
    }
    fn unlock(&self, _: u32) {
        unreachable!("a search takes no lock");
    }
}

/// Mean, 99 % and highest of counts.
fn summary(mut counts: Vec<usize>) -> String {
    counts.sort_unstable();
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let (p99, highest) = (counts[counts.len() * 99 / 100], counts[counts.len() - 1]);
    format!("{mean:.3} / {p99} / {highest}")
}

/// A table of `places`, with flows of the keys in `live`.
struct Filled {
    memory: HostMemory,
    live: Vec<u32>,
    next: u32,
}

impl Filled {
    fn new(places: u32) -> Self {
        Self { memory: HostMemory::new(places, SEEDS), live: Vec::new(), next: 0 }
    }

    /// Tries to insert the next key: whether there was a place.
    fn insert(&mut self) -> bool {
        let number = self.next;
        self.next += 1;
        let key = key(number);
        let hashed = Hashed::new(&self.memory, &key);
        match insert(&self.memory, &hashed, &flow(&key, 1, 1)) {
            Ok(_) => {
                self.live.push(number);
                true
            }
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                false
            }
        }
    }

    /// Removes one flow out of the middle.
    fn remove(&mut self) {
        let at = self.next.wrapping_mul(2_654_435_761) as usize % self.live.len();
        let number = self.live.swap_remove(at);
        let found = find(&self.memory, &Hashed::new(&self.memory, &key(number))).unwrap();
        assert!(remove(&self.memory, found.line(), found.state));
    }

    /// Inserts until there are this many; how many failed.
    fn fill(&mut self, flows: usize) -> u32 {
        let mut failed = 0;
        while self.live.len() < flows {
            failed += u32::from(!self.insert());
        }
        failed
    }

    fn report(&self, what: &str, tried: u32, failed: u32) {
        let memory = &self.memory;
        let counting = Counting { memory, lines: RefCell::default() };
        let lines = |number| counting.lines(&Hashed::new(memory, &key(number)));
        let hits = self.live.iter().map(|number| lines(*number)).collect();
        let misses = (self.next..self.next + 1_000_000).map(lines).collect();
        let homes = 0..memory.homes();
        let spilled = homes.filter(|home| memory.load(*home, REACH) & SPILLED != 0).count();
        println!(
            "{what}: {failed} of {tried} failed ({:.1e}); lines a hit {}, a miss {}; spilled {:.4}",
            f64::from(failed) / f64::from(tried),
            summary(hits),
            summary(misses),
            spilled as f64 / f64::from(memory.homes()),
        );
    }
}

#[test]
#[ignore = "measures, takes minutes"]
fn load_of_a_table_of_three_million_places() {
    const PLACES: u32 = 3 << 20;
    println!("lines: mean / 99 % / most");
    for (name, load) in
        [("1/3", 1.0 / 3.0), ("1/2", 0.5), ("2/3", 2.0 / 3.0), ("3/4", 0.75), ("0.9", 0.9)]
    {
        let flows = (f64::from(PLACES) * load) as usize;
        let mut table = Filled::new(PLACES);
        let failed = table.fill(flows);
        table.report(&format!("load {name}, filled"), table.next, failed);
        let (before, mut failed) = (table.next, 0);
        for _ in 0..8 * PLACES {
            table.remove();
            failed += table.fill(flows);
        }
        table.report(&format!("load {name}, churned"), table.next - before, failed);
    }
}
