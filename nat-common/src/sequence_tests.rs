//! The maps against streams that are built byte by byte.

use proptest::prelude::*;

use super::*;

/// One direction in plain bytes: for every byte of the receiver, the sender's bytes it stands for.
struct Streams {
    sender_start: u32,
    receiver_start: u32,
    sender_len: usize,
    /// Sender's bytes [from, to) that a byte of the receiver stands for; a byte of a new line
    /// stands for the whole old line.
    receiver: Vec<(usize, usize)>,
    corrections: Corrections,
}

impl Streams {
    /// `runs`: plain bytes before an edit, its old length and its new length.
    fn build(sender_start: u32, base: i32, runs: &[(usize, u16, u16)], tail: usize) -> Streams {
        let mut corrections = Corrections::with_base(base);
        let mut receiver = Vec::new();
        let mut at = 0;
        for &(plain, old, new) in runs {
            receiver.extend((at..at + plain).map(|byte| (byte, byte + 1)));
            at += plain;
            let start = sender_start.wrapping_add(at as u32);
            corrections.push(start, old, new).expect("runs are in order and few");
            receiver.extend((0..new).map(|_| (at, at + old as usize)));
            at += old as usize;
        }
        receiver.extend((at..at + tail).map(|byte| (byte, byte + 1)));
        let receiver_start = sender_start.wrapping_add(base as u32);
        Streams { sender_start, receiver_start, sender_len: at + tail, receiver, corrections }
    }

    fn sender(&self, offset: usize) -> u32 {
        self.sender_start.wrapping_add(offset as u32)
    }

    fn receiver(&self, offset: usize) -> u32 {
        self.receiver_start.wrapping_add(offset as u32)
    }

    /// Where a segment that starts at `offset` has to start outside.
    fn slow_seq(&self, offset: usize) -> u32 {
        let first = self.receiver.iter().position(|&(from, to)| from == offset && to > offset);
        if let Some(position) = first {
            return self.receiver(position);
        }
        let inside = self.receiver.iter().position(|&(from, to)| from < offset && offset < to);
        let Some(new_start) = inside else { return self.receiver(self.receiver.len()) };
        let (from, old_end) = self.receiver[new_start];
        let new_end =
            new_start + self.receiver.iter().filter(|&&run| run == (from, old_end)).count();
        self.receiver(new_end.saturating_sub(old_end - offset).max(new_start))
    }

    /// The first sender's byte that is not wholly among the receiver's first `received` bytes.
    fn slow_ack(&self, received: usize) -> u32 {
        let missing = self.receiver.iter().skip(received).map(|&(from, _)| from).min();
        self.sender(missing.unwrap_or(self.sender_len))
    }

    /// The sender's byte from which on all are wholly at or after the receiver's byte `left`.
    fn slow_sack_left(&self, left: usize) -> u32 {
        let before = self.receiver.iter().take(left).map(|&(_, to)| to).max();
        self.sender(before.unwrap_or(0))
    }

    fn check(&self) {
        for offset in 0..=self.sender_len {
            let seq = self.sender(offset);
            let mapped = self.corrections.map_seq(seq);
            assert_eq!(mapped, self.slow_seq(offset), "seq at {offset}");
            assert!(!is_after(self.corrections.map_ack(mapped), seq), "ack past seq at {offset}");
        }
        for offset in 0..=self.receiver.len() {
            let number = self.receiver(offset);
            assert_eq!(self.corrections.map_ack(number), self.slow_ack(offset), "ack {offset}");
            assert_eq!(self.corrections.map_sack_right(number), self.slow_ack(offset));
            assert_eq!(self.corrections.map_sack_left(number), self.slow_sack_left(offset));
        }
    }
}

/// Numbers near the borders of the sequence space, and anywhere.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0u32..80).prop_map(|below| 0u32.wrapping_sub(below)),
        (0u32..80).prop_map(|below| (1u32 << 31).wrapping_sub(below)),
        any::<u32>(),
    ]
}

fn length() -> impl Strategy<Value = u16> {
    prop_oneof![Just(1u16), Just(2u16), 1u16..40]
}

fn runs() -> impl Strategy<Value = Vec<(usize, u16, u16)>> {
    prop::collection::vec((0usize..4, length(), length()), 0..=MAX_EDITS)
}

