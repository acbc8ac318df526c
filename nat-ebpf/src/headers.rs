//! What the path reads of a frame: Ethernet, IPv4, and the first bytes of TCP, UDP or ICMP.

mod plain;

use crate::packet::Packet;
use nat_common::{
    flow::{self, FlowKey, ICMP, TCP, UDP, Zone},
    fragment::Fragmented,
    opaque::opaque,
    port::Port,
    reason::Reason,
};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Where its protocol stands, and which those are (`ETH_P_IP` and `ETH_P_IPV6` of
/// include/uapi/linux/if_ether.h).
pub(crate) const ETHERTYPE: usize = 12;
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const IPV6: [u8; 2] = [0x86, 0xdd];
/// IPv4 header without options, its fragment field and its addresses.
pub(crate) const IP_FIXED: usize = 20;
/// TCP header without options (RFC 9293 section 3.1).
pub(crate) const TCP_FIXED: usize = 20;
/// Where the checksum stands in it.
pub(crate) const TCP_CHECKSUM: usize = 16;
const IP_FRAGMENT: usize = 6;
const IP_SOURCE: usize = 12;
const IP_DESTINATION: usize = 16;
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
    /// Another protocol, in pieces or not: its addresses are all that is known of it.
    Other,
    /// The first fragment of a datagram: its ports are known.
    FirstFragment,
    /// A later one.
    LaterFragment,
}

impl Transport {
    /// The same, whichever the verifier takes it for.
    #[inline(always)]
    fn forgotten(self) -> Self {
        match opaque(self as u64) {
            0 => Self::Tcp,
            1 => Self::Udp,
            2 => Self::EchoRequest,
            3 => Self::EchoReply,
            4 => Self::IcmpError,
            5 => Self::IcmpOther,
            6 => Self::Other,
            7 => Self::FirstFragment,
            _ => Self::LaterFragment,
        }
    }
}

/// The fields of a TCP header that matter here, or zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFields {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Window, as it stands there.
    pub window: u16,
    /// Flags, bits of [`nat_common::tcp::wire`].
    pub flags: u8,
    /// Length of the header with options, in bytes: 20 to 60.
    pub length: usize,
}

impl TcpFields {
    /// Of a header, its first words.
    #[inline(always)]
    fn of(words: &[u32; 5]) -> Self {
        let [offset, flags, ..] = words[3].to_ne_bytes();
        Self {
            sequence: u32::from_be(words[1]),
            acknowledgement: u32::from_be(words[2]),
            window: u16::from_be(second(words[3])),
            flags,
            length: ((offset >> 4) as usize) * 4,
        }
    }
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

/// The destination of one.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn destination<P: Packet>(packet: &P) -> Result<[u8; 4], Reason> {
    packet.read(ETHERNET + IP_DESTINATION)
}

