//! The packet that is asked about, as a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use nat_common::{checksum::Sum, tcp::wire};

use super::asked::Asked;
use crate::output::PacketView;
use crate::rules::Protocol;

const ETHERNET: usize = 14;
const IP: usize = 20;
const TRANSPORT: usize = ETHERNET + IP;
/// What Linux sends.
const TTL: u8 = 64;
/// Don't fragment.
const DONT: [u8; 2] = [0x40, 0];
const ECHO_REQUEST: u8 = 8;
/// Where the addresses of IPv6 begin.
const ADDRESSES6: usize = ETHERNET + 8;
/// RFC 4443 section 4.1.
const ECHO_REQUEST6: u8 = 128;
/// Link addresses are of no interest: those of stations, not of groups.
const LINKS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// The frame, its checksums right.
pub fn of(asked: &Asked<Ipv4Addr>) -> Vec<u8> {
    let (src, dst) = (asked.src.octets(), asked.dst.octets());
    let number = asked.protocol.number();
    let segment = segment(asked, ECHO_REQUEST, |length| match asked.protocol {
        Protocol::Icmp => Sum::ZERO,
        Protocol::Tcp | Protocol::Udp => Sum::ZERO.pseudo_header(src, dst, number, length),
    });
    let mut ip = vec![0x45, 0];
    ip.extend((IP as u16 + segment.len() as u16).to_be_bytes());
    ip.extend([0, 0]);
    ip.extend(DONT);
    ip.extend([TTL, number, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let field = Sum::ZERO.bytes(&ip).field();
    if let Some(place) = ip.get_mut(10..12) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    [&LINKS[..], &[8, 0], &ip, &segment].concat()
}

/// The frame of one of IPv6.
pub fn of6(asked: &Asked<Ipv6Addr>) -> Vec<u8> {
    let (src, dst) = (asked.src.octets(), asked.dst.octets());
    let number = asked.number();
    let segment = segment(asked, ECHO_REQUEST6, |length| {
        // RFC 8200 section 8.1.
        Sum::ZERO.bytes(&src).bytes(&dst).word([0, number]).word(length.to_be_bytes())
    });
    let length = (segment.len() as u16).to_be_bytes();
    let ip = [&[0x60, 0, 0, 0][..], &length, &[number, TTL], &src, &dst].concat();
    [&LINKS[..], &[0x86, 0xdd], &ip, &segment].concat()
}

/// Source and destination that stand in a frame of [`of6`] now.
pub fn ends6(frame: &[u8]) -> [Ipv6Addr; 2] {
    let address = |at: usize| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk::<16>());
        bytes.copied().map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
    };
    [address(ADDRESSES6), address(ADDRESSES6 + 16)]
}

/// What stands behind the IP header; `pseudo` is what its checksum has beside it, by its length.
fn segment<A>(asked: &Asked<A>, echo: u8, pseudo: impl FnOnce(u16) -> Sum) -> Vec<u8> {
    let (sport, dport) = (asked.sport.to_be_bytes(), asked.dport.to_be_bytes());
    let (at, mut segment) = match asked.protocol {
        Protocol::Tcp => {
            let flags = if asked.ack { wire::ACK } else { wire::SYN };
            let mut segment = [sport, dport].concat();
            segment.extend([0; 8]);
            segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (16, segment)
        }
        Protocol::Udp => (6, [sport, dport, 8_u16.to_be_bytes(), [0; 2]].concat()),
        Protocol::Icmp => (2, [[echo, 0], [0; 2], sport, [0; 2]].concat()),
    };
    let field = pseudo(segment.len() as u16).bytes(&segment).field();
    if let Some(place) = segment.get_mut(at..at + 2) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    segment
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
    let (src, dst) = (address(ETHERNET + 12).into(), address(ETHERNET + 16).into());
    PacketView { protocol: protocol.into(), src, sport, dst, dport, interface: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::six::ICMPV6;

    const ASKED: Asked<Ipv4Addr> = Asked {
        protocol: Protocol::Tcp,
        src: Ipv4Addr::new(10, 0, 1, 2),
        sport: 40_000,
        dst: Ipv4Addr::new(198, 51, 100, 7),
        dport: 21,
        ack: false,
    };

    #[test]
    fn a_frame_says_what_was_asked_with_right_checksums() {
        for protocol in Protocol::ALL {
            let dport = if protocol == Protocol::Icmp { 0 } else { 21 };
            let asked = Asked { protocol, dport, ..ASKED };
            let frame = of(&asked);
            assert_eq!(read(&frame, protocol), asked.view());
            assert_eq!(Sum::ZERO.bytes(&frame[ETHERNET..TRANSPORT]).folded(), 0xffff);
            let segment = &frame[TRANSPORT..];
            let (src, dst) = (asked.src.octets(), asked.dst.octets());
            let pseudo = match protocol {
                Protocol::Icmp => Sum::ZERO,
                _ => Sum::ZERO.pseudo_header(src, dst, protocol.number(), segment.len() as u16),
            };
            assert_eq!(pseudo.bytes(segment).folded(), 0xffff, "{protocol}");
        }
    }

    #[test]
    fn so_does_one_of_ipv6() {
        let (src, dst) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5), Ipv6Addr::LOCALHOST);
        for (protocol, number) in
            [(Protocol::Tcp, 6), (Protocol::Udp, 17), (Protocol::Icmp, ICMPV6)]
        {
            let Asked { sport, dport, ack, .. } = ASKED;
            let frame = of6(&Asked { protocol, src, sport, dst, dport, ack });
            assert_eq!(frame[ETHERNET + 6], number);
            assert_eq!(frame[ETHERNET + 8..ETHERNET + 24], src.octets());
            let (segment, length) = (&frame[ETHERNET + 40..], frame.len() - ETHERNET - 40);
            let pseudo = Sum::ZERO.bytes(&src.octets()).bytes(&dst.octets()).word([0, number]);
            let sum = pseudo.word((length as u16).to_be_bytes()).bytes(segment);
            assert_eq!(sum.folded(), 0xffff, "{protocol}");
            let first = if protocol == Protocol::Icmp { [128, 0] } else { sport.to_be_bytes() };
            assert_eq!(segment[..2], first, "{protocol}");
        }
    }
}
