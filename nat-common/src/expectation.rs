//! Connections that an FTP session has announced, and the translation they will get.
//!
//! An expectation is one exact pinhole: the peer address of the control flow, one destination, one
//! port, one connection. It is in the map before the packet that announces it leaves, and whoever
//! removes it from the map has used it: two SYNs can never both do so.

use crate::{
    flow::Zone,
    port::{Endpoint, Port},
    rule::RuleId,
    session::SessionId,
};
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

const INSIDE: u8 = 1;
const OUTSIDE: u8 = 2;
/// From inside, to a public address that leads back to the inside.
const TURNING: u8 = 3;

impl ExpectationKey {
    /// A connection of `protocol` from `src` to `dst` and `dport` that arrives from `zone`.
    #[inline(always)]
    pub const fn new(zone: Zone, protocol: u8, src: [u8; 4], dst: [u8; 4], dport: Port) -> Self {
        let zone = match zone {
            Zone::Inside => INSIDE,
            Zone::Outside => OUTSIDE,
        };
        Self { src, dst, dport, protocol, zone }
    }

    /// A connection of `protocol` from the inside host `src` to the public address `dst` and `dport` that
    /// turns back to the inside.
    #[inline(always)]
    pub const fn turning(protocol: u8, src: [u8; 4], dst: [u8; 4], dport: Port) -> Self {
        Self { src, dst, dport, protocol, zone: TURNING }
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
        match self.zone {
            INSIDE | TURNING => Zone::Inside,
            _ => Zone::Outside,
        }
    }

    /// Whether it arrives from inside and leads back there.
    pub const fn turns_back(&self) -> bool {
        self.zone == TURNING
    }

    /// The public port that is dialled, which is claimed while the expectation lives; `None` where a
    /// host outside is dialled.
    pub const fn public(&self) -> Option<Endpoint> {
        match self.zone {
            INSIDE => None,
            _ => Some(Endpoint::new(self.protocol, self.dst, self.dport)),
        }
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
    public: [u8; 4],
}

const _: () = assert!(size_of::<Expectation>() == 24);

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
        Self { address, port, padding: [0; 2], session, rule, expires, public: [0; 4] }
    }

    /// A connection from inside that leaves with the public `address`, its source port kept where
    /// that is free.
    pub const fn outbound(
        address: [u8; 4],
        session: SessionId,
        rule: RuleId,
        expires: u32,
    ) -> Self {
        let (port, public) = (Port::NONE, [0; 4]);
        Self { address, port, padding: [0; 2], session, rule, expires, public }
    }

    /// A connection from inside that goes to `address` and `port` inside, and that is seen there to come
    /// from `public`, with its own source port.
    pub const fn turned(
        address: [u8; 4],
        port: Port,
        public: [u8; 4],
        session: SessionId,
        rule: RuleId,
        expires: u32,
    ) -> Self {
        Self { address, port, padding: [0; 2], session, rule, expires, public }
    }

    /// Inside address of an inbound connection and of one that turns back, public address of an outbound
    /// one.
    #[inline(always)]
    pub const fn address(&self) -> [u8; 4] {
        self.address
    }

    /// Inside port of an inbound connection and of one that turns back.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Public address that one that turns back is seen to come from.
    #[inline(always)]
    pub const fn public(&self) -> [u8; 4] {
        self.public
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
    use crate::flow::TCP;

    #[test]
    fn a_key_says_where_it_arrives_from_and_which_public_port_it_holds() {
        let (src, dst, dport) = ([10, 0, 1, 9], [203, 0, 113, 1], Port::new(40000));
        let public = Some(Endpoint::new(TCP, dst, dport));
        let inside = ExpectationKey::new(Zone::Inside, TCP, src, dst, dport);
        let outside = ExpectationKey::new(Zone::Outside, TCP, src, dst, dport);
        let turning = ExpectationKey::turning(TCP, src, dst, dport);
        let told = |key: &ExpectationKey| (key.zone(), key.turns_back(), key.public());
        assert_eq!(told(&inside), (Zone::Inside, false, None));
        assert_eq!(told(&outside), (Zone::Outside, false, public));
        assert_eq!(told(&turning), (Zone::Inside, true, public));
        assert!(turning != inside && turning != outside);
    }
}
