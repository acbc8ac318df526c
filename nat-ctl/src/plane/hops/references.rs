//! References of flows to next hops, before their epoch comes round again.
//!
//! A record has 16 bits of the epoch: after 65,536 moves the reference of a flow that sent nothing
//! in all that time would look true again. So each move of the epoch walks over one slice of the
//! flow records and takes the references away that are void anyway.
//!
//! Invariant: within [`SLICES`] moves every record is visited, and what a visit leaves is of that
//! very epoch; so no reference is ever older than a quarter of the way round, or a half where the
//! number itself wraps and skips 0, or an agent died before its slice. The slice is found by the
//! epoch alone: an agent that comes or goes in between leaves out none. It costs a part in 16,384 of
//! the table a move (732 records of 12 million), and nothing while routes stay as they are.

use std::sync::atomic::Ordering;

use nat_common::{hop::HopReference, record};

use crate::plane::mapped::Mapped;

/// Parts into which the records are cut.
const SLICES: u64 = 1 << 14;
/// Word and byte of a record at which the reference is.
const WORD: usize = record::HOP / 8;
const BYTE: usize = record::HOP % 8;
/// Tries against a packet that counts in the same word; whose flow is at work asks anew by itself.
const TRIES: usize = 4;

/// Takes the void references out of the slice of `epoch`, when the epoch has moved on to it. Gives
/// back how many.
pub fn void_slice(flows: &Mapped, epoch: u32) -> usize {
    let entries = u64::from(flows.entries());
    let slice = u64::from(epoch) % SLICES;
    let [from, to] = [slice, slice + 1].map(|slice| entries * slice / SLICES);
    // Both are at most the number of entries, which has 32 bits.
    (from as u32..to as u32).filter(|index| void(flows, *index, epoch)).count()
}

/// Takes all void references out.
pub fn void_all(flows: &Mapped, epoch: u32) -> usize {
    (0..flows.entries()).filter(|index| void(flows, *index, epoch)).count()
}

fn void(flows: &Mapped, index: u32, epoch: u32) -> bool {
    let Some(word) = flows.word(index, WORD) else { return false };
    let mut observed = word.load(Ordering::Relaxed);
    for _ in 0..TRIES {
        let mut bytes = observed.to_ne_bytes();
        let [.., a, b, c, d] = &mut bytes;
        const { assert!(BYTE == 4) };
        let reference = HopReference::from_half(u32::from_ne_bytes([*a, *b, *c, *d]));
        if reference == HopReference::NONE || reference.epoch() == epoch as u16 {
            return false;
        }
        [*a, *b, *c, *d] = HopReference::NONE.half().to_ne_bytes();
        let without = u64::from_ne_bytes(bytes);
        match word.compare_exchange(observed, without, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => observed = now,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::record::FlowRecord;

    fn flows(entries: u32) -> Mapped {
        Mapped::anonymous(entries, size_of::<FlowRecord>() as u32)
    }

    fn refer(flows: &Mapped, index: u32, reference: HopReference, packets: u32) {
        let [a, b, c, d] = packets.to_ne_bytes();
        let [e, f, g, h] = reference.half().to_ne_bytes();
        let word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        flows.word(index, WORD).unwrap().store(word, Ordering::Relaxed);
    }

    fn record(flows: &Mapped, index: u32) -> FlowRecord {
        let words: Vec<u64> =
            flows.entry(index).unwrap().iter().map(|word| word.load(Ordering::Relaxed)).collect();
        FlowRecord::from_words(words.try_into().unwrap())
    }

    #[test]
    fn a_void_reference_goes_and_nothing_else_changes() {
        let flows = flows(SLICES as u32);
        refer(&flows, 5, HopReference::new(17, 4), 99);
        refer(&flows, 6, HopReference::new(18, 6), 7);
        assert_eq!(void_slice(&flows, 5), 1);
        let record = record(&flows, 5);
        assert_eq!((record.flow().hop, record.packets()), (HopReference::NONE, 99));
        assert_eq!(void_slice(&flows, 5), 0);
        assert_eq!(void_slice(&flows, 6), 0, "of this very epoch");
    }

    #[test]
    fn no_reference_lives_to_see_its_number_again() {
        // More records than slices, fewer, and no multiple of them.
        for entries in [3, 1000, SLICES as u32 + 15] {
            let flows = flows(entries);
            let first = 0xffff_f000_u32;
            for index in 0..entries {
                refer(&flows, index, HopReference::new(1 + index % 100, first), 1);
            }
            // Half of a round later nothing is left, across the wrap of the whole number as well.
            let mut epoch = first;
            let mut gone = 0;
            for _ in 0..2 * SLICES {
                epoch = if epoch == u32::MAX { 1 } else { epoch + 1 };
                gone += void_slice(&flows, epoch);
            }
            assert_eq!(gone, entries as usize);
        }
    }

    #[test]
    fn packets_that_count_meanwhile_lose_no_count() {
        let flows = flows(1);
        let word = flows.word(0, WORD).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    word.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                let [a, b, c, d] = HopReference::new(17, 3).half().to_ne_bytes();
                let reference = u64::from_ne_bytes([0, 0, 0, 0, a, b, c, d]);
                for epoch in (SLICES as u32 - 1..).step_by(SLICES as usize).take(1000) {
                    word.fetch_or(reference, Ordering::Relaxed);
                    void_slice(&flows, epoch);
                }
            });
        });
        assert_eq!(record(&flows, 0).packets(), 100_000);
    }
}
