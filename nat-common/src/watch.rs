//! What the agent wants to see of a control connection: two records a session in the map `watches`, one
//! for each side.
//!
//! A stream that is encrypted has no lines, so its segments need no agent. But after CCC (RFC 4217,
//! section 6) the lines come back, and where they do is known only to who has followed the TLS records
//! from the first one on. So the data plane follows them: a segment passes it when it starts no further
//! than the next record, and whatever begins in it are records. Everything else goes to the agent, which
//! then says where the next record is.
//!
//! ```text
//!        lines -->|  records                         |  lines
//!   ...  234 ok   [record][record    ][record]       PWD ...
//!                 ^from    ^ boundary moves on       ^ boundary stays here: to the agent
//! ```
//!
//! Invariant: what stands at the boundary has been seen by nobody yet. The agent changes what is read,
//! the data plane only moves the boundary of records on.

use crate::session::Side;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a TLS record header (RFC 8446, section 5.1).
pub const RECORD_HEADER: usize = 5;
/// Types of records: change_cipher_spec to application_data (RFC 8446, section 5.1), and heartbeat (RFC
/// 6520, section 3). No line of FTP starts with one of these bytes.
const RECORD_TYPES: core::ops::RangeInclusive<u8> = 20..=24;
/// The major version of SSL 3.0 and every TLS.
const RECORD_VERSION: u8 = 3;
/// Most bytes behind a header: 2^14 and what a cipher may add (RFC 5246, section 6.2.3).
const RECORD_BYTES: u16 = (1 << 14) + 2048;

/// Furthest that a segment may lie behind the start of what is not read, for the data plane to pass it
/// on: from there on the agent folds old corrections, and moves the start on.
pub const REACH: u32 = 1 << 30;

/// Whether a record can start with this byte.
#[inline(always)]
pub const fn starts_record(byte: u8) -> bool {
    byte >= *RECORD_TYPES.start() && byte <= *RECORD_TYPES.end()
}

/// Bytes of the record with this header, the header included; `None` when it is none.
#[inline(always)]
pub const fn record_length(header: [u8; RECORD_HEADER]) -> Option<u32> {
    let [kind, major, _minor, high, low] = header;
    let length = u16::from_be_bytes([high, low]);
    if !starts_record(kind) || major != RECORD_VERSION || length > RECORD_BYTES {
        return None;
    }
    Some(RECORD_HEADER as u32 + length as u32)
}

const LINES: u32 = 0;
const RECORDS: u32 = 1;
const NOTHING: u32 = 2;

/// Value of the map `watches`; the key is an [`index`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Watch {
    what: u32,
    from: u32,
    /// Sequence number of the next record header, in the sender's space; moved on by the data plane.
    pub boundary: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Watch>() == 16);

/// What becomes of a segment by its place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The agent has to see it.
    Agent,
    /// Nobody has to.
    Unread,
    /// A record begins so many bytes behind its start.
    Record(u32),
}

impl Watch {
    /// Every segment: there are lines in it.
    pub const LINES: Self = Self { what: LINES, from: 0, boundary: 0, padding: 0 };

    /// Records from `from` on, of which the next starts at `boundary`.
    pub const fn records(from: u32, boundary: u32) -> Self {
        Self { what: RECORDS, from, boundary, padding: 0 }
    }

    /// Nothing from `from` on.
    pub const fn nothing(from: u32) -> Self {
        Self { what: NOTHING, from, boundary: 0, padding: 0 }
    }

    /// The next record, where records are watched.
    pub const fn next_record(&self) -> Option<u32> {
        if self.what == RECORDS { Some(self.boundary) } else { None }
    }

    /// The same place, of which every segment is wanted: what is written before a watch that passes
    /// segments, so that nobody sees half of that.
    pub const fn closed(self) -> Self {
        Self { what: LINES, ..self }
    }

    /// What becomes of `length` bytes at `sequence`.
    #[inline(always)]
    pub const fn place(&self, sequence: u32, length: u32) -> Place {
        if self.what == LINES || sequence.wrapping_sub(self.from) >= REACH {
            return Place::Agent;
        }
        if self.what == NOTHING {
            return Place::Unread;
        }
        let ahead = self.boundary.wrapping_sub(sequence);
        if ahead >= 1 << 31 {
            // Something before it is missing: where records begin in it is not known.
            Place::Agent
        } else if ahead >= length {
            Place::Unread
        } else {
            Place::Record(ahead)
        }
    }
}

/// Place in the map `watches` of what `side` of the session in the place `session` sends.
#[inline(always)]
pub const fn index(session: u32, side: Side) -> u32 {
    2 * session + side.index() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_by_its_header() {
        assert_eq!(record_length([22, 3, 1, 2, 0]), Some(517));
        assert_eq!(record_length([23, 3, 3, 0, 0]), Some(5));
        assert_eq!(record_length([23, 3, 3, 0x48, 0]), Some(5 + 18432));
        assert_eq!(record_length([23, 3, 3, 0x48, 1]), None);
        assert_eq!(record_length([23, 2, 3, 0, 1]), None);
        assert_eq!(record_length(*b"PWD\r\n"), None);
        assert_eq!(record_length(*b"220 x"), None);
    }

    #[test]
    fn every_segment_with_lines_goes_to_the_agent() {
        assert_eq!(Watch::LINES.place(0, 1), Place::Agent);
        assert_eq!(Watch::default(), Watch::LINES);
        assert_eq!(Watch::records(5, 9).closed().place(5, 1), Place::Agent);
    }

    #[test]
    fn what_lies_within_a_record_is_not_read() {
        let from = u32::MAX - 5;
        let watch = Watch::records(from, from.wrapping_add(100));
        assert_eq!(watch.place(from, 100), Place::Unread);
        assert_eq!(watch.place(from, 101), Place::Record(100));
        assert_eq!(watch.place(from.wrapping_add(100), 1), Place::Record(0));
        assert_eq!(watch.place(from.wrapping_add(101), 1), Place::Agent);
        assert_eq!(watch.place(from.wrapping_sub(1), 1), Place::Agent);
        assert_eq!(watch.place(from.wrapping_add(REACH), 1), Place::Agent);
    }

    #[test]
    fn a_stream_that_is_not_ftp_is_not_read_from_where_that_was_known() {
        let watch = Watch::nothing(1000);
        assert_eq!(watch.place(999, 10), Place::Agent);
        assert_eq!(watch.place(1000, 10), Place::Unread);
        assert_eq!(watch.place(1000 + REACH - 1, 10), Place::Unread);
        assert_eq!(watch.place(1000 + REACH, 10), Place::Agent);
        assert_eq!(watch.next_record(), None);
    }
}
