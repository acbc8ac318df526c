//! Which segments an end takes, as far as a gateway knows it: that a RST or a FIN from anywhere ends
//! nothing (RFC 5961).
//!
//! Each direction of a flow notes what its last segment said that its sender is ready to receive. A
//! segment of the other direction is held against that, and only one that would end something: all
//! others their receiver judges better, and an answer to them changes nothing here.
//!
//! ```text
//!               RCV.NXT                RCV.NXT + RCV.WND
//!   ---- old ------|----------- window -------|---- not now ----
//!                  |<-------- a RST --------->|
//!        |<----- a FIN, repeated or new ----->|
//! ```

use crate::tcp::{ACK, SYN, wire};

/// Bit from which on the scale of an end's windows stands among what was seen of it.
const SCALE: u32 = 4;
/// The largest scale (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;
/// How much older than what the receiver waits for a FIN may be: it is repeated while the
/// acknowledgement is lost. As much as a window without scale, or the window where that is larger.
const OLD: u32 = 65_535;
/// How far the numbers of a control connection may be off, for lines that were made longer or shorter.
pub const SHIFTED: u32 = 65_535;

/// What a segment says that its sender is ready to receive (RFC 9293 section 3.3.1): RCV.NXT, and
/// RCV.WND as it stands in the header. Of an end that has only sent a SYN the number that acknowledges
/// that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receiving {
    /// The acknowledgement number.
    pub acknowledged: u32,
    /// The window, unscaled.
    pub window: u16,
}

impl Receiving {
    /// What a SYN says: of who has nothing to acknowledge yet, what acknowledges its SYN.
    #[inline(always)]
    pub const fn of_syn(flags: u8, sequence: u32, acknowledgement: u32, window: u16) -> Self {
        let answers = flags & wire::ACK != 0;
        let acknowledged = if answers { acknowledgement } else { sequence.wrapping_add(1) };
        Self { acknowledged, window }
    }
}

/// The bits of a scale (RFC 7323 section 2.2) among what was seen of the end that announced it.
#[inline(always)]
pub const fn scale_bits(scale: u8) -> u8 {
    let scale = if scale > MAX_SCALE { MAX_SCALE } else { scale };
    scale << SCALE
}

/// The end that a segment goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What was seen of it.
    pub seen: u8,
    /// What it said last.
    pub receiving: Receiving,
}

impl Receiver {
    /// Whether it has acknowledged anything: before, its window is not known.
    #[inline(always)]
    const fn is_known(&self) -> bool {
        self.seen & ACK != 0
    }

    /// Bytes that it takes.
    #[inline(always)]
    const fn size(&self) -> u32 {
        (self.receiving.window as u32) << (self.seen >> SCALE)
    }

    /// Whether a RST with these numbers ends the connection for it, or makes it ask whether it does
    /// (RFC 5961 section 3.2); before the handshake is done, whether it is the answer to its SYN
    /// (RFC 9293 section 3.10.7.3). `slack`: how far the numbers may be off.
    #[inline(always)]
    pub const fn takes_reset(
        &self,
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        slack: u32,
    ) -> bool {
        let Receiving { acknowledged, .. } = self.receiving;
        if self.is_known() {
            let ahead = sequence.wrapping_sub(acknowledged).wrapping_add(slack);
            return ahead <= self.size() + 2 * slack;
        }
        // What it has sent with the SYN may be acknowledged too (RFC 7413).
        let answers = acknowledgement.wrapping_sub(acknowledged) <= OLD;
        self.seen & SYN == 0 || flags & wire::ACK == 0 || answers
    }

