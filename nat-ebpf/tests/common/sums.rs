//! The independent oracle of checksums: everything is summed up anew, in plain arithmetic.

use super::frame::{ETHERNET, TCP, UDP};

/// The one's complement sum of the bytes, big-endian, folded.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += (u64::from(pair[0]) << 8) + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo-header of an IPv4 packet's segment (RFC 9293 section 3.1).
pub fn pseudo(src: [u8; 4], dst: [u8; 4], protocol: u8, segment: usize) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend([0, protocol]);
    bytes.extend((segment as u16).to_be_bytes());
    sum(&bytes)
}

/// What the checksums of a frame amount to: of the IPv4 header, then of the segment. Right ones give
/// 0; whatever is wrong stays as wrong through a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residues {
    pub network: u16,
    /// `None` for UDP without a checksum.
    pub transport: Option<u16>,
}

/// The residues of a whole IPv4 frame that is not a fragment.
pub fn residues(frame: &[u8]) -> Residues {
    let ip = &frame[ETHERNET..];
    let header = usize::from(ip[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let segment = &ip[header..length];
    let protocol = ip[9];
    let mut total = Vec::new();
    if protocol == TCP || protocol == UDP {
        total.extend(&ip[12..20]);
        total.extend([0, protocol]);
        total.extend((segment.len() as u16).to_be_bytes());
    }
    total.extend(segment);
    let unsummed = protocol == UDP && segment[6..8] == [0, 0];
    Residues {
        network: sum(&ip[..header]) % 0xffff,
        transport: (!unsummed).then(|| sum(&total) % 0xffff),
    }
}
