//! What leaves for a segment that came: other addresses, numbers of the other side, other bytes.
//!
//! Invariant: the packets made here carry the payload once, in order, without a hole; none is
//! larger than the receiver takes; all checksums are whole, for nothing behind a raw socket
//! finishes them.

use nat_common::{
    checksum::Sum,
    flow::{Rewrite, TCP},
    reason::Reason,
    sequence::Corrections,
    tcp::wire,
    tcp_options,
};

use super::segment::{IPV4_HEADER, Segment, TCP_HEADER};

/// What a receiver takes that has not said so (RFC 9293, 3.7.1).
pub const DEFAULT_MSS: u16 = 536;

/// Least payload of a piece, whatever a peer says its MSS is: an MSS of a few bytes would turn one
/// segment into hundreds (CVE-2019-11479; Linux has `tcp_min_snd_mss`).
const LEAST_PIECE: usize = 48;

/// Congestion Window Reduced (RFC 3168, 6.1.2): said once.
const CWR: u8 = 0x80;

/// One segment on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What came.
    pub segment: &'a Segment<'a>,
    /// The tuple that it leaves with.
    pub rewrite: &'a Rewrite,
    /// Corrections of what its sender acknowledges, for SACK.
    pub acknowledged: &'a Corrections,
    /// Number of the first byte of `payload`, as the receiver counts.
    pub sequence: u32,
    /// What is acknowledged, as the receiver counts; of no meaning without ACK.
    pub acknowledgement: u32,
    /// The bytes that the receiver gets.
    pub payload: &'a [u8],
    /// Whether the stream ends behind them.
    pub fin: bool,
    /// Where urgent data ends, counted from `sequence`.
    pub urgent: Option<u16>,
}

/// Most payload of a piece, for a receiver that has announced `mss` (0: has not) and a header with
/// `options` bytes of options (RFC 6691: the MSS counts them as payload).
pub fn most_payload(mss: u16, options: usize) -> usize {
    let mss = if mss == 0 { DEFAULT_MSS } else { mss };
    usize::from(mss).saturating_sub(options).max(LEAST_PIECE)
}

impl<'a> Outgoing<'a> {
    /// A segment that leaves with the bytes that it has, shifted by the corrections of what its
    /// sender sends and of what it acknowledges.
    pub fn shifted(
        segment: &'a Segment<'a>,
        rewrite: &'a Rewrite,
        sent: &Corrections,
        acknowledged: &'a Corrections,
    ) -> Self {
        let sequence = sent.map_seq(segment.sequence());
        let urgent = segment.urgent().and_then(|urgent| {
            let end = sent.map_seq(segment.sequence().wrapping_add(u32::from(urgent)));
            u16::try_from(end.wrapping_sub(sequence)).ok()
        });
        Self {
            segment,
            rewrite,
            acknowledged,
            sequence,
            acknowledgement: acknowledged.map_ack(segment.acknowledgement()),
            payload: segment.payload(),
            fin: segment.has(wire::FIN),
            urgent,
        }
    }

    /// The packets, of at most `most` bytes of payload each.
    ///
    /// # Errors
    /// [`Reason::TtlExpired`], and [`Reason::AlgMalformed`] where no packet can hold the piece.
    pub fn packets(&self, most: usize) -> Result<Vec<Vec<u8>>, Reason> {
        if self.payload.is_empty() {
            return Ok(vec![self.packet(Piece { offset: 0, bytes: &[], index: 0, last: true })?]);
        }
        let pieces = self.payload.chunks(most.max(1));
        let count = pieces.len();
        pieces
            .enumerate()
            .map(|(index, bytes)| {
                let offset = index * most.max(1);
                self.packet(Piece { offset, bytes, index, last: index + 1 == count })
            })
            .collect()
    }

