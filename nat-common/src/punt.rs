//! What the data plane hands to the agent: a record in the ring buffer `punts`.
//!
//! A header, then the packet from its IP header on. The packet itself is dropped, and the agent sends
//! it on; unless the record is a copy of what has passed, or the beginning of what was refused.
//!
//! Segments of control connections come as they arrived, and so do fragments whose first one has not
//! come yet. A packet that is too long for its way out is translated, and to be cut.

use crate::{
    flow::Zone,
    session::{SessionId, Side},
};
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
    /// Who sent it; of a fragment the zone, of a long packet the longest that its way takes.
    side: u16,
    /// Bits of [`AT_LINE`], [`COPY`], [`FRAGMENT`], [`LONG`], [`SIX`] and [`REFUSED`].
    marks: u16,
    length: u32,
    ifindex: u32,
}

const _: () = assert!(size_of::<PuntHeader>() == 16);

/// It starts where the data plane knows every byte before it to be passed on or handed over.
const AT_LINE: u16 = 1;
/// The packet has passed, or will.
const COPY: u16 = 2;
/// It is a fragment whose first one has not come yet.
const FRAGMENT: u16 = 4;
/// It is translated, and too long for its way out.
const LONG: u16 = 8;
/// It is a segment of a control connection over IPv6.
const SIX: u16 = 16;
/// Its flow was refused; it is not sent on.
const REFUSED: u16 = 32;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// A segment of a control connection.
    Segment,
    /// A segment of a control connection over IPv6 from this zone.
    Six(Zone),
    /// A fragment from this zone whose first one has not come yet.
    Fragment(Zone),
    /// A translated packet that is to be cut to so many bytes.
    Long(u16),
    /// The beginning of a packet whose flow was refused.
    Refused,
}

impl PuntHeader {
    /// `length` bytes of a packet that `side` of `session` sent, and that arrived on `ifindex`.
    #[inline(always)]
    pub const fn new(session: SessionId, side: Side, length: u32, ifindex: u32) -> Self {
        Self { session, side: side.index() as u16, marks: 0, length, ifindex }
    }

    /// `length` bytes of a fragment that arrived from `zone` on `ifindex`.
    #[inline(always)]
    pub const fn fragment(zone: Zone, length: u32, ifindex: u32) -> Self {
        let side = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { session: SessionId::NONE, side, marks: FRAGMENT, length, ifindex }
    }

    /// `length` bytes of a segment of a control connection over IPv6 that arrived from `zone` on `ifindex`.
    #[inline(always)]
    pub const fn six(zone: Zone, length: u32, ifindex: u32) -> Self {
        Self { marks: SIX, ..Self::fragment(zone, length, ifindex) }
    }

    /// `length` bytes of a packet that leaves by `ifindex`, which takes packets of up to `mtu`.
    #[inline(always)]
    pub const fn long(mtu: u16, length: u32, ifindex: u32) -> Self {
        Self { session: SessionId::NONE, side: mtu, marks: LONG, length, ifindex }
    }

    /// `length` bytes of a packet that arrived on `ifindex`, and whose flow was refused.
    #[inline(always)]
    pub const fn refused(length: u32, ifindex: u32) -> Self {
        Self { session: SessionId::NONE, side: 0, marks: REFUSED, length, ifindex }
    }

    /// The same of a fragment that has passed: it may be the gateway's own.
    #[inline(always)]
    pub const fn passed(self) -> Self {
        Self { marks: self.marks | COPY, ..self }
    }

    /// Whether it is a segment of a control connection.
    #[inline(always)]
    pub const fn is_segment(&self) -> bool {
        self.marks & (FRAGMENT | LONG | REFUSED) == 0
    }

    /// What it is.
    pub const fn kind(&self) -> Punt {
        let zone = if self.side == 1 { Zone::Inside } else { Zone::Outside };
        if self.marks & FRAGMENT != 0 {
            Punt::Fragment(zone)
        } else if self.marks & SIX != 0 {
            Punt::Six(zone)
        } else if self.marks & LONG != 0 {
            Punt::Long(self.side)
        } else if self.marks & REFUSED != 0 {
            Punt::Refused
        } else {
            Punt::Segment
        }
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

    /// The interface it arrived on; of a long packet the one that it leaves by.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}
