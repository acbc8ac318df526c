//! What the path reads of a frame: Ethernet, IPv4, and the first bytes of TCP, UDP or ICMP.

use crate::packet::Packet;
use nat_common::{
    flow::{FlowKey, ICMP, TCP, UDP, Zone},
    port::Port,
    reason::Reason,
};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
const ETHERTYPE: usize = 12;
const IPV4: [u8; 2] = [0x08, 0x00];
/// IPv4 header without options, its fragment field and its source.
pub(crate) const IP_FIXED: usize = 20;
const IP_FRAGMENT: usize = 6;
const IP_SOURCE: usize = 12;
/// More fragments, or an offset other than 0 (RFC 791 section 3.1).
const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fff;
const DONT_FRAGMENT: u16 = 0x4000;
/// Types of ICMP messages (RFC 792).
pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const ECHO_REQUEST: u8 = 8;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// The transport of a packet, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// An ICMP echo request, the only ICMP that may make a flow.
    EchoRequest,
    /// The answer to one.
    EchoReply,
    /// An ICMP error that quotes the packet it is about. (Source quench is no more, RFC 6633, and a
    /// redirect is for one link.)
    IcmpError,
    /// Another ICMP message.
    IcmpOther,
    /// Another protocol.
    Other,
    /// The first fragment of a datagram: its ports are known.
    FirstFragment,
    /// A later one.
    LaterFragment,
}

/// The fields of a TCP header that matter here, or zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFields {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags, bits of [`nat_common::tcp::wire`].
    pub flags: u8,
    /// Length of the header with options, in bytes: 20 to 60.
    pub length: usize,
}

/// The headers of an IPv4 packet, checked: all lengths are within the frame.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Offset of the IPv4 header in the frame.
    pub network: usize,
    /// Offset of the transport header.
    pub transport: usize,
    /// Bytes from the IPv4 header to the end of the packet, without Ethernet padding.
    pub length: usize,
    /// Type of service, for routing.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// IPv4 header checksum in memory order.
    pub network_checksum: u16,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
    /// Kind of transport.
    pub kind: Transport,
    /// Source port, or the identifier of an echo request.
    pub sport: Port,
    /// Destination port, or the identifier of an echo reply.
    pub dport: Port,
    /// Transport checksum in memory order.
    pub checksum: u16,
    /// TCP fields.
    pub tcp: TcpFields,
}

/// The source of a packet of IPv4, whatever else it is; `None` for another protocol.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn source<P: Packet>(packet: &P) -> Result<Option<[u8; 4]>, Reason> {
    if packet.read::<2>(ETHERTYPE)? != IPV4 {
        return Ok(None);
    }
    packet.read(ETHERNET + IP_SOURCE).map(Some)
}

