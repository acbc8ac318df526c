//! The independent oracle of checksums: everything is summed up anew, in plain arithmetic.

use super::frame::{ETHERNET, ICMP, TCP, UDP};
use std::ops::Range;

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

/// The residues of a whole IPv4 frame; of a later fragment only that of its header.
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
    let is_later = ip[6] & 0x1f != 0 || ip[7] != 0;
    let unsummed = protocol == UDP && segment.get(6..8) == Some(&[0, 0]);
    Residues {
        network: sum(&ip[..header]) % 0xffff,
        transport: (!unsummed && !is_later).then(|| sum(&total) % 0xffff),
    }
}

/// Where the checksums of a quoted packet stand in an ICMP error, and what they are over.
pub struct Quoted {
    /// The quoted IPv4 header.
    pub header: Range<usize>,
    /// What is quoted behind it.
    pub segment: Range<usize>,
    /// The transport checksum, if that much is quoted.
    pub field: Option<usize>,
}

/// The quote of a frame that is an ICMP error with a whole IPv4 header and ports in it.
pub fn quote(frame: &[u8]) -> Option<Quoted> {
    let ip = frame.get(ETHERNET..)?;
    let start = ETHERNET + usize::from(ip[0] & 15) * 4;
    let whole = ETHERNET + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[9] != ICMP || ip[6] & 0x3f != 0 || ip[7] != 0 || ![3, 11, 12].contains(&frame[start]) {
        return None;
    }
    let at = start + 8;
    let said = usize::from(frame[start + 5]) * 4;
    let end = if said == 0 { whole } else { whole.min(at + said) };
    let quoted = frame.get(at..end).filter(|quoted| quoted.len() >= 28)?;
    let segment = at + usize::from(quoted[0] & 15) * 4;
    if segment + 8 > end {
        return None;
    }
    let field = segment
        + match quoted[9] {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
    let field = (field + 2 <= end).then_some(field);
    Some(Quoted { header: at..segment, segment: segment..end, field })
}

/// The residues of what a frame quotes, as far as it is quoted: the bytes that are not there were the
/// same before and after.
pub fn quoted(frame: &[u8]) -> Option<Residues> {
    let Quoted { header, segment, field } = quote(frame)?;
    let (ip, segment) = (&frame[header], &frame[segment]);
    let protocol = ip[9];
    let mut total = Vec::new();
    if protocol == TCP || protocol == UDP {
        total.extend(&ip[12..20]);
    }
    total.extend(segment);
    let unsummed = protocol == UDP && segment[6..8] == [0, 0];
    let network = sum(ip) % 0xffff;
    let transport = field.filter(|_| !unsummed).map(|_| sum(&total) % 0xffff);
    Some(Residues { network, transport })
}
