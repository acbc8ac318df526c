//! Flow records: one for each direction, found by the tuple of the arriving packet.
//!
//! A record holds the complete action, so that the fast path does one lookup a packet. Each
//! direction writes only its own record: the two directions of a flow arrive on different CPUs.
//! What a flow is as a whole (established, closing) is derived from both by the reader.

use crate::{
    checksum::Delta,
    port::{Endpoint, Port},
    rule::RuleId,
    session::SessionId,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// Where a packet came from: the side of the gateway that addresses belong to. The same tuple may
/// exist on both sides, and a spoofed one from outside must never hit a record of the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Behind the NAT (`lan`).
    Inside,
    /// In front of it (`wan`).
    Outside,
}

impl Zone {
    #[inline(always)]
    const fn code(self) -> u8 {
        match self {
            Self::Inside => 1,
            Self::Outside => 2,
        }
    }

    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }
}

/// Key of a flow record: 16 bytes without holes, two 64-bit compares.
///
/// For ICMP echo the identifier is the source port of a request and the destination port of a
/// reply, so that a reply has the reverse key of its request (RFC 5508 section 3.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    src: [u8; 4],
    dst: [u8; 4],
    sport: Port,
    dport: Port,
    protocol: u8,
    zone: u8,
    padding: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == 16);

impl FlowKey {
    /// The key of a packet of `protocol` that arrives from `zone`.
    #[inline(always)]
    pub const fn new(
        zone: Zone,
        protocol: u8,
        src: [u8; 4],
        sport: Port,
        dst: [u8; 4],
        dport: Port,
    ) -> Self {
        Self { src, dst, sport, dport, protocol, zone: zone.code(), padding: [0; 2] }
    }

    /// Source address.
    #[inline(always)]
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }

    /// Destination address.
    #[inline(always)]
    pub const fn dst(&self) -> [u8; 4] {
        self.dst
    }

    /// Source port.
    #[inline(always)]
    pub const fn sport(&self) -> Port {
        self.sport
    }

    /// Destination port.
    #[inline(always)]
    pub const fn dport(&self) -> Port {
        self.dport
    }

    /// IANA protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the packet arrives from; a code that is neither is `Outside`, the side that is trusted
    /// less.
    #[inline(always)]
    pub const fn zone(&self) -> Zone {
        if self.zone == Zone::Inside.code() { Zone::Inside } else { Zone::Outside }
    }

    /// The source as an endpoint.
    #[inline(always)]
    pub const fn source(&self) -> Endpoint {
        Endpoint::new(self.protocol, self.src, self.sport)
    }

    /// The destination as an endpoint.
    #[inline(always)]
    pub const fn destination(&self) -> Endpoint {
        Endpoint::new(self.protocol, self.dst, self.dport)
    }

    /// The key of the answer to a packet with this key, once it was rewritten to `rewrite`: source
    /// and destination change places, and it arrives from the other side.
    #[inline(always)]
    pub const fn answer(&self, rewrite: &Rewrite) -> Self {
        Self {
            src: rewrite.dst,
            dst: rewrite.src,
            sport: rewrite.dport,
            dport: rewrite.sport,
            protocol: self.protocol,
            zone: self.zone().other().code(),
            padding: [0; 2],
        }
    }
}

/// The tuple that a packet leaves with.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Rewrite {
    src: [u8; 4],
    dst: [u8; 4],
    sport: Port,
    dport: Port,
}

const _: () = assert!(size_of::<Rewrite>() == 12);

impl Rewrite {
    /// Source translation: `key` leaves with another source.
    #[inline(always)]
    pub const fn source(key: &FlowKey, src: [u8; 4], sport: Port) -> Self {
        Self { src, dst: key.dst, sport, dport: key.dport }
    }

    /// Destination translation: `key` leaves with another destination.
    #[inline(always)]
    pub const fn destination(key: &FlowKey, dst: [u8; 4], dport: Port) -> Self {
        Self { src: key.src, dst, sport: key.sport, dport }
    }

    /// What the answer to `key` is rewritten to: back to the reverse of `key`.
    #[inline(always)]
    pub const fn answer(key: &FlowKey) -> Self {
        Self { src: key.dst, dst: key.src, sport: key.dport, dport: key.sport }
    }

    /// New source address.
    #[inline(always)]
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }

    /// New destination address.
    #[inline(always)]
    pub const fn dst(&self) -> [u8; 4] {
        self.dst
    }

    /// New source port.
    #[inline(always)]
    pub const fn sport(&self) -> Port {
        self.sport
    }

    /// New destination port.
    #[inline(always)]
    pub const fn dport(&self) -> Port {
        self.dport
    }
}

/// Who opened the flow, seen from one record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets of the initiator.
    Original,
    /// Packets of the answer.
    Reply,
}

const REPLY: u8 = 1;
const CONTROL: u8 = 2;
const RELATED: u8 = 4;