    fn packet(&self, piece: Piece<'_>) -> Result<Vec<u8>, Reason> {
        let mut segment = self.header(&piece);
        segment.extend_from_slice(piece.bytes);
        let mut packet = self.segment.ip().to_vec();
        let total = u16::try_from(packet.len() + segment.len());
        let total = total.map_err(|_| Reason::AlgMalformed)?;
        let ttl = packet.get(8).copied().filter(|&ttl| ttl > 1).ok_or(Reason::TtlExpired)?;
        let id = u16::from_be_bytes([at(&packet, 4), at(&packet, 5)]);
        // An identification of 0 stays: the kernel chooses one then.
        let id = if id == 0 { 0 } else { id.wrapping_add(piece.index as u16) };
        put(&mut packet, 2, &total.to_be_bytes());
        put(&mut packet, 4, &id.to_be_bytes());
        put(&mut packet, 8, &[ttl - 1]);
        put(&mut packet, 10, &[0; 2]);
        put(&mut packet, 12, &self.rewrite.src());
        put(&mut packet, 16, &self.rewrite.dst());
        let checksum = Sum::ZERO.bytes(&packet).field();
        put(&mut packet, 10, &checksum.to_ne_bytes());

        let length = segment.len() as u16;
        let pseudo = Sum::ZERO.pseudo_header(self.rewrite.src(), self.rewrite.dst(), TCP, length);
        let checksum = pseudo.bytes(&segment).field();
        put(&mut segment, 16, &checksum.to_ne_bytes());
        packet.extend_from_slice(&segment);
        Ok(packet)
    }

    /// The TCP header of a piece, without its checksum.
    fn header(&self, piece: &Piece<'_>) -> Vec<u8> {
        let sequence = self.sequence.wrapping_add(piece.offset as u32);
        let acknowledgement = match self.segment.has(wire::ACK) {
            true => self.acknowledgement,
            false => self.segment.acknowledgement(),
        };
        let urgent = self.urgent(piece.offset);
        let mut flags = self.segment.flags() & !(wire::FIN | wire::URG);
        if self.fin {
            flags |= wire::FIN;
        }
        if urgent.is_some() {
            flags |= wire::URG;
        }
        if !piece.last {
            flags &= !(wire::PSH | wire::FIN | wire::RST);
        }
        if piece.index > 0 {
            flags &= !CWR;
        }
        let mut header = self.segment.tcp().to_vec();
        put(&mut header, 0, &self.rewrite.sport().to_wire());
        put(&mut header, 2, &self.rewrite.dport().to_wire());
        put(&mut header, 4, &sequence.to_be_bytes());
        put(&mut header, 8, &acknowledgement.to_be_bytes());
        put(&mut header, 13, &[flags]);
        put(&mut header, 16, &[0; 2]);
        put(&mut header, 18, &urgent.unwrap_or(0).to_be_bytes());
        self.map_sack(&mut header);
        header
    }

    /// Where urgent data ends, counted from a piece; `None` where it has ended before.
    fn urgent(&self, offset: usize) -> Option<u16> {
        usize::from(self.urgent?)
            .checked_sub(offset)
            .and_then(|left| u16::try_from(left).ok())
            .filter(|&left| left > 0)
    }

    fn map_sack(&self, header: &mut [u8]) {
        let mut area = [0; tcp_options::BUFFER];
        let options = header.get_mut(TCP_HEADER..).unwrap_or_default();
        let Some(used) = area.get_mut(..options.len()) else { return };
        used.copy_from_slice(options);
        tcp_options::map_sack(&mut area, options.len(), |edge, round| {
            self.acknowledged.unmap(edge, round)
        });
        if let Some(mapped) = area.get(..options.len()) {
            options.copy_from_slice(mapped);
        }
    }
}

struct Piece<'a> {
    offset: usize,
    bytes: &'a [u8],
    index: usize,
    last: bool,
}

const _: () = assert!(IPV4_HEADER == 20 && TCP_HEADER == 20);

fn at(bytes: &[u8], index: usize) -> u8 {
    bytes.get(index).copied().unwrap_or_default()
}

