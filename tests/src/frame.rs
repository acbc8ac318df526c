//! Frames of a capture: Ethernet with VLAN tags, IPv4, TCP and UDP, as far as tests look.
//!
//! Invariant: a frame that is cut short or is something else is kept with what could be read of it;
//! nothing is left out, or a leak could hide in it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};

/// Magic number of a pcap file with microseconds, in the byte order of its writer.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const PCAP_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All bytes that were captured.
    pub bytes: Vec<u8>,
    /// The IPv4 packet in it.
    pub ipv4: Option<Ipv4>,
}

/// An IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// The ports, where it is TCP or UDP and their first fragment.
    pub ports: Option<(u16, u16)>,
    /// The rest of a TCP segment.
    pub tcp: Option<Tcp>,
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    pub flags: u8,
    /// Payload, as far as it was captured.
    pub payload: Vec<u8>,
}

impl Tcp {
    /// Whether it resets the connection.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.flags & 4 != 0
    }
}

impl Frame {
    /// Reads a frame as far as it can be read.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ipv4: parse_ethernet(bytes) }
    }

    /// Whether an address stands in the IPv4 header, or in an ARP request or reply.
    #[must_use]
    pub fn names(&self, is_meant: impl Fn(Ipv4Addr) -> bool) -> bool {
        let in_header =
            self.ipv4.as_ref().is_some_and(|ip| is_meant(ip.source) || is_meant(ip.destination));
        let in_arp = word(&self.bytes, 12) == Some(ETHERTYPE_ARP)
            && [28, 38].into_iter().any(|at| address(&self.bytes, at).is_some_and(&is_meant));
        in_header || in_arp
    }

    /// Whether these bytes stand anywhere in the frame.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// Reads a pcap file; a record that is still being written is left out.
pub fn read_pcap(bytes: &[u8]) -> Result<Vec<Frame>> {
    let magic = bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk));
    ensure!(magic == Some(PCAP_MAGIC), "not a pcap file of this machine");
    let mut frames = Vec::new();
    let mut rest = bytes.get(PCAP_HEADER..).context("a pcap file without a header")?;
    while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let Some((frame, next)) = after.split_at_checked(usize::try_from(length)?) else { break };
        frames.push(Frame::parse(frame));
        rest = next;
    }
    Ok(frames)
}

/// Whether an address belongs to the inside of the lab, 10.0.0.0/8.
#[must_use]
pub const fn is_inside(address: Ipv4Addr) -> bool {
    address.octets()[0] == 10
}

fn parse_ethernet(bytes: &[u8]) -> Option<Ipv4> {
    let mut at = 12;
    while word(bytes, at)? == ETHERTYPE_VLAN {
        at += 4;
    }
    if word(bytes, at)? != ETHERTYPE_IPV4 {
        return None;
    }
    parse_ipv4(bytes.get(at + 2..)?)
}

fn parse_ipv4(packet: &[u8]) -> Option<Ipv4> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(word(packet, 2)?);
    let is_first = word(packet, 6)? & 0x1fff == 0;
    let protocol = *packet.get(9)?;
    // Padding of short frames isn't payload; a total of 0 is a super-packet beyond 64 KB.
    let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
    let transport = packet.get(header..end).filter(|_| is_first);
    let with_ports = transport.filter(|_| matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP));
    Some(Ipv4 {
        source: address(packet, 12)?,
        destination: address(packet, 16)?,
        protocol,
        ttl: *packet.get(8)?,
        ports: with_ports.and_then(|bytes| Some((word(bytes, 0)?, word(bytes, 2)?))),
        tcp: transport.filter(|_| protocol == PROTOCOL_TCP).and_then(parse_tcp),
    })
}

fn parse_tcp(segment: &[u8]) -> Option<Tcp> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    Some(Tcp {
        sequence: double_word(segment, 4)?,
        acknowledgement: double_word(segment, 8)?,
        flags: *segment.get(13)?,
        payload: segment.get(header..)?.to_vec(),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn double_word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|chunk| Ipv4Addr::from(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(tagged: bool) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        if tagged {
            bytes.extend([0x81, 0, 0, 7]);
        }
        bytes.extend([8, 0, 0x45, 0, 0, 44, 0, 0, 0x40, 0, 63, 6, 0, 0, 10, 0, 1, 2]);
        bytes.extend([203, 0, 113, 10, 0x9c, 0x40, 0, 21, 0, 0, 0, 5, 0, 0, 0, 9, 0x50, 0x18]);
        bytes.extend([1, 0, 0, 0, 0, 0]);
        bytes.extend(b"PORT");
        bytes.extend([0; 6]);
        bytes
    }

    #[test]
    fn a_segment_is_read_with_and_without_a_tag_and_without_its_padding() {
        for tagged in [false, true] {
            let frame = Frame::parse(&segment(tagged));
            let ip = frame.ipv4.clone().expect("IPv4");
            assert_eq!((ip.source, ip.ttl), (Ipv4Addr::new(10, 0, 1, 2), 63));
            assert_eq!(ip.ports, Some((40_000, 21)));
            let tcp = ip.tcp.expect("TCP");
            assert_eq!((tcp.sequence, tcp.acknowledgement), (5, 9));
            assert_eq!(tcp.payload, b"PORT");
            assert!(frame.names(is_inside) && frame.says("ORT"));
        }
    }

    #[test]
    fn an_inside_address_in_an_arp_request_is_named() {
        let mut bytes = vec![0; 42];
        bytes[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
        bytes[38..42].copy_from_slice(&[10, 0, 1, 2]);
        assert!(Frame::parse(&bytes).names(is_inside));
    }

    #[test]
    fn a_record_cut_short_is_left_out() {
        let mut file = PCAP_MAGIC.to_ne_bytes().to_vec();
        file.resize(PCAP_HEADER, 0);
        for _ in 0..2 {
            file.extend([0; 8]);
            file.extend(60_u32.to_ne_bytes());
            file.extend(60_u32.to_ne_bytes());
            file.extend([0; 60]);
        }
        file.pop();
        assert_eq!(read_pcap(&file).expect("a pcap file").len(), 1);
        assert!(read_pcap(b"text").is_err());
    }
}
