//! The places of the map `hops`: who has taken which, what is written there, when they are freed.
//!
//! Invariant: a packet that reads LINK and then OWN never finds a valid link address with an own one
//! that is older: on a change the link goes first and comes last. And a place is free for another
//! hop only when no packet can hold a reference to it that is still true:
//!
//! ```text
//!   free --- packet, by CAS ---> taken --- 2 epochs old ---> closing --- 2 s, still old ---> free
//!                                  ^                            |
//!                                  '---- a packet came in between: its epoch is a new one
//! ```
//!
//! A packet that saw its hop here right before the place was closed writes the new epoch, and may
//! make its flow refer to it, a moment after; that is why there is a step between. In that step the
//! first word names no interface: it is not taken, and nobody can take it.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use nat_common::hop::{EPOCH, Hop, LINK, OWN, WHO, WORDS};

use super::epoch::Epoch;
use crate::plane::{
    mapped::Mapped,
    neighbours::{Device, Key, LinkAddress},
};

/// Neither free nor taken: no interface, but not 0 either.
const CLOSING: u64 = Hop::who([255; 4], 0);
/// Epochs after which nobody refers to a place: one, and one for a packet that read the last one
/// right before it moved on.
const OLD: u32 = 2;
/// What a packet can take between two of its steps, and much more.
const GRACE: Duration = Duration::from_secs(2);

/// All places, and what was seen in them.
#[derive(Debug)]
pub struct Places {
    map: Mapped,
    /// First word of each place as it was seen last.
    seen: Vec<u64>,
    taken: BTreeMap<Key, Vec<Taken>>,
    closing: BTreeMap<u32, Closing>,
}

/// A place that is taken. A hop has more than one where two packets were the first.
#[derive(Debug, Clone, Copy)]
struct Taken {
    index: u32,
    since: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    /// Whose it was; unknown where a predecessor closed it.
    key: Option<Key>,
    since: Duration,
}

impl Places {
    /// Those of a map, of which nothing has been seen yet.
    pub fn new(map: Mapped) -> Self {
        let seen = vec![0; map.entries() as usize];
        Self { map, seen, taken: BTreeMap::new(), closing: BTreeMap::new() }
    }

    /// What packets see of it.
    #[cfg(test)]
    pub(super) fn memory(&self) -> &Mapped {
        &self.map
    }

    /// Whether some place leads there.
    pub fn has(&self, key: &Key) -> bool {
        self.taken.contains_key(key)
    }

    /// Where places lead, on the interfaces of that range of numbers.
    pub fn keys(&self, ifindexes: RangeInclusive<u32>) -> Vec<Key> {
        let from = Key { ifindex: *ifindexes.start(), address: [0; 4] };
        let to = Key { ifindex: *ifindexes.end(), address: [255; 4] };
        self.taken.range(from..=to).map(|(key, _)| *key).collect()
    }

    /// Whether so many places are taken that a new hop may not find one soon.
    pub fn is_crowded(&self) -> bool {
        let taken = self.taken.values().map(Vec::len).sum::<usize>() + self.closing.len();
        taken > self.seen.len() / 4 * 3
    }

    /// Looks at all places. Gives back where those lead that were taken since the last look.
    pub fn look(&mut self, now: Duration) -> Vec<Key> {
        let mut found = vec![];
        // The first place is never used: 0 is "no hop" in a reference.
        let places = (0..).zip(self.map.words().chunks_exact(WORDS)).zip(&mut self.seen).skip(1);
        for ((index, words), seen) in places {
            let who = load(words, WHO);
            if who == *seen {
                continue;
            }
            *seen = who;
            let hop = Hop::from_words([who, 0, 0, 0]);
            if hop.is_taken() {
                let key = Key { ifindex: hop.ifindex(), address: hop.neighbour() };
                self.taken.entry(key).or_default().push(Taken { index, since: now });
                found.push(key);
            } else if who != 0 {
                self.closing.insert(index, Closing { key: None, since: now });
            }
        }
        found
    }

