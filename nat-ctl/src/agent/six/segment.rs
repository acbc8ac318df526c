//! A segment of a control connection over IPv6: read, and made again as it came, or as it was rewritten.
//!
//! Invariant: what leaves carries its bytes once, in order and without a hole, in packets that every link
//! takes; all checksums are whole, for nothing behind a raw socket finishes them.

use nat_common::{
    checksum::Sum,
    flow::{TCP, Zone},
    port::Port,
    reason::Reason,
    sequence::Corrections,
    six::{Address6, Flow6Key},
    tcp::wire,
    tcp_options,
};

use crate::agent::segment::TCP_HEADER;

/// The fixed header (RFC 8200 section 3).
const FIXED: usize = 40;
/// Every link takes packets of so many bytes (RFC 8200 section 5).
const LEAST_MTU: usize = 1280;
/// As Linux sends (net.ipv6.conf.default.hop_limit).
const HOPS: u8 = 64;
// Extension headers (RFC 8200 section 4, RFC 4302), of which the data plane lets 8 pass.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const EXTENSIONS: usize = 8;
/// Congestion Window Reduced (RFC 3168, 6.1.2): said once.
const CWR: u8 = 0x80;
/// The folded sum over data and its own checksum, where that is right (RFC 1071, 1).
const ALL_ONES: u16 = 0xffff;

/// What leaves for a segment, as its receiver counts.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a> {
    /// Number of the first byte.
    pub sequence: u32,
    /// What is acknowledged; of no meaning without [`wire::ACK`].
    pub acknowledgement: u32,
    /// Corrections of what its sender acknowledges, for SACK.
    pub acknowledged: &'a Corrections,
    /// The bytes.
    pub payload: &'a [u8],
    /// Whether the stream ends behind them.
    pub fin: bool,
    /// Where urgent data ends, counted from `sequence`.
    pub urgent: Option<u16>,
}

