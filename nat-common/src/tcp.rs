//! The state of a TCP connection, from what was seen in its two directions.
//!
//! Each direction keeps the flags it has seen in its own record, so that no packet writes to the
//! other's cache line; the state is a pure function of both. Which FIN and RST are seen at all decides
//! [`crate::tcp_window`], whose scale has the upper half of the bits.

/// SYN was seen.
pub const SYN: u8 = 1;
/// ACK was seen: its sender has acknowledged something.
pub const ACK: u8 = 2;
/// FIN was seen.
pub const FIN: u8 = 4;
/// RST was seen.
pub const RST: u8 = 8;

/// Flags in byte 13 of the TCP header (RFC 9293 section 3.1).
pub mod wire {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgement is valid.
    pub const ACK: u8 = 0x10;
    /// Urgent pointer is valid.
    pub const URG: u8 = 0x20;
}

/// The bits that a header with `flags` adds to what was seen.
#[inline(always)]
pub const fn seen(flags: u8) -> u8 {
    let mut seen = 0;
    if flags & wire::SYN != 0 {
        seen |= SYN;
    }
    if flags & wire::ACK != 0 {
        seen |= ACK;
    }
    if flags & wire::FIN != 0 {
        seen |= FIN;
    }
    if flags & wire::RST != 0 {
        seen |= RST;
    }
    seen
}

/// Whether `flags` ask for a new connection: SYN, and neither ACK nor RST nor FIN.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (wire::SYN | wire::ACK | wire::RST | wire::FIN) == wire::SYN
}

/// Whether a segment with `flags` is one of a connection that neither opens nor closes: ACK, and neither
/// SYN nor RST nor FIN.
#[inline(always)]
pub const fn goes_on(flags: u8) -> bool {
    flags & (wire::SYN | wire::ACK | wire::RST | wire::FIN) == wire::ACK
}

/// Whether a sender makes a segment with `flags` (RFC 9293 section 3.10, and the table
/// `tcp_valid_flags` of net/netfilter/nf_conntrack_proto_tcp.c).
#[inline(always)]
pub const fn is_possible(flags: u8) -> bool {
    const OPENED: u8 = wire::SYN | wire::ACK;
    const REFUSED: u8 = wire::RST | wire::ACK;
    const ENDED: u8 = wire::FIN | wire::ACK;
    matches!(
        flags & (wire::SYN | wire::ACK | wire::RST | wire::FIN),
        wire::SYN | OPENED | wire::RST | REFUSED | ENDED | wire::ACK
    )
}

/// Seconds after a RST in which segments of the other end may still be of before it.
const AFTER_RESET: u32 = 2;

/// What was seen of an end, without its RST where the other end has gone on: then that was not taken,
/// and the connection lives (RFC 7857 section 2.2, RFC 5961 section 3.2). `last` and `other` are the
/// seconds of the last segment of this end and of the other.
pub const fn outlived(seen: u8, last: u32, other: u32) -> u8 {
    if other > last.saturating_add(AFTER_RESET) { seen & !RST } else { seen }
}

/// Whether a header with `flags` has the options of one that opens a connection: SYN or SYN-ACK.
#[inline(always)]
pub const fn is_syn(flags: u8) -> bool {
    flags & wire::SYN != 0
}

/// Whether a connection in which these were seen has come to an end in at least one direction, so
/// that a new SYN with the same tuple is a new connection (RFC 9293 section 3.10.7.4, TIME-WAIT).
#[inline(always)]
pub const fn ends(seen: u8) -> bool {
    seen & (FIN | RST) != 0
}

/// State of a connection as a whole; the names of conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Only the initiator has spoken.
    SynSent,
    /// Both have sent SYN, the handshake is not complete.
    SynReceived,
    /// The handshake is complete.
    Established,
    /// One side has sent FIN.
    HalfClosed,
    /// Both have.
    TimeWait,
    /// Reset.
    Closed,
}

impl State {
    /// The state, by what was seen of the initiator and of the answer.
    pub const fn of(original: u8, reply: u8) -> Self {
        let fins = (original & FIN != 0) as u8 + (reply & FIN != 0) as u8;
        if (original | reply) & RST != 0 {
            Self::Closed
        } else if fins == 2 {
            Self::TimeWait
        } else if fins == 1 {
            Self::HalfClosed
        } else if reply & SYN == 0 {
            Self::SynSent
        } else if original & reply & ACK == 0 {
            Self::SynReceived
        } else {
            Self::Established
        }
    }

    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::TimeWait => "time-wait",
            Self::Closed => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_through_its_states() {
        let (mut original, mut reply) = (0, 0);
        original |= seen(wire::SYN);
        assert_eq!(State::of(original, reply), State::SynSent);
        reply |= seen(wire::SYN | wire::ACK);
        assert_eq!(State::of(original, reply), State::SynReceived);
        original |= seen(wire::ACK);
        assert_eq!(State::of(original, reply), State::Established);
        reply |= seen(wire::FIN | wire::ACK);
        assert_eq!(State::of(original, reply), State::HalfClosed);
        original |= seen(wire::FIN | wire::ACK);
        assert_eq!(State::of(original, reply), State::TimeWait);
        assert!(ends(original));
        reply |= seen(wire::RST);
        assert_eq!(State::of(original, reply), State::Closed);
    }

    #[test]
    fn ends_that_open_at_once_are_established_when_both_have_acknowledged() {
        let (mut original, mut reply) = (seen(wire::SYN), seen(wire::SYN));
        assert_eq!(State::of(original, reply), State::SynReceived);
        original |= seen(wire::SYN | wire::ACK);
        assert_eq!(State::of(original, reply), State::SynReceived);
        reply |= seen(wire::SYN | wire::ACK);
        assert_eq!(State::of(original, reply), State::Established);
    }

    #[test]
    fn only_a_pure_syn_opens_and_only_an_acknowledgement_goes_on() {
        for flags in 0..=0xff_u8 {
            assert_eq!(opens(flags), flags & 0x17 == 0x02, "{flags:02x}");
            assert_eq!(goes_on(flags), flags & 0x17 == 0x10, "{flags:02x}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_not_possible() {
        let possible = [0x02, 0x12, 0x04, 0x14, 0x11, 0x10];
        for flags in 0..=0xff_u8 {
            assert_eq!(is_possible(flags), possible.contains(&(flags & 0x17)), "{flags:02x}");
        }
    }

    #[test]
    fn a_reset_that_the_other_end_outlives_was_none() {
        for (last, other, lives) in [(10, 9, false), (10, 12, false), (10, 13, true)] {
            let seen = outlived(SYN | ACK | RST, last, other);
            assert_eq!(seen & RST == 0, lives, "{last} {other}");
            assert_eq!(seen & (SYN | ACK), SYN | ACK);
        }
        assert_eq!(outlived(RST, u32::MAX, u32::MAX), RST);
    }
}
