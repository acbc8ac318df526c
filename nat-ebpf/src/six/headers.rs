//! What the path reads of a frame with IPv6: the fixed header, the chain of extension headers, and the
//! first bytes of TCP, UDP or ICMP behind it.

use super::tables::Packet6;
use crate::headers::{ETHERNET, TCP_FIXED, Transport};
use nat_common::{
    flow::{TCP, UDP, Zone},
    port::Port,
    reason::Reason,
    six::{Address6, Flow6Key, ICMPV6, stays},
    tcp,
};

/// The fixed header (RFC 8200 section 3).
pub(super) const FIXED: usize = 40;
/// Where its addresses stand in it.
pub(super) const SRC: usize = 8;
pub(super) const DST: usize = 24;
/// Extension headers that are followed. RFC 8504 section 5.3 lets a host refuse more; there are six kinds,
/// one of which may come twice (RFC 8200 section 4.1).
const EXTENSIONS: usize = 8;
// Extension headers by number (RFC 8200 section 4, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Offset and "more fragments" of a fragment header (RFC 8200 section 4.5).
const FRAGMENT_OFFSET: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;
/// Byte 12 of a TCP header has its length in its upper half, byte 13 the flags.
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
/// Header of UDP, and of ICMP.
const SHORT: usize = 8;
/// Types of ICMP messages (RFC 4443).
pub(super) const UNREACHABLE: u8 = 1;
pub(super) const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Whether a packet is a whole datagram, and of which it is a part. One that says that it is the first
/// and the last fragment is whole (RFC 6946).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// Whole.
    Whole,
    /// The first fragment of the datagram with this identification.
    First([u8; 4]),
    /// A later one.
    Later([u8; 4]),
}

/// The headers of an IPv6 packet, checked.
#[derive(Clone, Copy, Debug)]
pub struct Headers6 {
    /// Bytes from the IPv6 header to the end of the packet.
    pub length: u32,
    /// Offset of the transport header in the frame.
    pub transport: usize,
    /// Source address.
    pub src: Address6,
    /// Destination address.
    pub dst: Address6,
    /// IANA number of what the chain of headers ends with.
    pub protocol: u8,
    /// Kind of transport; never that of a fragment.
    pub kind: Transport,
    /// Source port, or the identifier of an echo request.
    pub sport: Port,
    /// Destination port, or the identifier of an echo reply.
    pub dport: Port,
    /// Sequence number of TCP, or 0.
    pub sequence: u32,
    /// Acknowledgement number of TCP, or 0.
    pub acknowledgement: u32,
    /// Window of TCP, as it stands there, or 0.
    pub window: u16,
    /// TCP flags, or none.
    pub flags: u8,
    /// Bytes of the TCP header, or 0.
    pub tcp_length: u32,
    /// Whether it is whole.
    pub fragmentation: Fragmentation,
}

impl Headers6 {
    /// Reads the headers of a packet; `None` for what the kernel forwards nowhere.
    ///
    /// # Errors
    /// [`Reason::Truncated`], [`Reason::BadHeader`], [`Reason::Extension`] and [`Reason::Fragment`].
    #[inline(always)]
    pub fn read<P: Packet6>(packet: &P) -> Result<Option<Self>, Reason> {
        let fixed = Fixed::read(packet, ETHERNET)?;
        if stays(&fixed.src) || stays(&fixed.dst) {
            return Ok(None);
        }
        let frame = packet.length() - ETHERNET;
        let length = match fixed.payload as usize {
            // A super-packet of more than 64 KB has no length (BIG TCP, RFC 2675).
            0 => frame,
            payload => FIXED + payload,
        };
        if length > frame {
            return Err(Reason::Truncated);
        }
        let chain = Chain::follow(packet, fixed.next, ETHERNET + FIXED)?;
        let mut headers = Self {
            length: length as u32,
            transport: chain.end,
            src: fixed.src,
            dst: fixed.dst,
            protocol: chain.protocol,
            kind: Transport::Other,
            sport: Port::NONE,
            dport: Port::NONE,
            sequence: 0,
            acknowledgement: 0,
            window: 0,
            flags: 0,
            tcp_length: 0,
            fragmentation: chain.fragmentation,
        };
        if let Fragmentation::Later(_) = headers.fragmentation {
            return Ok(Some(headers));
        }
        match (headers.read_transport(packet, length), headers.fragmentation) {
            // The first fragment has all headers (RFC 7112 section 5): without them it hides something.
            (Err(_), Fragmentation::First(_)) => Err(Reason::Fragment),
            (Err(reason), _) => Err(reason),
            (Ok(()), _) => Ok(Some(headers)),
        }
    }