/// A whole TCP segment over IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The fixed header and what is between it and TCP.
    ip: &'a [u8],
    tcp: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a packet from its IPv6 header on. A TCP checksum that holds only the sum of the pseudo-header
    /// was left to a device.
    ///
    /// # Errors
    /// [`Reason::AlgMalformed`] and [`Reason::AlgChecksum`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, Reason> {
        let malformed = Reason::AlgMalformed;
        let [first, _, _, _, high, low, mut next, _, ..] = *packet else { return Err(malformed) };
        let length = match u16::from_be_bytes([high, low]) {
            // A super-packet of more than 64 KB has no length (BIG TCP, RFC 2675).
            0 => packet.len(),
            length => FIXED + usize::from(length),
        };
        let packet = packet.get(..length).filter(|_| first >> 4 == 6).ok_or(malformed)?;
        let mut at = FIXED;
        for _header in 0..EXTENSIONS {
            let (kind, length) = match packet.get(at..).ok_or(malformed)? {
                [kind, length, ..] => (*kind, usize::from(*length)),
                _ => return Err(malformed),
            };
            at += match next {
                HOP_BY_HOP | ROUTING | DESTINATION => (length + 1) * 8,
                AUTHENTICATION => (length + 2) * 4,
                // The data plane hands over what is whole (RFC 6946).
                FRAGMENT => 8,
                _ => break,
            };
            next = kind;
        }
        let (ip, segment) = packet.split_at_checked(at).ok_or(malformed)?;
        let offset = segment.get(12).map(|byte| usize::from(byte >> 4) * 4).ok_or(malformed)?;
        let (tcp, payload) = segment.split_at_checked(offset).ok_or(malformed)?;
        if next != TCP || tcp.len() < TCP_HEADER {
            return Err(malformed);
        }
        let read = Self { ip, tcp, payload };
        let pseudo = read.pseudo_header(segment.len());
        let left_to_device = u16::from_ne_bytes(array(tcp, 16)) == pseudo.folded();
        if !left_to_device && pseudo.bytes(segment).folded() != ALL_ONES {
            return Err(Reason::AlgChecksum);
        }
        Ok(read)
    }

    /// The key of its flow, if it arrived from `zone`.
    pub fn key(&self, zone: Zone) -> Flow6Key {
        let (sport, dport) =
            (Port::from_wire(array(self.tcp, 0)), Port::from_wire(array(self.tcp, 2)));
        Flow6Key::new(zone, TCP, self.source(), sport, self.destination(), dport)
    }

    /// What the connection carries.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Sequence number of the first byte.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes(array(self.tcp, 4))
    }

    /// Next sequence number that the sender expects; of no meaning without [`wire::ACK`].
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes(array(self.tcp, 8))
    }

    /// Whether all bits of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags() & flags == flags
    }

    /// Where urgent data ends, counted from the sequence number; `None` without [`wire::URG`].
    pub fn urgent(&self) -> Option<u16> {
        self.has(wire::URG).then(|| u16::from_be_bytes(array(self.tcp, 18)))
    }

    /// All of it, shifted by the corrections of what its sender sends and of what it acknowledges.
    pub fn shifted<'b>(&self, sent: &Corrections, acknowledged: &'b Corrections) -> Leaving<'b>
    where
        'a: 'b,
    {
        let sequence = sent.map_seq(self.sequence());
        let urgent = self.urgent().and_then(|urgent| {
            let end = sent.map_seq(self.sequence().wrapping_add(u32::from(urgent)));
            u16::try_from(end.wrapping_sub(sequence)).ok()
        });
        Leaving {
            sequence,
            acknowledgement: acknowledged.map_ack(self.acknowledgement()),
            acknowledged,
            payload: self.payload,
            fin: self.has(wire::FIN),
            urgent,
        }
    }

    /// The packets of what leaves.
    ///
    /// # Errors
    /// [`Reason::TtlExpired`].
    pub fn packets(&self, leaving: &Leaving<'_>) -> Result<Vec<Vec<u8>>, Reason> {
        let most = LEAST_MTU.saturating_sub(self.ip.len() + self.tcp.len()).max(1);
        if leaving.payload.is_empty() {
            return Ok(vec![self.packet(leaving, 0, &[], true)?]);
        }
        let last = leaving.payload.len().div_ceil(most) - 1;
        let pieces = leaving.payload.chunks(most).enumerate();
        pieces
            .map(|(index, piece)| self.packet(leaving, index * most, piece, index == last))
            .collect()
    }

    fn packet(
        &self,
        leaving: &Leaving<'_>,
        offset: usize,
        piece: &[u8],
        last: bool,
    ) -> Result<Vec<u8>, Reason> {
        let mut ip = self.ip.to_vec();
        let hops = ip.get(7).copied().filter(|hops| *hops > 1).ok_or(Reason::TtlExpired)?;
        let length = ip.len() - FIXED + self.tcp.len() + piece.len();
        let length = u16::try_from(length).map_err(|_| Reason::AlgMalformed)?;
        put(&mut ip, 4, &length.to_be_bytes());
        put(&mut ip, 7, &[hops - 1]);
        let mut flags = self.flags() & !(wire::URG | wire::FIN);
        let urgent = leaving.urgent.map(usize::from);
        let urgent = urgent.and_then(|urgent| urgent.checked_sub(offset)).filter(|left| *left > 0);
        if urgent.is_some() {
            flags |= wire::URG;
        }
        if leaving.fin {
            flags |= wire::FIN;
        }
        if !last {
            flags &= !(wire::PSH | wire::FIN | wire::RST);
        }
        if offset > 0 {
            flags &= !CWR;
        }
        let mut segment = self.tcp.to_vec();
        put(&mut segment, 4, &leaving.sequence.wrapping_add(offset as u32).to_be_bytes());
        if self.has(wire::ACK) {
            put(&mut segment, 8, &leaving.acknowledgement.to_be_bytes());
        }
        map_sack(&mut segment, leaving.acknowledged);
        put(&mut segment, 13, &[flags]);
        put(&mut segment, 16, &[0; 2]);
        put(&mut segment, 18, &(urgent.unwrap_or(0) as u16).to_be_bytes());
        segment.extend_from_slice(piece);
        let checksum = self.pseudo_header(segment.len()).bytes(&segment).field();
        put(&mut segment, 16, &checksum.to_ne_bytes());
        Ok([ip, segment].concat())
    }

    /// The RST for the end that it was meant for, which expects `sequence` next and has sent up to
    /// `acknowledgement`.
    pub fn reset_receiver(&self, sequence: u32, acknowledgement: u32) -> Vec<u8> {
        let ports = [array(self.tcp, 0), array(self.tcp, 2)];
        reset([self.source(), self.destination()], ports, sequence, acknowledgement)
    }

    /// The RST for the end that has sent it.
    pub fn reset_sender(&self) -> Vec<u8> {
        let fin = u32::from(self.has(wire::FIN));
        let end = self.sequence().wrapping_add(self.payload.len() as u32).wrapping_add(fin);
        let ports = [array(self.tcp, 2), array(self.tcp, 0)];
        reset([self.destination(), self.source()], ports, self.acknowledgement(), end)
    }

    fn source(&self) -> Address6 {
        array(self.ip, 8)
    }

    fn destination(&self) -> Address6 {
        array(self.ip, 24)
    }

    fn flags(&self) -> u8 {
        self.tcp.get(13).copied().unwrap_or_default()
    }

    fn pseudo_header(&self, length: usize) -> Sum {
        pseudo_header(&self.source(), &self.destination(), length)
    }
}

