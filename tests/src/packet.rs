//! IPv4 packets made by hand, right or wrong.
//!
//! Invariant: what is not said to be wrong is right: lengths and checksums follow from the rest, and
//! whoever wants another one writes it over the bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

/// Flags of a TCP segment (RFC 9293 section 3.1).
pub const FIN: u8 = 1;
/// Synchronise.
pub const SYN: u8 = 2;
/// Reset.
pub const RST: u8 = 4;
/// Push.
pub const PSH: u8 = 8;
/// Acknowledgement is valid.
pub const ACK: u8 = 16;
/// Urgent pointer is valid.
pub const URG: u8 = 32;

/// Length of an IPv4 header without options, where its checksum stands, and where its addresses do.
pub const HEADER: usize = 20;
const CHECKSUM: usize = 10;
const ADDRESSES: usize = 12;
/// More fragments; the offset, in units of eight bytes; and that no router may cut (RFC 791 section 3.1).
pub const MORE: u16 = 0x2000;
/// See [`MORE`].
pub const OFFSET: u16 = 0x1fff;
/// See [`MORE`].
pub const WHOLE: u16 = 0x4000;

/// What is in a TCP header beside ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// See [`SYN`] and the others.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Options, whole words.
    pub options: &'a [u8],
    /// Payload.
    pub data: &'a [u8],
}

/// The window that every segment announces, in bytes.
pub const WINDOW: u16 = 8192;

/// An IPv4 packet in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub identification: u16,
    /// [`WHOLE`], [`MORE`] and the offset.
    pub fragment: u16,
    /// IP options, whole words.
    pub options: Vec<u8>,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet of any protocol.
    #[must_use]
    pub fn new(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            identification: 0x4711,
            fragment: 0,
            options: Vec::new(),
            payload,
        }
    }

    /// A datagram.
    #[must_use]
    pub fn udp(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Self {
        let length = 8 + data.len() as u16;
        let words = [from.port(), to.port(), length, 0].map(u16::to_be_bytes);
        let payload = [words.as_flattened(), data].concat();
        let mut packet = Self::new(UDP, *from.ip(), *to.ip(), payload);
        // What would be 0 is written as all ones: 0 says that there is no checksum (RFC 768).
        let sum = match packet.transport_sum() {
            [0, 0] => [0xff; 2],
            sum => sum,
        };
        packet.payload[6..8].copy_from_slice(&sum);
        packet
    }

    /// A segment.
    #[must_use]
    pub fn tcp(from: SocketAddrV4, to: SocketAddrV4, segment: &Segment<'_>) -> Self {
        let mut payload = [from.port(), to.port()].map(u16::to_be_bytes).as_flattened().to_vec();
        payload.extend(segment.sequence.to_be_bytes());
        payload.extend(segment.acknowledgement.to_be_bytes());
        let words = (HEADER + segment.options.len()) / 4;
        payload.extend([(words << 4) as u8, segment.flags]);
        payload.extend(WINDOW.to_be_bytes());
        payload.extend([0; 4]);
        payload.extend(segment.options);
        payload.extend(segment.data);
        let mut packet = Self::new(TCP, *from.ip(), *to.ip(), payload);
        let sum = packet.transport_sum();
        packet.payload[16..18].copy_from_slice(&sum);
        packet
    }

    /// An ICMP message: type and code, the word behind the checksum, and what follows.
    #[must_use]
    pub fn icmp(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        kind: [u8; 2],
        word: u32,
        data: &[u8],
    ) -> Self {
        let payload = [&kind, &[0; 2][..], &word.to_be_bytes(), data].concat();
        let mut packet = Self::new(ICMP, source, destination, payload);
        let sum = checksum(&packet.payload);
        packet.payload[2..4].copy_from_slice(&sum);
        packet
    }

    /// The same with another time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// The same with IP options.
    #[must_use]
    pub fn with_options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// The same with another identification.
    #[must_use]
    pub fn with_identification(self, identification: u16) -> Self {
        Self { identification, ..self }
    }

    /// The same, which no router may cut.
    #[must_use]
    pub fn kept_whole(self) -> Self {
        Self { fragment: WHOLE, ..self }
    }

    /// The same with this byte of the payload turned over, and no checksum that knows of it.
    #[must_use]
    pub fn with_wrong_byte(mut self, at: usize) -> Self {
        self.payload[at] ^= 0xff;
        self
    }

    /// The part of it from `start` up to `end` bytes of its payload, as a fragment.
    #[must_use]
    pub fn piece(&self, start: usize, end: usize) -> Self {
        let more = if end < self.payload.len() { MORE } else { 0 };
        let payload = self.payload[start..end.min(self.payload.len())].to_vec();
        Self { fragment: more | (start / 8) as u16, payload, ..self.clone() }
    }

    /// As it goes over the wire, behind a link header.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let header = HEADER + self.options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        let words = [(header + self.payload.len()) as u16, self.identification, self.fragment];
        bytes.extend(words.map(u16::to_be_bytes).as_flattened());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        seal(&mut bytes);
        bytes.extend(&self.payload);
        bytes
    }

    /// The checksum that TCP and UDP have, where it is 0 in the payload.
    fn transport_sum(&self) -> [u8; 2] {
        transport_sum(self.source, self.destination, self.protocol, &self.payload)
    }
}

