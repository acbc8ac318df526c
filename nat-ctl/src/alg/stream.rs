//! One direction of a control flow as a stream of bytes: what has been read of it, and what was put
//! in the place of what.
//!
//! Invariant: what leaves is a pure function of the bytes that arrive and of the edit list. A
//! segment that is seen for the first time and one that is repeated, with the same borders or with
//! others, go through the same [`Stream::outside`].
//!
//! ```text
//!     forgotten      replayed from the edit list       to be read
//!   ------------|-------[edit]--------[edit]-------|----------------->
//!             floor                               next
//! ```

use std::collections::VecDeque;

use nat_common::{
    sequence::{Corrections, PushError},
    watch::{REACH, Watch},
};
use serde::{Deserialize, Serialize};

use super::{flow::Side, image, line::LineState, opening::Promise, records::Records};

/// Furthest back that a sequence number can mean the past: the largest window (RFC 7323, 2.3).
const HORIZON: u32 = 1 << 30;

/// What may come before the first byte that was seen, where the start of the stream is not known.
const UNSEEN_BYTES: u32 = 1 << 16;

/// One direction of a control flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The first byte that has not been read; `None` before the first segment.
    next: Option<u32>,
    /// Below it, edits are folded and their texts gone. All of that is acknowledged.
    floor: u32,
    /// Highest acknowledgement, in the sender's space.
    acknowledged: u32,
    /// Where the edits are.
    #[serde(with = "image::corrections")]
    corrections: Corrections,
    /// What was put there, one for each of them.
    texts: VecDeque<Vec<u8>>,
    /// Where the stream stands within its line.
    pub line: LineState,
    /// What its sender has been made to announce in that line, if it is inside and the line has not ended.
    pub promise: Option<Promise>,
    /// What its bytes are.
    pub reading: Reading,
    /// The first byte that is surely no line, once there is one.
    from: Option<u32>,
}

/// What is read of a direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// Its lines.
    Lines,
    /// Where its TLS records begin. What has not been read starts with a header, and may lie ahead of
    /// what has arrived.
    Records(Records),
    /// Nothing, for good.
    Nothing,
}

/// Where a segment lies in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Bytes before it are missing.
    Gap,
    /// Where its records are cannot be known any more.
    Lost,
    /// So many of its bytes have been read before.
    Read(usize),
}

impl Stream {
    /// A direction that nothing has been seen of.
    pub fn new(side: Side) -> Stream {
        Stream {
            next: None,
            floor: 0,
            acknowledged: 0,
            corrections: Corrections::IDENTITY,
            texts: VecDeque::new(),
            line: LineState::new(side),
            promise: None,
            reading: Reading::Lines,
            from: None,
        }
    }

    /// The first byte of the stream has this number: that of the SYN, and one.
    pub fn starts_at(&mut self, first: u32) {
        if self.next.is_none() {
            (self.next, self.floor, self.acknowledged) = (Some(first), first, first);
        }
    }

    /// Places a segment of `length` bytes.
    pub fn arrival(&mut self, seq: u32, length: usize) -> Arrival {
        let next = *self.next.get_or_insert_with(|| {
            self.floor = seq.wrapping_sub(UNSEEN_BYTES);
            self.acknowledged = seq;
            seq
        });
        match (behind(next, seq), &mut self.reading) {
            (Some(read), _) => Arrival::Read(length.min(read as usize)),
            (None, Reading::Nothing) => {
                self.next = Some(seq);
                Arrival::Read(0)
            }
            (None, Reading::Records(records)) => match records.gap() {
                true => Arrival::Gap,
                false => Arrival::Lost,
            },
            (None, Reading::Lines) => Arrival::Gap,
        }
    }

    /// Whether every byte before `seq` has been read; so it is while none was seen.
    pub fn has_read(&self, seq: u32) -> bool {
        self.reading == Reading::Nothing || self.next.is_none_or(|next| behind(next, seq).is_some())
    }

    /// The next byte, if it starts a line.
    pub fn line_starts(&self) -> Option<u32> {
        self.next.filter(|_| self.line.is_at_start())
    }

    /// Goes on at the start of a line at `seq`, if bytes before that are missing. Whether they are.
    pub fn skip_to(&mut self, seq: u32) -> bool {
        let Some(next) = self.next.filter(|next| behind(*next, seq).is_none()) else {
            return false;
        };
        self.advance(seq.wrapping_sub(next) as usize);
        self.line.restart();
        // Its port goes with the sweep.
        self.promise = None;
        true
    }

    /// Number of the byte that lies `offset` behind what has been read.
    pub fn at(&self, offset: usize) -> u32 {
        self.next.unwrap_or(self.floor).wrapping_add(offset as u32)
    }

    /// `length` bytes more have been read.
    pub fn advance(&mut self, length: usize) {
        let next = self.at(length);
        self.next = Some(next);
        let oldest = next.wrapping_sub(HORIZON);
        if behind(oldest, self.floor).is_some() {
            self.floor = oldest;
        }
        if behind(oldest, self.acknowledged).is_some() {
            self.acknowledged = oldest;
        }
        self.forget(oldest, 0);
    }

    /// From the next byte on there are records.
    pub fn encrypt(&mut self) {
        if self.reading == Reading::Lines {
            (self.reading, self.from) = (Reading::Records(Records::default()), None);
        }
    }

    /// The next byte starts a line.
    pub fn resume(&mut self, side: Side) {
        (self.reading, self.from) = (Reading::Lines, None);
        self.line = LineState::new(side);
    }

    /// Nothing is read any more.
    pub fn stop(&mut self) {
        (self.reading, self.from) = (Reading::Nothing, None);
    }

