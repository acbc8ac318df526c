//! What the data plane hands to the agent: a record in the ring buffer `punts`.
//!
//! A header, then the packet as it arrived from its IPv4 header on, untranslated.

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
    side: u32,
    length: u32,
    ifindex: u32,
}

const _: () = assert!(size_of::<PuntHeader>() == 16);

impl PuntHeader {
    /// `length` bytes of a packet that `side` of `session` sent, and that arrived on `ifindex`.
    #[inline(always)]
    pub const fn new(session: SessionId, side: Side, length: u32, ifindex: u32) -> Self {
        Self { session, side: side.index() as u32, length, ifindex }
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
