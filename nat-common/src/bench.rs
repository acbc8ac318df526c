//! What the bench and its programs in the kernel share: numbered flows, and their frames.
//!
//! A flow is a number; everything in its packets follows from it by arithmetic, so that millions of
//! flows need no table. Flow `n` belongs to the inside endpoint `n % ENDPOINTS` and to the
//! destination `n / ENDPOINTS`: one public address has ports for no more endpoints than that.
//!
//! ```text
//!   flow 60001 = endpoint 1 (10.64.1.1:2049), destination 2 (198.18.0.2:4242)
//! ```
//!
//! Invariant: a frame carries the number of its flow, so whoever receives it knows what it was
//! before it was translated.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Inside endpoints; flows beyond them go to further destinations.
pub const ENDPOINTS: u32 = 30_000;
/// Inside hosts among which the endpoints are divided.
const HOSTS: u32 = 256;
/// Port of the first endpoint. Every endpoint has a port of its own, which a gateway may keep.
const FIRST_PORT: u16 = 2048;
/// Port of all destinations: nobody's.
pub const DESTINATION_PORT: u16 = 4242;
/// First bytes of all destinations, the network that RFC 2544 keeps for benchmarks.
pub const DESTINATIONS: [u8; 2] = [198, 18];
/// Bytes of a frame: the shortest that Ethernet carries, less its check sequence.
pub const FRAME: usize = 60;
/// Time to live of a frame that no router has seen.
pub const TTL: u8 = 64;

/// Where IPv4, UDP and the number of the flow stand in a frame.
pub const IPV4: usize = 14;
/// See [`IPV4`].
pub const UDP: usize = 34;
/// See [`IPV4`].
pub const NUMBER: usize = 42;

/// The map `seen` has this bit once a packet of the flow has arrived outside; its low 16 bits are
/// the flow's public port.
pub const OPENED: u32 = 1 << 16;
/// The same, once an answer has arrived inside.
pub const ANSWERED: u32 = 1 << 17;

/// What the generator sends.
pub mod mode {
    /// Nothing.
    pub const STOP: u32 = 0;
    /// A packet of each flow that has not been seen outside.
    pub const OPEN: u32 = 1;
    /// An answer of each flow that was seen outside and not answered.
    pub const ANSWER: u32 = 2;
    /// Packets of flows chosen at random.
    pub const UNIFORM: u32 = 3;
    /// Packets of the flows in the map `popular`.
    pub const POPULAR: u32 = 4;
    /// Two packets of each flow from `first` on, one after the other.
    pub const FRESH: u32 = 5;
    /// By turns a packet of a flow chosen at random below `first`, and of the next one from there on.
    pub const FLOOD: u32 = 6;
    /// Answers of flows chosen at random.
    pub const BACK: u32 = 7;
}

/// What the generator is told: the only record of the map `orders`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Order {
    /// One of [`mode`].
    pub mode: u32,
    /// How many flows there are.
    pub flows: u32,
    /// Where new ones begin.
    pub first: u32,
    /// Nanoseconds from packet to packet; 0 is flat out.
    pub interval: u32,
    /// The gateway's public address; zero where it doesn't translate.
    pub public: [u8; 4],
    /// Hardware addresses of a frame: its receiver, its sender.
    pub links: [u8; 12],
}

/// What sink and generator have counted on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tally {
    /// Packets of the bench.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those among them of flows from `first` on.
    pub fresh: u64,
    /// Flows that were seen outside for the first time.
    pub opened: u64,
    /// Flows that were answered for the first time.
    pub answered: u64,
    /// Packets that were looked at closely.
    pub sampled: u64,
    /// Those among them with a wrong checksum, time to live, address or port.
    pub wrong: u64,
    /// Packets of flows below `first` that the generator has made.
    pub sent: u64,
}

/// Where the programs that make flows by themselves are: the record of a CPU in the map `turns`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Turns {
    /// Number of the next flow.
    pub next: u64,
    /// Flows that were not made.
    pub refused: u64,
    /// The inside endpoint that was numbered last, as a word.
    pub last: u64,
}

/// Where a device of a gateway that only forwards sends its packets: the only record of the map
/// `ways`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Way {
    /// The device on the other side.
    pub ifindex: u32,
    /// Hardware addresses: of the neighbour there, of the device.
    pub links: [u8; 12],
    /// Of the number of lines that flows have, a power of two, one less.
    pub lines: u32,
}

const _: () = assert!(size_of::<Order>() == 32);
const _: () = assert!(size_of::<Tally>() == 64);

impl Tally {
    /// Sums of two CPUs.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            fresh: self.fresh + other.fresh,
            opened: self.opened + other.opened,
            answered: self.answered + other.answered,
            sampled: self.sampled + other.sampled,
            wrong: self.wrong + other.wrong,
            sent: self.sent + other.sent,
        }
    }

    /// What came since an earlier look.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(earlier.packets),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
            fresh: self.fresh.wrapping_sub(earlier.fresh),
            opened: self.opened.wrapping_sub(earlier.opened),
            answered: self.answered.wrapping_sub(earlier.answered),
            sampled: self.sampled.wrapping_sub(earlier.sampled),
            wrong: self.wrong.wrapping_sub(earlier.wrong),
            sent: self.sent.wrapping_sub(earlier.sent),
        }
    }
}

/// The ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Address of the inside host.
    pub inside: [u8; 4],
    /// Its port.
    pub port: u16,
    /// Address of the destination; its port is [`DESTINATION_PORT`].
    pub outside: [u8; 4],
}