    /// Records have been followed elsewhere up to `boundary`, where the next one starts.
    pub fn followed(&mut self, boundary: u32) {
        let ahead = self.next.and_then(|next| behind(boundary, next)).filter(|ahead| *ahead > 0);
        if let (Reading::Records(records), Some(ahead)) = (&mut self.reading, ahead) {
            records.skip();
            self.advance(ahead as usize);
        }
    }

    /// Which of its segments are wanted from now on. So that numbers stay comparable the start of what
    /// is not moves on at times.
    pub fn watch(&mut self) -> Watch {
        let Some(next) = self.next else { return Watch::LINES };
        let from = *self.from.get_or_insert(next);
        let from = if next.wrapping_sub(from) < REACH / 2 { from } else { next };
        self.from = Some(from).filter(|_| self.reading != Reading::Lines);
        match &self.reading {
            Reading::Lines => Watch::LINES,
            Reading::Records(records) => {
                Watch::records(from, next.wrapping_sub(records.cut() as u32))
            }
            Reading::Nothing => Watch::nothing(from),
        }
    }

    /// The receiver has acknowledged up to `ack`, in its own space.
    pub fn acknowledge(&mut self, ack: u32) {
        let ack = self.corrections.map_ack(ack);
        let sent = self.next.is_some_and(|next| behind(next, ack).is_some());
        if sent && behind(ack, self.acknowledged).is_some() {
            self.acknowledged = ack;
        }
    }

    /// Makes room for an edit by forgetting the oldest that is acknowledged. Whether there is room.
    pub fn has_room(&mut self) -> bool {
        let full = nat_common::sequence::MAX_EDITS;
        if self.texts.len() == full {
            self.forget(self.acknowledged, full - 1);
        }
        self.texts.len() < full
    }

    /// From now on, `text` leaves in the place of `old_len` bytes from `start` on.
    pub fn edit(&mut self, start: u32, old_len: usize, text: Vec<u8>) -> Result<(), PushError> {
        let old_len = u16::try_from(old_len).map_err(|_| PushError::Full)?;
        let new_len = u16::try_from(text.len()).map_err(|_| PushError::Full)?;
        self.corrections.push(start, old_len, new_len)?;
        self.texts.push_back(text);
        Ok(())
    }

    /// The newest edit swallows `bytes` more.
    pub fn extend_edit(&mut self, bytes: usize) -> Result<(), PushError> {
        self.corrections.extend_last(u16::try_from(bytes).map_err(|_| PushError::Full)?)
    }

    /// The shift of this direction.
    pub fn corrections(&self) -> &Corrections {
        &self.corrections
    }

    /// Whether every edit has its text. What a predecessor left is not trusted blindly.
    pub fn is_sound(&self) -> bool {
        let lengths = self.corrections.edits().iter().map(|edit| usize::from(edit.new_len()));
        let records = match &self.reading {
            Reading::Records(records) => records.is_sound(),
            Reading::Lines | Reading::Nothing => true,
        };
        records && lengths.eq(self.texts.iter().map(Vec::len))
    }

    /// What leaves for `payload` at `seq`: the number of its first byte outside, and the bytes.
    ///
    /// An edit leaves whole with the byte that starts it. A segment that starts inside one brings
    /// the end of its text, as many bytes as the segment has of the old line, so that even a
    /// keepalive of one byte is answered. Bytes that are forgotten have been acknowledged; they
    /// leave as an empty segment below the receiver's window, which makes it acknowledge again
    /// (RFC 9293, 3.10.7.4).
    pub fn outside(&self, seq: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        let forgotten = behind(self.floor, seq).map_or(0, |bytes| bytes as usize);
        let Some(mut rest) = payload.get(forgotten..).filter(|rest| !rest.is_empty()) else {
            return (self.corrections.map_seq(seq), Vec::new());
        };
        let mut at = seq.wrapping_add(forgotten as u32);
        let start = self.corrections.map_seq(at);
        let mut bytes = Vec::with_capacity(rest.len() + 16);
        for (edit, text) in self.corrections.edits().iter().zip(&self.texts) {
            let Some(left) = behind(edit.end(), at).filter(|left| *left > 0) else { continue };
            let replaced = match behind(edit.start(), at) {
                Some(before) => {
                    let Some((plain, edited)) = rest.split_at_checked(before as usize) else {
                        break;
                    };
                    if edited.is_empty() {
                        break;
                    }
                    bytes.extend_from_slice(plain);
                    bytes.extend_from_slice(text);
                    at = edit.start();
                    rest = edited;
                    usize::from(edit.old_len())
                }
                None => {
                    let skipped = text.len().saturating_sub(left as usize);
                    bytes.extend_from_slice(text.get(skipped..).unwrap_or_default());
                    left as usize
                }
            };
            let replaced = replaced.min(rest.len());
            at = at.wrapping_add(replaced as u32);
            rest = rest.get(replaced..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        bytes.extend_from_slice(rest);
        (start, bytes)
    }

    /// Forgets the oldest edits while more than `keep` are there and they end by `acknowledged`.
    fn forget(&mut self, acknowledged: u32, keep: usize) {
        let before = self.corrections;
        let forgotten = self.corrections.retire_acknowledged(acknowledged, keep);
        for edit in before.edits().iter().take(forgotten) {
            self.texts.pop_front();
            self.floor = edit.end();
        }
    }
}

/// How far `right` lies behind `left`, 0 included; `None` when it lies ahead.
fn behind(left: u32, right: u32) -> Option<u32> {
    let distance = left.wrapping_sub(right);
    (distance < 1 << 31).then_some(distance)
}
