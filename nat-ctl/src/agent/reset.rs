//! The end of a connection by RST, to either end.
//!
//! Invariant: the number of each is the one that its receiver expects next, for any other is only
//! answered (RFC 5961, 3.2); the packets hold nothing of what their connection carried.

use nat_common::{
    checksum::Sum,
    flow::{Rewrite, TCP, Zone},
    tcp::{self, wire},
};

use super::segment::{IPV4_HEADER, Segment, TCP_HEADER};
use crate::plane::Pair;

/// As Linux sends (net/ipv4/tcp_ipv4.c gives RST the default of IP).
const TTL: u8 = 64;

/// The RST for the end that a segment was meant for, with the tuple that the segment would leave with.
pub fn to_receiver(rewrite: &Rewrite, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    packet(rewrite, sequence, acknowledgement)
}

/// The RST for the end that has sent a segment, with the tuple `back` of what is sent to it.
pub fn to_sender(segment: &Segment<'_>, back: &Rewrite) -> Vec<u8> {
    let fin = u32::from(segment.has(wire::FIN));
    let length = (segment.payload().len() as u32).wrapping_add(fin);
    packet(back, segment.acknowledgement(), segment.sequence().wrapping_add(length))
}

/// The RST for the inside end of a flow, by what its lines say that the ends expect next. `None` where
/// there is no connection that goes on.
pub fn to_inside(pair: &Pair) -> Option<Vec<u8>> {
    let answer = pair.answer.as_ref()?;
    let (inside, outside) = match pair.first.key().zone() {
        Zone::Inside => (&pair.first, answer),
        Zone::Outside => (answer, &pair.first),
    };
    let seen = inside.state().seen();
    if inside.key().protocol() != TCP || seen & tcp::ACK == 0 || seen & tcp::RST != 0 {
        return None;
    }
    let numbers = [inside, outside].map(|end| end.receiving().acknowledged);
    Some(packet(outside.flow().rewrite(), numbers[0], numbers[1]))
}

fn packet(rewrite: &Rewrite, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    const LENGTH: u16 = (IPV4_HEADER + TCP_HEADER) as u16;
    const SEGMENT: u16 = TCP_HEADER as u16;
    let ports = [rewrite.sport().to_wire(), rewrite.dport().to_wire()];
    let mut tcp = Vec::with_capacity(TCP_HEADER);
    ports.iter().for_each(|port| tcp.extend_from_slice(port));
    tcp.extend_from_slice(&sequence.to_be_bytes());
    tcp.extend_from_slice(&acknowledgement.to_be_bytes());
    // Five words, no window, no checksum yet, no urgent pointer.
    tcp.extend_from_slice(&[5 << 4, wire::RST | wire::ACK, 0, 0, 0, 0, 0, 0]);
    let pseudo = Sum::ZERO.pseudo_header(rewrite.src(), rewrite.dst(), TCP, SEGMENT);
    put(&mut tcp, 16, pseudo);

    // Version 4, five words; an identification of 0, which the kernel chooses; DF.
    let [high, low] = LENGTH.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, TTL, TCP, 0, 0];
    packet.extend_from_slice(&rewrite.src());
    packet.extend_from_slice(&rewrite.dst());
    put(&mut packet, 10, Sum::ZERO);
    packet.extend_from_slice(&tcp);
    packet
}

/// The checksum over a header whose field at `at` is 0.
fn put(header: &mut [u8], at: usize, start: Sum) {
    let checksum = start.bytes(header).field().to_ne_bytes();
    if let Some(field) = header.get_mut(at..at + checksum.len()) {
        field.copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::packets::{Packet, reference_checksum_is_right};
    use nat_common::{
        flow::{FlowKey, Zone},
        port::Port,
    };

    #[test]
    fn each_end_gets_the_number_that_it_expects() {
        let example =
            Packet { seq: 1000, ack: 5020, payload: b"SITE x\r\n".to_vec(), ..Packet::example() };
        let bytes = example.bytes();
        let segment = Segment::parse(&bytes).expect("a segment");
        let (src, sport) = segment.source();
        let (dst, dport) = segment.destination();
        let key = FlowKey::new(Zone::Inside, TCP, src, sport, dst, dport);
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(50000));

        let to_receiver = to_receiver(&out, 1003, 5000);
        let to_sender = to_sender(&segment, &Rewrite::answer(&key));
        for packet in [&to_receiver, &to_sender] {
            assert!(reference_checksum_is_right(packet));
        }
        let there = Segment::parse(&to_receiver).expect("a packet");
        assert_eq!((there.sequence(), there.acknowledgement()), (1003, 5000));
        assert_eq!(there.source(), ([203, 0, 113, 1], Port::new(50000)));
        let back = Segment::parse(&to_sender).expect("a packet");
        assert_eq!((back.sequence(), back.acknowledgement()), (5020, 1008));
        assert_eq!((back.source(), back.destination()), ((dst, dport), (src, sport)));
        assert!(there.has(wire::RST) && back.has(wire::RST) && there.payload().is_empty());
    }
}