impl Ends {
    /// Those of flow number `flow`.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: u32) -> Self {
        let endpoint = flow % ENDPOINTS;
        let destination = flow / ENDPOINTS;
        let [a, b] = DESTINATIONS;
        Self {
            inside: [10, 64, (endpoint % HOSTS) as u8, 1],
            port: FIRST_PORT + endpoint as u16,
            outside: [a, b, (destination >> 8) as u8, destination as u8],
        }
    }
}

/// A flow of an endpoint that has none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Address of the inside host.
    pub inside: [u8; 4],
    /// Its port, as an index into the pool.
    pub port: u32,
    /// Number of the public address, none that the gateway has.
    pub address: u32,
    /// That address.
    pub public: [u8; 4],
    /// Address of the destination.
    pub outside: [u8; 4],
}

/// Flow number `next` of those whose public port nobody has: each port once, in an order that is no
/// help to a cache.
#[inline(always)]
#[must_use]
pub const fn fresh(next: u64) -> Fresh {
    let (turn, within) = ((next >> FRESH_BITS) as u32, next as u32 & (FRESH_PORTS - 1));
    // Odd, so that each number comes once.
    let port = within.wrapping_mul(20_021) & (FRESH_PORTS - 1);
    let [_, _, high, low] = within.to_be_bytes();
    Fresh {
        inside: [10, 128 + turn as u8, high, low],
        port,
        address: 1 + turn,
        public: [192, 0, 2, 1 + turn as u8],
        outside: [198, 51, 100, low],
    }
}

const FRESH_BITS: u32 = 15;
/// Ports of a pool that are taken for one address: less than there are by default.
const FRESH_PORTS: u32 = 1 << FRESH_BITS;

/// A frame from `source` to `destination` that carries the number `flow`, with right checksums.
#[inline(always)]
#[must_use]
pub fn frame(
    links: [u8; 12],
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    flow: u32,
) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let number = flow.to_be_bytes();
    let addresses = sum4(source.0) + sum4(destination.0);
    let ports = source.1 as u32 + destination.1 as u32;
    frame[..12].copy_from_slice(&links);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    const PACKET: u16 = (FRAME - IPV4) as u16;
    const DATAGRAM: u16 = (FRAME - UDP) as u16;
    let first = 0x4500 + PACKET as u32 + ((TTL as u32) << 8) + 17;
    frame[14..18].copy_from_slice(&[0x45, 0, 0, PACKET as u8]);
    frame[22..24].copy_from_slice(&[TTL, 17]);
    frame[24..26].copy_from_slice(&finish(first + addresses).to_be_bytes());
    frame[26..30].copy_from_slice(&source.0);
    frame[30..34].copy_from_slice(&destination.0);
    frame[34..36].copy_from_slice(&source.1.to_be_bytes());
    frame[36..38].copy_from_slice(&destination.1.to_be_bytes());
    frame[38..40].copy_from_slice(&DATAGRAM.to_be_bytes());
    // The length stands in the pseudo-header and in the header.
    let sum = finish(addresses + ports + 17 + 2 * DATAGRAM as u32 + sum4(number));
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    frame[42..46].copy_from_slice(&number);
    frame
}

/// Whether the checksums of a frame like those of [`frame`] are right, computed over all it covers.
#[inline(always)]
#[must_use]
pub fn is_sound(frame: &[u8; FRAME]) -> bool {
    let mut header = 0;
    let mut at = IPV4;
    while at < UDP {
        header += word(frame, at);
        at += 2;
    }
    let mut segment = 17 + (FRAME - UDP) as u32;
    at = IPV4 + 12;
    while at < FRAME {
        segment += word(frame, at);
        at += 2;
    }
    finish(header) == 0 && finish(segment) == 0 && word(frame, UDP + 6) != 0
}

#[inline(always)]
const fn word(frame: &[u8; FRAME], at: usize) -> u32 {
    u16::from_be_bytes([frame[at], frame[at + 1]]) as u32
}

#[inline(always)]
const fn sum4([a, b, c, d]: [u8; 4]) -> u32 {
    u16::from_be_bytes([a, b]) as u32 + u16::from_be_bytes([c, d]) as u32
}

/// The field for a sum (RFC 1071).
#[inline(always)]
const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flow: u32) -> [u8; FRAME] {
        let ends = Ends::of(flow);
        frame([1; 12], (ends.inside, ends.port), (ends.outside, DESTINATION_PORT), flow)
    }

    #[test]
    fn flows_differ_in_endpoint_or_destination() {
        assert_eq!(
            Ends::of(60_001),
            Ends { inside: [10, 64, 1, 1], port: 2049, outside: [198, 18, 0, 2] }
        );
        assert_ne!(Ends::of(0), Ends::of(ENDPOINTS));
        assert_eq!(Ends::of(3_999_999).outside, [198, 18, 0, 133]);
    }

    #[test]
    fn fresh_flows_have_a_port_each_and_spread_over_public_addresses() {
        let ports: std::collections::HashSet<_> =
            (0..100_000).map(fresh).map(|flow| (flow.address, flow.port)).collect();
        assert_eq!(ports.len(), 100_000);
        assert!(ports.iter().all(|(address, port)| (1..=4).contains(address) && *port < 32768));
    }

    #[test]
    fn frames_are_sound_and_an_edit_makes_them_unsound() {
        for flow in (0..4_000_000).step_by(9973) {
            let frame = of(flow);
            assert!(is_sound(&frame), "flow {flow}");
            for at in IPV4..FRAME {
                let mut edited = frame;
                edited[at] ^= 0x10;
                assert!(!is_sound(&edited), "flow {flow}, byte {at}");
            }
        }
    }
}