/// RFC 8200 section 8.1.
fn pseudo_header(src: &Address6, dst: &Address6, length: usize) -> Sum {
    Sum::ZERO.bytes(src).bytes(dst).bytes(&(length as u32).to_be_bytes()).word([0, TCP])
}

fn reset(
    [src, dst]: [Address6; 2],
    [sport, dport]: [[u8; 2]; 2],
    sequence: u32,
    acknowledgement: u32,
) -> Vec<u8> {
    let mut tcp = [sport, dport].concat();
    tcp.extend_from_slice(&sequence.to_be_bytes());
    tcp.extend_from_slice(&acknowledgement.to_be_bytes());
    // Five words, no window, no checksum yet, no urgent pointer.
    tcp.extend_from_slice(&[5 << 4, wire::RST | wire::ACK, 0, 0, 0, 0, 0, 0]);
    let checksum = pseudo_header(&src, &dst, TCP_HEADER).bytes(&tcp).field();
    put(&mut tcp, 16, &checksum.to_ne_bytes());
    let ip = [0x60, 0, 0, 0, 0, TCP_HEADER as u8, TCP, HOPS];
    [&ip[..], &src, &dst, &tcp].concat()
}

/// Brings the blocks of a SACK option to the numbers of its receiver.
fn map_sack(header: &mut [u8], acknowledged: &Corrections) {
    if acknowledged.is_identity() {
        return;
    }
    let mut area = [0; tcp_options::BUFFER];
    let options = header.get_mut(TCP_HEADER..).unwrap_or_default();
    let length = options.len();
    if let Some(used) = area.get_mut(..length) {
        used.copy_from_slice(options);
        tcp_options::map_sack(&mut area, length, |edge, round| acknowledged.unmap(edge, round));
    }
    if let Some(mapped) = area.get(..length) {
        options.copy_from_slice(mapped);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// `N` bytes at a place that the parser has found to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A segment from `src` to `dst` with right checksums.
    pub fn packet(
        [src, dst]: [(Address6, u16); 2],
        [sequence, acknowledgement]: [u32; 2],
        flags: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        // With options: two NOPs and a timestamp, as Linux has them.
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let mut tcp = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(acknowledgement.to_be_bytes());
        tcp.extend([8 << 4, flags, 1, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(payload);
        let field = pseudo_header(&src.0, &dst.0, tcp.len()).bytes(&tcp).field();
        put(&mut tcp, 16, &field.to_ne_bytes());
        let [high, low] = (tcp.len() as u16).to_be_bytes();
        [&[0x60, 0, 0, 0, high, low, TCP, 60][..], &src.0, &dst.0, &tcp].concat()
    }

    const ENDS: [(Address6, u16); 2] = [([1; 16], 40_000), ([2; 16], 21)];

    /// The packets of a segment whose first bytes leave as they came.
    fn unshifted(segment: &Segment<'_>, length: usize) -> Result<Vec<Vec<u8>>, Reason> {
        let none = &Corrections::IDENTITY;
        let leaving = segment.shifted(none, none);
        let fin = leaving.fin && length == leaving.payload.len();
        segment.packets(&Leaving { payload: &leaving.payload[..length], fin, ..leaving })
    }

    #[test]
    fn a_segment_leaves_as_it_came_a_hop_further() {
        let bytes = packet(ENDS, [7, 9], wire::ACK | wire::PSH, b"EPSV\r\n");
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!((segment.sequence(), segment.acknowledgement()), (7, 9));
        let mut wanted = bytes.clone();
        wanted[7] -= 1;
        assert_eq!(unshifted(&segment, 6).unwrap(), [wanted]);
        let mut last = bytes.clone();
        last[7] = 1;
        assert_eq!(unshifted(&Segment::parse(&last).unwrap(), 6), Err(Reason::TtlExpired));
    }

    #[test]
    fn what_stands_between_the_headers_stays() {
        let mut bytes = packet(ENDS, [7, 9], wire::ACK, b"NOOP\r\n");
        // Destination options of eight bytes: a PadN.
        bytes.splice(FIXED..FIXED, [TCP, 0, 1, 4, 0, 0, 0, 0]);
        bytes[6] = DESTINATION;
        bytes[5] += 8;
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.payload(), b"NOOP\r\n");
        let [sent] = &unshifted(&segment, 6).unwrap()[..] else { panic!("one packet") };
        assert_eq!(sent[8..], bytes[8..]);
    }

    #[test]
    fn a_segment_leaves_with_the_numbers_of_the_other_side() {
        let mut sent = Corrections::default();
        sent.push(900, 20, 25).unwrap();
        let mut acknowledged = Corrections::default();
        acknowledged.push(1500, 30, 20).unwrap();
        let bytes = packet(ENDS, [1000, 2000], wire::ACK | wire::URG, b"NOOP\r\n");
        let segment = Segment::parse(&bytes).unwrap();
        let leaving = Leaving { urgent: Some(3), ..segment.shifted(&sent, &acknowledged) };
        let [out] = &segment.packets(&leaving).unwrap()[..] else { panic!("one packet") };
        let out = Segment::parse(out).unwrap();
        assert_eq!((out.sequence(), out.acknowledgement()), (1005, 2010));
        assert_eq!((out.payload(), out.urgent()), (&b"NOOP\r\n"[..], Some(3)));
        // SACK: two NOPs, then one block.
        let mut options = [&[1, 1, 5, 10][..], &2000u32.to_be_bytes()].concat();
        options.extend(2100u32.to_be_bytes());
        let mut header = [&[0; TCP_HEADER][..], &options].concat();
        map_sack(&mut header, &acknowledged);
        assert_eq!(header[TCP_HEADER + 4..TCP_HEADER + 8], 2010u32.to_be_bytes());
        assert_eq!(header[TCP_HEADER + 8..], 2110u32.to_be_bytes());
    }

    #[test]
    fn each_end_is_reset_with_the_number_that_it_expects() {
        let bytes = packet(ENDS, [1000, 5020], wire::ACK, b"SITE x\r\n");
        let segment = Segment::parse(&bytes).unwrap();
        let there = segment.reset_receiver(1003, segment.acknowledgement());
        let back = segment.reset_sender();
        let (there, back) = (Segment::parse(&there).unwrap(), Segment::parse(&back).unwrap());
        assert_eq!((there.sequence(), there.acknowledgement()), (1003, 5020));
        assert_eq!((back.sequence(), back.acknowledgement()), (5020, 1008));
        assert_eq!((back.source(), back.destination()), (ENDS[1].0, ENDS[0].0));
        assert!(there.has(wire::RST) && back.has(wire::RST));
        assert_eq!(there.key(Zone::Inside), back.key(Zone::Outside));
    }

    proptest! {
        #[test]
        fn a_super_packet_leaves_in_pieces_without_a_hole(
            length in 0usize..9000,
            taken in 0usize..9000,
            fin in any::<bool>(),
        ) {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let flags = wire::ACK | wire::PSH | if fin { wire::FIN } else { 0 };
            let bytes = packet(ENDS, [u32::MAX - 5, 9], flags, &payload);
            let segment = Segment::parse(&bytes).unwrap();
            let taken = taken.min(length);
            let packets = unshifted(&segment, taken).unwrap();
            let mut got = vec![];
            for (index, packet) in packets.iter().enumerate() {
                prop_assert!(packet.len() <= LEAST_MTU);
                let piece = Segment::parse(packet).unwrap();
                prop_assert_eq!(piece.sequence(), segment.sequence().wrapping_add(got.len() as u32));
                let is_end = index + 1 == packets.len() && taken == length;
                prop_assert_eq!(piece.has(wire::FIN), fin && is_end);
                got.extend_from_slice(piece.payload());
            }
            prop_assert_eq!(&got, &payload[..taken]);
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Segment::parse(&bytes);
        }

        #[test]
        fn any_change_of_a_packet_is_noticed_or_harmless(
            at in any::<prop::sample::Index>(),
            with in 1u8..,
        ) {
            let mut bytes = packet(ENDS, [1, 2], wire::ACK, b"PASV\r\n");
            let at = at.index(bytes.len() - 8) + 8;
            bytes[at] ^= with;
            if let Ok(segment) = Segment::parse(&bytes) {
                // A field that happens to hold the sum of the pseudo-header, or the same sum.
                prop_assert!((56..58).contains(&at) || segment.payload() == b"PASV\r\n");
            }
        }
    }
}
