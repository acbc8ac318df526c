//! FTP over IPv6: what the agent tells the data plane of control connections, and what it lets in for
//! them. Maps `controls6` and `expectations6`.
//!
//! A control connection has no record of its own but its flow. Nothing has to be corrected where no line is
//! rewritten, which is everywhere but behind a translated prefix: the agent reads a segment, lets in what
//! that announces, and sends it on as it came. Once it has rewritten a line all segments go by it.

use super::{Address6, Flow6Key};
use crate::{flow::Zone, port::Port, rule::RuleId, session::SessionId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the map `controls6`, whose key is that of the flow: written by the agent, for the data plane
/// and for the agent that comes after it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Control6 {
    session: SessionId,
    created: u32,
    /// Bits of [`UNREAD`], [`AT_LINE`], [`SHIFTED`] and [`WATCHED`].
    marks: u32,
    lines: [u32; 2],
}

const _: () = assert!(size_of::<Control6>() == 20);

/// Nobody reads it any more.
const UNREAD: u32 = 1;
/// Where the next line of each side starts is known.
const AT_LINE: [u32; 2] = [2, 4];
/// A line of it was rewritten.
const SHIFTED: u32 = 8;
/// It is encrypted, and its records are followed.
const WATCHED: u32 = 16;

impl Control6 {
    /// That of `session`, whose flow was made in the second `created`, and of which each side has been
    /// read up to the start of a line, or nobody knows.
    pub fn new(session: SessionId, created: u32, lines: [Option<u32>; 2]) -> Self {
        let mut control = Self { session, created, marks: 0, lines: [0; 2] };
        for ((line, place), mark) in lines.iter().zip(&mut control.lines).zip(AT_LINE) {
            if let Some(line) = line {
                *place = *line;
                control.marks |= mark;
            }
        }
        control
    }

    /// The same, which nobody reads.
    pub const fn unread(self) -> Self {
        Self { marks: self.marks | UNREAD, ..self }
    }

    /// Whether nobody reads it.
    #[inline(always)]
    pub const fn is_unread(&self) -> bool {
        self.marks & UNREAD != 0
    }

    /// The same, in which a line was rewritten.
    pub const fn shifted(self) -> Self {
        Self { marks: self.marks | SHIFTED, ..self }
    }

    /// Whether a line was rewritten, so that the agent shifts all of its segments.
    #[inline(always)]
    pub const fn is_shifted(&self) -> bool {
        self.marks & SHIFTED != 0
    }

    /// The same, which is encrypted: what the agent wants of it is in the map `watches6`.
    pub const fn watched(self) -> Self {
        Self { marks: self.marks | WATCHED, ..self }
    }

    /// Whether it is encrypted, and its records are followed.
    #[inline(always)]
    pub const fn is_watched(&self) -> bool {
        self.marks & WATCHED != 0
    }

    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Second of the first packet of its flow: another flow with the same key has another.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// Where the next line of the client, and of the server, starts.
    pub fn lines(&self) -> [Option<u32>; 2] {
        let [client, server] = AT_LINE.map(|mark| self.marks & mark != 0);
        let [client_line, server_line] = self.lines;
        [client.then_some(client_line), server.then_some(server_line)]
    }
}

/// A side of a control connection: key of the map `watches6`, whose values are [`crate::watch::Watch`].
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
#[repr(C)]
pub struct Watch6Key {
    flow: Flow6Key,
    zone: u32,
}

const _: () = assert!(size_of::<Watch6Key>() == 44);

impl Watch6Key {
    /// What arrives of a flow from `zone`.
    #[inline(always)]
    pub const fn new(flow: Flow6Key, zone: Zone) -> Self {
        let zone = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { flow, zone }
    }

    /// The flow.
    pub const fn flow(&self) -> Flow6Key {
        self.flow
    }
}

/// Who may dial what, from any port: key of the map `expectations6`. Whoever takes it out has used it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Expectation6Key {
    src: Address6,
    dst: Address6,
    dport: Port,
    protocol: u8,
    zone: u8,
}

const _: () = assert!(size_of::<Expectation6Key>() == 36);

impl Expectation6Key {
    /// A connection of `protocol` from `src` to `dst` and `dport` that arrives from `zone`.
    #[inline(always)]
    pub const fn new(zone: Zone, protocol: u8, src: Address6, dst: Address6, dport: Port) -> Self {
        let zone = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { src, dst, dport, protocol, zone }
    }

    /// Who dials.
    pub const fn src(&self) -> Address6 {
        self.src
    }

    /// What is dialled.
    pub const fn dst(&self) -> Address6 {
        self.dst
    }

    /// Its port.
    pub const fn dport(&self) -> Port {
        self.dport
    }

    /// IANA protocol number.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// Value of the map `expectations6`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Expectation6 {
    session: SessionId,
    rule: RuleId,
    expires: u32,
}

const _: () = assert!(size_of::<Expectation6>() == 12);

impl Expectation6 {
    /// Of `session`, which came by `rule`, until `expires` (seconds of the monotonic clock).
    pub const fn new(session: SessionId, rule: RuleId, expires: u32) -> Self {
        Self { session, rule, expires }
    }

    /// The session that announced it.
    #[inline(always)]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The rule of that session.
    #[inline(always)]
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Seconds of the monotonic clock from which on it counts no more.
    #[inline(always)]
    pub const fn expires(&self) -> u32 {
        self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_finds_where_each_side_stands() {
        let session = SessionId::new(7);
        for lines in [[None, None], [Some(0), None], [None, Some(u32::MAX)], [Some(5), Some(0)]] {
            let control = Control6::new(session, 9, lines);
            assert_eq!((control.lines(), control.is_unread()), (lines, false));
            assert_eq!((control.session(), control.created()), (session, 9));
            assert!(control.unread().is_unread());
            assert_eq!(control.unread().lines(), lines);
            let shifted = control.shifted();
            assert!(shifted.is_shifted() && !control.is_shifted() && !shifted.is_unread());
            assert_eq!(shifted.lines(), lines);
        }
    }
}
