//! Two tables at a time: how packets find, make and remove flows while the table grows.
//!
//! ```text
//!   key --> now? --yes--> there
//!            | no
//!            +--> before? --no---> none
//!                   | yes
//!                   +--> moved to now, and used there
//!                          | in use by another packet, or no room
//!                          +--> used where it lies
//! ```
//!
//! What holds at any time, beside what holds of each table: no line of the table before is given up
//! before its flow lies in the other, whatever room there is.

use super::{Found, Hashed, Memory, Refused, find, relocate, remove, room};

/// In which of the tables a line lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies<B, N> {
    /// In the table before, still.
    Before(B),
    /// In the one that takes over.
    Now(N),
}

/// A line that was found in one of two tables.
pub type FoundIn<B, N> = Lies<Found<<B as Memory>::Place>, Found<<N as Memory>::Place>>;

/// The line of a key that is not in the table `now`, moved there if that can be: the flow of a packet
/// goes on in any case.
#[inline(always)]
pub fn find_before<B: Memory, N: Memory>(
    before: &B,
    now: &N,
    key: &Hashed,
) -> Option<FoundIn<B, N>> {
    go_on(find(before, key), |found| relocate(before, now, found).ok(), || find(now, key))
}

/// The same in its steps, for the kernel, where each is a function of its own: with what was `found` in
/// the table before, by what moves that, and by what searches the table `now`.
#[inline(always)]
pub fn go_on<B: Copy, N>(
    found: Option<B>,
    moves: impl FnOnce(B) -> Option<N>,
    now: impl FnOnce() -> Option<N>,
) -> Option<Lies<B, N>> {
    if let Some(moved) = found.and_then(moves) {
        return Some(Lies::Now(moved));
    }
    // Another CPU may have moved it meanwhile. Where it is about to, the line that was found says so
    // itself, and the packet is repeated.
    match now() {
        Some(moved) => Some(Lies::Now(moved)),
        None => found.map(Lies::Before),
    }
}

/// Whether a flow may be made in the table `now`, for all that is known of its key in the one before.
///
/// # Errors
/// [`Refused::Exists`] and [`Refused::Busy`], as of one table.
#[inline(always)]
pub fn is_new<B: Memory>(before: &B, key: &Hashed) -> Result<(), Refused> {
    match find(before, key) {
        Some(found) if found.state.is_live() => Err(Refused::Exists),
        Some(_) => Err(Refused::Busy),
        None => Ok(()),
    }
}

/// Ends the flow of a key wherever it lies, if no packet uses it meanwhile; whether there was one.
#[inline(always)]
pub fn remove_both<B: Memory, N: Memory>(before: &B, now: &N, key: &Hashed) -> bool {
    let old = find(before, key).is_some_and(|found| remove(before, found.line(), found.state));
    let new = find(now, key).is_some_and(|found| remove(now, found.line(), found.state));
    old | new
}

/// Lines that packets may add to a table with `homes` homes while another one with `homes_before`
/// moves there: together they fill it to its room and no further ([`super::places`]), so that each
/// line that moves finds a place.
#[inline(always)]
pub const fn allowance(homes: u32, homes_before: u32) -> u64 {
    room(homes).saturating_sub(homes_before as u64)
}
