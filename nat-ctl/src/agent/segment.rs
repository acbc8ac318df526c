//! A segment of a control connection, read from the bytes that the data plane handed over.
//!
//! Invariant: a [`Segment`] exists only of a packet whose lengths agree, and that the agent sends on
//! only if its checksums are right, so nothing that reads it has to check again. Any bytes at all may be parsed.

use std::ops::Range;

use nat_common::{checksum::Sum, flow::TCP, port::Port, reason::Reason, tcp::wire};

/// Bytes of an IPv4 header without options (RFC 791, 3.1).
pub const IPV4_HEADER: usize = 20;
/// Bytes of a TCP header without options (RFC 9293, 3.1).
pub const TCP_HEADER: usize = 20;

/// More fragments, or an offset (RFC 791, 3.1): such a packet is not a whole one.
const FRAGMENT: u16 = 0x3fff;

/// A whole TCP segment over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    ip: &'a [u8],
    tcp: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a packet from its IPv4 header on; what follows the length in that header is padding.
    ///
    /// A TCP checksum that holds only the sum of the pseudo-header was left to a device (or made so
    /// by GRO, which has checked the parts): then there is nothing to check.
    ///
    /// # Errors
    /// [`Reason::AlgMalformed`] and [`Reason::AlgChecksum`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Reason> {
        let segment = Self::parse_copy(packet)?;
        let whole = part(packet, segment.ip.len()..segment.ip.len() + segment.transport_length())?;
        if Sum::ZERO.bytes(segment.ip).folded() != ALL_ONES
            || !checksum_is_right(segment.ip, whole)?
        {
            return Err(Reason::AlgChecksum);
        }
        Ok(segment)
    }

    /// The same of a copy, whose checksums are for the receiver to check: the packet has passed.
    ///
    /// # Errors
    /// [`Reason::AlgMalformed`].
    pub fn parse_copy(packet: &'a [u8]) -> Result<Self, Reason> {
        let (version, words) = nibbles(byte(packet, 0)?);
        let total = usize::from(word(packet, 2)?);
        let ip = part(packet, 0..usize::from(words) * 4)?;
        if version != 4 || ip.len() < IPV4_HEADER || byte(ip, 9)? != TCP {
            return Err(Reason::AlgMalformed);
        }
        if word(ip, 6)? & FRAGMENT != 0 {
            return Err(Reason::AlgMalformed);
        }
        let segment = part(packet, ip.len()..total)?;
        let (words, _) = nibbles(byte(segment, 12)?);
        let tcp = part(segment, 0..usize::from(words) * 4)?;
        if tcp.len() < TCP_HEADER {
            return Err(Reason::AlgMalformed);
        }
        let payload = part(segment, tcp.len()..segment.len())?;
        Ok(Self { ip, tcp, payload })
    }

    fn transport_length(&self) -> usize {
        self.tcp.len() + self.payload.len()
    }

    /// The IPv4 header, options included.
    pub fn ip(&self) -> &'a [u8] {
        self.ip
    }

    /// The TCP header, options included.
    pub fn tcp(&self) -> &'a [u8] {
        self.tcp
    }

    /// The options of the TCP header.
    pub fn options(&self) -> &'a [u8] {
        self.tcp.get(TCP_HEADER..).unwrap_or_default()
    }

    /// What the connection carries.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Source address and port.
    pub fn source(&self) -> ([u8; 4], Port) {
        (self.address(12), Port::new(self.number16(0)))
    }

    /// Destination address and port.
    pub fn destination(&self) -> ([u8; 4], Port) {
        (self.address(16), Port::new(self.number16(2)))
    }

    /// Sequence number of the first byte (of the SYN, where there is one).
    pub fn sequence(&self) -> u32 {
        self.number32(4)
    }

    /// Next sequence number that the sender expects; of no meaning without [`wire::ACK`].
    pub fn acknowledgement(&self) -> u32 {
        self.number32(8)
    }

    /// Bits of [`wire`], and those of RFC 3168.
    pub fn flags(&self) -> u8 {
        self.tcp.get(13).copied().unwrap_or_default()
    }

    /// Whether all bits of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags() & flags == flags
    }

    /// Where urgent data ends, counted from the sequence number; `None` without [`wire::URG`].
    pub fn urgent(&self) -> Option<u16> {
        self.has(wire::URG).then(|| self.number16(18))
    }

    fn address(&self, at: usize) -> [u8; 4] {
        array(self.ip, at)
    }

    fn number16(&self, at: usize) -> u16 {
        u16::from_be_bytes(array(self.tcp, at))
    }

    fn number32(&self, at: usize) -> u32 {
        u32::from_be_bytes(array(self.tcp, at))
    }
}

