//! TLS records in a direction of a control flow: where the next one starts, and where there is none.
//!
//! Invariant: a record is taken for one only where the record before it has ended, from the first on.
//! So no bytes within a record, which somebody else may have chosen, are ever read as a line.

use nat_common::watch::{RECORD_HEADER, record_length, starts_record};
use serde::{Deserialize, Serialize};

/// A direction that is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The first bytes of the next header, where a segment has ended within it.
    header: Vec<u8>,
    /// Whether there was a record yet.
    any: bool,
    /// Segments in a row before which something was missing.
    gaps: u8,
}

/// How often a sender may repeat what lies behind a gap before records count as lost: it would have
/// filled the gap by then, were it not for one that the receiver knows nothing of.
const GAPS: u8 = 6;

/// What stands where a record should start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record, or the beginning of its header: so many of the bytes given, and as many more that are
    /// still to come.
    Record {
        /// How many of the bytes belong to it.
        here: usize,
        /// How many of those that follow.
        ahead: usize,
    },
    /// A line: encryption has ended (RFC 4217, section 6).
    Line,
    /// Nothing that can be understood.
    Unknown,
}

impl Records {
    /// Looks at `bytes`, the first of which is the next that has not been looked at; at least one.
    pub fn next(&mut self, bytes: &[u8]) -> Next {
        self.gaps = 0;
        if self.header.is_empty() && !bytes.first().is_some_and(|byte| starts_record(*byte)) {
            // Encryption that was agreed upon and never began is nobody's way to end it.
            return if self.any { Next::Line } else { Next::Unknown };
        }
        let known = self.header.len();
        self.header.extend(bytes.iter().take(RECORD_HEADER.saturating_sub(known)));
        let Ok(header) = <[u8; RECORD_HEADER]>::try_from(self.header.as_slice()) else {
            return Next::Record { here: bytes.len(), ahead: 0 };
        };
        self.header.clear();
        let Some(length) = record_length(header) else { return Next::Unknown };
        self.any = true;
        let rest = length as usize - known;
        let here = rest.min(bytes.len());
        Next::Record { here, ahead: rest - here }
    }

    /// Something is missing before a segment; whether it still makes sense to wait for it.
    pub fn gap(&mut self) -> bool {
        self.gaps += 1;
        self.gaps < GAPS
    }

    /// Bytes of a header that has not ended.
    pub fn cut(&self) -> usize {
        self.header.len()
    }

    /// Somebody else has followed the records since.
    pub fn skip(&mut self) {
        self.header.clear();
        self.any = true;
        self.gaps = 0;
    }

    /// Whether it can be so.
    pub fn is_sound(&self) -> bool {
        self.header.len() < RECORD_HEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_followed_over_their_ends() {
        let mut records = Records::default();
        let hello = [22, 3, 1, 0, 4, 1, 2, 3, 4, 23, 3, 3, 0, 9];
        assert_eq!(records.next(&hello), Next::Record { here: 9, ahead: 0 });
        assert_eq!(records.next(&hello[9..]), Next::Record { here: 5, ahead: 9 });
        assert_eq!(records.next(b"PWD\r\n"), Next::Line);
    }

    #[test]
    fn a_header_may_come_in_pieces() {
        let mut records = Records::default();
        for byte in [23, 3, 3, 0] {
            assert_eq!(records.next(&[byte]), Next::Record { here: 1, ahead: 0 });
        }
        assert_eq!(records.cut(), 4);
        assert_eq!(records.next(&[2, 9]), Next::Record { here: 2, ahead: 1 });
        assert_eq!(records.cut(), 0);
    }

    #[test]
    fn a_line_before_any_record_ends_no_encryption() {
        assert_eq!(Records::default().next(b"PORT 1"), Next::Unknown);
        assert_eq!(Records::default().next(&[22, 7, 0, 0, 0]), Next::Unknown);
    }
}
