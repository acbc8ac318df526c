//! What an ICMP error quotes: the headers of the packet that it is about, as that left the gateway.
//!
//! RFC 792 promises 8 bytes behind the quoted IPv4 header, RFC 1812 section 4.3.2.3 as much as fits
//! into 576 bytes. So ports and sequence number are always there, the checksum of UDP and ICMP too;
//! that of TCP may be cut off. What follows the quote (RFC 4884) is never touched.

use crate::{
    headers::{ECHO_REPLY, ECHO_REQUEST, FRAGMENT_OFFSET, Headers, IP_FIXED, TCP_CHECKSUM},
    packet::Packet,
};
use nat_common::{
    checksum::Delta,
    flow::{FlowKey, ICMP, Rewrite, TCP, UDP, Zone},
    port::Port,
    reason::Reason,
};

/// Bytes of an ICMP error before its quote.
const ICMP_HEADER: usize = 8;
/// Where the length of the quote stands, in words of 4 bytes; 0 says nothing (RFC 4884 section 5.1).
const QUOTE_LENGTH: usize = 5;
/// What is quoted of the transport header at least.
const TRANSPORT_LEAST: usize = 8;
const IP_CHECKSUM: usize = 10;
const TCP_SEQUENCE: usize = 4;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const ICMP_IDENTIFIER: usize = 4;

/// The quoted headers, all of them within the error.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Offset of the quoted IPv4 header in the frame.
    network: usize,
    /// Offset of the quoted transport header.
    transport: usize,
    /// Where the quote ends.
    end: usize,
    protocol: u8,
    network_checksum: u16,
    /// Who sent what is quoted, as the reporter of the error saw it.
    pub src: [u8; 4],
    /// Whom it was for.
    pub dst: [u8; 4],
    /// Source port, or the identifier of an echo request.
    pub sport: Port,
    dport: Port,
    first: [u8; TRANSPORT_LEAST],
}

impl Quote {
    /// Reads the quote of an error.
    ///
    /// # Errors
    /// [`Reason::IcmpQuote`] where nobody could say by it which flow it is about.
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P, error: &Headers) -> Result<Self, Reason> {
        Self::parse(packet, error).map_err(|_| Reason::IcmpQuote)
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, error: &Headers) -> Result<Self, Reason> {
        let icmp: [u8; ICMP_HEADER] = packet.read(error.transport)?;
        let network = error.transport + ICMP_HEADER;
        let whole = error.network + error.length;
        let end = match icmp[QUOTE_LENGTH] as usize * 4 {
            0 => whole,
            said if network + said < whole => network + said,
            _ => whole,
        };
        let ip: [u8; IP_FIXED] = packet.read(network)?;
        let header = ((ip[0] & 0x0f) as usize) * 4;
        let transport = network + header;
        let offset = u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT_OFFSET;
        if ip[0] >> 4 != 4 || header < IP_FIXED || offset != 0 || transport + TRANSPORT_LEAST > end
        {
            return Err(Reason::IcmpQuote);
        }
        let first: [u8; TRANSPORT_LEAST] = packet.read(transport)?;
        let (sport, dport) = match (ip[9], first[0]) {
            (TCP | UDP, _) => {
                (Port::from_wire([first[0], first[1]]), Port::from_wire([first[2], first[3]]))
            }
            (ICMP, ECHO_REQUEST) => (Port::from_wire([first[4], first[5]]), Port::NONE),
            (ICMP, ECHO_REPLY) => (Port::NONE, Port::from_wire([first[4], first[5]])),
            (ICMP, _) => return Err(Reason::IcmpQuote),
            // Its addresses are all that is known of it.
            _ => (Port::NONE, Port::NONE),
        };
        Ok(Self {
            network,
            transport,
            end,
            protocol: ip[9],
            network_checksum: u16::from_ne_bytes([ip[10], ip[11]]),
            src: [ip[12], ip[13], ip[14], ip[15]],
            dst: [ip[16], ip[17], ip[18], ip[19]],
            sport,
            dport,
            first,
        })
    }

    /// The key of an answer to what is quoted, arriving from `zone`.
    #[inline(always)]
    pub const fn answer(&self, zone: Zone) -> FlowKey {
        FlowKey::new(zone, self.protocol, self.dst, self.dport, self.src, self.sport)
    }

    /// IANA protocol number of what is quoted.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The quoted sequence number of TCP.
    #[inline(always)]
    pub const fn sequence(&self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.first;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Writes into the quote what its sender had sent, which is the reverse of what answers to it
    /// leave with (`answer`); for TCP whose numbers were shifted, with the `sequence` of its sender.
    /// Gives how the sum of the error changes by it.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`], and [`Reason::Truncated`] when the frame ends before its headers say.
    #[inline(always)]
    pub fn restore<P: Packet>(
        &self,
        packet: &mut P,
        answer: &Rewrite,
        sequence: Option<u32>,
    ) -> Result<Delta, Reason> {
        let (src, dst) = (answer.dst(), answer.src());
        let addresses = Delta::NONE.quad(self.src, src).quad(self.dst, dst);
        let (old, new) = (self.network_checksum, addresses.apply(self.network_checksum));
        let mut sum = addresses.word(old.to_ne_bytes(), new.to_ne_bytes());
        let ([a, b], [c, d, e, f], [g, h, i, j]) = (new.to_ne_bytes(), src, dst);
        packet.write(self.network + IP_CHECKSUM, [a, b, c, d, e, f, g, h, i, j])?;

        // What changes in the transport header, then its checksum.
        let mut rest = Delta::NONE;
        let [a, b, c, d, e, f, ..] = self.first;
        let (sport, dport) = (answer.dport().to_wire(), answer.sport().to_wire());
        let at = match self.protocol {
            ICMP => {
                let identifier = if self.dport.number() == 0 { sport } else { dport };
                rest = rest.word([e, f], identifier);
                packet.write(self.transport + ICMP_IDENTIFIER, identifier)?;
                ICMP_CHECKSUM
            }
            protocol @ (TCP | UDP) => {
                rest = rest.word([a, b], sport).word([c, d], dport);
                packet.write(self.transport, [sport[0], sport[1], dport[0], dport[1]])?;
                if protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
            }
            _ => return Ok(sum),
        };
        if let Some(sequence) = sequence {
            let sequence = sequence.to_be_bytes();
            rest = rest.quad(self.sequence().to_be_bytes(), sequence);
            packet.write(self.transport + TCP_SEQUENCE, sequence)?;
        }
        sum = sum.and(rest);
        // An echo has no pseudo-header.
        let rest = if self.protocol == ICMP { rest } else { rest.and(addresses) };
        let at = self.transport + at;
        if at + 2 <= self.end {
            let old: [u8; 2] = packet.read(at)?;
            let new = match (self.protocol, u16::from_ne_bytes(old)) {
                // Without a checksum (RFC 768), and so it stays.
                (UDP, 0) => old,
                (UDP, field) => match rest.apply(field) {
                    0 => [0xff; 2],
                    field => field.to_ne_bytes(),
                },
                (_, field) => rest.apply(field).to_ne_bytes(),
            };
            sum = sum.word(old, new);
            packet.write(at, new)?;
        }
        Ok(sum)
    }
}
