//! Connections that an FTP session has announced, and the translation they will get.
//!
//! An expectation is one exact pinhole: the peer address of the control flow, one destination, one
//! port, one connection. It is in the map before the packet that announces it leaves, and whoever
//! removes it from the map has used it: two SYNs can never both do so.

use crate::{flow::Zone, port::Port, rule::RuleId, session::SessionId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who may dial what: any source port, for of seven servers only two dial from port 20.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ExpectationKey {
    src: [u8; 4],
    dst: [u8; 4],
    dport: Port,
    protocol: u8,
    zone: u8,
}

const _: () = assert!(size_of::<ExpectationKey>() == 12);

impl ExpectationKey {
    /// A connection of `protocol` from `src` to `dst` and `dport` that arrives from `zone`.
    #[inline(always)]
    pub const fn new(zone: Zone, protocol: u8, src: [u8; 4], dst: [u8; 4], dport: Port) -> Self {
        let zone = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { src, dst, dport, protocol, zone }
    }

    /// Who dials.
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }

    /// What is dialled, as it stands in the packet on arrival.
    pub const fn dst(&self) -> [u8; 4] {
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

    /// Where it arrives from.
    pub const fn zone(&self) -> Zone {
        if self.zone == 1 { Zone::Inside } else { Zone::Outside }
    }
}

/// What is done with the connection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Expectation {
    address: [u8; 4],
    port: Port,
    padding: [u8; 2],
    session: SessionId,
    rule: RuleId,
    expires: u32,
}

const _: () = assert!(size_of::<Expectation>() == 20);

impl Expectation {
    /// A connection from outside that goes to `address` and `port` inside; until `expires` (seconds
    /// of the monotonic clock).
    pub const fn inbound(
        address: [u8; 4],
        port: Port,
        session: SessionId,
        rule: RuleId,
        expires: u32,
    ) -> Self {
        Self { address, port, padding: [0; 2], session, rule, expires }
    }

    /// A connection from inside that leaves with the public `address`, its source port kept where
    /// that is free.
    pub const fn outbound(
        address: [u8; 4],
        session: SessionId,
        rule: RuleId,
        expires: u32,
    ) -> Self {
        Self { address, port: Port::NONE, padding: [0; 2], session, rule, expires }
    }

    /// Inside address of an inbound connection, public address of an outbound one.
    #[inline(always)]
    pub const fn address(&self) -> [u8; 4] {
        self.address
    }

    /// Inside port of an inbound connection.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        self.port
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