proptest! {
    #[test]
    fn an_edit_extended_byte_by_byte_is_the_edit_listed_at_once(
        start in number(), base in number(), runs in runs(), new in length(), old in length(),
    ) {
        let plain = 3;
        let mut at_once = runs.clone();
        at_once.truncate(MAX_EDITS - 1);
        let mut grown = at_once.clone();
        at_once.push((plain, old, new));
        grown.push((plain, 1, new));
        let at_once = Streams::build(start, base as i32, &at_once, 0).corrections;
        let mut grown = Streams::build(start, base as i32, &grown, 0).corrections;
        for _ in 1..old {
            grown.extend_last(1).expect("there is an edit");
        }
        prop_assert_eq!(at_once, grown);
    }

    #[test]
    fn maps_agree_with_streams_built_byte_by_byte(
        start in number(), base in number(), runs in runs(), tail in 0usize..4,
    ) {
        Streams::build(start, base as i32, &runs, tail).check();
    }

    #[test]
    fn retiring_acknowledged_edits_changes_no_number_from_there_on(
        start in number(), base in number(), runs in runs(), acked in 0usize..400, keep in 0usize..4,
    ) {
        let whole = Streams::build(start, base as i32, &runs, 3);
        let acked = acked.min(whole.sender_len);
        let mut folded = whole.corrections;
        let listed = folded.edits().len();
        let retired = folded.retire_acknowledged(whole.sender(acked), keep);
        prop_assert_eq!(folded.edits().len(), listed - retired);
        prop_assert!(folded.edits().len() >= keep.min(listed));
        for offset in acked..=whole.sender_len {
            let seq = whole.sender(offset);
            prop_assert_eq!(folded.map_seq(seq), whole.corrections.map_seq(seq));
        }
        // What comes from before goes nowhere past what is known to be acknowledged.
        let border = whole.corrections.map_seq(whole.sender(acked));
        for offset in 0..acked {
            let seq = whole.sender(offset);
            prop_assert!(!is_after(folded.map_seq(seq), border));
        }
        for offset in 0..=whole.receiver.len() {
            let ack = whole.receiver(offset);
            let (new, old) = (folded.map_ack(ack), whole.corrections.map_ack(ack));
            prop_assert!(new == old || !is_after(new, whole.sender(acked)));
        }
    }

    #[test]
    fn nothing_panics_on_any_bytes(bytes in prop::array::uniform32(any::<u8>()), number in number()) {
        let mut image = [0u8; 104];
        for (place, byte) in image.iter_mut().zip(bytes.iter().cycle()) {
            *place = *byte;
        }
        let mut corrections = Corrections::read_from_bytes(&image).expect("the size is right");
        let _ = corrections.map_seq(number) ^ corrections.map_ack(number);
        let _ = corrections.map_sack_left(number) ^ corrections.map_sack_right(number);
        let _ = corrections.push(number, 1, 2);
        corrections.len %= MAX_EDITS as u32 + 1;
        let _ = corrections.retire_acknowledged(number, 0);
    }
}

#[test]
fn a_keepalive_at_the_end_of_an_edit_stays_one_below_the_next_byte() {
    let mut corrections = Corrections::IDENTITY;
    corrections.push(1000, 24, 27).expect("there is room");
    assert_eq!(corrections.map_seq(1024), 1027);
    assert_eq!(corrections.map_seq(1023), 1026);
    assert_eq!(corrections.map_seq(1000), 1000);
}

#[test]
fn an_edit_that_shrinks_never_maps_before_its_start() {
    let mut corrections = Corrections::IDENTITY;
    corrections.push(1000, 27, 20).expect("there is room");
    assert_eq!(corrections.map_seq(1001), 1000);
    assert_eq!(corrections.map_seq(1007), 1000);
    assert_eq!(corrections.map_seq(1008), 1001);
}

#[test]
fn refused_edits_leave_the_list_as_it_was() {
    let mut corrections = Corrections::IDENTITY;
    assert_eq!(corrections.push(5, 0, 3), Err(PushError::Empty));
    assert_eq!(corrections.push(5, 3, 0), Err(PushError::Empty));
    assert!(corrections.is_identity());
    for index in 0..MAX_EDITS as u32 {
        corrections.push(index * 10, 5, 7).expect("there is room");
    }
    let full = corrections;
    assert_eq!(corrections.push(100, 5, 7), Err(PushError::Full));
    assert_eq!(corrections.push(73, 5, 7), Err(PushError::OutOfOrder));
    assert_eq!(corrections, full);
    assert_eq!(corrections.latest_delta(), 16);
}

#[test]
fn only_corrections_that_move_nothing_are_the_identity() {
    let mut corrections = Corrections::IDENTITY;
    assert!(corrections.is_identity());
    corrections.push(100, 4, 6).unwrap();
    assert!(!corrections.is_identity(), "an edit is listed");
    corrections.retire_acknowledged(200, 0);
    assert!(corrections.edits().is_empty() && !corrections.is_identity(), "a shift remains");
    assert!(PushError::Full.to_string().contains("taken"));
}
