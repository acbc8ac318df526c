//! Where a key belongs: a hash that the outside can't predict, and the homes it gives.

use super::{CHOICES, Memory, STRIPES};
use crate::{flow::FlowKey, record::KEY_MASK};

/// 2^64 divided by the golden ratio, odd (Knuth, The Art of Computer Programming, volume 3, 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of the words of a key.
///
/// The first step is NH of UMAC (RFC 4418 section 5.2.2): with secret seeds, two keys fall together
/// in at most one of 2^32 cases, however they were picked. The second is the finaliser of
/// MurmurHash3, a permutation after which every bit depends on all.
#[inline(always)]
pub const fn hash([first, second]: [u64; 2], seeds: [u64; 2]) -> u64 {
    mixed(product(first, seeds[0]).wrapping_add(product(second & KEY_MASK, seeds[1])))
}

/// The finaliser of MurmurHash3.
#[inline(always)]
pub(crate) const fn mixed(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// The halves of the word, each plus its half of the seed, multiplied.
#[inline(always)]
const fn product(word: u64, seed: u64) -> u64 {
    let low = (word as u32).wrapping_add(seed as u32);
    let high = ((word >> 32) as u32).wrapping_add((seed >> 32) as u32);
    (low as u64).wrapping_mul(high as u64)
}

/// A key that is ready to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    pub(super) words: [u64; 2],
    hash: u64,
}

impl Hashed {
    /// `key` in this table.
    #[inline(always)]
    pub fn new<M: Memory>(memory: &M, key: &FlowKey) -> Self {
        Self::from_words(memory, key.words())
    }

    /// The key that these words of a line have.
    #[inline(always)]
    pub(super) fn from_words<M: Memory>(memory: &M, [first, second]: [u64; 2]) -> Self {
        let words = [first, second & KEY_MASK];
        Self { words, hash: hash(words, memory.seeds()) }
    }

    /// The home by its choice, below [`CHOICES`]: the first is a near one, the others are not. Two take
    /// one half of the hash each, the others one half each of what a multiplication makes of it.
    #[inline(always)]
    pub fn home<M: Memory>(&self, memory: &M, choice: u32) -> u32 {
        debug_assert!(choice < CHOICES);
        let near = memory.near_homes();
        let far = memory.homes().wrapping_sub(near);
        match choice {
            0 => share(self.hash & 0xffff_ffff, near),
            1 => near.wrapping_add(share(self.hash >> 32, far)),
            2 => near.wrapping_add(share(self.hash.wrapping_mul(GOLDEN) >> 32, far)),
            _ => near.wrapping_add(share(self.hash.wrapping_mul(GOLDEN) & 0xffff_ffff, far)),
        }
    }

    /// The lock that inserts of it take. Homes come from the upper ends of the halves, this from a
    /// lower one, so that neighbours don't share a lock.
    #[inline(always)]
    pub const fn stripe(&self) -> u32 {
        self.hash as u32 & (STRIPES - 1)
    }
}

/// Where 32 bits of a hash fall among `count`.
#[inline(always)]
const fn share(bits: u64, count: u32) -> u32 {
    (bits.wrapping_mul(count as u64) >> 32) as u32
}
