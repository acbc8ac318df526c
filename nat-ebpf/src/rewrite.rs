//! Writes the translation into a packet: addresses, ports, time to live, and all checksums.

use crate::{
    headers::{Headers, Transport},
    packet::Packet,
    tables::Shifted,
};
use nat_common::{checksum::Delta, flow::Flow, hop::Link, port::Port, reason::Reason};

const IP_TTL: usize = 8;
const TCP_SEQUENCE: usize = 4;
const ICMP_IDENTIFIER: usize = 4;

/// What becomes of the sequence numbers.
#[derive(Clone, Copy, Debug)]
pub enum Numbers {
    /// They stay.
    Kept,
    /// They are written anew; the options have changed by this.
    Shifted(Shifted, Delta),
}

/// Writes the link addresses of a frame.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn link<P: Packet>(packet: &mut P, link: Link) -> Result<(), Reason> {
    packet.set_words(0, link.words())
}

/// Rewrites the packet to what `flow` says.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn apply<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    flow: &Flow,
    numbers: Numbers,
) -> Result<(), Reason> {
    translate(packet, headers, flow, numbers, headers.ttl.wrapping_sub(1))
}

/// The same for a packet that goes to the kernel, which counts the hop itself.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn keep_ttl<P: Packet>(packet: &mut P, headers: &Headers, flow: &Flow) -> Result<(), Reason> {
    translate(packet, headers, flow, Numbers::Kept, headers.ttl)
}

/// The same with this time to live.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn with_ttl<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    flow: &Flow,
    ttl: u8,
) -> Result<(), Reason> {
    translate(packet, headers, flow, Numbers::Kept, ttl)
}

/// Writes addresses and time to live into the IPv4 header alone.
///
/// # Errors
/// [`Reason::WriteFailed`].
#[inline(always)]
pub fn addresses<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    src: [u8; 4],
    dst: [u8; 4],
    ttl: u8,
) -> Result<(), Reason> {
    let delta = Delta::NONE.quad(headers.src, src).quad(headers.dst, dst);
    network(packet, headers, src, dst, ttl, delta)
}

#[inline(always)]
fn network<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    src: [u8; 4],
    dst: [u8; 4],
    ttl: u8,
    addresses: Delta,
) -> Result<(), Reason> {
    // The word of TTL and protocol falls by 0x0100; addresses as the record has computed.
    let [high, low] = addresses
        .word([headers.ttl, headers.protocol], [ttl, headers.protocol])
        .apply(headers.network_checksum)
        .to_ne_bytes();
    let words = [[ttl, headers.protocol, high, low], src, dst].map(u32::from_ne_bytes);
    packet.set_words(headers.network + IP_TTL, words)
}

#[inline(always)]
fn translate<P: Packet>(
    packet: &mut P,
    headers: &Headers,
    flow: &Flow,
    numbers: Numbers,
    ttl: u8,
) -> Result<(), Reason> {
    let rewrite = flow.rewrite();
    let mut addresses =
        Delta::NONE.quad(headers.src, rewrite.src()).quad(headers.dst, rewrite.dst());
    network(packet, headers, rewrite.src(), rewrite.dst(), ttl, addresses)?;
    if headers.kind == Transport::Other {
        return Ok(());
    }
    let old = ports(headers.sport, headers.dport);
    let new = ports(rewrite.sport(), rewrite.dport());
    // Where a port stays, which is where it can, the sum does.
    let mut rest = if old == new { Delta::NONE } else { Delta::NONE.quad(old, new) };
    match headers.kind {
        // No pseudo-header (RFC 792), and one identifier whichever end it names.
        Transport::EchoRequest => {
            addresses = Delta::NONE;
            packet.write(headers.transport + ICMP_IDENTIFIER, rewrite.sport().to_wire())?;
        }
        Transport::EchoReply => {
            addresses = Delta::NONE;
            packet.write(headers.transport + ICMP_IDENTIFIER, rewrite.dport().to_wire())?;
        }
        _ => {
            packet.set_words(headers.transport, [u32::from_ne_bytes(new)])?;
        }
    }
    if let Numbers::Shifted(shifted, options) = numbers {
        let sequence = shifted.sequence.to_be_bytes();
        let acknowledgement = shifted.acknowledgement.to_be_bytes();
        rest = rest
            .quad(headers.tcp.sequence.to_be_bytes(), sequence)
            .quad(headers.tcp.acknowledgement.to_be_bytes(), acknowledgement)
            .and(options);
        packet.write(headers.transport + TCP_SEQUENCE, sequence)?;
        packet.write(headers.transport + TCP_SEQUENCE + 4, acknowledgement)?;
    }
    packet.update_checksum(headers, rewrite, addresses, rest)
}

/// A pair of ports as it stands in a header.
#[inline(always)]
fn ports(source: Port, destination: Port) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_wire(), destination.to_wire());
    [a, b, c, d]
}
