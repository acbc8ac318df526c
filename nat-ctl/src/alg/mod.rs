//! The FTP engine: reads control connections, and says what the rest of the gateway has to do.
//!
//! It is plain Rust without clock, sockets or maps. A segment goes in, commands come out, and the
//! event loop carries them out in their order.
//!
//! ```text
//!                     Session (one a control flow)
//!   Segment ---> Stream -----> LineState --> Announcement --> Dialogue
//!   client or    what was      lines, cut    address, port    which reply answers
//!   server       read, edits   or whole      or a refusal     which command
//!                  |                              |                |
//!                  v                              v                v
//!            SetCorrections, Emit         Gateway::claim    Expect, Unexpect
//! ```
//!
//! Invariants:
//! - The same bytes in give the same bytes out, however they are cut and repeated: a byte is read
//!   once, and what leaves is a pure function of the bytes and of the edit list ([`stream`]).
//! - An expectation stands before the bytes that announce it leave, and so do the corrections.
//! - What is encrypted is followed by its records alone, and read again only where a line stands in the
//!   place of one ([`records`]).
//! - No pinhole comes of a line that is not complete, of bytes that start a segment and not a line,
//!   or of a reply that nothing asked for ([`line`], [`dialogue`]).
//! - A pinhole is one address of the sender's own, one port from 1024 on, one peer
//!   ([`announcement`], [`session`]).
//! - Nothing is held back: every byte that arrives in order leaves, or something in its place
//!   ([`opening`]).
//! - Everything is bounded, and fits [`nat_common::journal::JOURNAL_BYTES`] ([`image`]).
//!
//! `docs/ftp.md` has the rules and their reasons.

use bytes::Bytes;
use nat_common::{sequence::Corrections, watch::Watch};

pub mod announcement;
pub mod dialogue;
mod expect;
mod flow;
pub mod image;
pub mod keyword;
pub mod line;
pub mod opening;
pub mod pinhole;
mod policy;
mod quota;
pub mod records;
mod refusal;
pub mod session;
mod sessions;
pub mod stream;

pub use self::{
    dialogue::Facts,
    expect::{Expectation, ExpectationKey, Gateway, PortRequest, Translation},
    flow::{ControlFlow, Course, Side},
    image::ImageError,
    policy::{Policy, Strict},
    quota::Quota,
    refusal::{DropReason, End, ForeignAddress, Refusal},
    session::Session,
    sessions::Sessions,
};

/// A TCP segment of a control flow, as its sender sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Who sent it.
    pub side: Side,
    /// Number of its first byte, in the sender's space.
    pub seq: u32,
    /// What it acknowledges, as it stands in the segment.
    pub ack: Option<u32>,
    /// Its bytes. A segment without any needs no engine.
    pub payload: &'a [u8],
    /// Whether it ends the stream.
    pub fin: bool,
    /// The urgent pointer, if URG is set.
    pub urgent: Option<u16>,
}

/// What the gateway has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let this connection through, from now on until it has been used or has expired. The key may
    /// be there already: it lives anew.
    Expect(Expectation),
    /// No longer. The key may be gone: used (then its port belongs to the connection) or expired.
    /// Otherwise its public port is free again.
    Unexpect(ExpectationKey),
    /// Shift what `side` sends, and what acknowledges it, by these.
    SetCorrections {
        /// Whose sequence numbers.
        side: Side,
        /// All of them, in the place of those before.
        corrections: Corrections,
    },
    /// Of what `side` sends, this is wanted from now on.
    Watch {
        /// Whose segments.
        side: Side,
        /// Which of them.
        watch: Watch,
    },
    /// Send this on.
    Emit(Emit),
    /// Let the segment go; its sender repeats it.
    Drop {
        /// Who sent it.
        side: Side,
        /// Why.
        reason: DropReason,
    },
    /// Send RST to both ends, and let the segment go.
    Reset {
        /// Who sent the segment.
        side: Side,
        /// What the other end expects next, in its own space.
        seq: u32,
        /// What the segment acknowledges, in the receiver's space.
        ack: Option<u32>,
    },
    /// Something to count and to show.
    Log(Event),
    /// Lines of this flow are no longer read. Its corrections stay in force, and repeats of what
    /// was rewritten still need the engine.
    EndInspection(End),
    /// Lines of both sides are read again.
    ResumeInspection,
}

/// A segment that leaves. It may be longer than the peer's MSS; who sends it cuts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Who sent it.
    pub side: Side,
    /// Number of its first byte, in the receiver's space.
    pub seq: u32,
    /// What it acknowledges, in the receiver's space.
    pub ack: Option<u32>,
    /// Its bytes; none where only an acknowledgement is wanted.
    pub payload: Bytes,
    /// Whether it ends the stream.
    pub fin: bool,
    /// The urgent pointer, if URG is to be set.
    pub urgent: Option<u16>,
}

/// Something that happened in a session. Secrets in the lines are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line left with another address or port.
    Rewritten {
        /// Who sent it.
        side: Side,
        /// The line as it came.
        before: String,
        /// The line as it left.
        after: String,
    },
    /// A line made no expectation.
    Refused {
        /// Who sent it.
        side: Side,
        /// Why.
        reason: Refusal,
        /// The line.
        line: String,
    },
    /// The client has given a command.
    Command {
        /// The word as it stands in the table; `None` for one that is not there.
        name: Option<&'static str>,
        /// The line.
        line: String,
    },
    /// The client has asked for a transfer.
    TransferAsked {
        /// By this command.
        command: &'static str,
        /// Of this file or folder.
        file: Option<String>,
    },
    /// The server has begun the oldest transfer that was asked for.
    TransferBegun,
    /// The server has answered for good to the oldest transfer that was asked for.
    TransferEnded {
        /// The code of its reply.
        code: u16,
    },
    /// An inside address was replaced in a line that makes no expectation.
    LeakPrevented {
        /// Who sent it.
        side: Side,
        /// The line.
        line: String,
    },
}

#[cfg(test)]
mod tests;
