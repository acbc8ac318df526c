//! What has come out, in the fewest words that still say what matters: the words of docs/rfc.md.
//!
//! Said is what is not as one would think: that is a TTL one less than was sent (64 of the gateway's own
//! errors), the ports of the step, right checksums. What a gateway may choose is not said: the number of
//! another port, the identification.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nat_tests::{
    lab::{LAN, WAN},
    packet::{
        ACK, FIN, HEADER, ICMP, MORE, OFFSET, PSH, RST, SYN, TCP, UDP, URG, WHOLE, checksum,
        transport_sum,
    },
};

use super::{
    cast::{self, Cast},
    stage::Side,
};

/// TTL of what came in with 64.
const ONE_HOP: u8 = 63;
/// TTL of what the gateway says itself.
const OWN: u8 = 64;
/// Where the quote stands in an ICMP error.
const QUOTE: usize = 8;

/// An IPv4 packet that is read.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    protocol: u8,
    service: u8,
    ttl: u8,
    identification: u16,
    fragment: u16,
    options: &'a [u8],
    payload: &'a [u8],
    length: usize,
    sum: [u8; 2],
}

impl<'a> Read<'a> {
    /// What can be read of it; `None` where it is too short for a header.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 15) * 4;
        let address = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|it| Ipv4Addr::from(*it));
        Some(Self {
            source: address(12)?,
            destination: address(16)?,
            protocol: bytes[9],
            service: bytes[1],
            ttl: bytes[8],
            identification: word(bytes, 4)?,
            fragment: word(bytes, 6)?,
            options: bytes.get(HEADER..header).unwrap_or_default(),
            payload: bytes.get(header..).unwrap_or_default(),
            length: usize::from(word(bytes, 2)?).saturating_sub(header),
            sum: checksum(bytes.get(..header.max(HEADER))?),
        })
    }

    /// What it quotes, if it is an ICMP error.
    pub fn quoted(&self) -> Option<Self> {
        let is_error = self.protocol == ICMP
            && matches!(self.payload.first(), Some(3 | 4 | 5 | 11 | 12))
            && self.offset() == 0;
        if is_error { Self::new(self.payload.get(QUOTE..)?) } else { None }
    }

    /// Both ports, or the identifier of an echo as both.
    pub fn ports(&self) -> Option<[u16; 2]> {
        match self.protocol {
            _ if self.offset() != 0 => None,
            TCP | UDP => Some([word(self.payload, 0)?, word(self.payload, 2)?]),
            ICMP => word(self.payload, 4).map(|identifier| [identifier; 2]),
            _ => None,
        }
    }

    fn offset(&self) -> usize {
        usize::from(self.fragment & OFFSET) * 8
    }

    fn is_piece(&self) -> bool {
        self.fragment & (MORE | OFFSET) != 0
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

/// A segment with data of each end of a connection: a shorter word for it.
const DATA: [&str; 2] =
    ["inside: TCP PSH+ACK remote > host", "outside: TCP PSH+ACK public > remote"];

/// All that has come out of a round of a step.
pub fn tell(cast: Cast, seen: &[(Side, Vec<u8>)]) -> String {
    let mut told = Vec::new();
    // The identification of what is in pieces says which belong together.
    let mut pieces = BTreeMap::<_, Vec<Read<'_>>>::new();
    for (side, bytes) in seen {
        let Some(packet) = Read::new(bytes) else {
            told.push(format!("{side}: {} bytes", bytes.len()));
            continue;
        };
        if packet.is_piece() {
            let Read { source, destination, protocol, identification, .. } = packet;
            let key = (*side, source, destination, protocol, identification);
            pieces.entry(key).or_default().push(packet);
        } else {
            told.push(format!("{side}: {}", sentence(cast, &packet)));
        }
    }
    for ((side, ..), mut pieces) in pieces {
        pieces.sort_by_key(Read::offset);
        told.push(format!("{side}: {}", in_pieces(cast, &pieces)));
    }
    told.sort();
    match told.len() {
        0 => "dropped".to_owned(),
        2 if told == DATA => "data both ways".to_owned(),
        _ => told.join("; "),
    }
}

/// Pieces of one datagram, in their order.
fn in_pieces(cast: Cast, pieces: &[Read<'_>]) -> String {
    let mut payload = Vec::new();
    let mut places = Vec::new();
    for piece in pieces {
        let end = piece.offset() + piece.payload.len();
        if piece.offset() == payload.len() {
            payload.extend(piece.payload);
        }
        places.push(format!("{}-{}", piece.offset(), end.saturating_sub(1)));
    }
    let last = pieces.last().map_or(0, |piece| piece.offset() + piece.payload.len());
    let is_all = payload.len() == last && pieces.last().is_some_and(|it| it.fragment & MORE == 0);
    let [first, ..] = pieces else { return String::new() };
    let joined = if is_all {
        let length = payload.len();
        sentence(
            cast,
            &Read { fragment: first.fragment & WHOLE, payload: &payload, length, ..*first },
        )
    } else {
        sentence(cast, first)
    };
    format!("{joined}, bytes {}", places.join(" "))
}

fn sentence(cast: Cast, packet: &Read<'_>) -> String {
    let mut words = vec![route(cast, packet)];
    let is_own = packet.protocol == ICMP && [WAN, LAN].contains(&packet.source);
    let usual = packet.ttl == ONE_HOP || is_own && packet.ttl == OWN;
    if !usual {
        words.push(format!("TTL {}", packet.ttl));
    }
    if packet.service != 0 && !is_own {
        words.push(format!("type of service {}", packet.service));
    }
    if packet.fragment & WHOLE != 0 {
        words.push("DF".to_owned());
    }
    words.extend(options(packet.options));
    words.extend(faults(packet));
    if let Some(quoted) = packet.quoted() {
        words.push(format!("about {}", route(cast, &quoted)));
        words.extend(faults(&quoted).into_iter().map(|fault| format!("{fault} in the quote")));
    }
    if packet.protocol == ICMP && packet.payload.starts_with(&[3, 4]) {
        words.extend(word(packet.payload, 6).map(|mtu| format!("MTU {mtu}")));
    }
    words.join(", ")
}

/// What it is, and from whom to whom.
fn route(cast: Cast, packet: &Read<'_>) -> String {
    let ports =
        if packet.protocol == ICMP && packet.quoted().is_some() { None } else { packet.ports() };
    let end = |address: Ipv4Addr, port: Option<u16>| match port.and_then(|port| cast.port(port)) {
        Some(port) => format!("{} at {port}", cast.name(address)),
        None => cast.name(address),
    };
    let [from, to] = match ports {
        // An identifier is the port of who asks.
        Some([identifier, _]) if packet.protocol == ICMP => match packet.payload.first() {
            Some(0) => [None, Some(identifier)],
            _ => [Some(identifier), None],
        },
        ports => [ports.map(|[from, _]| from), ports.map(|[_, to]| to)],
    };
    format!("{} {} > {}", what(packet), end(packet.source, from), end(packet.destination, to))
}

fn what(packet: &Read<'_>) -> String {
    let name = cast::protocol(packet.protocol);
    if packet.offset() != 0 {
        return name;
    }
    match (packet.protocol, packet.payload) {
        (ICMP, [8, 0, ..]) => "echo".to_owned(),
        (ICMP, [0, 0, ..]) => "echo reply".to_owned(),
        (ICMP, [kind, code, ..]) => format!("{name} {kind}/{code}"),
        (TCP, payload) => match payload.get(13) {
            Some(flags) => format!("{name} {}", flag_names(*flags)),
            None => name,
        },
        _ => name,
    }
}

fn flag_names(flags: u8) -> String {
    let names =
        [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (URG, "URG"), (ACK, "ACK")];
    let set: Vec<_> =
        names.into_iter().filter(|(flag, _)| flags & flag != 0).map(|it| it.1).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join("+") }
}

/// What was written into the options on the way (RFC 791 section 3.1).
fn options(options: &[u8]) -> Option<String> {
    let [kind, _, pointer, ..] = *options else { return None };
    Some(match kind {
        7 => format!("record route with {} entries", (pointer - 4) / 4),
        68 => format!("timestamps with {} entries", (pointer - 5) / 4),
        131 | 137 => "source route".to_owned(),
        kind => format!("option {kind}"),
    })
}

/// Checksums that are wrong, or not there, of what is whole.
fn faults(packet: &Read<'_>) -> Vec<String> {
    let Read { source, destination, protocol, payload, .. } = *packet;
    let mut faults = Vec::new();
    if packet.sum != [0; 2] {
        faults.push("wrong header checksum".to_owned());
    }
    if packet.is_piece() || payload.len() < packet.length {
        return faults;
    }
    let sum = match protocol {
        UDP if payload.get(6..8) == Some(&[0; 2]) => {
            faults.push("no checksum".to_owned());
            [0; 2]
        }
        TCP | UDP => transport_sum(source, destination, protocol, payload),
        ICMP => checksum(payload),
        _ => [0; 2],
    };
    if sum != [0; 2] {
        faults.push("wrong checksum".to_owned());
    }
    if protocol == TCP && payload.get(13).is_some_and(|flags| flags & SYN != 0) {
        // The option of two words that a SYN of the script may have, and no other.
        if let Some([2, 4, high, low]) = payload.get(20..24) {
            faults.push(format!("MSS {}", u16::from_be_bytes([*high, *low])));
        }
    }
    faults
}
