//! Translates TCP sequence numbers of a direction whose text the FTP engine has edited.
//!
//! Invariant: outside an edit the maps are exact inverses of each other; inside one they err to the
//! side that makes TCP send again, never to the side that makes it believe bytes arrived.
//!
//! ```text
//!   sender's space     ....PORT 10,0,1,2,162,71\r\n....        seq  --map_seq-->
//!                          |start      |start+old_len
//!   delta = base           v   the edit v            delta = delta_after
//!   receiver's space   ....PORT 203,0,113,1,162,71\r\n....     <--map_ack--  ack, SACK edges
//! ```
//!
//! One [`Corrections`] describes one direction: the sequence numbers of its sender's segments, and
//! the acknowledgements that its receiver sends back. Comparisons are those of serial numbers
//! (RFC 9293, 3.4): a listed edit must lie within 2^31 of every number that is mapped, which
//! [`Corrections::retire_acknowledged`] sees to long before.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Edits of one direction that can wait for their acknowledgement at a time.
pub const MAX_EDITS: usize = 8;

/// One replaced run of bytes: `old_len` bytes from `start` on left as `new_len` other bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Edit {
    /// Sequence number of the first replaced byte, in the sender's space.
    start: u32,
    /// Bytes replaced, at least 1.
    old_len: u16,
    /// Bytes put in their place, at least 1.
    new_len: u16,
    /// The receiver's sequence number less the sender's, from the end of this edit on.
    delta_after: i32,
}

/// The shift of one direction of a control flow: what was there before, and the listed edits.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Corrections {
    /// The receiver's sequence number less the sender's, before the first listed edit.
    base: i32,
    /// Entries of `edits` in use, oldest first.
    len: u32,
    edits: [Edit; MAX_EDITS],
}

const _: () = assert!(size_of::<Edit>() == 12);
const _: () = assert!(size_of::<Corrections>() == 104);

/// Why an edit could not be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// [`MAX_EDITS`] edits wait for their acknowledgement, or the edit swallows 64 KiB.
    Full,
    /// An edit has to replace at least one byte by at least one byte, or an acknowledgement at its
    /// border would have two meanings.
    Empty,
    /// The edit starts before the end of the last one.
    OutOfOrder,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full => "every place for an unacknowledged edit is taken",
            PushError::Empty => "an edit must replace at least one byte by at least one",
            PushError::OutOfOrder => "an edit starts before the end of the last one",
        })
    }
}

impl core::error::Error for PushError {}

/// To which side a number inside an edit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To its first byte.
    Down,
    /// Behind its last.
    Up,
}

impl Corrections {
    /// No edit and no shift: numbers pass as they are.
    pub const IDENTITY: Corrections = Corrections {
        base: 0,
        len: 0,
        edits: [Edit { start: 0, old_len: 0, new_len: 0, delta_after: 0 }; MAX_EDITS],
    };

    /// Whether every number maps to itself.
    #[inline(always)]
    pub fn is_identity(&self) -> bool {
        self.base == 0 && self.len == 0
    }

    /// The receiver's number for a sequence number of the sender.
    ///
    /// Inside an edit the number keeps its distance to the edit's end, so that a keepalive, which
    /// carries the number before the next (RFC 9293, 3.8.4), stays one below the next.
    #[inline(always)]
    pub fn map_seq(&self, seq: u32) -> u32 {
        let mut delta = self.base;
        for (index, edit) in self.edits.iter().enumerate() {
            if index as u32 == self.len || !is_after(seq, edit.start) {
                break;
            }
            let old_end = edit.start.wrapping_add(edit.old_len as u32);
            if is_after(old_end, seq) {
                let new_start = shifted(edit.start, delta);
                let aligned = shifted(seq, edit.delta_after);
                return if is_after(new_start, aligned) { new_start } else { aligned };
            }
            delta = edit.delta_after;
        }
        shifted(seq, delta)
    }

    /// The sender's number for an acknowledgement of the receiver: inside an edit its first byte,
    /// because half a new line acknowledges nothing of the old one.
    #[inline(always)]
    pub fn map_ack(&self, ack: u32) -> u32 {
        self.unmap(ack, Round::Down)
    }

    /// The sender's number for the left edge of a SACK block (RFC 2018, 3), rounded up.
    #[inline(always)]
    pub fn map_sack_left(&self, edge: u32) -> u32 {
        self.unmap(edge, Round::Up)
    }

    /// The sender's number for the right edge of a SACK block (RFC 2018, 3), rounded down.
    #[inline(always)]
    pub fn map_sack_right(&self, edge: u32) -> u32 {
        self.unmap(edge, Round::Down)
    }