    /// Writes link addresses and MTU to all places that lead to `key`.
    pub fn write(&self, key: &Key, link: Option<LinkAddress>, device: Option<&Device>) {
        let wanted = words(link, device);
        for place in self.taken.get(key).into_iter().flatten() {
            let Some(words) = self.map.entry(place.index) else { continue };
            for (word, value) in steps([load(words, LINK), load(words, OWN)], wanted) {
                store(words, word, value);
            }
        }
    }

    /// Closes places that nobody refers to any more, and frees those that have been closed for long
    /// enough. Gives back where those lead that were used in between: they are to be written again.
    pub fn retire(&mut self, now: Duration, epoch: &Epoch) -> Vec<Key> {
        let is_old = |map: &Mapped, index| {
            map.entry(index).is_none_or(|words| epoch.age(epoch_of(words)) >= OLD)
        };
        let rested = |since: Duration| since + GRACE <= now;

        let mut back = vec![];
        let due: Vec<u32> =
            self.closing.iter().filter(|(_, it)| rested(it.since)).map(|it| *it.0).collect();
        for index in due {
            if is_old(&self.map, index) {
                self.closing.remove(&index);
                self.clear(index, 0);
            } else if let Some(Closing { key: Some(key), .. }) = self.closing.get(&index).copied() {
                self.closing.remove(&index);
                let who = Hop::who(key.address, key.ifindex);
                self.mark(index, CLOSING, who);
                self.taken.entry(key).or_default().push(Taken { index, since: now });
                back.push(key);
            }
        }

        let mut closed = vec![];
        self.taken.retain(|key, places| {
            places.retain(|place| {
                let keep = !rested(place.since) || !is_old(&self.map, place.index);
                if !keep {
                    closed.push((place.index, *key));
                }
                keep
            });
            !places.is_empty()
        });
        for (index, key) in closed {
            self.mark(index, Hop::who(key.address, key.ifindex), CLOSING);
            self.clear(index, CLOSING);
            self.closing.insert(index, Closing { key: Some(key), since: now });
        }
        back
    }

    /// Takes everything out of a place, its first word last.
    fn clear(&mut self, index: u32, who: u64) {
        let Some(words) = self.map.entry(index) else { return };
        store(words, LINK, 0);
        store(words, OWN, 0);
        self.mark(index, CLOSING, who);
    }

    /// Changes the first word, unless it is not what it should be.
    fn mark(&mut self, index: u32, from: u64, to: u64) {
        if let Some(word) = self.map.word(index, WHO)
            && word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(seen) = self.seen.get_mut(index as usize)
        {
            *seen = to;
        }
    }
}

/// The words LINK and OWN of a hop.
fn words(link: Option<LinkAddress>, device: Option<&Device>) -> [u64; 2] {
    let Some(device) = device else { return [0, 0] };
    let mtu = u16::try_from(device.mtu).unwrap_or(u16::MAX);
    let own = Hop::own(device.link.unwrap_or_default(), mtu);
    let link = link.filter(|_| device.link.is_some()).map_or(0, Hop::resolved);
    [link, own]
}

/// What is written, in this order, so that LINK and OWN become what is wanted.
fn steps(before: [u64; 2], wanted: [u64; 2]) -> impl Iterator<Item = (usize, u64)> {
    let [link_before, own_before] = before;
    let [link, own] = wanted;
    let (own_changes, link_changes) = (own != own_before, link != link_before);
    let withdrawn = own_changes && link_before != 0;
    let given = if withdrawn { link != 0 } else { link_changes };
    let steps = [
        withdrawn.then_some((LINK, 0)),
        own_changes.then_some((OWN, own)),
        given.then_some((LINK, link)),
    ];
    steps.into_iter().flatten()
}

fn load(words: &[AtomicU64], word: usize) -> u64 {
    words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(words: &[AtomicU64], word: usize, value: u64) {
    if let Some(word) = words.get(word) {
        word.store(value, Ordering::Release);
    }
}

fn epoch_of(words: &[AtomicU64]) -> u32 {
    const { assert!(EPOCH.is_multiple_of(8)) };
    Hop::from_words([0, 0, 0, load(words, EPOCH / 8)]).epoch()
}

#[cfg(test)]
mod tests;
