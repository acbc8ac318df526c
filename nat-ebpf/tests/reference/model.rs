//! A NAT gateway as one would explain it: lists that are searched from end to end, one record for a
//! connection, packets as descriptions. Written from the rules, and slow.
//!
//! Where the gateway is free to choose (a public port other than the inside one) the model takes
//! what the path has chosen, and says whether it may. The next hops that the agent keeps are a list
//! here too, and a connection names them by the order in which they came up.

use crate::common::frame::{
    ACK, Body, DONT, ECHO, FIN, ICMP, MORE, Opt, RST, SYN, Spec, TCP, UDP, WINDOW,
};
use crate::common::sums;
use nat_common::{
    flow::Zone,
    reason::Reason::{self, *},
};

pub type Address = [u8; 4];
pub type End = (Address, u16);

/// Where a destination lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Inside,
    Wan,
    Elsewhere,
    Gateway,
    Nowhere,
    /// On a way that is too narrow.
    TooBig,
}

/// What must become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Pass,
    Drop(Reason),
    Punt,
    /// Translated, to the kernel, which tells its sender why it cannot go on.
    Told(Box<Spec>),
    Forward(Box<Spec>, Way),
    /// Translated, to the agent, which cuts it.
    Cut(Box<Spec>),
}

/// Which way a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub place: Place,
    pub neighbour: Address,
    /// What the agent has written of this hop, if the packet went by that; else the kernel said.
    pub by_agent: Option<Filled>,
}

/// What the agent has written of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Whether it knows the neighbour's link address.
    pub resolved: bool,
    pub mtu: usize,
}

/// A next hop that connections were led to.
#[derive(Clone, Debug)]
pub struct Hop {
    pub name: usize,
    pub place: Place,
    pub neighbour: Address,
    pub epoch: u32,
    pub filled: Option<Filled>,
    /// The agent is about to free it.
    pub closed: bool,
    /// The agent has freed it: a seat that the next search of this neighbour comes upon first.
    pub freed: bool,
}

/// Why a connection is looked at by FTP inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    Plain,
    Control,
    Related(u32),
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub from: Zone,
    pub protocol: u8,
    /// Source and destination as its initiator's packets arrive, and as they leave.
    pub arrives: (End, End),
    pub leaves: (End, End),
    pub rule: u32,
    pub kin: Kin,
    /// By direction: flags seen, packets, bytes, time of the last.
    pub seen: [u8; 2],
    /// By direction: what its sender has acknowledged, and its window.
    pub takes: [Option<(u32, u16)>; 2],
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub last: [u32; 2],
    /// By direction: name of the hop that its packets leave by, and the epoch of that.
    pub led: [Option<(usize, u32)>; 2],
}

impl Connection {
    /// Whether it leads back to the side that it came from.
    pub fn turns_back(&self) -> bool {
        self.arrives.0.0 != self.leaves.0.0 && self.arrives.1.0 != self.leaves.1.0
    }

    /// Where its answers come from.
    pub fn answered_from(&self) -> Zone {
        if self.turns_back() { self.from } else { self.from.other() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Masquerade,
    Expectation,
    Forward,
    /// Whoever has connections by it.
    Shared,
}

#[derive(Clone, Debug)]
pub struct Owned {
    pub protocol: u8,
    pub public: End,
    pub holder: Holder,
    pub inside: End,
    /// The sweep has seen it without use.
    pub idle: bool,
}

/// A datagram of which the first fragment was seen.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub zone: Zone,
    pub protocol: u8,
    pub src: End,
    pub dst: End,
    pub id: u16,
    /// Whom it is from and for as it leaves, and its identification then.
    pub leaves: (Address, Address, u16),
    pub expires: u32,
}

#[derive(Clone, Debug)]
pub struct Expectation {
    pub zone: Zone,
    pub src: Address,
    pub dst: End,
    /// Inside end for a connection from outside or one that turns back; public address for one that
    /// leaves.
    pub to: End,
    /// The public source of one that turns back.
    pub turned: Option<Address>,
    pub session: u32,
    pub rule: u32,
    pub expires: u32,
}

#[derive(Clone, Debug)]
pub struct Forward {
    pub protocol: Option<u8>,
    pub public: End,
    pub to: End,
    pub rule: u32,
    pub filter: Option<u32>,
    pub ftp: bool,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub now: u32,
    pub heartbeat: u32,
    pub masquerade: bool,
    /// Each remote end sees an inside end at a port of its own.
    pub by_remote_end: bool,
    /// Anybody may send to a port that an inside end has.
    pub anybody: bool,
    /// Remote addresses may that the inside end has sent to.
    pub by_address: bool,
    /// Public ends, and where the inside has sent to as those.
    pub contacts: Vec<(u8, End, Address)>,
    pub public: Option<Address>,
    /// Public addresses that hosts are shared out among, one after the other; none is `public` for all.
    pub paired: Vec<Address>,
    pub pool: Vec<u16>,
    /// Ports of UDP stay odd or even while there is one.
    pub parity: bool,
    pub control_ports: Vec<u16>,
    pub places: Vec<(Address, u32, Place)>,
    pub sockets: Vec<(u8, End)>,
    pub forwards: Vec<Forward>,
    pub filters: Vec<(u32, Address, u32)>,
    pub one_to_one: Vec<(Address, Address, u32)>,
    /// Networks to and from which nothing is translated.
    pub exempt: Vec<(Address, u32)>,
    pub expectations: Vec<Expectation>,
    pub connections: Vec<Connection>,
    pub owned: Vec<Owned>,
    /// Public addresses whose ports masquerade may take.
    pub numbered: Vec<Address>,
    /// Which routes are true.
    pub epoch: u32,
    pub hops: Vec<Hop>,
    /// Hops that there ever were.
    pub named: usize,
    pub datagrams: Vec<Datagram>,
    /// The identification that the last packet has now.
    pub identified: u16,
    /// The agent has got a copy of the last packet.
    pub copied: bool,
    /// Longest packet of which an MSS may be announced, whatever fits.
    pub narrow: usize,
    /// Longest packet that the inside takes.
    pub inside_mtu: usize,
    pub capacity: usize,
    /// Connections made, and expectations used, by the last packet.
    pub made: bool,
    pub used: bool,
}

fn within(address: Address, network: Address, bits: u32) -> bool {
    (0..bits).all(|bit| {
        let (byte, shift) = (bit as usize / 8, 7 - bit % 8);
        (address[byte] >> shift) & 1 == (network[byte] >> shift) & 1
    })
}

fn is_unicast(address: Address) -> bool {
    let group = (224..240).contains(&address[0]) || address == [255; 4];
    !(address[0] == 0 || address[0] == 127 || group)
}

/// Source and destination port; of an echo the identifier stands on the side of who asks.
fn ports(body: &Body) -> (u16, u16) {
    match *body {
        Body::Tcp { sport, dport, .. } | Body::Udp { sport, dport, .. } => (sport, dport),
        Body::Icmp { kind: ECHO, identifier } => (identifier, 0),
        Body::Icmp { kind: 0, identifier } => (0, identifier),
        Body::Icmp { .. } | Body::Other { .. } => (0, 0),
    }
}

fn flags(body: &Body) -> u8 {
    if let Body::Tcp { flags, .. } = body { *flags } else { 0 }
}

/// A packet with other ends.
fn rewritten(spec: &Spec, src: End, dst: End) -> Spec {
    let mut out = spec.clone();
    (out.src, out.dst) = (src.0, dst.0);
    match &mut out.body {
        Body::Tcp { sport, dport, .. } | Body::Udp { sport, dport, .. } => {
            (*sport, *dport) = (src.1, dst.1);
        }
        Body::Icmp { kind, identifier } => {
            *identifier = if *kind == ECHO { src.1 } else { dst.1 };
        }
        Body::Other { .. } => {}
    }
    out
}

/// What an ICMP error is about, by what it quotes.
struct Quoted {
    protocol: u8,
    src: End,
    dst: End,
    /// Where its transport header begins in the payload.
    segment: usize,
}

impl Quoted {
    fn of(spec: &Spec) -> Option<Self> {
        let Body::Icmp { identifier, .. } = spec.body else { return None };
        let said = usize::from(identifier & 0xff) * 4;
        let mut quote = &spec.payload[..];
        if said != 0 && said < quote.len() {
            quote = &quote[..said];
        }
        let word = |at: usize| Some(u16::from_be_bytes([*quote.get(at)?, *quote.get(at + 1)?]));
        let segment = usize::from(quote.first()? & 15) * 4;
        let is_whole = quote[0] >> 4 == 4 && segment >= 20 && quote.len() >= segment + 8;
        if !is_whole || word(6)? & 0x1fff != 0 {
            return None;
        }
        let address = |at: usize| -> Address { quote[at..at + 4].try_into().unwrap() };
        let protocol = quote[9];
        let (sport, dport) = match (protocol, quote[segment]) {
            (TCP | UDP, _) => (word(segment)?, word(segment + 2)?),
            (ICMP, ECHO) => (word(segment + 4)?, 0),
            (ICMP, 0) => (0, word(segment + 4)?),
            (ICMP, _) => return None,
            _ => (0, 0),
        };
        Some(Self { protocol, src: (address(12), sport), dst: (address(16), dport), segment })
    }

