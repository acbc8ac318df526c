//! Shifts of sequence numbers, beside the two streams they stand between, built byte by byte.

use nat_common::sequence::{Corrections, MAX_EDITS};

use super::cursor::Cursor;

/// A receiver's byte, and the sender's bytes [from, to) that it stands for.
type Stood = (usize, usize);

/// A direction.
struct Streams {
    first: u32,
    base: i32,
    /// Of the sender.
    sent: usize,
    /// Of the receiver, byte by byte.
    received: Vec<Stood>,
    /// Where edits stand, as offsets: of the sender, and of the receiver.
    edits: Vec<(Stood, Stood)>,
    /// The end of the last edit that is forgotten, of the sender and of the receiver: numbers before it mean
    /// nothing any more.
    floor: (usize, usize),
    corrections: Corrections,
}

/// Makes edits, has some of them grow and some forgotten, and asks for every number around them.
pub fn run(data: &[u8]) {
    let mut cursor = Cursor(data);
    let (first, base) = (cursor.word(), cursor.word() as i32);
    let corrections = Corrections::with_base(base);
    let (received, edits) = (vec![], vec![]);
    let floor = (0, 0);
    let mut streams = Streams { first, base, sent: 0, received, edits, floor, corrections };
    for _step in 0..24 {
        if cursor.is_empty() {
            break;
        }
        match cursor.byte() % 4 {
            0 => streams.pass(cursor.byte().into()),
            1 => streams.edit(cursor.byte() % 32, cursor.byte() % 32),
            2 => streams.grow(cursor.byte() % 8),
            _ => {
                let keep = cursor.byte() as usize % (MAX_EDITS + 1);
                streams.forget(cursor.byte().into(), keep);
            }
        }
        streams.check();
    }
}

impl Streams {
    fn sender(&self, offset: usize) -> u32 {
        self.first.wrapping_add(offset as u32)
    }

    fn receiver(&self, offset: usize) -> u32 {
        self.first.wrapping_add(self.base as u32).wrapping_add(offset as u32)
    }

    fn pass(&mut self, length: usize) {
        self.received.extend((self.sent..self.sent + length).map(|byte| (byte, byte + 1)));
        self.sent += length;
    }

    fn edit(&mut self, old: u8, new: u8) {
        let done = self.corrections.push(self.sender(self.sent), old.into(), new.into());
        let listed = self.corrections.edits().len();
        assert_eq!(done.is_ok(), old > 0 && new > 0 && self.edits.len() < MAX_EDITS);
        if done.is_err() {
            return;
        }
        assert!(listed <= MAX_EDITS);
        let (start, end) = (self.sent, self.sent + usize::from(old));
        let at = self.received.len();
        self.received.extend((0..new).map(|_| (start, end)));
        self.edits.push(((start, end), (at, self.received.len())));
        self.sent = end;
    }

    /// Only the last edit can, and only while nothing stands behind it.
    fn grow(&mut self, bytes: u8) {
        let Some(((start, end), (at, to))) = self.edits.last().copied() else {
            assert!(self.corrections.clone().extend_last(bytes.into()).is_err());
            return;
        };
        if end != self.sent {
            return;
        }
        self.corrections.extend_last(bytes.into()).expect("it is short");
        let end = end + usize::from(bytes);
        self.received[at..to].fill((start, end));
        self.sent = end;
        if let Some(last) = self.edits.last_mut() {
            *last = ((start, end), (at, to));
        }
    }

    fn forget(&mut self, acknowledged: usize, keep: usize) {
        let before: Vec<usize> = self.edits.iter().map(|((_, end), _)| *end).collect();
        let most = before.len().saturating_sub(keep);
        let wanted = before.iter().take(most).take_while(|end| **end <= acknowledged).count();
        let number = self.sender(acknowledged);
        assert_eq!(self.corrections.retire_acknowledged(number, keep), wanted);
        if let Some(((_, old), (_, new))) = self.edits.drain(..wanted).next_back() {
            self.floor = (old, new);
        }
    }

    fn check(&self) {
        let (from, floor) = self.floor;
        for offset in floor..=self.received.len() {
            let number = self.receiver(offset);
            let missing = self.received[offset..].iter().map(|(from, _)| *from).min();
            let wanted = missing.unwrap_or(self.sent);
            assert_eq!(self.corrections.map_ack(number), self.sender(wanted), "ack {offset}");
            assert_eq!(self.corrections.map_sack_right(number), self.sender(wanted));
            let left = self.received[floor..offset].iter().map(|(_, to)| *to).max();
            let left = left.unwrap_or(from);
            assert_eq!(self.corrections.map_sack_left(number), self.sender(left), "left {offset}");
        }
        for offset in from..=self.sent {
            let seq = self.sender(offset);
            let mapped = self.corrections.map_seq(seq);
            let edit = self.edits.iter().find(|((start, end), _)| *start < offset && offset < *end);
            let wanted = match edit {
                // As far from the end of the new text as from that of the old one.
                Some(((_, end), (at, to))) => to.saturating_sub(end - offset).max(*at),
                None => {
                    let starts = |(from, _): &Stood| *from >= offset;
                    self.received.iter().position(starts).unwrap_or(self.received.len())
                }
            };
            assert_eq!(mapped, self.receiver(wanted), "seq {offset}");
            let back = self.corrections.map_ack(mapped).wrapping_sub(seq) as i32;
            assert!(back <= 0, "an acknowledgement of what was not sent, {offset}");
        }
    }
}
