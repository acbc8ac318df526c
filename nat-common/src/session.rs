//! Control connections: the record that the data plane and the agent share for each.
//!
//! A record is claimed by the data plane when the SYN of a control connection makes its flow, and
//! freed by the agent when no flow refers to it any more. The tuples in it are written once, before
//! the flow can be found. The corrections of its sequence numbers are written by the agent only,
//! while packets read them: there are two copies, and `generation` says which one counts. The agent
//! writes the idle copy, then moves the generation on; a reader that finds the generation moved
//! under it drops the packet ([`crate::reason::Reason::AlgBusy`]), which the sender repeats.
//!
//! ```text
//!   agent   write copies[1] ......  generation 4 -> 5
//!   packet  read generation 4, use copies[0], read generation again: 4 -> go, else drop
//! ```

use crate::{flow::FlowKey, rule::RuleId, sequence::Corrections};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of a session: its place in the `sessions` map, plus one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct SessionId {
    number: u32,
}

impl SessionId {
    /// No session.
    pub const NONE: Self = Self { number: 0 };

    /// The session in the place `index` of the map.
    #[inline(always)]
    pub const fn new(index: u32) -> Self {
        Self { number: index + 1 }
    }

    /// The session with the number that users see.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self { number }
    }

    /// Its place in the map; `None` for no session.
    #[inline(always)]
    pub const fn index(self) -> Option<u32> {
        self.number.checked_sub(1)
    }

    /// The number that users see: 0 is none.
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// Who sent a segment of a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who opened the connection: the FTP client.
    Originator,
    /// Who answered: the FTP server.
    Responder,
}

impl Side {
    /// Both, in the order of [`Side::index`].
    pub const ALL: [Self; 2] = [Self::Originator, Self::Responder];

    /// Index in the arrays of a [`Session`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Originator => 0,
            Self::Responder => 1,
        }
    }

    /// The other side.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Originator => Self::Responder,
            Self::Responder => Self::Originator,
        }
    }
}

/// Value of the `sessions` map.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Session {
    /// The copy in force is `generation & 1`.
    pub generation: u32,
    /// The MSS in the SYN of each [`Side`], as lowered by the gateway; 0 until it was seen.
    pub mss: [u16; 2],
    original: FlowKey,
    reply: FlowKey,
    rule: RuleId,
    created: u32,
    /// Two copies of the corrections of each [`Side`].
    pub copies: [[Corrections; 2]; 2],
    /// Up to where each [`Side`] is resolved: words of [`crate::vouched::Vouched`].
    pub vouched: [u64; 2],
    /// 0 free, 1 taken; moved by compare-and-swap, which is there for 64 bits on every kernel. It
    /// stands last, so that a record that is written over with zeros is free when all of it is zero.
    pub claimed: u64,
}

const _: () = assert!(size_of::<Session>() == 72 + 4 * size_of::<Corrections>());

impl Session {
    /// Fills a record that was just claimed: of the connection whose packets arrive as `original`
    /// and whose answers arrive as `reply`. There is nothing to correct yet: a free record is all
    /// zero, whoever frees it sees to that.
    #[inline(always)]
    pub fn open(&mut self, original: &FlowKey, reply: &FlowKey, rule: RuleId, now: u32) {
        self.original = *original;
        self.reply = *reply;
        self.rule = rule;
        self.created = now;
    }

    /// Empties a record that was opened and that nobody has found; `claimed` is the caller's.
    #[inline(always)]
    pub fn close(&mut self) {
        self.open(&FlowKey::default(), &FlowKey::default(), RuleId::NONE, 0);
        self.mss = [0; 2];
        self.vouched = [0; 2];
    }

    /// The key of packets of the originator, on arrival.
    pub const fn original(&self) -> &FlowKey {
        &self.original
    }

    /// The key of packets of the responder, on arrival.
    pub const fn reply(&self) -> &FlowKey {
        &self.reply
    }

    /// The rule that made the connection.
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Seconds of the monotonic clock when it was made.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// The corrections in force of what `side` sends.
    #[inline(always)]
    pub const fn corrections(&self, side: Side) -> &Corrections {
        let [[a, b], [c, d]] = &self.copies;
        match (self.generation & 1, side) {
            (0, Side::Originator) => a,
            (0, Side::Responder) => b,
            (_, Side::Originator) => c,
            (_, Side::Responder) => d,
        }
    }
}