    /// Whether a FIN behind `payload` bytes from `sequence` on is within what it takes, or has taken.
    #[inline(always)]
    pub const fn takes_fin(&self, sequence: u32, payload: u32, slack: u32) -> bool {
        if !self.is_known() {
            return true;
        }
        let size = self.size();
        let old = (if size > OLD { size } else { OLD }) + slack;
        let end = sequence.wrapping_add(payload).wrapping_sub(self.receiving.acknowledged);
        // Two large windows do not fit 32 bits: scales of several SYNs may be seen as a larger one.
        end.wrapping_add(old) as u64 <= old as u64 + size as u64 + slack as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp;

    const NEXT: u32 = 0xffff_ff00;

    fn known(window: u16, scale: u8) -> Receiver {
        let receiving = Receiving { acknowledged: NEXT, window };
        Receiver { seen: SYN | ACK | scale_bits(scale), receiving }
    }

    #[test]
    fn a_reset_is_within_the_window_from_its_first_byte_on() {
        for (window, scale) in [(0, 0), (1, 0), (1000, 0), (1000, 7), (65_535, 14)] {
            let receiver = known(window, scale);
            let size = u32::from(window) << scale;
            let takes =
                |ahead: u32| receiver.takes_reset(wire::RST, NEXT.wrapping_add(ahead), 0, 0);
            for ahead in [0, size / 2, size] {
                assert!(takes(ahead), "{ahead} of {size}");
            }
            for ahead in [u32::MAX, size + 1, 1 << 31, u32::MAX - 65_535] {
                assert!(!takes(ahead), "{ahead} of {size}");
            }
        }
    }

    #[test]
    fn numbers_that_may_be_shifted_have_slack_on_both_sides() {
        let receiver = known(1000, 0);
        for (ahead, taken) in [
            (0u32.wrapping_sub(SHIFTED), true),
            (0u32.wrapping_sub(SHIFTED + 1), false),
            (1000 + SHIFTED, true),
            (1001 + SHIFTED, false),
        ] {
            let number = NEXT.wrapping_add(ahead);
            assert_eq!(receiver.takes_reset(wire::RST, number, 0, SHIFTED), taken, "{ahead}");
        }
        let end = |ahead: u32| receiver.takes_fin(NEXT.wrapping_add(ahead), 10, SHIFTED);
        assert!(end(990 + SHIFTED) && !end(991 + SHIFTED));
        // The largest window that bits of several scales may make.
        let receiving = Receiving { acknowledged: NEXT, window: 65_535 };
        let widest = Receiver { seen: SYN | ACK | 15 << SCALE, receiving };
        assert!(widest.takes_fin(NEXT, 0, SHIFTED));
        assert!(widest.takes_reset(wire::RST, NEXT, 0, SHIFTED));
    }

    #[test]
    fn who_has_answered_a_syn_has_said_what_it_takes() {
        let receiving = Receiving { acknowledged: NEXT, window: 1000 };
        let answered = Receiver { seen: tcp::seen(wire::SYN | wire::ACK), receiving };
        // The opener gives up at once: it acknowledges a number that has nothing to do with its own.
        let given_up = wire::RST | wire::ACK;
        assert!(answered.takes_reset(given_up, NEXT, 7, 0));
        assert!(!answered.takes_reset(given_up, NEXT.wrapping_sub(1), NEXT, 0));
    }

    #[test]
    fn a_refused_connection_names_the_syn_that_it_refuses() {
        let receiving = Receiving { acknowledged: NEXT, window: 0 };
        let asked = Receiver { seen: SYN | scale_bits(7), receiving };
        let refused = wire::RST | wire::ACK;
        assert!(asked.takes_reset(refused, 0, NEXT, 0));
        assert!(asked.takes_reset(refused, 0, NEXT.wrapping_add(1000), 0));
        assert!(!asked.takes_reset(refused, 0, NEXT.wrapping_sub(1), 0));
        assert!(!asked.takes_reset(refused, 0, NEXT.wrapping_add(OLD + 1), 0));
        // Without ACK it is of one who has answered, and given up; and who has said nothing yet has no
        // number to hold it against.
        assert!(asked.takes_reset(wire::RST, 7, 0, 0));
        let silent = Receiver { seen: 0, receiving: Receiving::default() };
        assert!(silent.takes_reset(refused, 7, 7, 0) && silent.takes_fin(7, 7, 0));
    }

    #[test]
    fn a_fin_may_be_repeated_and_ends_within_the_window() {
        for (window, scale) in [(0, 0), (1000, 0), (1000, 7)] {
            let receiver = known(window, scale);
            let size = u32::from(window) << scale;
            let old = size.max(OLD);
            let takes = |end: u32| receiver.takes_fin(NEXT.wrapping_add(end).wrapping_sub(9), 9, 0);
            for end in [0, size, 0u32.wrapping_sub(1), 0u32.wrapping_sub(old)] {
                assert!(takes(end), "{end} of {size}");
            }
            for end in [size + 1, 1 << 31, 0u32.wrapping_sub(old + 1)] {
                assert!(!takes(end), "{end} of {size}");
            }
        }
    }

    #[test]
    fn a_scale_stands_beside_what_was_seen() {
        for (scale, bits) in [(0, 0), (7, 0x70), (14, 0xe0), (15, 0xe0), (255, 0xe0)] {
            assert_eq!(scale_bits(scale), bits);
        }
    }
}