    #[inline(always)]
    fn read_transport<P: Packet6>(&mut self, packet: &P, length: usize) -> Result<(), Reason> {
        let needed = match self.protocol {
            TCP => TCP_FIXED,
            UDP | ICMPV6 => SHORT,
            _ => return Ok(()),
        };
        if self.transport - ETHERNET + needed > length {
            return Err(Reason::Truncated);
        }
        match self.protocol {
            TCP => {
                let tcp: [u8; TCP_FIXED] = packet.load(self.transport)?;
                self.kind = Transport::Tcp;
                self.sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                self.acknowledgement = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
                self.window = u16::from_be_bytes([tcp[14], tcp[15]]);
                self.flags = tcp[TCP_FLAGS];
                self.tcp_length = u32::from(tcp[TCP_OFFSET] >> 4) * 4;
                self.sport = Port::from_wire([tcp[0], tcp[1]]);
                self.dport = Port::from_wire([tcp[2], tcp[3]]);
            }
            UDP => {
                let udp: [u8; SHORT] = packet.load(self.transport)?;
                self.kind = Transport::Udp;
                self.sport = Port::from_wire([udp[0], udp[1]]);
                self.dport = Port::from_wire([udp[2], udp[3]]);
            }
            _ => {
                let icmp: [u8; SHORT] = packet.load(self.transport)?;
                let identifier = Port::from_wire([icmp[4], icmp[5]]);
                self.kind = match icmp[0] {
                    UNREACHABLE..=PARAMETER_PROBLEM => Transport::IcmpError,
                    ECHO_REQUEST => {
                        self.sport = identifier;
                        Transport::EchoRequest
                    }
                    ECHO_REPLY => {
                        self.dport = identifier;
                        Transport::EchoReply
                    }
                    _ => Transport::IcmpOther,
                };
            }
        }
        Ok(())
    }

    /// The key of its flow.
    #[inline(always)]
    pub const fn key(&self, zone: Zone) -> Flow6Key {
        Flow6Key::new(zone, self.protocol, self.src, self.sport, self.dst, self.dport)
    }

    /// Bytes behind the TCP header.
    #[inline(always)]
    pub const fn payload(&self) -> u32 {
        let headers = (self.transport - ETHERNET) as u32 + self.tcp_length;
        self.length.saturating_sub(headers)
    }

    /// Whether a packet of this kind may begin a flow. Of protocols without ports that are known, any may
    /// (RFC 6092 section 3.2).
    ///
    /// # Errors
    /// The reason why not: stray packets create nothing.
    #[inline(always)]
    pub const fn begins_flow(&self) -> Result<(), Reason> {
        match self.kind {
            Transport::Tcp if !tcp::is_possible(self.flags) => Err(Reason::TcpFlags),
            Transport::Tcp if !tcp::opens(self.flags) => Err(Reason::NoSyn),
            Transport::EchoReply | Transport::IcmpError | Transport::IcmpOther => {
                Err(Reason::IcmpType)
            }
            Transport::Tcp
            | Transport::Udp
            | Transport::EchoRequest
            | Transport::Other
            | Transport::FirstFragment
            | Transport::LaterFragment => Ok(()),
        }
    }
}

/// The fixed header.
pub(super) struct Fixed {
    payload: u16,
    pub(super) next: u8,
    pub(super) src: Address6,
    pub(super) dst: Address6,
}

impl Fixed {
    /// The one at an offset of the frame.
    #[inline(always)]
    pub(super) fn read<P: Packet6>(packet: &P, at: usize) -> Result<Self, Reason> {
        let [first, _, _, _, high, low, next, _hops] = packet.load(at)?;
        if first >> 4 != 6 {
            return Err(Reason::BadHeader);
        }
        let payload = u16::from_be_bytes([high, low]);
        Ok(Self { payload, next, src: packet.load(at + SRC)?, dst: packet.load(at + DST)? })
    }
}

/// Where a chain of extension headers leads.
pub(super) struct Chain {
    pub(super) protocol: u8,
    pub(super) end: usize,
    pub(super) fragmentation: Fragmentation,
}

impl Chain {
    /// Follows the chain whose first header is of the kind `next` and lies at an offset of the frame.
    #[inline(always)]
    pub(super) fn follow<P: Packet6>(packet: &P, next: u8, at: usize) -> Result<Self, Reason> {
        let mut chain = Self { protocol: next, end: at, fragmentation: Fragmentation::Whole };
        for _header in 0..EXTENSIONS {
            if !is_extension(chain.protocol) {
                return Ok(chain);
            }
            let [next, length, third, fourth, identification @ ..] = packet.load::<8>(chain.end)?;
            let words = match chain.protocol {
                FRAGMENT => {
                    let field = u16::from_be_bytes([third, fourth]);
                    if field & FRAGMENT_OFFSET != 0 {
                        let fragmentation = Fragmentation::Later(identification);
                        return Ok(Self { protocol: next, fragmentation, ..chain });
                    }
                    if field & MORE_FRAGMENTS != 0 {
                        chain.fragmentation = Fragmentation::First(identification);
                    }
                    2
                }
                // Its length is in words of four bytes, the others' in words of eight.
                AUTHENTICATION => length as usize + 2,
                // Type 0 with hops that are left leads a packet about at its sender's will.
                ROUTING if third == 0 && fourth != 0 => return Err(Reason::Extension),
                _ => (length as usize + 1) * 2,
            };
            chain.end += words * 4;
            chain.protocol = next;
        }
        if is_extension(chain.protocol) { Err(Reason::Extension) } else { Ok(chain) }
    }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}