/// Whether a packet is IPv6.
#[inline(always)]
pub fn is_six<P: Packet>(packet: &P) -> bool {
    packet.read::<2>(ETHERTYPE) == Ok(IPV6)
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
        let ip: [u32; IP_FIXED / 4] = packet.words(network)?;
        let [version, tos, ..] = ip[0].to_ne_bytes();
        let header = ((version & 0x0f) as usize) * 4;
        if version >> 4 != 4 || header < IP_FIXED {
            return Err(Reason::BadHeader);
        }
        let (src, dst) = (ip[3].to_ne_bytes(), ip[4].to_ne_bytes());
        if !is_unicast(src) || !is_unicast(dst) {
            return Ok(None);
        }
        // IP options are rare: XDP leaves them to TC, and so has every offset constant.
        if !P::COMPLETE && header != IP_FIXED {
            return Ok(None);
        }
        let transport = if P::COMPLETE { network + header } else { network + IP_FIXED };
        let frame = packet.length() - network;
        let length = match u16::from_be(second(ip[0])) as usize {
            // A super-packet of more than 64 KB has no length (BIG TCP), and nothing else.
            0 if packet.is_super() => frame,
            total => total,
        };
        if length > frame {
            return Err(Reason::Truncated);
        }
        if length < transport - network {
            return Err(Reason::BadHeader);
        }
        let [ttl, protocol, ..] = ip[2].to_ne_bytes();
        let mut headers = Self {
            network,
            transport,
            length,
            tos,
            ttl,
            protocol,
            network_checksum: second(ip[2]),
            src,
            dst,
            kind: Transport::Other,
            sport: Port::NONE,
            dport: Port::NONE,
            checksum: 0,
            tcp: TcpFields::default(),
        };
        if !flow::has_ports(protocol) {
            return Ok(Some(headers));
        }
        let fragment = u16::from_be(second(ip[1]));
        if fragment & FRAGMENT_OFFSET != 0 {
            headers.kind = Transport::LaterFragment;
            return Ok(Some(headers));
        }
        headers.read_transport(packet)?;
        if fragment & MORE_FRAGMENTS != 0 {
            headers.kind = Transport::FirstFragment;
        }
        Ok(Some(headers.forgotten::<P>()))
    }

    /// The same, by which way ever they were read: where many programs follow, the verifier goes through
    /// them once, and not once for each kind of packet.
    #[inline(always)]
    fn forgotten<P: Packet>(self) -> Self {
        if !P::COMPLETE {
            return self;
        }
        let port = |port: Port| Port::new(opaque(port.number() as u64) as u16);
        let TcpFields { sequence, acknowledgement, window, flags, length } = self.tcp;
        Self {
            protocol: opaque(self.protocol as u64) as u8,
            kind: self.kind.forgotten(),
            sport: port(self.sport),
            dport: port(self.dport),
            checksum: opaque(self.checksum as u64) as u16,
            tcp: TcpFields {
                sequence: opaque(sequence as u64) as u32,
                acknowledgement: opaque(acknowledgement as u64) as u32,
                window: opaque(window as u64) as u16,
                flags: opaque(flags as u64) as u8,
                length: opaque(length as u64) as usize,
            },
            ..self
        }
    }

    #[inline(always)]
    fn read_transport<P: Packet>(&mut self, packet: &P) -> Result<(), Reason> {
        let rest = self.length - (self.transport - self.network);
        match self.protocol {
            TCP => {
                if rest < TCP_FIXED {
                    return Err(Reason::Truncated);
                }
                let tcp: [u32; 5] = packet.words(self.transport)?;
                let fields = TcpFields::of(&tcp);
                if fields.length < TCP_FIXED || fields.length > rest {
                    return Err(Reason::BadHeader);
                }
                self.kind = Transport::Tcp;
                self.read_ports(tcp[0]);
                self.checksum = first(tcp[4]);
                self.tcp = fields;
            }
            UDP => {
                if rest < 8 {
                    return Err(Reason::Truncated);
                }
                let udp: [u32; 2] = packet.words(self.transport)?;
                self.kind = Transport::Udp;
                self.read_ports(udp[0]);
                self.checksum = second(udp[1]);
            }
            ICMP => {
                if rest < 8 {
                    return Err(Reason::Truncated);
                }
                let icmp: [u32; 2] = packet.words(self.transport)?;
                let [kind, ..] = icmp[0].to_ne_bytes();
                let identifier = Port::new(u16::from_be(first(icmp[1])));
                self.checksum = second(icmp[0]);
                self.kind = match kind {
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

    /// Those of a first fragment as of the whole that it begins, where that could be translated.
    ///
    /// # Errors
    /// [`Reason::Truncated`] and [`Reason::BadHeader`].
    #[inline(always)]
    pub fn begun<P: Packet>(self, packet: &P) -> Result<Self, Reason> {
        if self.kind != Transport::FirstFragment {
            return Ok(self);
        }
        let mut begun = self;
        begun.read_transport(packet)?;
        let begun = begun.forgotten::<P>();
        Ok(match begun.kind {
            Transport::Tcp | Transport::Udp | Transport::EchoRequest | Transport::EchoReply => {
                begun
            }
            _ => self,
        })
    }

    /// Those of a later fragment, with the ports of its datagram.
    #[inline(always)]
    pub const fn of(self, datagram: &Fragmented) -> Self {
        let [sport, dport] = datagram.ports();
        Self { sport, dport, ..self }
    }

    #[inline(always)]
    fn read_ports(&mut self, word: u32) {
        self.sport = Port::new(u16::from_be(first(word)));
        self.dport = Port::new(u16::from_be(second(word)));
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

    /// Whether it is a piece of something. For protocols without ports, whose kind does not say so.
    ///
    /// # Errors
    /// [`Reason::Truncated`].
    #[inline(always)]
    pub fn is_piece<P: Packet>(&self, packet: &P) -> Result<bool, Reason> {
        let fragment = u16::from_be_bytes(packet.read(self.network + IP_FRAGMENT)?);
        Ok(fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0)
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
            Transport::Tcp
            | Transport::Udp
            | Transport::EchoRequest
            | Transport::EchoReply
            | Transport::Other => Ok(()),
            Transport::IcmpError | Transport::IcmpOther => Err(Reason::IcmpType),
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
            Transport::Other if flow::covers_addresses(self.protocol) => Err(Reason::Protocol),
            _ => Ok(()),
        }
    }
}

/// The half of a word that comes first in memory.
#[inline(always)]
const fn first(word: u32) -> u16 {
    if cfg!(target_endian = "little") { word as u16 } else { (word >> 16) as u16 }
}

/// The other half.
#[inline(always)]
const fn second(word: u32) -> u16 {
    if cfg!(target_endian = "little") { (word >> 16) as u16 } else { word as u16 }
}

/// Whether the kernel could ever forward a packet with this address.
#[inline(always)]
const fn is_unicast(address: [u8; 4]) -> bool {
    // Linux forwards 240.0.0.0/4 but for the broadcast; so what is inside must not leave that way.
    let number = u32::from_be_bytes(address);
    match number >> 24 {
        0 | 127 => false,
        1..=223 => true,
        class => class >= 240 && number != u32::MAX,
    }
}