impl Headers {
    /// Reads the headers of a packet; `None` for what is not unicast IPv4 of this interface, which
    /// is the kernel's to handle.
    ///
    /// # Errors
    /// [`Reason::Truncated`] and [`Reason::BadHeader`].
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P) -> Result<Option<Self>, Reason> {
        if packet.is_foreign() || packet.read::<2>(ETHERTYPE)? != IPV4 {
            return Ok(None);
        }
        let network = ETHERNET;
        let ip: [u8; IP_FIXED] = packet.read(network)?;
        let header = ((ip[0] & 0x0f) as usize) * 4;
        if ip[0] >> 4 != 4 || header < IP_FIXED {
            return Err(Reason::BadHeader);
        }
        let src = [ip[12], ip[13], ip[14], ip[15]];
        let dst = [ip[16], ip[17], ip[18], ip[19]];
        if !is_unicast(src) || !is_unicast(dst) {
            return Ok(None);
        }
        // IP options are rare: XDP leaves them to TC, and so has every offset constant.
        if !P::COMPLETE && header != IP_FIXED {
            return Ok(None);
        }
        let transport = if P::COMPLETE { network + header } else { network + IP_FIXED };
        let frame = packet.length() - network;
        let length = match u16::from_be_bytes([ip[2], ip[3]]) as usize {
            // A super-packet of more than 64 KB has no length (BIG TCP).
            0 if P::COMPLETE => frame,
            total => total,
        };
        if length > frame {
            return Err(Reason::Truncated);
        }
        if length < transport - network {
            return Err(Reason::BadHeader);
        }
        let mut headers = Self {
            network,
            transport,
            length,
            tos: ip[1],
            ttl: ip[8],
            protocol: ip[9],
            network_checksum: u16::from_ne_bytes([ip[10], ip[11]]),
            src,
            dst,
            kind: Transport::Other,
            sport: Port::NONE,
            dport: Port::NONE,
            checksum: 0,
            tcp: TcpFields::default(),
        };
        let fragment = u16::from_be_bytes([ip[6], ip[7]]);
        if fragment & FRAGMENT_OFFSET != 0 {
            headers.kind = Transport::LaterFragment;
            return Ok(Some(headers));
        }
        headers.read_transport(packet)?;
        if fragment & MORE_FRAGMENTS != 0 {
            headers.kind = Transport::FirstFragment;
        }
        Ok(Some(headers))
    }

    #[inline(always)]
    fn read_transport<P: Packet>(&mut self, packet: &P) -> Result<(), Reason> {
        let rest = self.length - (self.transport - self.network);
        match self.protocol {
            TCP => {
                if rest < 20 {
                    return Err(Reason::Truncated);
                }
                let tcp: [u8; 20] = packet.read(self.transport)?;
                let length = ((tcp[12] >> 4) as usize) * 4;
                if length < 20 || length > rest {
                    return Err(Reason::BadHeader);
                }
                self.kind = Transport::Tcp;
                self.read_ports([tcp[0], tcp[1], tcp[2], tcp[3]]);
                self.checksum = u16::from_ne_bytes([tcp[16], tcp[17]]);
                self.tcp = TcpFields {
                    sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
                    acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
                    flags: tcp[13],
                    length,
                };
            }
            UDP => {
                if rest < 8 {
                    return Err(Reason::Truncated);
                }
                let udp: [u8; 8] = packet.read(self.transport)?;
                self.kind = Transport::Udp;
                self.read_ports([udp[0], udp[1], udp[2], udp[3]]);
                self.checksum = u16::from_ne_bytes([udp[6], udp[7]]);
            }
            ICMP => {
                if rest < 8 {
                    return Err(Reason::Truncated);
                }
                let icmp: [u8; 8] = packet.read(self.transport)?;
                let identifier = Port::from_wire([icmp[4], icmp[5]]);
                self.checksum = u16::from_ne_bytes([icmp[2], icmp[3]]);
                self.kind = match icmp[0] {
                    ECHO_REQUEST => {
                        self.sport = identifier;
                        Transport::EchoRequest
                    }
                    ECHO_REPLY => {
                        self.dport = identifier;
                        Transport::EchoReply
                    }
                    UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => Transport::IcmpError,
                    _ => Transport::IcmpOther,
                };
            }
            _ => {}
        }
        Ok(())
    }

    #[inline(always)]
    fn read_ports(&mut self, [a, b, c, d]: [u8; 4]) {
        self.sport = Port::from_wire([a, b]);
        self.dport = Port::from_wire([c, d]);
    }

    /// Whether no router may cut it. Not read with the rest: few ask.
    ///
    /// # Errors
    /// [`Reason::Truncated`].
    #[inline(always)]
    pub fn is_whole<P: Packet>(&self, packet: &P) -> Result<bool, Reason> {
        let fragment = u16::from_be_bytes(packet.read(self.network + IP_FRAGMENT)?);
        Ok(fragment & DONT_FRAGMENT != 0)
    }

    /// The key of its flow record.
    #[inline(always)]
    pub const fn key(&self, zone: Zone) -> FlowKey {
        FlowKey::new(zone, self.protocol, self.src, self.sport, self.dst, self.dport)
    }

    /// Bytes of TCP payload.
    #[inline(always)]
    pub const fn payload(&self) -> usize {
        self.segment() - self.tcp.length
    }

    /// Bytes from the transport header on.
    #[inline(always)]
    pub const fn segment(&self) -> usize {
        self.length - (self.transport - self.network)
    }

    /// Bytes of headers from the IPv4 header on.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        let transport = if self.tcp.length != 0 { self.tcp.length } else { 8 };
        self.transport - self.network + transport
    }

    /// Whether a packet of this kind can be translated.
    ///
    /// # Errors
    /// The reason why not.
    #[inline(always)]
    pub const fn translatable(&self) -> Result<(), Reason> {
        match self.kind {
            Transport::Tcp | Transport::Udp | Transport::EchoRequest | Transport::EchoReply => {
                Ok(())
            }
            Transport::IcmpError | Transport::IcmpOther => Err(Reason::IcmpType),
            Transport::Other => Err(Reason::Protocol),
            Transport::FirstFragment | Transport::LaterFragment => Err(Reason::Fragment),
        }
    }

    /// Whether a packet of this kind may begin a flow.
    ///
    /// # Errors
    /// The reason why not: stray packets create nothing.
    #[inline(always)]
    pub const fn begins_flow(&self) -> Result<(), Reason> {
        if let Err(reason) = self.translatable() {
            return Err(reason);
        }
        match self.kind {
            Transport::Tcp if !nat_common::tcp::opens(self.tcp.flags) => Err(Reason::NoSyn),
            Transport::EchoReply => Err(Reason::IcmpType),
            _ => Ok(()),
        }
    }
}

/// Whether the kernel could ever forward a packet with this address.
#[inline(always)]
const fn is_unicast(address: [u8; 4]) -> bool {
    // Linux forwards 240.0.0.0/4 but for the broadcast; so what is inside must not leave that way.
    !matches!(address, [0 | 127 | 224..=239, ..] | [255, 255, 255, 255])
}
