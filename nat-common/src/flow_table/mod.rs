//! The map `flows`: where the lines of flows lie, and how packets and the agent take, use and end
//! them without a lock that anybody waits for.
//!
//! A key has four homes. Its line lies at one of the first places of its first home, or if those are
//! taken at one of the [`WINDOW`] places of its second, or of its third, or of its fourth. Which of them
//! have lines of a home says the *reach* in the record at that home, so that a search reads the home and,
//! nearly always, the line itself. Lines never move.
//!
//! ```text
//!   home 17 --reach 0b101--> places 17 and 20 have lines of keys whose home is 17
//!           --SPILLED------> look at the next home too
//!
//!   window  17 18 . 20 . . 23 . . . 27 ...   each [`distance`] one more than the last
//! ```
//!
//! First homes are the [`NEAR`] first ones of the table. So as long as there are few flows they lie
//! close together, and a processor reaches them by the pages that it knows; the other homes are spread
//! over the rest of the table, for when there are many.
//!
//! The places of a window lie apart more and more, so that windows of neighbours share few of them.
//! Where 15 places in a row are a window, a crowd of neighbours fills all of it: with two thirds of
//! a million places taken, one of 5,000 inserts found no place, and so finds one of 700,000.
//!
//! What holds at any time:
//! - The state word of a line moves by compare-and-swap alone, and only along
//!   `Free -> Claimed -> Live <-> Ending -> Free`; each turn has a version of its own.
//! - Who moved a line to `Claimed` or `Ending` owns it: its body, and the bits of reaches that stand
//!   for its place. Nobody else writes those.
//! - The bit of a line is set before it is `Live` and cleared before it is `Free`.
//! - No two lines of one key are `Live`: inserts of one key follow each other, by a stripe of
//!   [`Memory::lock`]. Ending needs no lock.
//!
//! What was read of a line is of one flow if its version is still the same afterwards. The version
//! has eight bits: a reader would have to stand still while one place is taken and freed 256 times.

mod end;
mod find;
mod growing;
mod hash;
#[cfg(any(test, feature = "std"))]
pub mod host;
mod insert;
mod relocate;
#[cfg(test)]
mod tests;
mod touch;

use crate::record::State;

pub use end::{clear_reach, end, end_pair, finish, put_back, remove};
pub use find::{AtHome, find, find_at, find_near, load_flow};
pub use growing::{FoundIn, Lies, allowance, find_before, go_on, is_new, remove_both};
pub(crate) use hash::mixed;
pub use hash::{Hashed, hash};
pub use insert::{insert, insert_line};
pub use relocate::relocate;
pub use touch::touch;

/// Places of a home in which its lines may lie.
pub const WINDOW: u32 = 15;
/// How far the last place of a window is from its home.
pub const SPAN: u32 = distance(WINDOW - 1);
/// Homes of a key.
pub const CHOICES: u32 = 4;
/// Homes that are the first of a key: with 64 bytes a place 8 MB, in which 50,000 flows fill three of
/// four places.
pub const NEAR: u32 = 1 << 17;
/// Places of a first home: fewer, for in a full table all of them are taken.
pub const NEAR_WINDOW: u32 = 6;
/// Bit of a reach: a key that has this home was placed from a later one. It is never cleared.
pub const SPILLED: u64 = 1 << WINDOW;
/// Locks that inserts share.
pub const STRIPES: u32 = 16384;
/// Tries to get a lock before a packet is refused; who has one needs some tens of nanoseconds.
pub const LOCK_TRIES: u32 = 64;
/// Tries to note the use of a line.
const TOUCH_TRIES: u32 = 4;

/// Places of a table for this many lines; two of three are taken then. A table of three million places
/// that fills up to there refuses none, and one that is kept so full one insert of eight million.
pub const fn places(lines: u32) -> u32 {
    lines.saturating_add(lines / 2 + 1).saturating_add(SPAN)
}

/// Lines that so many places, or homes, are made for.
pub const fn room(places: u32) -> u64 {
    places as u64 * 2 / 3
}

/// Homes of a table with this many places: every window lies in it.
pub const fn homes(places: u32) -> u32 {
    places.saturating_sub(SPAN)
}

/// Those of them that are first homes: the first ones, half of all at most.
pub const fn near_homes(homes: u32) -> u32 {
    if homes / 2 < NEAR { homes / 2 } else { NEAR }
}

/// Places of a home by its choice.
#[inline(always)]
pub const fn window(choice: u32) -> u32 {
    if choice == 0 { NEAR_WINDOW } else { WINDOW }
}

/// How far the place that has this bit in the reach is from its home.
#[inline(always)]
pub const fn distance(offset: u32) -> u32 {
    offset.wrapping_mul(offset.wrapping_add(1)) >> 1
}

/// The records, wherever they are mapped. Words are those of [`crate::record`].
///
/// `swap` orders everything before it before everything after it, for all who see its result; a
/// `load` is done before the loads that follow it.
pub trait Memory {
    /// A record.
    type Place: Copy;

    /// The record number `index`.
    fn place(&self, index: u32) -> Option<Self::Place>;
    /// How many [`homes`] there are.
    fn homes(&self) -> u32;
    /// How many [`near_homes`] there are.
    fn near_homes(&self) -> u32 {
        near_homes(self.homes())
    }
    /// What the hash is keyed with.
    fn seeds(&self) -> [u64; 2];
    /// Reads a word.
    fn load(&self, place: Self::Place, word: usize) -> u64;
    /// Writes a word; never the state, nor the word in which the reach is.
    fn store(&self, place: Self::Place, word: usize, value: u64);
    /// Writes the time of creation and a packet count whose high half is 0: the part of a word that
    /// is not the reach.
    fn store_created(&self, place: Self::Place, created: u32);
    /// Writes `new` if the word is `old`, and says whether it was.
    fn swap(&self, place: Self::Place, word: usize, old: u64, new: u64) -> bool;
    /// Sets bits of a word at once.
    fn set_bits(&self, place: Self::Place, word: usize, bits: u64);
    /// Clears bits of a word at once.
    fn clear_bits(&self, place: Self::Place, word: usize, bits: u64);
    /// Does [`clear_reach`]: a memory may have a way of its own to say it.
    fn clear_reach(&self, home: u32, index: u32)
    where
        Self: Sized,
    {
        clear_reach(self, home, index);
    }
    /// Tries once to take a lock, below [`STRIPES`].
    fn lock(&self, stripe: u32) -> bool;
    /// Gives a lock back.
    fn unlock(&self, stripe: u32);
}

/// Where a line lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<P> {
    /// Its record.
    pub place: P,
    /// The number of the record.
    pub index: u32,
}

/// A line that has the key, live or ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<P> {
    /// Its record.
    pub place: P,
    /// From which home it was placed.
    pub home: u32,
    /// Which place of its window; at this [`distance`] from it.
    pub offset: u32,
    /// Its state when the key was read.
    pub state: State,
}

impl<P: Copy> Found<P> {
    /// Where it lies.
    #[inline(always)]
    pub const fn line(&self) -> Line<P> {
        Line { place: self.place, index: self.home.wrapping_add(distance(self.offset)) }
    }
}

/// Why a flow was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key has a live line.
    Exists,
    /// Its line is ending, or others hold its lock.
    Busy,
    /// All places of its windows are taken.
    Full,
}
