//! ICMP errors of IPv6: they pass when they are about a packet of a flow that its sender hears of.
//! RFC 4890 section 4.3.1 wants them to, for without "packet too big" no path of IPv6 works.

use super::{
    Passage,
    headers::{Chain, FIXED, Fixed, Fragmentation, Headers6},
    stray,
    tables::{Packet6, Tables6},
};
use nat_common::{
    flow::{TCP, UDP, Zone},
    port::Port,
    reason::Reason,
    six::{Flow6Key, ICMPV6},
};

/// Header of an ICMP error (RFC 4443 section 3); the quote lies behind it.
pub(super) const HEADER: usize = 8;
/// Types of ICMP messages (RFC 4443).
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// An ICMP error arrives from `zone`.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub(super) fn pass<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &mut T,
    zone: Zone,
    headers: &Headers6,
) -> Result<Passage, Reason> {
    let reason = match quoted(packet, zone, headers) {
        Ok(key) if tables.flow6(&key).is_some() => return Ok(Passage::Known),
        Ok(_) => Reason::IcmpUnrelated,
        Err(reason) => reason,
    };
    stray(packet, tables, zone, headers, reason)
}

/// The key of the flow that an error is about, which goes to who has sent a packet of it.
#[inline(always)]
fn quoted<P: Packet6>(packet: &P, zone: Zone, headers: &Headers6) -> Result<Flow6Key, Reason> {
    let at = headers.transport + HEADER;
    let unread = |_| Reason::IcmpQuote;
    let fixed = Fixed::read(packet, at).map_err(unread)?;
    if fixed.src != headers.dst {
        return Err(Reason::IcmpUnrelated);
    }
    let chain = Chain::follow(packet, fixed.next, at + FIXED).map_err(unread)?;
    if let Fragmentation::Later(_) = chain.fragmentation {
        return Err(Reason::IcmpQuote);
    }
    let (sport, dport) = match chain.protocol {
        TCP | UDP => {
            let [a, b, c, d] = packet.load(chain.end).map_err(unread)?;
            (Port::from_wire([a, b]), Port::from_wire([c, d]))
        }
        ICMPV6 => {
            let [kind, _, _, _, high, low, _, _] = packet.load(chain.end).map_err(unread)?;
            let identifier = Port::from_wire([high, low]);
            match kind {
                ECHO_REQUEST => (identifier, Port::NONE),
                ECHO_REPLY => (Port::NONE, identifier),
                _ => return Err(Reason::IcmpQuote),
            }
        }
        _ => (Port::NONE, Port::NONE),
    };
    // What is quoted went the other way.
    let sent_from = zone.other();
    Ok(Flow6Key::new(sent_from, chain.protocol, fixed.src, sport, fixed.dst, dport))
}