/// Overwrites bytes of a header that the parser has found to be that long.
fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::packets::{Packet, boundary_byte, reference_checksum_is_right};
    use nat_common::{
        flow::{FlowKey, Zone},
        port::Port,
    };
    use proptest::prelude::*;

    fn rewrite() -> Rewrite {
        let key = FlowKey::new(
            Zone::Inside,
            TCP,
            [10, 0, 1, 2],
            Port::new(40000),
            [198, 51, 100, 7],
            Port::new(21),
        );
        Rewrite::source(&key, [203, 0, 113, 1], Port::new(50123))
    }

    fn send(
        packet: &Packet,
        sent: &Corrections,
        other: &Corrections,
        payload: &[u8],
        most: usize,
    ) -> Vec<Vec<u8>> {
        let bytes = packet.bytes();
        let segment = Segment::parse(&bytes).unwrap();
        let rewrite = rewrite();
        let shifted = Outgoing::shifted(&segment, &rewrite, sent, other);
        Outgoing { payload, ..shifted }.packets(most).unwrap()
    }

    #[test]
    fn a_segment_leaves_with_the_numbers_of_the_other_side() {
        let (mut sent, mut other) = (Corrections::default(), Corrections::default());
        sent.push(900, 20, 25).unwrap();
        other.push(1500, 30, 20).unwrap();
        let packet = Packet { payload: b"NOOP\r\n".to_vec(), ..Packet::example() };
        let packets = send(&packet, &sent, &other, b"NOOP\r\n", 500);
        let [out] = &packets[..] else { panic!("one packet, not {}", packets.len()) };
        let out = Segment::parse(out).unwrap();
        assert_eq!(out.source(), ([203, 0, 113, 1], Port::new(50123)));
        assert_eq!(out.destination(), ([198, 51, 100, 7], Port::new(21)));
        assert_eq!((out.sequence(), out.acknowledgement()), (1005, 2010));
        assert_eq!((out.ip()[8], out.ip()[4], out.ip()[6]), (63, 0xbe, 0x40));
        assert_eq!(out.options(), packet.options);
        assert_eq!(&out.tcp()[14..16], &[0x12, 0x34]);
        assert_eq!(out.payload(), b"NOOP\r\n");
    }

    #[test]
    fn sack_edges_are_those_of_the_other_stream() {
        let mut other = Corrections::default();
        other.push(1500, 30, 20).unwrap();
        let mut options = vec![1, 1, 5, 10];
        options.extend(2000u32.to_be_bytes());
        options.extend(2100u32.to_be_bytes());
        let packet = Packet { options, payload: b"x".to_vec(), ..Packet::example() };
        let packets = send(&packet, &Corrections::default(), &other, b"x", 500);
        let out = Segment::parse(&packets[0]).unwrap();
        assert_eq!(out.options()[4..8], 2010u32.to_be_bytes());
        assert_eq!(out.options()[8..12], 2110u32.to_be_bytes());
    }

    #[test]
    fn the_urgent_pointer_moves_with_its_byte_and_ends_there() {
        let packet = Packet {
            flags: 0x38,
            urgent: 3,
            payload: b"\xff\xf4\xf2ABOR\r\n".to_vec(),
            ..Packet::example()
        };
        let identity = Corrections::default();
        let packets = send(&packet, &identity, &identity, &packet.payload, 2);
        let pointers: Vec<_> =
            packets.iter().map(|bytes| Segment::parse(bytes).unwrap().urgent()).collect();
        assert_eq!(pointers, [Some(3), Some(1), None, None, None]);
    }

    #[test]
    fn an_expired_packet_goes_nowhere() {
        let bytes = Packet { ttl: 1, ..Packet::example() }.bytes();
        let segment = Segment::parse(&bytes).unwrap();
        let identity = Corrections::default();
        let rewrite = rewrite();
        let out = Outgoing::shifted(&segment, &rewrite, &identity, &identity);
        assert_eq!(out.packets(100), Err(Reason::TtlExpired));
    }

    #[test]
    fn the_mss_counts_options_and_has_a_default_and_a_floor() {
        assert_eq!(most_payload(1420, 12), 1408);
        assert_eq!(most_payload(0, 12), 524);
        assert_eq!(most_payload(3, 40), LEAST_PIECE);
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_payload_and_verify(
            payload in prop::collection::vec(boundary_byte(), 0..300),
            most in 1usize..320,
            seq in prop_oneof![Just(u32::MAX - 10), any::<u32>()],
            flags in any::<u8>().prop_map(|flags| (flags | 0x10) & !0x02),
            edited in any::<bool>(),
        ) {
            let packet = Packet { seq, flags, payload: vec![b'x'; 30], ..Packet::example() };
            let mut sent = Corrections::default();
            if edited {
                sent.push(seq.wrapping_sub(100), 10, 17).unwrap();
            }
            let packets = send(&packet, &sent, &Corrections::default(), &payload, most);
            let mut joined = vec![];
            for (index, bytes) in packets.iter().enumerate() {
                prop_assert!(reference_checksum_is_right(bytes));
                let out = Segment::parse(bytes).unwrap();
                prop_assert!(out.payload().len() <= most);
                prop_assert_eq!(out.sequence(), sent.map_seq(seq).wrapping_add(joined.len() as u32));
                let last = index + 1 == packets.len();
                prop_assert_eq!(out.has(wire::FIN), last && flags & wire::FIN != 0);
                prop_assert_eq!(out.has(wire::PSH), last && flags & wire::PSH != 0);
                joined.extend_from_slice(out.payload());
            }
            prop_assert_eq!(joined, payload);
        }
    }
}
