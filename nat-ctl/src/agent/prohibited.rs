//! The ICMP message that a new flow of a host inside was refused, in either family.
//!
//! Invariant: it is for the sender of what it quotes, and quotes that as it was sent. Which refusals are
//! told of, and how many, decides the data plane.

use std::net::Ipv6Addr;

use nat_common::{checksum::Sum, flow::ICMP, six::ICMPV6};

use super::send::{self, RawSender, SendError};

/// As Linux sends (net/ipv4/icmp.c gives errors the default of IP, net/ipv6/icmp.c that of IPv6).
const TTL: u8 = 64;
/// Destination unreachable, communication administratively prohibited (RFC 1812 section 5.2.7.1).
const PROHIBITED: [u8; 2] = [3, 13];
/// Internetwork control (RFC 1812 section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
const IPV4_HEADER: usize = 20;
/// What is quoted at least: a header, and 64 bits behind it (RFC 792).
const LEAST: usize = IPV4_HEADER + 8;

/// The same of ICMPv6 (RFC 4443 section 3.1).
const PROHIBITED6: [u8; 2] = [1, 1];
const IPV6_HEADER: usize = 40;
/// A header of IPv6, and 64 bits behind it.
const LEAST6: usize = IPV6_HEADER + 8;

/// Tells the sender of a packet, of which this is the beginning, that its flow was refused. About what is no
/// packet nothing is sent.
///
/// # Errors
/// What the kernel says.
pub fn tell(sender: &RawSender, quote: &[u8]) -> Result<(), SendError> {
    if let Some(message) = about(quote) {
        return sender.send(&message, None);
    }
    let Some([host, _]) = send::ends6(quote) else { return Ok(()) };
    let own = send::source6(host).map_err(SendError::Refused)?;
    about6(quote, own).map_or(Ok(()), |message| sender.send6(&message))
}

/// The message about a packet, of which this is the beginning. Its source is 0: the kernel takes the
/// address of the way to that host. `None` about what is no packet of IPv4.
fn about(quote: &[u8]) -> Option<Vec<u8>> {
    let [source, _] = send::ends(quote)?;
    if quote.len() < LEAST || quote.first()? >> 4 != 4 {
        return None;
    }
    let [kind, code] = PROHIBITED;
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(quote);
    let sum = Sum::ZERO.bytes(&icmp).field().to_ne_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);

    let length = u16::try_from(IPV4_HEADER + icmp.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    // The identification and the checksum are the kernel's.
    let mut packet = vec![0x45, PRECEDENCE, high, low, 0, 0, 0, 0, TTL, ICMP, 0, 0];
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&icmp);
    Some(packet)
}

/// The message about a packet of IPv6 from this address of the gateway, which no socket fills in. `None` about
/// what is no packet of IPv6.
fn about6(quote: &[u8], own: Ipv6Addr) -> Option<Vec<u8>> {
    let [host, _] = send::ends6(quote)?;
    if quote.len() < LEAST6 || quote.first()? >> 4 != 6 {
        return None;
    }
    let [kind, code] = PROHIBITED6;
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(quote);
    let length = u16::try_from(icmp.len()).ok()?.to_be_bytes();
    // RFC 8200 section 8.1.
    let ends = Sum::ZERO.bytes(&own.octets()).bytes(&host.octets());
    let sum = ends.word(length).word([0, ICMPV6]).bytes(&icmp).field().to_ne_bytes();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);

    let [high, low] = length;
    let mut packet = vec![0x60, 0, 0, 0, high, low, ICMPV6, TTL];
    packet.extend_from_slice(&own.octets());
    packet.extend_from_slice(&host.octets());
    packet.extend_from_slice(&icmp);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::packets::Packet;

    #[test]
    fn a_sender_of_ipv6_is_told_with_its_own_packet_and_a_right_checksum() {
        let [host, remote, own] =
            ["2001:db8:1::2", "2001:db8:99::1", "2001:db8:1::fe"].map(|it| it.parse().unwrap());
        let ends = [Ipv6Addr::octets(&host), Ipv6Addr::octets(&remote)].concat();
        let refused = [&[0x60, 0, 0, 0, 0, 9, 17, 64][..], &ends, b"datagram!"].concat();
        let told = about6(&refused, own).expect("a message");
        assert_eq!(told[..8], [0x60, 0, 0, 0, 0, 8 + 49, 58, 64]);
        assert_eq!(send::ends6(&told), Some([own, host]));
        assert_eq!(told[40..42], PROHIBITED6);
        assert_eq!(told[48..], refused);
        let pseudo = Sum::ZERO.bytes(&told[8..40]).word([0, told[5]]).word([0, 58]);
        assert_eq!(pseudo.bytes(&told[40..]).folded(), 0xffff);
        assert_eq!(about6(&refused[..LEAST6 - 1], own), None);
        assert_eq!(about6(&Packet::example().bytes(), own), None);
        assert_eq!(about(&refused), None);
    }

    #[test]
    fn the_sender_is_told_with_its_own_packet_and_a_right_checksum() {
        let refused = Packet::example().bytes();
        let told = about(&refused).expect("a message");
        assert_eq!(told.len(), usize::from(u16::from_be_bytes([told[2], told[3]])));
        assert_eq!((&told[12..16], &told[16..20]), (&[0; 4][..], &refused[12..16]));
        assert_eq!(told[20..22], PROHIBITED);
        assert_eq!(told[28..], refused);
        assert_eq!(Sum::ZERO.bytes(&told[20..]).folded(), 0xffff);
        assert_eq!((about(&refused[..LEAST - 1]), about(&[0x60; 60])), (None, None));
    }
}
