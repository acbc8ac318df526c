//! A flow of IPv6, in the map `flows6`.
//!
//! Its key names the end inside first, whoever has begun it: packets of both directions find it.

use super::Address6;
use crate::{
    flow::{self, Zone},
    lifetime::{self, Lifetime},
    port::Port,
    record::Use,
    rule::RuleId,
    session::SessionId,
    tcp,
    tcp_window::{Receiver, Receiving},
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
    /// Bits of [`tcp`], and the scale of its sender's windows ([`crate::tcp_window`]).
    pub seen: u8,
    /// What the flow is; of [`Flow6::outbound`] alone.
    kind: u8,
    /// Window of the last segment, as it stood there.
    pub window: u16,
}

const _: () = assert!(size_of::<Way6>() == 24);

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
    /// What the last segment of the inside acknowledged, and of the outside.
    pub acknowledged: [u32; 2],
    created: u32,
    /// Both are below 2^16: [`RuleId::MAX`], [`crate::layout::SESSIONS`].
    rule: u16,
    session: u16,
}

const _: () = assert!(size_of::<Flow6>() == 64);

/// Bits of `kind`.
const BEGUN_OUTSIDE: u8 = 1;
const CONTROL: u8 = 2;
const RELATED: u8 = 4;

impl Flow6 {
    /// One that a packet from `zone` begins, by a rule or none.
    #[inline(always)]
    pub const fn new(zone: Zone, rule: RuleId, by: Use) -> Self {
        let Use { now, bytes, seen, receiving: Receiving { acknowledged, window } } = by;
        let none = Way6 { packets: 0, bytes: 0, last: 0, seen: 0, kind: 0, window: 0 };
        let first = Way6 { packets: 1, bytes: bytes as u64, last: now, seen, kind: 0, window };
        let (outbound, inbound, acknowledged) = match zone {
            Zone::Inside => (first, none, [acknowledged, 0]),
            Zone::Outside => (Way6 { kind: BEGUN_OUTSIDE, ..none }, first, [0, acknowledged]),
        };
        let rule = rule.number() as u16;
        Self { outbound, inbound, acknowledged, created: now, rule, session: 0 }
    }

    /// The same as an FTP control connection.
    #[inline(always)]
    pub const fn control(mut self) -> Self {
        self.outbound.kind |= CONTROL;
        self
    }

    /// The same as a connection that an FTP session has announced.
    #[inline(always)]
    pub const fn related(mut self, session: SessionId) -> Self {
        self.outbound.kind |= RELATED;
        self.session = session.number() as u16;
        self
    }

    /// Whether it is an FTP control connection.
    #[inline(always)]
    pub const fn is_control(&self) -> bool {
        self.outbound.kind & CONTROL != 0
    }

    /// The FTP session that has announced it.
    pub const fn related_session(&self) -> Option<SessionId> {
        match self.outbound.kind & RELATED {
            0 => None,
            _ => Some(SessionId::from_number(self.session as u32)),
        }
    }

    /// The side that has begun it.
    pub const fn begun(&self) -> Zone {
        match self.outbound.kind & BEGUN_OUTSIDE {
            0 => Zone::Inside,
            _ => Zone::Outside,
        }
    }

    /// The rule that has let it in.
    pub const fn rule(&self) -> RuleId {
        RuleId::new(self.rule as u32)
    }

