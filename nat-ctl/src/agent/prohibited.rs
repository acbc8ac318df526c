//! The ICMP message that a new flow of a host inside was refused.
//!
//! Invariant: it is for the sender of what it quotes, and quotes that as it was sent. Which refusals are
//! told of, and how many, decides the data plane.

use nat_common::{checksum::Sum, flow::ICMP};

use super::send;

/// As Linux sends (net/ipv4/icmp.c gives errors the default of IP).
const TTL: u8 = 64;
/// Destination unreachable, communication administratively prohibited (RFC 1812 section 5.2.7.1).
const PROHIBITED: [u8; 2] = [3, 13];
/// Internetwork control (RFC 1812 section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
const IPV4_HEADER: usize = 20;
/// What is quoted at least: a header, and 64 bits behind it (RFC 792).
const LEAST: usize = IPV4_HEADER + 8;

/// The message about a packet, of which this is the beginning. Its source is 0: the kernel takes the
/// address of the way to that host. `None` about what is no packet of IPv4.
pub fn about(quote: &[u8]) -> Option<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::packets::Packet;

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