/// Bytes of a packet with others from `at` on in its IPv4 header, whose checksum follows.
#[must_use]
pub fn with_header(packet: &Packet, at: usize, others: &[u8]) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[at..at + others.len()].copy_from_slice(others);
    seal(&mut bytes[..HEADER]);
    bytes
}

/// Writes the checksum of an IPv4 header.
fn seal(header: &mut [u8]) {
    header[CHECKSUM..ADDRESSES].fill(0);
    let sum = checksum(header);
    header[CHECKSUM..ADDRESSES].copy_from_slice(&sum);
}

/// The checksum of TCP and UDP with its pseudo-header (RFC 9293 section 3.1): 0 where the one in
/// `payload` is right.
#[must_use]
pub fn transport_sum(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) -> [u8; 2] {
    let length = payload.len() as u32;
    let ends = [source.octets(), destination.octets(), u32::from(protocol).to_be_bytes()];
    checksum(&[ends.as_flattened(), &length.to_be_bytes(), payload].concat())
}

/// The checksum of RFC 1071: 0 where the one in `bytes` is right.
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [SocketAddrV4; 2] = [
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 2), 4000),
        SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 53),
    ];

    #[test]
    fn sums_are_right_and_a_wrong_byte_makes_them_wrong() {
        let [from, to] = ENDS;
        let udp = Packet::udp(from, to, b"odd");
        assert_eq!(transport_sum(*from.ip(), *to.ip(), UDP, &udp.payload), [0; 2]);
        let tcp = Packet::tcp(from, to, &Segment { flags: SYN, ..Segment::default() });
        assert_eq!(transport_sum(*from.ip(), *to.ip(), TCP, &tcp.payload), [0; 2]);
        let wrong = tcp.with_wrong_byte(4);
        assert_ne!(transport_sum(*from.ip(), *to.ip(), TCP, &wrong.payload), [0; 2]);
        let bytes = udp.with_options(&[7, 3, 4, 0]).bytes();
        assert_eq!((bytes[0], bytes.len()), (0x46, 35));
        assert_eq!(checksum(&bytes[..24]), [0; 2]);
        // The example of RFC 1071 section 3.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), [0x22, 0x0d]);
    }

    #[test]
    fn pieces_have_their_place_and_the_last_says_so() {
        let [from, to] = ENDS;
        let whole = Packet::udp(from, to, &[7; 100]);
        let [first, last] = [whole.piece(0, 64), whole.piece(64, 108)];
        assert_eq!((first.fragment, last.fragment), (MORE, 8));
        assert_eq!([first.payload, last.payload].concat(), whole.payload);
    }
}