    /// Puts other ends into the quote; checksums are looked at apart.
    fn replace(&self, quote: &mut [u8], src: End, dst: End) {
        quote[12..16].copy_from_slice(&src.0);
        quote[16..20].copy_from_slice(&dst.0);
        let segment = &mut quote[self.segment..];
        if !matches!(self.protocol, TCP | UDP | ICMP) {
            return;
        }
        if self.protocol == ICMP {
            let identifier = if segment[0] == ECHO { src.1 } else { dst.1 };
            segment[4..6].copy_from_slice(&identifier.to_be_bytes());
        } else {
            segment[..2].copy_from_slice(&src.1.to_be_bytes());
            segment[2..4].copy_from_slice(&dst.1.to_be_bytes());
        }
    }
}

fn is_only_syn(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN
}

impl Model {
    pub fn place(&self, address: Address) -> Place {
        let mut best = (Place::Nowhere, 0);
        for (network, bits, place) in &self.places {
            if within(address, *network, *bits) && *bits >= best.1 {
                best = (*place, *bits);
            }
        }
        best.0
    }

    /// Where a packet of the size of `spec` goes that is for `address`.
    fn route(&self, spec: &Spec, address: Address) -> Place {
        match self.place(address) {
            Place::Inside if spec.length() > self.inside_mtu => Place::TooBig,
            Place::Wan | Place::Elsewhere if spec.length() > 1500 => Place::TooBig,
            place => place,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.heartbeat != 0 && self.now - self.heartbeat <= 4
    }

    /// What must become of a packet from `zone`; `chosen` is the source port that it left with.
    pub fn packet(&mut self, zone: Zone, spec: &Spec, chosen: Option<u16>) -> Expected {
        (self.made, self.used, self.copied) = (false, false, false);
        match self.decide(zone, spec, chosen) {
            Ok(expected) => expected,
            Err(reason) => Expected::Drop(reason),
        }
    }

    fn decide(&mut self, zone: Zone, spec: &Spec, chosen: Option<u16>) -> Result<Expected, Reason> {
        if !is_unicast(spec.src) || !is_unicast(spec.dst) {
            return Ok(Expected::Pass);
        }
        if let Body::Icmp { kind: 3 | 11 | 12, .. } = spec.body
            && !spec.is_fragment()
        {
            return self.error(zone, spec);
        }
        if spec.is_later_fragment() {
            return self.later_fragment(zone, spec);
        }
        // It has no identifier, but one could think so.
        if spec.is_fragment()
            && let Body::Icmp { kind: 1..=7 | 9.., .. } = spec.body
            && self.find_by(zone, ICMP, ((spec.src, 0), (spec.dst, 0))).is_some()
        {
            return Err(Fragment);
        }
        let found = match self.find(zone, spec) {
            Some(found) => Some(found),
            None => match zone {
                Zone::Inside => self.enters_inside(spec, chosen)?,
                Zone::Outside => self.enters_outside(spec)?,
            },
        };
        let Some((index, direction)) = found else { return Ok(Expected::Pass) };
        if spec.is_fragment() {
            return self.fragment(zone, spec, (index, direction), ports(&spec.body), None);
        }
        let connection = self.connections[index].clone();
        let (src, dst) = match direction {
            0 => connection.leaves,
            _ => (connection.arrives.1, connection.arrives.0),
        };
        let way = match self.leaves_by(index, direction, zone, spec, dst.0) {
            Ok(way) => way,
            Err(Some(refused)) => return Err(refused),
            Err(None) if zone == Zone::Inside => {
                let fits = spec.length() <= 1500 || self.place(dst.0) != Place::Wan;
                // A piece of a protocol without ports is no fragment here, but one all the same.
                let is_whole = spec.fragment & (MORE | 0x1fff) == 0;
                let may = spec.fragment & DONT == 0 && is_whole && spec.ttl > 1 && self.is_alive();
                if fits || !may || connection.kin == Kin::Control {
                    return Ok(Expected::Pass);
                }
                self.closes(index, direction, spec)?;
                self.count(index, direction, spec);
                let mut out = rewritten(spec, src, dst);
                out.ttl -= 1;
                out.id = self.identify(spec.protocol(), src.0, dst.0);
                return Ok(Expected::Cut(Box::new(out)));
            }
            Err(None) => {
                let cut = spec.fragment & DONT == 0 && spec.ttl > 1;
                if connection.kin == Kin::Control && cut {
                    return Err(TooBig);
                }
                return Ok(Expected::Told(Box::new(rewritten(spec, src, dst))));
            }
        };
        // A SYN that may announce too much is looked at anew, after it was led.
        let way = match connection.kin != Kin::Control && self.may_announce_too_much(spec) {
            true => match self.leaves_by(index, direction, zone, spec, dst.0) {
                Ok(way) => way,
                Err(refused) => panic!("led once and then {refused:?}"),
            },
            false => way,
        };
        self.closes(index, direction, spec)?;
        self.count(index, direction, spec);
        let mut out = rewritten(spec, src, dst);
        out.ttl -= 1;
        if connection.kin == Kin::Control {
            let flags = flags(&spec.body);
            if !spec.payload.is_empty() && !self.is_alive() {
                return Err(AlgNoAgent);
            }
            if self.is_alive() && (!spec.payload.is_empty() || flags & (FIN | RST) != 0) {
                return Ok(Expected::Punt);
            }
        }
        if flags(&spec.body) & SYN != 0
            && let Body::Tcp { options, .. } = &mut out.body
        {
            let most = self.largest_mss(spec, dst.0);
            for option in options.iter_mut() {
                if let Opt::Mss(mss) = option {
                    *mss = (*mss).min(most);
                }
            }
            if connection.kin == Kin::Control {
                *options = options.iter().flat_map(|option| for_inspection(*option)).collect();
            }
        }
        Ok(Expected::Forward(Box::new(out), way))
    }

    /// An identification that nobody else uses now.
    fn identify(&self, protocol: u8, src: Address, dst: Address) -> u16 {
        let is_used = self
            .datagrams
            .iter()
            .any(|it| it.protocol == protocol && it.leaves == (src, dst, self.identified));
        assert!(!is_used && self.identified != 0, "an identification of its own");
        self.identified
    }

    /// A fragment that is not the first one: its ports are those of its datagram.
    fn later_fragment(&mut self, zone: Zone, spec: &Spec) -> Result<Expected, Reason> {
        let protocol = spec.protocol();
        let offset = usize::from(spec.fragment & 0x1fff);
        if protocol == TCP && offset == 1 || offset * 8 + spec.length() > 65_535 {
            return Err(Fragment);
        }
        let Some(datagram) = self.datagram(zone, spec) else { return self.alone(zone, spec) };
        let datagram = datagram.clone();
        let (src, dst) = (datagram.src, datagram.dst);
        let found = self.find_by(zone, protocol, (src, dst)).ok_or(FragmentAlone)?;
        self.fragment(zone, spec, found, (src.1, dst.1), Some(datagram.leaves.2))
    }

    fn datagram(&self, zone: Zone, spec: &Spec) -> Option<&Datagram> {
        let who = (zone, spec.protocol(), spec.src, spec.dst, spec.id);
        let is_it = |it: &&Datagram| (it.zone, it.protocol, it.src.0, it.dst.0, it.id) == who;
        self.datagrams.iter().find(is_it).filter(|it| self.now < it.expires)
    }

    /// A fragment whose first one has not come.
    fn alone(&mut self, zone: Zone, spec: &Spec) -> Result<Expected, Reason> {
        let leads_out = self.place(spec.dst) == Place::Wan;
        match (zone, self.route(spec, spec.dst)) {
            (Zone::Inside, Place::Gateway) if within(spec.dst, [10, 0, 1, 0], 24) => {
                Ok(Expected::Pass)
            }
            (_, Place::Gateway) => {
                self.copied = self.is_alive();
                Ok(Expected::Pass)
            }
            (Zone::Inside, _) if !leads_out || spec.ttl <= 1 => Ok(Expected::Pass),
            (Zone::Inside, _) if self.is_alive() => Ok(Expected::Punt),
            (Zone::Inside, _) => Err(FragmentAlone),
            (Zone::Outside, Place::Wan | Place::Elsewhere) => Ok(Expected::Pass),
            (Zone::Outside, Place::Inside) if self.is_exempt(spec.src) && self.is_alive() => {
                Ok(Expected::Punt)
            }
            (Zone::Outside, Place::Inside) if self.is_exempt(spec.src) => Err(FragmentAlone),
            (Zone::Outside, Place::Inside | Place::Nowhere | Place::TooBig) => Err(Unsolicited),
        }
    }

    /// A fragment of a connection, with the ports of its datagram; and what a later one leaves with.
    fn fragment(
        &mut self,
        zone: Zone,
        spec: &Spec,
        (index, direction): (usize, usize),
        ports: (u16, u16),
        identified: Option<u16>,
    ) -> Result<Expected, Reason> {
        let connection = self.connections[index].clone();
        if connection.kin == Kin::Control {
            return Err(Fragment);
        }
        let (src, dst) = match direction {
            0 => connection.leaves,
            _ => (connection.arrives.1, connection.arrives.0),
        };
        let wanted = match zone {
            Zone::Inside if !connection.turns_back() => Place::Wan,
            _ => Place::Inside,
        };
        let may_cut = spec.fragment & DONT == 0
            && self.place(dst.0) == wanted
            && (zone == Zone::Outside || wanted == Place::Wan);
        let (is_whole, refused) = match self.route(spec, dst.0) {
            _ if spec.ttl <= 1 => (false, Some(TtlExpired)),
            place if place == wanted => (true, None),
            Place::TooBig if may_cut => (false, None),
            Place::TooBig => (false, Some(TooBig)),
            Place::Nowhere => (false, Some(NoRoute)),
            _ if zone == Zone::Outside => return Err(NoRoute),
            _ => (false, Some(NoRoute)),
        };
        if let Some(reason) = refused
            && zone == Zone::Inside
        {
            return if connection.turns_back() { Err(reason) } else { Ok(Expected::Pass) };
        }
        if !spec.is_later_fragment() {
            self.closes(index, direction, spec)?;
        }
        let mut out = spec.clone();
        (out.src, out.dst) = (src.0, dst.0);
        out.id = match identified {
            Some(identified) => identified,
            None => {
                out = rewritten(spec, src, dst);
                self.note(zone, spec, ports, (src.0, dst.0))
            }
        };
        let told = zone == Zone::Outside && !is_whole;
        if !told {
            out.ttl -= 1;
        }
        self.count_fragment(index, direction, spec);
        let out = Box::new(out);
        if told {
            return Ok(Expected::Told(out));
        }
        if !is_whole {
            return Ok(Expected::Cut(out));
        }
        let neighbour = Self::neighbour(wanted, dst.0);
        Ok(Expected::Forward(out, Way { place: wanted, neighbour, by_agent: None }))
    }

    /// Remembers the datagram of a first fragment; the identification that it leaves with.
    fn note(
        &mut self,
        zone: Zone,
        spec: &Spec,
        (sport, dport): (u16, u16),
        (src, dst): (Address, Address),
    ) -> u16 {
        let ends = ((spec.src, sport), (spec.dst, dport));
        let known = self.datagram(zone, spec).cloned();
        let id = match known {
            Some(known) if (known.src, known.dst) == ends => known.leaves.2,
            _ if src == spec.src => spec.id,
            _ => self.identify(spec.protocol(), src, dst),
        };
        let protocol = spec.protocol();
        let who = (zone, protocol, spec.src, spec.dst, spec.id);
        self.datagrams.retain(|it| (it.zone, it.protocol, it.src.0, it.dst.0, it.id) != who);
        self.datagrams.push(Datagram {
            zone,
            protocol,
            src: ends.0,
            dst: ends.1,
            id: spec.id,
            leaves: (src, dst, id),
            expires: self.now + 30,
        });
        id
    }

    /// Whether the first option does not say that all is well.
    fn may_announce_too_much(&self, spec: &Spec) -> bool {
        let Body::Tcp { flags, options, .. } = &spec.body else { return false };
        let widest = self.inside_mtu.min(1500).min(self.narrow) - 40;
        match options.first() {
            _ if flags & SYN == 0 => false,
            None => false,
            Some(Opt::Mss(mss)) => usize::from(*mss) > widest,
            Some(_) => true,
        }
    }

    /// What a SYN to `dst` may announce: what its sender takes comes back the other way.
    fn largest_mss(&self, spec: &Spec, dst: Address) -> u16 {
        let width = |address| match self.place(address) {
            Place::Wan | Place::Elsewhere => 1500,
            Place::Inside => self.inside_mtu,
            // What every interface takes, where the kernel does not say: of a source that is an address
            // of the gateway itself, for one.
            Place::Gateway | Place::Nowhere | Place::TooBig => self.inside_mtu.min(1500),
        };
        (width(dst).min(width(spec.src)).min(self.narrow) - 40) as u16
    }

    /// What becomes of an ICMP error.
    fn error(&self, zone: Zone, spec: &Spec) -> Result<Expected, Reason> {
        let quoted = Quoted::of(spec);
        let about = quoted.as_ref().filter(|quoted| quoted.src.0 == spec.dst).and_then(|quoted| {
            let ends = (quoted.src, quoted.dst);
            self.connections.iter().filter(|it| it.protocol == quoted.protocol).find_map(|it| {
                // It is about a packet of the initiator that left, or about an answer that did.
                if it.answered_from() == zone && it.leaves == ends {
                    Some((it.arrives, it.turns_back()))
                } else if it.from == zone && (it.arrives.1, it.arrives.0) == ends {
                    Some(((it.leaves.1, it.leaves.0), it.turns_back()))
                } else {
                    None
                }
            })
        });
        let (Some(((src, dst), turns_back)), Some(quoted)) = (about, &quoted) else {
            return self.error_about_none(zone, spec, quoted.as_ref());
        };
        if sums::residues(&spec.build()).transport != Some(0) {
            return Err(IcmpQuote);
        }
        if spec.ttl <= 1 {
            return Err(TtlExpired);
        }
        let wanted = match zone {
            Zone::Inside if !turns_back => Place::Wan,
            _ => Place::Inside,
        };
        match self.route(spec, src.0) {
            Place::TooBig => return Err(TooBig),
            place if place != wanted => return Err(NoRoute),
            _ => {}
        }
        let mut out = spec.clone();
        out.ttl -= 1;
        out.dst = src.0;
        if zone == Zone::Inside || spec.src == quoted.dst.0 {
            out.src = dst.0;
        }
        quoted.replace(&mut out.payload, src, dst);
        let way = Way { place: wanted, neighbour: Self::neighbour(wanted, src.0), by_agent: None };
        Ok(Expected::Forward(Box::new(out), way))
    }

    /// What becomes of an error about none of the connections.
    fn error_about_none(
        &self,
        zone: Zone,
        spec: &Spec,
        quoted: Option<&Quoted>,
    ) -> Result<Expected, Reason> {
        let reason = if quoted.is_some() { IcmpUnrelated } else { IcmpQuote };
        if zone == Zone::Inside {
            let leaves = self.route(spec, spec.dst) == Place::Wan;
            return if leaves { Err(reason) } else { Ok(Expected::Pass) };
        }
        // No socket of the gateway here has a port of the pool.
        if let Some(quoted) = quoted
            && quoted.protocol != ICMP
            && self.pool.contains(&quoted.src.1)
        {
            return Err(reason);
        }
        match self.route(spec, spec.dst) {
            Place::Gateway | Place::Wan | Place::Elsewhere => Ok(Expected::Pass),
            Place::Inside | Place::Nowhere | Place::TooBig => Err(Unsolicited),
        }
    }

    /// Which way a packet of a connection leaves: by the hop that it was led to while that is true and
    /// wide enough, else as the kernel says, who is then asked until the agent knows the hop. No
    /// reason is one that the kernel tells the sender.
    fn leaves_by(
        &mut self,
        index: usize,
        direction: usize,
        zone: Zone,
        spec: &Spec,
        dst: Address,
    ) -> Result<Way, Option<Reason>> {
        // One that turns back is nothing that the kernel could tell anybody about.
        let turns_back = self.connections[index].turns_back();
        let told = |reason| if turns_back { Some(reason) } else { None };
        if spec.ttl <= 1 {
            return Err(told(TtlExpired));
        }
        if self.is_alive()
            && let Some((name, epoch)) = self.connections[index].led[direction]
            && epoch == self.epoch
            && let Some(hop) = self.hops.iter().find(|hop| hop.name == name && !hop.closed)
            && let Some(filled) = hop.filled
            && spec.length() <= filled.mtu
        {
            let Hop { place, neighbour, .. } = *hop;
            return Ok(Way { place, neighbour, by_agent: Some(filled) });
        }
        // What comes from one side leaves to the other, wherever routes lead.
        let wanted = match zone {
            Zone::Inside if !turns_back => Place::Wan,
            _ => Place::Inside,
        };
        match self.route(spec, dst) {
            Place::TooBig => Err(told(TooBig)),
            Place::Nowhere => Err(told(NoRoute)),
            place if place != wanted && wanted == Place::Wan => Err(None),
            place if place != wanted => Err(Some(NoRoute)),
            place => {
                let neighbour = Self::neighbour(place, dst);
                if self.is_alive() {
                    self.connections[index].led[direction] = self.refer(place, neighbour);
                }
                Ok(Way { place, neighbour, by_agent: None })
            }
        }
    }

    /// Who takes packets that are for `dst`.
    fn neighbour(place: Place, dst: Address) -> Address {
        let is_near = place == Place::Inside || within(dst, [203, 0, 113, 0], 24);
        if is_near { dst } else { [203, 0, 113, 254] }
    }

    /// The hop to a neighbour, if packets of the route's size may go by it; it comes up now if it
    /// has not before, or is about to be freed.
    fn refer(&mut self, place: Place, neighbour: Address) -> Option<(usize, u32)> {
        let is_it = |hop: &Hop| (hop.place, hop.neighbour, hop.closed) == (place, neighbour, false);
        let (name, epoch) = (self.named, self.epoch);
        let fresh =
            Hop { name, place, neighbour, epoch, filled: None, closed: false, freed: false };
        let at = self.hops.iter().position(is_it).unwrap_or_else(|| {
            self.hops.push(Hop { freed: true, ..fresh.clone() });
            self.hops.len() - 1
        });
        let hop = &mut self.hops[at];
        if hop.freed {
            *hop = fresh;
            self.named += 1;
        }
        hop.epoch = epoch;
        let most = if place == Place::Inside { self.inside_mtu } else { 1500 };
        hop.filled.filter(|filled| filled.mtu <= most).map(|_| (hop.name, epoch))
    }

    /// The connection of a packet, and the direction it goes: 0 the initiator's.
    fn find(&mut self, zone: Zone, spec: &Spec) -> Option<(usize, usize)> {
        if spec.is_later_fragment() {
            return None;
        }
        if let Body::Icmp { kind: 1..=7 | 9.., .. } = spec.body {
            return None;
        }
        let (sport, dport) = ports(&spec.body);
        let tuple = ((spec.src, sport), (spec.dst, dport));
        let found = self.find_by(zone, spec.protocol(), tuple)?;
        let [a, b] = self.connections[found.0].seen;
        if is_only_syn(flags(&spec.body)) && (a | b) & 12 != 0 {
            self.connections.remove(found.0);
            return None;
        }
        Some(found)
    }

    fn find_by(&self, zone: Zone, protocol: u8, tuple: (End, End)) -> Option<(usize, usize)> {
        self.connections.iter().enumerate().find_map(|(index, connection)| {
            if connection.protocol != protocol {
                None
            } else if connection.from == zone && connection.arrives == tuple {
                Some((index, 0))
            } else if connection.answered_from() == zone && connection.leaves == (tuple.1, tuple.0)
            {
                Some((index, 1))
            } else {
                None
            }
        })
    }

    /// How many hops to the same neighbour came up before this one.
    pub fn seat(&self, hop: &Hop) -> usize {
        let before = self.hops.iter().take_while(|other| other.name != hop.name);
        before.filter(|o| (o.place, o.neighbour) == (hop.place, hop.neighbour)).count()
    }

    /// The same of a fragment.
    fn count_fragment(&mut self, index: usize, direction: usize, spec: &Spec) {
        match spec.is_later_fragment() {
            // It has nothing to say of the connection.
            true if spec.protocol() == TCP => {}
            true => self.count_with(index, direction, spec, 0),
            false => self.count(index, direction, spec),
        }
    }

    fn count(&mut self, index: usize, direction: usize, spec: &Spec) {
        self.count_with(index, direction, spec, flags(&spec.body));
    }

    fn count_with(&mut self, index: usize, direction: usize, spec: &Spec, flags: u8) {
        let mut seen = 0;
        if flags & SYN != 0 {
            seen |= 1;
        }
        if flags & (ACK | RST) == ACK {
            seen |= 2;
        }
        if flags & FIN != 0 {
            seen |= 4;
        }
        if flags & RST != 0 {
            seen |= 8;
        }
        let connection = &mut self.connections[index];
        connection.seen[direction] = connection.seen[direction] & !8 | seen;
        if let Body::Tcp { sequence, acknowledgement, options, .. } = &spec.body {
            if flags & SYN != 0 {
                connection.seen[direction] |= scale(options) << 4;
            }
            if flags & RST == 0 {
                let syn = flags & (SYN | ACK) == SYN;
                let next = if syn { sequence.wrapping_add(1) } else { *acknowledgement };
                connection.takes[direction] = Some((next, WINDOW));
            }
        }
        connection.packets[direction] += 1;
        connection.bytes[direction] += spec.length() as u64;
        connection.last[direction] = self.now;
    }

    /// Whether a segment that opens or closes a connection is one that its receiver takes.
    fn closes(&self, index: usize, direction: usize, spec: &Spec) -> Result<(), Reason> {
        const ALL: i64 = 1 << 32;
        let Body::Tcp { sequence, acknowledgement, flags, .. } = spec.body else { return Ok(()) };
        let has = |flag| flags & flag != 0;
        let turns = [SYN, FIN, RST].into_iter().filter(|flag| has(*flag)).count();
        if turns > 1 || !has(ACK) && (turns == 0 || has(FIN)) {
            return Err(TcpFlags);
        }
        if turns == 0 || has(SYN) {
            return Ok(());
        }
        let connection = &self.connections[index];
        let (seen, takes) = (connection.seen[1 - direction], connection.takes[1 - direction]);
        let slack = if connection.kin == Kin::Control { 65_535 } else { 0 };
        let Some((next, window)) = takes else { return Ok(()) };
        let behind = |number: u32| (i64::from(number) - i64::from(next)).rem_euclid(ALL);
        // How far before or behind the next number that is waited for.
        let within = |number: u32, before: i64, after: i64| {
            behind(number) <= after || behind(number) - ALL >= -before
        };
        let size = i64::from(window) << (seen >> 4);
        let taken = match (seen & 2 != 0, has(RST)) {
            (true, true) => within(sequence, slack, size + slack),
            (true, false) => {
                let end = sequence.wrapping_add(spec.payload.len() as u32);
                within(end, size.max(65_535) + slack, size + slack)
            }
            (false, true) => !has(ACK) || within(acknowledgement, 0, 65_535),
            (false, false) => true,
        };
        if taken { Ok(()) } else { Err(TcpWindow) }
    }

    /// Stray packets begin nothing.
    fn may_begin(spec: &Spec) -> Result<(), Reason> {
        // A first fragment has ports as the whole has, where that could be translated.
        let begins = matches!(
            spec.body,
            Body::Tcp { .. } | Body::Udp { .. } | Body::Icmp { kind: 0 | ECHO, .. }
        );
        if spec.is_fragment() && !begins {
            return Err(Fragment);
        }
        match &spec.body {
            Body::Tcp { flags, .. } if is_only_syn(*flags) => Ok(()),
            Body::Tcp { .. } => Err(NoSyn),
            Body::Udp { .. } | Body::Icmp { kind: ECHO, .. } => Ok(()),
            Body::Icmp { .. } => Err(IcmpType),
            // DCCP, AH, UDP-Lite.
            Body::Other { protocol: 33 | 51 | 136 } => Err(Protocol),
            Body::Other { .. } => Ok(()),
        }
    }

    fn enters_inside(
        &mut self,
        spec: &Spec,
        chosen: Option<u16>,
    ) -> Result<Option<(usize, usize)>, Reason> {
        if self.route(spec, spec.dst) == Place::Gateway {
            return self.turns_back(spec, chosen);
        }
        let may_cut = spec.fragment & DONT == 0 && self.place(spec.dst) == Place::Wan;
        let leads_out = match self.route(spec, spec.dst) {
            Place::Wan => true,
            Place::TooBig => may_cut,
            _ => false,
        };
        if !leads_out || spec.ttl <= 1 {
            return Ok(None);
        }
        Self::may_begin(spec)?;
        let protocol = spec.protocol();
        let (sport, dport) = ports(&spec.body);
        let (src, dst) = ((spec.src, sport), (spec.dst, dport));
        let control = protocol == TCP && dport != 0 && self.control_ports.contains(&dport);
        let plain = if control { Kin::Control } else { Kin::Plain };

        let (public, rule, kin) =
            if let Some(expected) = self.expected(Zone::Inside, false, protocol, spec.src, dst) {
                let address = expected.to.0;
                let port = match self.keeps_port(protocol, src, dst, address) {
                    true => sport,
                    false => self.port_out(spec, address, chosen)?,
                };
                ((address, port), expected.rule, Kin::Related(expected.session))
            } else if self.is_exempt(spec.dst) {
                (src, 0, Kin::Plain)
            } else if let Some(host) = self.one_to_one.iter().find(|host| host.0 == spec.src) {
                ((host.1, sport), host.2, plain)
            } else if !self.masquerade {
                return Err(NotMasqueraded);
            } else if let Body::Other { .. } = spec.body {
                return Err(Protocol);
            } else {
                let address = self.hides(spec.src).ok_or(NoPublicAddress)?;
                let port = self.port_out(spec, address, chosen)?;
                ((address, port), 0, plain)
            };
        // Where it leaves is known already, so it is led there from the start.
        let led = self.led_out(spec);
        let begun = self.begin(Zone::Inside, protocol, (src, dst), (public, dst), rule, kin)?;
        self.connections[begun.0].led[0] = led;
        let has = |o: &Owned| {
            (o.protocol, o.public, o.inside) == (protocol, public, src)
                && o.holder == Holder::Masquerade
        };
        let contact = (protocol, public, dst.0);
        let is_masqueraded = !matches!(kin, Kin::Related(_)) && self.owned.iter().any(has);
        if self.by_address && is_masqueraded && !self.contacts.contains(&contact) {
            self.contacts.push(contact);
        }
        Ok(Some(begun))
    }

    /// Where a packet of a new connection leaves.
    fn led_out(&mut self, spec: &Spec) -> Option<(usize, u32)> {
        match self.is_alive() {
            true => self.refer(Place::Wan, Self::neighbour(Place::Wan, spec.dst)),
            false => None,
        }
    }

    /// The public port of a connection outwards.
    fn port_out(
        &mut self,
        spec: &Spec,
        address: Address,
        chosen: Option<u16>,
    ) -> Result<u16, Reason> {
        let (sport, dport) = ports(&spec.body);
        let (src, dst) = ((spec.src, sport), (spec.dst, dport));
        let port = self.public_port(spec.protocol(), src, dst, address, chosen);
        // A shared one is looked for once it is known where the packet would leave.
        if port == Err(PortsExhausted) && self.numbered.contains(&address) {
            self.led_out(spec);
        }
        port
    }

    /// A public address dialled from inside: as if the packet left and came in again.
    fn turns_back(
        &mut self,
        spec: &Spec,
        chosen: Option<u16>,
    ) -> Result<Option<(usize, usize)>, Reason> {
        let is_public = !within(spec.dst, [10, 0, 1, 0], 24);
        if !is_public || spec.is_later_fragment() {
            return Ok(None);
        }
        let protocol = spec.protocol();
        let (sport, dport) = ports(&spec.body);
        let (src, dst) = ((spec.src, sport), (spec.dst, dport));
        if is_only_syn(flags(&spec.body))
            && let Some(expected) = self.expected(Zone::Inside, true, protocol, spec.src, dst)
            && let Some(public) = expected.turned
        {
            let kin = Kin::Related(expected.session);
            let leaves = ((public, sport), expected.to);
            return self
                .begin(Zone::Inside, protocol, (src, dst), leaves, expected.rule, kin)
                .map(Some);
        }
        let own = self.one_to_one.iter().find(|host| host.0 == spec.src).map(|host| host.1);
        let shared = self.hides(spec.src).filter(|_| self.masquerade);
        let Some(address) = own.or(shared) else { return Ok(None) };
        let (to, rule, kin) = if let Some(forward) = self.forward(protocol, dst) {
            let kin = if forward.ftp && protocol == TCP { Kin::Control } else { Kin::Plain };
            self.lets_in(&forward, address)?;
            Self::may_begin(spec)?;
            let port = if forward.to.1 == 0 { dport } else { forward.to.1 };
            ((forward.to.0, port), forward.rule, kin)
        } else {
            let is_its = |o: &&Owned| {
                (o.protocol, o.public, o.holder) == (protocol, dst, Holder::Masquerade)
            };
            let Some(inside) = self.owned.iter().find(is_its).map(|owned| owned.inside) else {
                return Ok(None);
            };
            Self::may_begin(spec)?;
            (inside, 0, Kin::Plain)
        };
        let public = match own {
            Some(own) => (own, sport),
            None if matches!(spec.body, Body::Other { .. }) => return Err(Protocol),
            None => (address, self.mapping(protocol, src, address, chosen)?),
        };
        if (to, public) == (src, dst) {
            return Err(TupleTaken);
        }
        self.begin(Zone::Inside, protocol, (src, dst), (public, to), rule, kin).map(Some)
    }

    /// The public address that a host is hidden behind.
    fn hides(&self, host: Address) -> Option<Address> {
        let turns = self.paired.len();
        let turn =
            host.iter().fold(0, |turn, byte| (turn * 256 + usize::from(*byte)) % turns.max(1));
        self.paired.get(turn).copied().or(self.public)
    }

    /// Whether a forward is for that sender.
    fn lets_in(&self, forward: &Forward, sender: Address) -> Result<(), Reason> {
        let allowed = forward.filter.is_none_or(|filter| {
            self.filters.iter().any(|(n, net, bits)| *n == filter && within(sender, *net, *bits))
        });
        if allowed { Ok(()) } else { Err(NotAllowed) }
    }

    fn enters_outside(&mut self, spec: &Spec) -> Result<Option<(usize, usize)>, Reason> {
        let protocol = spec.protocol();
        let (sport, dport) = ports(&spec.body);
        let known = !spec.is_later_fragment();
        let (src, dst) = ((spec.src, sport), (spec.dst, dport));
        if protocol == TCP
            && is_only_syn(flags(&spec.body))
            && let Some(expected) = self.expected(Zone::Outside, false, protocol, spec.src, dst)
        {
            let kin = Kin::Related(expected.session);
            let leaves = (src, expected.to);
            return self
                .begin(Zone::Outside, protocol, (src, dst), leaves, expected.rule, kin)
                .map(Some);
        }
        if let Some(forward) = self.forward(protocol, dst).filter(|_| known) {
            self.lets_in(&forward, spec.src)?;
            Self::may_begin(spec)?;
            let port = if forward.to.1 == 0 { dport } else { forward.to.1 };
            let kin = if forward.ftp && protocol == TCP { Kin::Control } else { Kin::Plain };
            let leaves = (src, (forward.to.0, port));
            return self
                .begin(Zone::Outside, protocol, (src, dst), leaves, forward.rule, kin)
                .map(Some);
        }
        let opens = match &spec.body {
            Body::Tcp { flags, .. } => is_only_syn(*flags),
            Body::Udp { .. } => true,
            Body::Icmp { .. } | Body::Other { .. } => false,
        };
        let known = self.contacts.contains(&(protocol, dst, spec.src));
        let may_enter = opens && (self.anybody || self.by_address && known);
        let is_owner = |o: &&mut Owned| {
            (o.protocol, o.public) == (protocol, dst) && o.holder == Holder::Masquerade
        };
        if let Some(owned) = self.owned.iter_mut().find(is_owner).filter(|_| may_enter) {
            owned.idle = false;
            let leaves = (src, owned.inside);
            return self
                .begin(Zone::Outside, protocol, (src, dst), leaves, 0, Kin::Plain)
                .map(Some);
        }
        match self.route(spec, spec.dst) {
            Place::Gateway => match &spec.body {
                Body::Tcp { .. } | Body::Udp { .. } => {
                    let listens = self.sockets.contains(&(protocol, dst));
                    if listens { Ok(None) } else { Err(Unsolicited) }
                }
                _ => Ok(None),
            },
            Place::Inside if self.is_exempt(spec.src) => {
                Self::may_begin(spec)?;
                self.begin(Zone::Outside, protocol, (src, dst), (src, dst), 0, Kin::Plain).map(Some)
            }
            Place::Inside | Place::Nowhere | Place::TooBig => Err(Unsolicited),
            Place::Wan | Place::Elsewhere => Ok(None),
        }
    }

    fn is_exempt(&self, remote: Address) -> bool {
        self.exempt.iter().any(|(network, bits)| within(remote, *network, *bits))
    }

    /// The forward for a public end: exact before protocol before address.
    fn forward(&self, protocol: u8, public: End) -> Option<Forward> {
        let wanted =
            [(Some(protocol), public), (Some(protocol), (public.0, 0)), (None, (public.0, 0))];
        wanted.iter().find_map(|(protocol, public)| {
            self.forwards
                .iter()
                .find(|rule| rule.protocol == *protocol && rule.public == *public)
                .cloned()
        })
    }

    /// Uses up an expectation; one that has expired is used up and gives nothing.
    fn expected(
        &mut self,
        zone: Zone,
        turns: bool,
        protocol: u8,
        src: Address,
        dst: End,
    ) -> Option<Expectation> {
        let wanted = (zone, turns, src, dst);
        let at = self.expectations.iter().position(|it| {
            protocol == TCP && (it.zone, it.turned.is_some(), it.src, it.dst) == wanted
        })?;
        let expected = self.expectations.remove(at);
        self.used = self.now < expected.expires;
        self.used.then_some(expected)
    }

    /// Whether an announced connection from inside keeps its port on the public address.
    fn keeps_port(&mut self, protocol: u8, src: End, dst: End, address: Address) -> bool {
        let public = (address, src.1);
        let taken = self.connections.iter().any(|connection| {
            connection.protocol == protocol
                && match connection.from {
                    Zone::Inside => connection.leaves == (public, dst),
                    Zone::Outside => connection.arrives == (dst, public),
                }
        });
        if taken {
            return false;
        }
        let is_numbered = self.numbered.contains(&address);
        let owner = self
            .owned
            .iter_mut()
            .find(|owned| (owned.protocol, owned.public) == (protocol, public));
        match owner {
            Some(owned) if owned.inside == src => {
                owned.idle &= !is_numbered;
                true
            }
            Some(_) => false,
            None if src.1 < 1024 => src.1 != 0,
            None => {
                self.owned.push(Owned {
                    protocol,
                    public,
                    holder: Holder::Expectation,
                    inside: src,
                    idle: false,
                });
                true
            }
        }
    }

    /// The public port of a connection to `dst`: that of its inside end, or one that is shared where
    /// the pool has none or another connection has that port to the same remote end.
    fn public_port(
        &mut self,
        protocol: u8,
        inside: End,
        dst: End,
        address: Address,
        chosen: Option<u16>,
    ) -> Result<u16, Reason> {
        let answers = |port| (dst, (address, port));
        let mapping = match self.by_remote_end {
            true => Err(PortsExhausted),
            false => self.mapping(protocol, inside, address, chosen),
        };
        match mapping {
            Ok(port) if !self.is_answer(Zone::Inside, protocol, answers(port)) => return Ok(port),
            Ok(_) => {}
            Err(refused) if !self.numbered.contains(&address) => return Err(refused),
            Err(_) => {}
        }
        let holder = |port| {
            let it = |o: &&Owned| (o.protocol, o.public) == (protocol, (address, port));
            self.owned.iter().find(it).map(|owned| owned.holder)
        };
        let is_held = |port| {
            let held = (protocol, (address, port), false);
            self.owned.iter().any(|o| (o.protocol, o.public, o.idle) == held)
        };
        let good: Vec<u16> = self
            .pool
            .iter()
            .copied()
            .filter(|port| !self.is_answer(Zone::Inside, protocol, answers(*port)))
            .filter(|port| {
                matches!(holder(*port), None | Some(Holder::Masquerade | Holder::Shared))
            })
            .collect();
        let port = match chosen {
            _ if good.is_empty() => return Err(PortsExhausted),
            Some(port) if good.contains(&port) => port,
            // No flow came of it and no word has changed: it was one that is held anyway.
            _ => good.iter().copied().find(|port| is_held(*port)).unwrap_or(good[0]),
        };
        let public = (address, port);
        match self.owned.iter_mut().find(|o| (o.protocol, o.public) == (protocol, public)) {
            Some(owned) => owned.idle = false,
            None => {
                let (holder, inside) = (Holder::Shared, ([0; 4], 0));
                self.owned.push(Owned { protocol, public, holder, inside, idle: false });
            }
        }
        Ok(port)
    }

    /// The public port of an inside end: the one it has, its own, or any free one of the pool.
    fn mapping(
        &mut self,
        protocol: u8,
        inside: End,
        address: Address,
        chosen: Option<u16>,
    ) -> Result<u16, Reason> {
        if !self.numbered.contains(&address) {
            return Err(PortsExhausted);
        }
        let has = |o: &&mut Owned| {
            (o.protocol, o.inside, o.public.0) == (protocol, inside, address)
                && o.holder == Holder::Masquerade
        };
        if let Some(mapped) = self.owned.iter_mut().find(has) {
            mapped.idle = false;
            return Ok(mapped.public.1);
        }
        let mut free: Vec<u16> = self
            .pool
            .iter()
            .copied()
            .filter(|port| {
                !self.owned.iter().any(|o| o.protocol == protocol && o.public == (address, *port))
            })
            .collect();
        if self.parity && protocol == UDP && free.iter().any(|port| port % 2 == inside.1 % 2) {
            free.retain(|port| port % 2 == inside.1 % 2);
        }
        let port = match chosen {
            _ if free.contains(&inside.1) => inside.1,
            _ if free.is_empty() => return Err(PortsExhausted),
            Some(port) if free.contains(&port) => port,
            // Not chosen, or not a free one: the comparison will fail and show this one.
            _ => free[0],
        };
        let public = (address, port);
        let holder = Holder::Masquerade;
        self.owned.push(Owned { protocol, public, holder, inside, idle: false });
        Ok(port)
    }

    /// Whether a connection has these answers, to packets from `from`.
    fn is_answer(&self, from: Zone, protocol: u8, answers: (End, End)) -> bool {
        self.connections.iter().any(|other| other.answers(from.other(), protocol, answers))
    }

    fn begin(
        &mut self,
        from: Zone,
        protocol: u8,
        arrives: (End, End),
        leaves: (End, End),
        rule: u32,
        kin: Kin,
    ) -> Result<(usize, usize), Reason> {
        let is_outside = matches!(self.place(arrives.0.0), Place::Wan | Place::Elsewhere);
        if from == Zone::Outside && !is_outside {
            return Err(NotAllowed);
        }
        let begun = Connection {
            from,
            protocol,
            arrives,
            leaves,
            rule,
            kin,
            seen: [0; 2],
            takes: [None; 2],
            packets: [0; 2],
            bytes: [0; 2],
            last: [self.now; 2],
            led: [None; 2],
        };
        let (answers, from_there) = ((leaves.1, leaves.0), begun.answered_from());
        let clashes = |other: &Connection| other.answers(from_there, protocol, answers);
        // One that has ended makes room for a connection to an inside host.
        if (from == Zone::Outside || begun.turns_back()) && protocol == TCP {
            let ended = |other: &Connection| (other.seen[0] | other.seen[1]) & 12 != 0;
            self.connections.retain(|other| !(clashes(other) && ended(other)));
        }
        if self.connections.iter().any(clashes) {
            return Err(TupleTaken);
        }
        if self.connections.len() * 2 >= self.capacity {
            return Err(TableFull);
        }
        self.connections.push(begun);
        self.made = true;
        Ok((self.connections.len() - 1, 0))
    }
}

impl Connection {
    /// Whether packets of it arrive so from that side: the answers of one connection must not be
    /// packets of another.
    fn answers(&self, from: Zone, protocol: u8, wanted: (End, End)) -> bool {
        let answers = (self.leaves.1, self.leaves.0);
        self.protocol == protocol
            && (self.from == from && self.arrives == wanted
                || self.answered_from() == from && answers == wanted)
    }
}

/// An option of a SYN of an inspected control connection: room for longer lines, and one path.
fn for_inspection(option: Opt) -> Vec<Opt> {
    match option {
        Opt::Mss(mss) => vec![Opt::Mss(mss.saturating_sub(40).max(mss.min(256)))],
        Opt::Mptcp(_) => vec![Opt::Nop; 4],
        other => vec![other],
    }
}

/// The scale that a SYN announces: more than 14 counts as 14.
fn scale(options: &[Opt]) -> u8 {
    let announced = options.iter().find_map(|option| match option {
        Opt::Scale(scale) => Some(*scale),
        _ => None,
    });
    announced.unwrap_or(0).min(14)
}
