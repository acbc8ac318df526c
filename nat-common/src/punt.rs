//! What the data plane hands to the agent: a record in the ring buffer `punts`.
//!
//! A header, then the packet as it arrived from its IPv4 header on, untranslated. The packet itself is
//! dropped, and the agent sends it on; unless the record is a copy of a harmless line that has passed.

use crate::session::{SessionId, Side};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest packet that is handed over, in bytes from the IPv4 header on. GRO makes larger ones only
/// of back-to-back segments; a sender repeats what was dropped one segment at a time.
pub const MAX_PACKET: usize = 16384;

/// Header of a record.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PuntHeader {
    session: SessionId,
    side: u16,
    /// Bits of [`AT_LINE`] and [`COPY`].
    marks: u16,
    length: u32,
    ifindex: u32,
}

const _: () = assert!(size_of::<PuntHeader>() == 16);

/// It starts where the data plane knows every byte before it to be passed on or handed over.
const AT_LINE: u16 = 1;
/// The packet has passed, or will.
const COPY: u16 = 2;

impl PuntHeader {
    /// `length` bytes of a packet that `side` of `session` sent, and that arrived on `ifindex`.
    #[inline(always)]
    pub const fn new(session: SessionId, side: Side, length: u32, ifindex: u32) -> Self {
        Self { session, side: side.index() as u16, marks: 0, length, ifindex }
    }

    /// The same of a segment that starts a line, up to which the agent has vouched for the stream.
    #[inline(always)]
    pub const fn at_line(self) -> Self {
        Self { marks: AT_LINE, ..self }
    }

    /// The same of a harmless line that passes at once.
    #[inline(always)]
    pub const fn copy(self) -> Self {
        Self { marks: AT_LINE | COPY, ..self }
    }

    /// Whether it starts a line, and nothing is missing before it.
    #[inline(always)]
    pub const fn is_at_line(&self) -> bool {
        self.marks & AT_LINE != 0
    }

    /// Whether the packet has passed, so that the agent only reads it.
    #[inline(always)]
    pub const fn is_copy(&self) -> bool {
        self.marks & COPY != 0
    }

    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Who sent it.
    pub const fn side(&self) -> Side {
        if self.side == 0 { Side::Originator } else { Side::Responder }
    }

    /// Bytes that follow.
    pub const fn length(&self) -> usize {
        self.length as usize
    }

    /// The interface it arrived on.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}
