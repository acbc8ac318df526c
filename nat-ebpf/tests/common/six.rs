//! IPv6 at the gateway of the tests, and frames of it.
//!
//! ```text
//!   2001:db8:1::/64 --[2]-- gateway --[3]-- 2001:db8:f::/64 and all else
//!              ::fe               ::1      --[4]-- 2001:db8:4::/64, not managed
//! ```

use super::gateway::{LAN, OTHER, WAN};
use nat_common::{
    flow::{TCP, UDP},
    six::{Address6, ICMPV6, Prefix, PrefixKey},
};
use nat_ebpf::six::Course;

pub const HOST6: Address6 = address([1, 0, 0, 0, 2]);
pub const REMOTE6: Address6 = address([0x99, 0, 0, 0, 1]);
pub const GATEWAY6: Address6 = address([0xf, 0, 0, 0, 1]);
pub const LAN6: Address6 = address([1, 0, 0, 0, 0xfe]);
pub const NOWHERE6: Address6 = address([0x66, 0, 0, 0, 1]);
pub const OTHER6: Address6 = address([4, 0, 0, 0, 9]);
/// Nobody's: the default route leads there.
pub const UNIQUE_LOCAL6: Address6 = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
pub const LINK_LOCAL: Address6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

/// What is inside below 2001:db8:1::/48 is known outside below 2001:db8:a::/48, where prefixes are
/// translated. The third groups differ by -9, so the fourth ones do by 9 (RFC 6296 section 3.4).
pub const HOST6_OUTSIDE: Address6 = address([0xa, 0xfff6, 0, 0, 2]);
pub const NEIGHBOUR6: Address6 = address([1, 0, 0, 0, 3]);
pub const NEIGHBOUR6_OUTSIDE: Address6 = address([0xa, 0xfff6, 0, 0, 3]);
pub const LAN6_OUTSIDE: Address6 = address([0xa, 0xfff6, 0, 0, 0xfe]);
/// An inside and a public address that have no other.
pub const ONES6: Address6 = address([1, 0xffff, 0, 0, 2]);
pub const ONES6_OUTSIDE: Address6 = address([0xa, 0xffff, 0, 0, 2]);

/// The map `prefixes` with that pair at the way out.
pub fn prefixes() -> Vec<(PrefixKey, u32, Prefix)> {
    let (inside, public) = (address([1, 0, 0, 0, 0]), address([0xa, 0, 0, 0, 0]));
    let out = Prefix::new(inside, public, 48, WAN);
    let back = Prefix::new(public, inside, 48, WAN);
    let keys = [PrefixKey::leaving(WAN, inside), PrefixKey::inside(inside)];
    let keys = keys.map(|key| (key, 48, out)).into_iter();
    keys.chain([(PrefixKey::public(public), 48, back)]).collect()
}

/// As `ip -6 route` has it in the namespace of the tests in the kernel.
pub const ROUTES: [(Address6, u32, Course); 7] = [
    ([0; 16], 0, Course::To(WAN)),
    (address([1, 0, 0, 0, 0]), 64, Course::To(LAN)),
    (address([0xf, 0, 0, 0, 0]), 64, Course::To(WAN)),
    (address([4, 0, 0, 0, 0]), 64, Course::To(OTHER)),
    (address([0x66, 0, 0, 0, 0]), 48, Course::Nowhere),
    (GATEWAY6, 128, Course::Own),
    (LAN6, 128, Course::Own),
];

/// `2001:db8:` and five groups, the last one at the end.
const fn address(groups: [u16; 5]) -> Address6 {
    let mut bytes = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [bytes[4], bytes[5]] = groups[0].to_be_bytes();
    [bytes[6], bytes[7]] = groups[1].to_be_bytes();
    [bytes[14], bytes[15]] = groups[4].to_be_bytes();
    bytes
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub window: u16,
    /// The scale of windows, in an option behind one that fills a byte.
    pub scale: Option<u8>,
    /// Bytes of payload.
    pub payload: u8,
}

impl Segment {
    /// Its numbers are 0.
    pub const fn new(flags: u8) -> Self {
        Self { flags, sequence: 0, acknowledgement: 0, window: 0x1000, scale: None, payload: 0 }
    }

    pub const fn numbered(flags: u8, sequence: u32, acknowledgement: u32) -> Self {
        Self { sequence, acknowledgement, ..Self::new(flags) }
    }

    pub fn frame(&self, src: (Address6, u16), dst: (Address6, u16)) -> Vec<u8> {
        let mut segment = ports(src.1, dst.1);
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        let options = self.scale.map(|scale| [1, 3, 3, scale]);
        segment.extend([if options.is_some() { 0x60 } else { 0x50 }, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options.into_iter().flatten());
        segment.extend((0..self.payload).map(|_| b'x'));
        frame(src.0, dst.0, TCP, &segment)
    }
}

/// A segment from one end to another.
pub fn tcp(src: (Address6, u16), dst: (Address6, u16), flags: u8) -> Vec<u8> {
    Segment::new(flags).frame(src, dst)
}

/// The same with a line behind the header.
pub fn line(src: (Address6, u16), dst: (Address6, u16), flags: u8) -> Vec<u8> {
    let mut frame = tcp(src, dst, flags);
    frame.extend(b"NOOP\r\n");
    frame[19] += 6;
    frame
}

/// A datagram of 4 bytes.
pub fn udp(src: (Address6, u16), dst: (Address6, u16)) -> Vec<u8> {
    frame(src.0, dst.0, UDP, &datagram(src.1, dst.1))
}

/// What is behind its headers.
pub fn datagram(sport: u16, dport: u16) -> Vec<u8> {
    [&ports(sport, dport)[..], &[0, 12, 0, 0], b"data"].concat()
}

/// An ICMP message with an identifier, or what stands in its place.
pub fn icmp(src: Address6, dst: Address6, kind: u8, identifier: u16, rest: &[u8]) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    let message = [&[kind, 0, 0, 0, high, low, 0, 1], rest].concat();
    frame(src, dst, ICMPV6, &message)
}

/// A frame whose IPv6 header says that `next` comes, and what is behind that header.
pub fn frame(src: Address6, dst: Address6, next: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 1, 2, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((rest.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend(rest);
    frame
}

/// A fragment header of a datagram of the protocol `next`: offset in units of 8 bytes, whether more come.
pub fn fragment(next: u8, offset: u16, more: bool, identification: u32) -> Vec<u8> {
    let field = offset << 3 | u16::from(more);
    [&[next, 0][..], &field.to_be_bytes(), &identification.to_be_bytes()].concat()
}

/// What an error quotes of a frame.
pub fn quote(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

fn ports(sport: u16, dport: u16) -> Vec<u8> {
    [sport.to_be_bytes(), dport.to_be_bytes()].concat()
}