/// One direction of a flow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Flow {
    rewrite: Rewrite,
    address_delta: Delta,
    port_delta: Delta,
    session: SessionId,
    rule: RuleId,
    /// Bits of [`crate::tcp`] that were seen in this direction.
    pub seen: u8,
    flags: u8,
    padding: [u8; 2],
    created: u32,
    /// Seconds of the monotonic clock; written at most once a second.
    pub last_seen: u32,
    padding2: [u8; 4],
    /// Packets of this direction that were translated.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Flow>() == 56);

impl Flow {
    /// A record for packets with `key`, to leave as `rewrite`, made at `now` (seconds).
    #[inline(always)]
    pub const fn new(
        direction: Direction,
        key: &FlowKey,
        rewrite: Rewrite,
        rule: RuleId,
        now: u32,
    ) -> Self {
        Self {
            rewrite,
            address_delta: Delta::NONE.quad(key.src, rewrite.src).quad(key.dst, rewrite.dst),
            port_delta: Delta::NONE
                .word(key.sport.to_wire(), rewrite.sport.to_wire())
                .word(key.dport.to_wire(), rewrite.dport.to_wire()),
            session: SessionId::NONE,
            rule,
            seen: 0,
            flags: match direction {
                Direction::Original => 0,
                Direction::Reply => REPLY,
            },
            padding: [0; 2],
            created: now,
            last_seen: now,
            padding2: [0; 4],
            packets: 0,
            bytes: 0,
        }
    }

    /// The same, as the control connection of `session`.
    #[inline(always)]
    pub const fn control(mut self, session: SessionId) -> Self {
        self.session = session;
        self.flags |= CONTROL;
        self
    }

    /// The same, as a data connection of `session`.
    #[inline(always)]
    pub const fn related(mut self, session: SessionId) -> Self {
        self.session = session;
        self.flags |= RELATED;
        self
    }

    /// What its packets leave with.
    #[inline(always)]
    pub const fn rewrite(&self) -> &Rewrite {
        &self.rewrite
    }

    /// Change of the sum by the addresses: the IP checksum, and the pseudo-header.
    #[inline(always)]
    pub const fn address_delta(&self) -> Delta {
        self.address_delta
    }

    /// Change of the sum by the ports.
    #[inline(always)]
    pub const fn port_delta(&self) -> Delta {
        self.port_delta
    }

    /// Which packets it is for.
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        if self.flags & REPLY == 0 { Direction::Original } else { Direction::Reply }
    }

    /// The session whose control connection this is.
    #[inline(always)]
    pub const fn control_session(&self) -> Option<SessionId> {
        if self.flags & CONTROL != 0 { Some(self.session) } else { None }
    }

    /// The session that announced this data connection.
    pub const fn related_session(&self) -> Option<SessionId> {
        if self.flags & RELATED != 0 { Some(self.session) } else { None }
    }

    /// The rule that made it.
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Seconds of the monotonic clock when it was made.
    pub const fn created(&self) -> u32 {
        self.created
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> FlowKey {
        FlowKey::new(Zone::Inside, TCP, [10, 0, 1, 2], Port::new(5000), [9, 9, 9, 9], Port::new(21))
    }

    #[test]
    fn the_answer_to_the_answer_is_the_packet() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let answer = key.answer(&out);
        assert_eq!(
            answer,
            FlowKey::new(
                Zone::Outside,
                TCP,
                [9, 9, 9, 9],
                Port::new(21),
                [203, 0, 113, 1],
                Port::new(6000)
            )
        );
        assert_eq!(answer.answer(&Rewrite::answer(&key)), key);
    }

    #[test]
    fn deltas_of_both_directions_cancel_out() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let there = Flow::new(Direction::Original, &key, out, RuleId::NONE, 1);
        let back =
            Flow::new(Direction::Reply, &key.answer(&out), Rewrite::answer(&key), RuleId::NONE, 1);
        for field in [0u16, 1, 0x1234, 0xfffe] {
            let both = there.address_delta().and(back.address_delta());
            assert!([field, !field, field ^ 0xffff].contains(&both.apply(field)));
            assert_eq!(
                back.port_delta().apply(there.port_delta().apply(field)) % 0xffff,
                field % 0xffff
            );
        }
    }

    #[test]
    fn a_record_says_what_it_was_made_for() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let flow = Flow::new(Direction::Reply, &key, out, RuleId::new(7), 42);
        assert_eq!(flow.direction(), Direction::Reply);
        assert_eq!((flow.control_session(), flow.related_session()), (None, None));
        let session = SessionId::new(3);
        assert_eq!(flow.control(session).control_session(), Some(session));
        assert_eq!(flow.related(session).related_session(), Some(session));
        assert_eq!((flow.rule(), flow.created(), flow.last_seen), (RuleId::new(7), 42, 42));
    }
}
