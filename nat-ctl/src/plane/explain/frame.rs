//! The packet that is asked about, as a frame and as a key.

use std::net::Ipv4Addr;

use nat_common::{
    checksum::Sum,
    flow::{FlowKey, Zone},
    port::Port,
    tcp::wire,
};

use crate::output::{PacketView, Question};
use crate::rules::Protocol;

const ETHERNET: usize = 14;
const IP: usize = 20;
const TRANSPORT: usize = ETHERNET + IP;
/// What Linux sends.
const TTL: u8 = 64;
/// Don't fragment.
const DONT: [u8; 2] = [0x40, 0];
const ECHO_REQUEST: u8 = 8;

/// Its tuple on arrival.
pub fn key(question: &Question, zone: Zone) -> FlowKey {
    let (sport, dport) = ports(question);
    FlowKey::new(
        zone,
        question.protocol.number(),
        question.src.octets(),
        Port::new(sport),
        question.dst.octets(),
        Port::new(dport),
    )
}

/// An echo request has its identifier in both places.
fn ports(question: &Question) -> (u16, u16) {
    match question.protocol {
        Protocol::Icmp => (question.sport, 0),
        Protocol::Tcp | Protocol::Udp => (question.sport, question.dport),
    }
}

/// The question as a packet that is seen.
pub fn packet(question: &Question) -> PacketView {
    let (sport, dport) = ports(question);
    let Question { protocol, src, dst, .. } = *question;
    PacketView { protocol, src, sport, dst, dport, interface: None }
}

/// The frame, its checksums right.
pub fn of(question: &Question) -> Vec<u8> {
    let (sport, dport) = (question.sport.to_be_bytes(), question.dport.to_be_bytes());
    let mut segment = match question.protocol {
        Protocol::Tcp => {
            let flags = if question.ack { wire::ACK } else { wire::SYN };
            let mut segment = [sport, dport].concat();
            segment.extend([0; 8]);
            segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            segment
        }
        Protocol::Udp => [sport, dport, 8_u16.to_be_bytes(), [0; 2]].concat(),
        Protocol::Icmp => [[ECHO_REQUEST, 0], [0; 2], sport, [0; 2]].concat(),
    };
    let length = segment.len() as u16;
    let (src, dst) = (question.src.octets(), question.dst.octets());
    let (at, sum) = match question.protocol {
        Protocol::Tcp => {
            (16, Sum::ZERO.pseudo_header(src, dst, question.protocol.number(), length))
        }
        Protocol::Udp => (6, Sum::ZERO.pseudo_header(src, dst, question.protocol.number(), length)),
        Protocol::Icmp => (2, Sum::ZERO),
    };
    let field = sum.bytes(&segment).field();
    if let Some(place) = segment.get_mut(at..at + 2) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    let mut ip = vec![0x45, 0];
    ip.extend((IP as u16 + length).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(DONT);
    ip.extend([TTL, question.protocol.number(), 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let field = Sum::ZERO.bytes(&ip).field();
    if let Some(place) = ip.get_mut(10..12) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    // Link addresses are of no interest: that of a station, not of a group.
    let ethernet = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &[8, 0]].concat();
    [ethernet, ip, segment].concat()
}

/// What stands in a frame of [`of`] now.
pub fn read(frame: &[u8], protocol: Protocol) -> PacketView {
    let at = |offset: usize| frame.get(offset).copied().unwrap_or_default();
    let address = |offset| Ipv4Addr::from([0, 1, 2, 3].map(|byte| at(offset + byte)));
    let number = |offset| u16::from_be_bytes([at(offset), at(offset + 1)]);
    let (sport, dport) = match protocol {
        Protocol::Icmp => (number(TRANSPORT + 4), 0),
        Protocol::Tcp | Protocol::Udp => (number(TRANSPORT), number(TRANSPORT + 2)),
    };
    let (src, dst) = (address(ETHERNET + 12), address(ETHERNET + 16));
    PacketView { protocol, src, sport, dst, dport, interface: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_what_was_asked_with_right_checksums() {
        for protocol in Protocol::ALL {
            let question = Question {
                protocol,
                src: Ipv4Addr::new(10, 0, 1, 2),
                sport: 40_000,
                dst: Ipv4Addr::new(198, 51, 100, 7),
                dport: 21,
                interface: None,
                ack: false,
            };
            let frame = of(&question);
            assert_eq!(read(&frame, protocol), packet(&question));
            assert_eq!(Sum::ZERO.bytes(&frame[ETHERNET..TRANSPORT]).folded(), 0xffff);
            let segment = &frame[TRANSPORT..];
            let (src, dst) = (question.src.octets(), question.dst.octets());
            let pseudo = match protocol {
                Protocol::Icmp => Sum::ZERO,
                _ => Sum::ZERO.pseudo_header(src, dst, protocol.number(), segment.len() as u16),
            };
            assert_eq!(pseudo.bytes(segment).folded(), 0xffff, "{protocol}");
        }
    }
}