/// The folded sum over data and its own checksum, where that is right (RFC 1071, 1).
const ALL_ONES: u16 = 0xffff;

fn checksum_is_right(ip: &[u8], segment: &[u8]) -> Result<bool, Reason> {
    let length = u16::try_from(segment.len()).map_err(|_| Reason::AlgMalformed)?;
    let pseudo = Sum::ZERO.pseudo_header(array(ip, 12), array(ip, 16), TCP, length);
    let left_to_device = u16::from_ne_bytes(array(segment, 16)) == pseudo.folded();
    Ok(left_to_device || pseudo.bytes(segment).folded() == ALL_ONES)
}

/// `N` bytes at a place that the parser has found to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn nibbles(byte: u8) -> (u8, u8) {
    (byte >> 4, byte & 15)
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, Reason> {
    bytes.get(at).copied().ok_or(Reason::AlgMalformed)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Reason> {
    Ok(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

fn part(bytes: &[u8], range: Range<usize>) -> Result<&[u8], Reason> {
    bytes.get(range).ok_or(Reason::AlgMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::packets::{self, Packet, reference_checksum_is_right};
    use proptest::prelude::*;

    #[test]
    fn every_field_of_a_segment_is_read() {
        let packet = Packet { payload: b"PORT 1,2,3,4,5,6\r\n".to_vec(), ..Packet::example() };
        let bytes = packet.bytes();
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.source(), ([10, 0, 1, 2], Port::new(40000)));
        assert_eq!(segment.destination(), ([198, 51, 100, 7], Port::new(21)));
        assert_eq!((segment.sequence(), segment.acknowledgement()), (1000, 2000));
        assert_eq!(segment.payload(), packet.payload);
        assert_eq!(segment.options(), packet.options);
        assert!(segment.has(wire::ACK | wire::PSH) && !segment.has(wire::FIN));
        assert_eq!(segment.urgent(), None);
    }

    #[test]
    fn padding_of_a_short_frame_is_no_payload() {
        let mut bytes = Packet { payload: b"x".to_vec(), ..Packet::example() }.bytes();
        bytes.extend([0; 5]);
        assert_eq!(Segment::parse(&bytes).unwrap().payload(), b"x");
    }

    #[test]
    fn a_checksum_left_to_the_device_is_fine() {
        let mut bytes = Packet { payload: b"NOOP\r\n".to_vec(), ..Packet::example() }.bytes();
        let length = (bytes.len() - IPV4_HEADER) as u16;
        let partial = Sum::ZERO.pseudo_header([10, 0, 1, 2], [198, 51, 100, 7], TCP, length);
        bytes[36..38].copy_from_slice(&partial.folded().to_ne_bytes());
        assert!(Segment::parse(&bytes).is_ok());
    }

    #[test]
    fn a_fragment_is_refused() {
        let mut bytes = Packet::example().bytes();
        bytes[6] |= 0x20;
        packets::seal(&mut bytes);
        assert_eq!(Segment::parse(&bytes), Err(Reason::AlgMalformed));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = Segment::parse(&bytes);
        }

        #[test]
        fn any_change_of_a_packet_is_noticed_or_harmless(
            payload in prop::collection::vec(packets::boundary_byte(), 0..40),
            at in any::<prop::sample::Index>(),
            with in 1u8..,
        ) {
            let mut bytes = Packet { payload, ..Packet::example() }.bytes();
            prop_assert!(Segment::parse(&bytes).is_ok());
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            // Only a field that happens to hold the sum of the pseudo-header may pass.
            if Segment::parse(&bytes).is_ok() {
                let [src, dst] = [12, 16].map(|at| *bytes[at..].first_chunk().expect("an address"));
                let length = (bytes.len() - IPV4_HEADER) as u16;
                let partial = Sum::ZERO.pseudo_header(src, dst, TCP, length).folded();
                let is_left = bytes[36..38] == partial.to_ne_bytes();
                prop_assert!(is_left || reference_checksum_is_right(&bytes));
            }
        }
    }
}
