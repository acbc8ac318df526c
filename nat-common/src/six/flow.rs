//! A flow of IPv6, in the map `flows6`.
//!
//! Its key names the end inside first, whoever has begun it: packets of both directions find it.

use super::Address6;
use crate::{
    flow::{self, Zone},
    lifetime::{self, Lifetime},
    port::Port,
    rule::RuleId,
    session::SessionId,
    tcp,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IANA protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// Key of the map `flows6`.
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
pub struct Flow6Key {
    inside: Address6,
    outside: Address6,
    inside_port: Port,
    outside_port: Port,
    protocol: u8,
    padding: [u8; 3],
}

const _: () = assert!(size_of::<Flow6Key>() == 40);

impl Flow6Key {
    /// Of a packet that arrives from `zone`. An echo has its identifier on the side that asks, another
    /// protocol no ports.
    #[inline(always)]
    pub const fn new(
        zone: Zone,
        protocol: u8,
        src: Address6,
        sport: Port,
        dst: Address6,
        dport: Port,
    ) -> Self {
        let (inside, inside_port, outside, outside_port) = match zone {
            Zone::Inside => (src, sport, dst, dport),
            Zone::Outside => (dst, dport, src, sport),
        };
        Self { inside, outside, inside_port, outside_port, protocol, padding: [0; 3] }
    }

    /// Address of the host inside.
    pub const fn inside(&self) -> Address6 {
        self.inside
    }

    /// Address of the host outside.
    pub const fn outside(&self) -> Address6 {
        self.outside
    }

    /// Port of the host inside.
    pub const fn inside_port(&self) -> Port {
        self.inside_port
    }

    /// Port of the host outside.
    pub const fn outside_port(&self) -> Port {
        self.outside_port
    }

    /// IANA protocol number.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// What was seen of one direction.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Way6 {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IPv6 header on.
    pub bytes: u64,
    /// Second of the last packet; 0 while there is none.
    pub last: u32,
    /// Bits of [`tcp`].
    pub seen: u32,
}

/// Value of the map `flows6`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Flow6 {
    /// What the inside sends.
    pub outbound: Way6,
    /// What the outside sends.
    pub inbound: Way6,
    created: u32,
    rule: RuleId,
    begun: u16,
    kind: u16,
    session: SessionId,
}

const _: () = assert!(size_of::<Flow6>() == 64);

/// Values of `kind`; 0 is any other flow.
const CONTROL: u16 = 1;
const RELATED: u16 = 2;

impl Flow6 {
    /// One that a packet from `zone` of so many bytes begins, by a rule or none, with these bits of
    /// [`tcp`].
    #[inline(always)]
    pub const fn new(zone: Zone, rule: RuleId, now: u32, bytes: u32, seen: u8) -> Self {
        let none = Way6 { packets: 0, bytes: 0, last: 0, seen: 0 };
        let first = Way6 { packets: 1, bytes: bytes as u64, last: now, seen: seen as u32 };
        let (outbound, inbound, begun) = match zone {
            Zone::Inside => (first, none, 1),
            Zone::Outside => (none, first, 2),
        };
        Self { outbound, inbound, created: now, rule, begun, kind: 0, session: SessionId::NONE }
    }

    /// The same as an FTP control connection.
    #[inline(always)]
    pub const fn control(self) -> Self {
        Self { kind: CONTROL, ..self }
    }

    /// The same as a connection that an FTP session has announced.
    #[inline(always)]
    pub const fn related(self, session: SessionId) -> Self {
        Self { kind: RELATED, session, ..self }
    }

    /// Whether it is an FTP control connection.
    #[inline(always)]
    pub const fn is_control(&self) -> bool {
        self.kind == CONTROL
    }

    /// The FTP session that has announced it.
    pub const fn related_session(&self) -> Option<SessionId> {
        if self.kind == RELATED { Some(self.session) } else { None }
    }

    /// The side that has begun it.
    pub const fn begun(&self) -> Zone {
        match self.begun {
            2 => Zone::Outside,
            _ => Zone::Inside,
        }
    }

    /// The rule that has let it in.
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Second of its first packet.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// The same with a reset of both ends, which the agent has sent.
    pub const fn reset(mut self) -> Self {
        self.outbound.seen |= tcp::RST as u32;
        self.inbound.seen |= tcp::RST as u32;
        self
    }

    /// What the packets of `zone` were.
    #[inline(always)]
    pub const fn way(&self, zone: Zone) -> &Way6 {
        match zone {
            Zone::Inside => &self.outbound,
            Zone::Outside => &self.inbound,
        }
    }

    /// Second of the last packet of either direction.
    pub const fn last(&self) -> u32 {
        if self.outbound.last > self.inbound.last { self.outbound.last } else { self.inbound.last }
    }

    /// Bits of [`tcp`] of who has begun it and of the other, without a RST that was outlived.
    pub const fn seen(&self) -> [u8; 2] {
        let (ours, theirs) = (self.way(self.begun()), self.way(self.begun().other()));
        [
            tcp::outlived(ours.seen as u8, ours.last, theirs.last),
            tcp::outlived(theirs.seen as u8, theirs.last, ours.last),
        ]
    }

    /// The class of its lifetime.
    pub const fn lifetime(&self, protocol: u8) -> Lifetime {
        let [original, reply] = self.seen();
        let protocol = if protocol == ICMPV6 { flow::ICMP } else { protocol };
        lifetime::lifetime(protocol, original, reply)
    }
}

/// A datagram in fragments (RFC 8200 section 4.5): key of the map `fragments6`, whose value is the key
/// of its flow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fragment6Key {
    src: Address6,
    dst: Address6,
    identification: [u8; 4],
    zone: u32,
}

const _: () = assert!(size_of::<Fragment6Key>() == 40);

impl Fragment6Key {
    /// The datagram with this identification, as its fragments arrive from `zone`.
    #[inline(always)]
    pub const fn new(zone: Zone, src: Address6, dst: Address6, identification: [u8; 4]) -> Self {
        let zone = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { src, dst, identification, zone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let (here, there) = ([1; 16], [2; 16]);
        let (port, service) = (Port::new(5000), Port::new(80));
        let out = Flow6Key::new(Zone::Inside, flow::TCP, here, port, there, service);
        let back = Flow6Key::new(Zone::Outside, flow::TCP, there, service, here, port);
        assert_eq!(out, back);
        assert_eq!((out.inside(), out.outside_port()), (here, service));
    }

    #[test]
    fn state_counts_from_who_has_begun_and_a_reset_may_be_outlived() {
        let mut flow = Flow6::new(Zone::Outside, RuleId::new(3), 100, 60, tcp::SYN);
        assert_eq!(flow.seen(), [tcp::SYN, 0]);
        assert_eq!((flow.begun(), flow.last(), flow.rule()), (Zone::Outside, 100, RuleId::new(3)));
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpTransitory);
        flow.outbound.seen = u32::from(tcp::SYN | tcp::ACK);
        flow.outbound.last = 101;
        flow.inbound.seen = u32::from(tcp::SYN | tcp::ACK);
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpEstablished);
        flow.inbound.seen |= u32::from(tcp::RST);
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpTransitory);
        flow.outbound.last = 110;
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpEstablished);
        assert_eq!(flow.lifetime(ICMPV6), Lifetime::Icmp);
        assert_eq!(flow.lifetime(50), Lifetime::Udp);
    }
}