    /// Second of its first packet.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// The same with a reset of both ends, which the agent has sent.
    pub const fn reset(mut self) -> Self {
        self.outbound.seen |= tcp::RST;
        self.inbound.seen |= tcp::RST;
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

    /// What the last segment from `zone` said that its sender is ready to receive.
    pub const fn receiving(&self, zone: Zone) -> Receiving {
        let [inside, outside] = self.acknowledged;
        let acknowledged = match zone {
            Zone::Inside => inside,
            Zone::Outside => outside,
        };
        Receiving { acknowledged, window: self.way(zone).window }
    }

    /// What is known of the end that packets from `zone` go to.
    pub const fn receiver(&self, zone: Zone) -> Receiver {
        let other = zone.other();
        Receiver { seen: self.way(other).seen, receiving: self.receiving(other) }
    }

    /// The same after a packet from `zone`: what the data plane does word by word. Who goes on after a RST
    /// takes it back, as in [`crate::record::State::touched`].
    #[must_use]
    pub const fn used(mut self, zone: Zone, by: Use) -> Self {
        let Use { now, bytes, seen, receiving: Receiving { acknowledged, window } } = by;
        let (way, place) = match zone {
            Zone::Inside => (&mut self.outbound, 0),
            Zone::Outside => (&mut self.inbound, 1),
        };
        way.packets += 1;
        way.bytes += bytes as u64;
        (way.last, way.window) = (now, window);
        way.seen = way.seen & !tcp::RST | seen;
        self.acknowledged[place] = acknowledged;
        self
    }

    /// Second of the last packet of either direction.
    pub const fn last(&self) -> u32 {
        if self.outbound.last > self.inbound.last { self.outbound.last } else { self.inbound.last }
    }

    /// Bits of [`tcp`] of who has begun it and of the other, without a RST that was outlived.
    pub const fn seen(&self) -> [u8; 2] {
        let (ours, theirs) = (self.way(self.begun()), self.way(self.begun().other()));
        [
            tcp::outlived(ours.seen, ours.last, theirs.last),
            tcp::outlived(theirs.seen, theirs.last, ours.last),
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
        let first = Use { now: 100, bytes: 60, seen: tcp::SYN, ..Use::default() };
        let mut flow = Flow6::new(Zone::Outside, RuleId::new(3), first);
        assert_eq!(flow.seen(), [tcp::SYN, 0]);
        assert_eq!((flow.begun(), flow.last(), flow.rule()), (Zone::Outside, 100, RuleId::new(3)));
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpTransitory);
        flow.outbound.seen = tcp::SYN | tcp::ACK;
        flow.outbound.last = 101;
        flow.inbound.seen = tcp::SYN | tcp::ACK;
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpEstablished);
        flow.inbound.seen |= tcp::RST;
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpTransitory);
        flow.outbound.last = 110;
        assert_eq!(flow.lifetime(flow::TCP), Lifetime::TcpEstablished);
        assert_eq!(flow.lifetime(ICMPV6), Lifetime::Icmp);
        assert_eq!(flow.lifetime(50), Lifetime::Udp);
    }

    #[test]
    fn each_side_keeps_what_it_is_ready_to_receive_and_a_flow_what_it_is() {
        let said = |acknowledged, window| Use {
            now: 100,
            bytes: 60,
            seen: tcp::SYN | 7 << 4,
            receiving: Receiving { acknowledged, window },
        };
        for begun in [Zone::Inside, Zone::Outside] {
            let other = begun.other();
            let flow = Flow6::new(begun, RuleId::MAX, said(5, 6)).used(other, said(7, 8));
            assert_eq!(flow.receiving(begun), Receiving { acknowledged: 5, window: 6 });
            assert_eq!(flow.receiving(other), Receiving { acknowledged: 7, window: 8 });
            assert_eq!(flow.receiver(begun).receiving, flow.receiving(other));
            assert_eq!(flow.receiver(begun).seen, tcp::SYN | 7 << 4);
            assert_eq!((flow.begun(), flow.rule()), (begun, RuleId::MAX));
            assert_eq!((flow.is_control(), flow.related_session()), (false, None));
            assert_eq!((flow.control().begun(), flow.control().is_control()), (begun, true));
            let session = SessionId::from_number(crate::layout::SESSIONS);
            let related = flow.related(session);
            assert_eq!((related.related_session(), related.is_control()), (Some(session), false));
            assert_eq!((related.rule(), related.begun()), (RuleId::MAX, begun));
        }
    }
}
