//! The headers of most packets, read with every offset a constant: the fast path.

use super::{
    ETHERNET, ETHERTYPE, FRAGMENT_OFFSET, Headers, IP_FIXED, IPV4, MORE_FRAGMENTS, TCP_FIXED,
    TcpFields, Transport, first, second,
};
use crate::packet::Packet;
use nat_common::{
    flow::{TCP, UDP},
    port::Port,
    tcp,
};

/// Version 4, and a header of five words: without options.
const PLAIN_VERSION: u8 = 0x45;

impl Headers {
    /// The headers of a packet like most: TCP that neither opens nor closes a connection, or UDP, whole
    /// and without IP options. `None` for any other and for what is wrong, which [`Headers::read`]
    /// tells apart.
    ///
    /// Every offset is a constant. Addresses are not looked at: no flow has any that cannot be
    /// forwarded.
    #[inline(always)]
    pub fn read_plain<P: Packet>(packet: &P) -> Option<Self> {
        const NETWORK: usize = ETHERNET;
        const TRANSPORT: usize = NETWORK + IP_FIXED;
        if packet.is_foreign() || packet.read::<2>(ETHERTYPE).ok()? != IPV4 {
            return None;
        }
        let ip: [u32; IP_FIXED / 4] = packet.words(NETWORK).ok()?;
        let [version, tos, ..] = ip[0].to_ne_bytes();
        let length = u16::from_be(second(ip[0])) as usize;
        let is_cut = second(ip[1]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET).to_be() != 0;
        if version != PLAIN_VERSION || is_cut || length > packet.length() - NETWORK {
            return None;
        }
        let [ttl, protocol, ..] = ip[2].to_ne_bytes();
        let (kind, ports, checksum, tcp) = match protocol {
            TCP => {
                let tcp: [u32; 5] = packet.words(TRANSPORT).ok()?;
                let fields = TcpFields::of(&tcp);
                let fits = fields.length >= TCP_FIXED && length >= IP_FIXED + fields.length;
                if !fits || !tcp::goes_on(fields.flags) {
                    return None;
                }
                (Transport::Tcp, tcp[0], first(tcp[4]), fields)
            }
            UDP if length >= IP_FIXED + 8 => {
                let udp: [u32; 2] = packet.words(TRANSPORT).ok()?;
                (Transport::Udp, udp[0], second(udp[1]), TcpFields::default())
            }
            _ => return None,
        };
        Some(Self {
            network: NETWORK,
            transport: TRANSPORT,
            length,
            tos,
            ttl,
            protocol,
            network_checksum: second(ip[2]),
            src: ip[3].to_ne_bytes(),
            dst: ip[4].to_ne_bytes(),
            kind,
            sport: Port::new(u16::from_be(first(ports))),
            dport: Port::new(u16::from_be(second(ports))),
            checksum,
            tcp,
        })
    }
}