    /// The sender's number for one of the receiver.
    #[inline(always)]
    pub fn unmap(&self, number: u32, round: Round) -> u32 {
        let mut delta = self.base;
        for (index, edit) in self.edits.iter().enumerate() {
            let new_start = shifted(edit.start, delta);
            if index as u32 == self.len || !is_after(number, new_start) {
                break;
            }
            if is_after(new_start.wrapping_add(edit.new_len as u32), number) {
                return match round {
                    Round::Down => edit.start,
                    Round::Up => edit.start.wrapping_add(edit.old_len as u32),
                };
            }
            delta = edit.delta_after;
        }
        number.wrapping_sub(delta as u32)
    }

    /// The identity behind edits that are folded already.
    pub fn with_base(base: i32) -> Corrections {
        Corrections { base, ..Corrections::IDENTITY }
    }

    /// Lists an edit after those that are there. One that keeps the length is listed as well: half
    /// of its line is not to be acknowledged either.
    pub fn push(&mut self, start: u32, old_len: u16, new_len: u16) -> Result<(), PushError> {
        if old_len == 0 || new_len == 0 {
            return Err(PushError::Empty);
        }
        let mut delta = self.base;
        if let Some(last) = self.edits().last() {
            if is_after(last.start.wrapping_add(last.old_len as u32), start) {
                return Err(PushError::OutOfOrder);
            }
            delta = last.delta_after;
        }
        let delta_after = delta.wrapping_add(new_len as i32 - old_len as i32);
        let place = self.edits.get_mut(self.len as usize).ok_or(PushError::Full)?;
        *place = Edit { start, old_len, new_len, delta_after };
        self.len += 1;
        Ok(())
    }

    /// Lets the newest edit swallow `bytes` more of the sender's bytes: a line that is still being
    /// written behind a text that has left already.
    pub fn extend_last(&mut self, bytes: u16) -> Result<(), PushError> {
        let newest = (self.len as usize).checked_sub(1).ok_or(PushError::Empty)?;
        let edit = self.edits.get_mut(newest).ok_or(PushError::Full)?;
        edit.old_len = edit.old_len.checked_add(bytes).ok_or(PushError::Full)?;
        edit.delta_after = edit.delta_after.wrapping_sub(bytes as i32);
        Ok(())
    }

    /// Folds the oldest edits into the base while more than `keep` are listed and the oldest ends
    /// at or before `acknowledged` (in the sender's space). Gives the number of edits folded.
    ///
    /// Safe for stragglers: what is sent again from before a folded edit lands wholly below what
    /// the receiver has acknowledged, and an acknowledgement from then maps below what the sender
    /// knows to be acknowledged. Both ends ignore that.
    pub fn retire_acknowledged(&mut self, acknowledged: u32, keep: usize) -> usize {
        let mut retired = 0;
        while self.edits().len() > keep {
            let [oldest, ..] = self.edits;
            if is_after(oldest.start.wrapping_add(oldest.old_len as u32), acknowledged) {
                break;
            }
            self.base = oldest.delta_after;
            self.edits.rotate_left(1);
            self.len -= 1;
            if let Some(freed) = self.edits.get_mut(self.len as usize) {
                *freed = Edit::default();
            }
            retired += 1;
        }
        retired
    }

    /// The listed edits, oldest first.
    pub fn edits(&self) -> &[Edit] {
        self.edits.get(..self.len as usize).unwrap_or(&self.edits)
    }

    /// The shift before the first listed edit.
    pub fn base(&self) -> i32 {
        self.base
    }

    /// The shift behind the last listed edit: that of bytes still to come.
    pub fn latest_delta(&self) -> i32 {
        self.edits().last().map_or(self.base, |edit| edit.delta_after)
    }
}

impl Edit {
    /// Sequence number of the first replaced byte, in the sender's space.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Bytes replaced.
    pub fn old_len(&self) -> u16 {
        self.old_len
    }

    /// Sequence number behind the last replaced byte, in the sender's space.
    pub fn end(&self) -> u32 {
        self.start.wrapping_add(self.old_len as u32)
    }

    /// Bytes put in their place.
    pub fn new_len(&self) -> u16 {
        self.new_len
    }
}

/// `left > right` among serial numbers (RFC 1982, 3.2; equal at distance 2^31 counts as before).
#[inline(always)]
fn is_after(left: u32, right: u32) -> bool {
    (left.wrapping_sub(right) as i32) > 0
}

#[inline(always)]
fn shifted(number: u32, delta: i32) -> u32 {
    number.wrapping_add(delta as u32)
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
