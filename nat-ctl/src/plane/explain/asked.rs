//! The packet that is asked about: its ends are of one family, its protocol is one that a packet can be
//! made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nat_common::{
    flow::{FlowKey, Zone},
    port::Port,
    six::Flow6Key,
};

use crate::output::{PacketView, Question};
use crate::plane::error::{PlaneError, Result};
use crate::rules::{FlowProtocol, Protocol};

/// A packet between two addresses of a family.
#[derive(Debug, Clone, Copy)]
pub struct Asked<A> {
    /// Its transport; echo of either family is one.
    pub protocol: Protocol,
    /// Source.
    pub src: A,
    /// Source port, or the identifier of an echo request.
    pub sport: u16,
    /// Destination.
    pub dst: A,
    /// Destination port; 0 for an echo request, which has one identifier.
    pub dport: u16,
    /// Whether it is of a connection that is open.
    pub ack: bool,
}

/// The same of either family.
#[derive(Debug, Clone, Copy)]
pub enum Packet {
    /// IPv4.
    V4(Asked<Ipv4Addr>),
    /// IPv6.
    V6(Asked<Ipv6Addr>),
}

impl Packet {
    /// The packet of a question.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where there is no such packet.
    pub fn of(question: &Question) -> Result<Self> {
        let Question { protocol: asked, src, dst, .. } = *question;
        let none =
            |why: &str| PlaneError::NotFound(format!("explain {asked} from {src} to {dst}: {why}"));
        let protocol = match (asked, src) {
            (FlowProtocol::ICMPV6, IpAddr::V6(_)) => Some(Protocol::Icmp),
            (FlowProtocol::ICMPV6, IpAddr::V4(_)) => None,
            _ => Protocol::from_number(asked.number()),
        };
        let protocol = protocol
            .ok_or_else(|| none("what can be asked about is tcp, udp, and icmp of the family"))?;
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Ok(Self::V4(Asked::new(question, protocol, src, dst)))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Ok(Self::V6(Asked::new(question, protocol, src, dst)))
            }
            _ => Err(none("no packet has addresses of IPv4 and of IPv6")),
        }
    }
}

impl<A> Asked<A> {
    fn new(question: &Question, protocol: Protocol, src: A, dst: A) -> Self {
        let Question { sport, dport, ack, .. } = *question;
        let dport = match protocol {
            Protocol::Icmp => 0,
            Protocol::Tcp | Protocol::Udp => dport,
        };
        Self { protocol, src, sport, dst, dport, ack }
    }
}

impl Asked<Ipv4Addr> {
    /// Its tuple on arrival.
    pub fn key(&self, zone: Zone) -> FlowKey {
        let (src, dst) = (self.src.octets(), self.dst.octets());
        let (sport, dport) = (Port::new(self.sport), Port::new(self.dport));
        FlowKey::new(zone, self.protocol.number(), src, sport, dst, dport)
    }

    /// As it is seen.
    pub fn view(&self) -> PacketView {
        self.view_as(self.protocol.into())
    }
}

impl Asked<Ipv6Addr> {
    /// IANA protocol number.
    pub fn number(&self) -> u8 {
        match self.protocol {
            Protocol::Icmp => FlowProtocol::ICMPV6.number(),
            Protocol::Tcp | Protocol::Udp => self.protocol.number(),
        }
    }

    /// The key of its flow.
    pub fn key(&self, zone: Zone) -> Flow6Key {
        let (src, dst) = (self.src.octets(), self.dst.octets());
        let (sport, dport) = (Port::new(self.sport), Port::new(self.dport));
        Flow6Key::new(zone, self.number(), src, sport, dst, dport)
    }

    /// As it is seen.
    pub fn view(&self) -> PacketView {
        self.view_as(FlowProtocol::from_number(self.number()))
    }
}

impl<A: Into<IpAddr> + Copy> Asked<A> {
    fn view_as(&self, protocol: FlowProtocol) -> PacketView {
        PacketView {
            protocol,
            src: self.src.into(),
            sport: self.sport,
            dst: self.dst.into(),
            dport: self.dport,
            interface: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(protocol: &str, src: &str, dst: &str) -> Question {
        Question {
            protocol: protocol.parse().unwrap(),
            src: src.parse().unwrap(),
            sport: 7,
            dst: dst.parse().unwrap(),
            dport: 9,
            interface: None,
            ack: false,
        }
    }

    #[test]
    fn a_packet_is_of_one_family_and_of_a_known_protocol() {
        let (four, six) = ("192.0.2.1", "2001:db8::1");
        for (protocol, src, dst) in
            [("tcp", four, six), ("udp", six, four), ("icmpv6", four, four), ("50", six, six)]
        {
            assert!(Packet::of(&question(protocol, src, dst)).is_err(), "{protocol} {src} {dst}");
        }
        for (protocol, shown) in [("icmp", "icmpv6"), ("icmpv6", "icmpv6"), ("tcp", "tcp")] {
            let Ok(Packet::V6(asked)) = Packet::of(&question(protocol, six, six)) else {
                panic!("{protocol}")
            };
            assert_eq!(asked.view().protocol.to_string(), shown);
        }
    }
}
