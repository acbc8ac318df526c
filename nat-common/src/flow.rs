//! Flows: one record for each direction, found by the tuple of the arriving packet.
//!
//! A record holds the complete action, so that the fast path does one lookup a packet. Each
//! direction writes only its own record: the two directions of a flow arrive on different CPUs.
//! What a flow is as a whole (established, closing) is derived from both by the reader.

use crate::{
    hop::HopReference,
    port::{Endpoint, Port},
    record::State,
    rule::RuleId,
    session::SessionId,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

/// Whether the ends of packets of a protocol have ports here, or identifiers; else addresses alone tell
/// its flows apart.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | ICMP)
}

/// Whether a checksum of such a protocol without ports here is over addresses, and so is not right behind a
/// translation: DCCP (RFC 4340 section 9.1), AH (RFC 4302 section 3.3.3), UDP-Lite (RFC 3828 section
/// 3.1). That of SCTP is not (RFC 9260 section 6.8), and neither is anything of GRE or ESP.
#[inline(always)]
pub const fn covers_addresses(protocol: u8) -> bool {
    const DCCP: u8 = 33;
    const AH: u8 = 51;
    const UDP_LITE: u8 = 136;
    matches!(protocol, DCCP | AH | UDP_LITE)
}

/// Where a packet came from: the side of the gateway that addresses belong to. The same tuple may
/// exist on both sides, and a spoofed one from outside must never hit a record of the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Behind the NAT (`lan`).
    Inside,
    /// In front of it (`wan`).
    Outside,
}

impl Zone {
    #[inline(always)]
    const fn code(self) -> u8 {
        match self {
            Self::Inside => 1,
            Self::Outside => 2,
        }
    }

    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }
}

/// Key of a flow record: 16 bytes without holes, two 64-bit compares.
///
/// For ICMP echo the identifier is the source port of a request and the destination port of a
/// reply, so that a reply has the reverse key of its request (RFC 5508 section 3.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    src: [u8; 4],
    dst: [u8; 4],
    sport: Port,
    dport: Port,
    protocol: u8,
    zone: u8,
    padding: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == 16);

impl FlowKey {
    /// The key of a packet of `protocol` that arrives from `zone`.
    #[inline(always)]
    pub const fn new(
        zone: Zone,
        protocol: u8,
        src: [u8; 4],
        sport: Port,
        dst: [u8; 4],
        dport: Port,
    ) -> Self {
        Self { src, dst, sport, dport, protocol, zone: zone.code(), padding: [0; 2] }
    }

    /// Source address.
    #[inline(always)]
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }

    /// Destination address.
    #[inline(always)]
    pub const fn dst(&self) -> [u8; 4] {
        self.dst
    }

    /// Source port.
    #[inline(always)]
    pub const fn sport(&self) -> Port {
        self.sport
    }

    /// Destination port.
    #[inline(always)]
    pub const fn dport(&self) -> Port {
        self.dport
    }

    /// IANA protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the packet arrives from; a code that is neither is `Outside`, the side that is trusted
    /// less.
    #[inline(always)]
    pub const fn zone(&self) -> Zone {
        if self.zone == Zone::Inside.code() { Zone::Inside } else { Zone::Outside }
    }

    /// From the parts of a record.
    pub(crate) const fn from_parts(
        zone: u8,
        protocol: u8,
        src: [u8; 4],
        sport: Port,
        dst: [u8; 4],
        dport: Port,
    ) -> Self {
        Self { src, dst, sport, dport, protocol, zone, padding: [0; 2] }
    }

    pub(crate) const fn zone_code(&self) -> u8 {
        self.zone
    }

    /// As two words.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        zerocopy::transmute!(*self)
    }

    /// From two words; what is no part of a key is left out.
    #[inline(always)]
    pub const fn from_words([first, second]: [u64; 2]) -> Self {
        let second = second & crate::record::KEY_MASK;
        zerocopy::transmute!([first, second])
    }

    /// The source as an endpoint.
    #[inline(always)]
    pub const fn source(&self) -> Endpoint {
        Endpoint::new(self.protocol, self.src, self.sport)
    }

    /// The destination as an endpoint.
    #[inline(always)]
    pub const fn destination(&self) -> Endpoint {
        Endpoint::new(self.protocol, self.dst, self.dport)
    }

    /// Whether a packet with this key leaves to where it came from when it is rewritten to `rewrite`:
    /// only then both of its addresses change.
    #[inline(always)]
    pub const fn turns_back(&self, rewrite: &Rewrite) -> bool {
        u32::from_ne_bytes(self.src) != u32::from_ne_bytes(rewrite.src)
            && u32::from_ne_bytes(self.dst) != u32::from_ne_bytes(rewrite.dst)
    }

    /// The key of the answer to a packet with this key, once it was rewritten to `rewrite`: source
    /// and destination change places, and it arrives from the other side, unless the packet turns back.
    #[inline(always)]
    pub const fn answer(&self, rewrite: &Rewrite) -> Self {
        Self {
            src: rewrite.dst,
            dst: rewrite.src,
            sport: rewrite.dport,
            dport: rewrite.sport,
            protocol: self.protocol,
            zone: if self.turns_back(rewrite) { self.zone } else { self.zone().other().code() },
            padding: [0; 2],
        }
    }
}

/// The tuple that a packet leaves with.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Rewrite {
    src: [u8; 4],
    dst: [u8; 4],
    sport: Port,
    dport: Port,
}

const _: () = assert!(size_of::<Rewrite>() == 12);

impl Rewrite {
    /// Source translation: `key` leaves with another source.
    #[inline(always)]
    pub const fn source(key: &FlowKey, src: [u8; 4], sport: Port) -> Self {
        Self { src, dst: key.dst, sport, dport: key.dport }
    }

    /// Destination translation: `key` leaves with another destination.
    #[inline(always)]
    pub const fn destination(key: &FlowKey, dst: [u8; 4], dport: Port) -> Self {
        Self { src: key.src, dst, sport: key.sport, dport }
    }

    /// Translation of both ends: to where it came from.
    #[inline(always)]
    pub const fn hairpin(src: [u8; 4], sport: Port, dst: [u8; 4], dport: Port) -> Self {
        Self { src, dst, sport, dport }
    }

    /// What the answer to `key` is rewritten to: back to the reverse of `key`.
    #[inline(always)]
    pub const fn answer(key: &FlowKey) -> Self {
        Self { src: key.dst, dst: key.src, sport: key.dport, dport: key.sport }
    }

    /// New source address.
    #[inline(always)]
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }

    /// New destination address.
    #[inline(always)]
    pub const fn dst(&self) -> [u8; 4] {
        self.dst
    }

    /// New source port.
    #[inline(always)]
    pub const fn sport(&self) -> Port {
        self.sport
    }

    /// New destination port.
    #[inline(always)]
    pub const fn dport(&self) -> Port {
        self.dport
    }
}

/// Who opened the flow, seen from one record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets of the initiator.
    Original,
    /// Packets of the answer.
    Reply,
}

const REPLY: u8 = 1;
const CONTROL: u8 = 2;
const RELATED: u8 = 4;

/// One direction of a flow, as packets see it: the part of its [`crate::record::FlowRecord`] that
/// says what to do.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    rewrite: Rewrite,
    origin: u16,
    flags: u8,
    state: State,
    /// Bits of [`crate::tcp`] that were seen in this direction.
    pub seen: u8,
    /// Seconds of the monotonic clock at its last packet.
    pub last_seen: u32,
    /// Where its packets leave.
    pub hop: HopReference,
}

/// The same flow: it does not matter in which state its line was when it was read.
impl PartialEq for Flow {
    fn eq(&self, other: &Self) -> bool {
        self.rewrite == other.rewrite
            && (self.origin, self.flags, self.seen) == (other.origin, other.flags, other.seen)
            && (self.last_seen, self.hop) == (other.last_seen, other.hop)
    }
}

impl Eq for Flow {}

/// What made a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A rule, or with [`RuleId::NONE`] the masquerade.
    Rule(RuleId),
    /// It is the control connection of this session, whose record names the rule.
    Control(SessionId),
    /// It is a data connection that this session has announced.
    Related(SessionId),
}

impl Flow {
    /// A flow whose packets leave as `rewrite`, made at `now` (seconds).
    #[inline(always)]
    pub const fn new(direction: Direction, rewrite: Rewrite, origin: Origin, now: u32) -> Self {
        let (flags, origin) = match origin {
            Origin::Rule(rule) => (0, rule.number()),
            Origin::Control(session) => (CONTROL, session.number()),
            Origin::Related(session) => (RELATED, session.number()),
        };
        Self {
            rewrite,
            // Rules and sessions are numbered below 2^16: [`RuleId::MAX`], [`crate::layout::SESSIONS`].
            origin: origin as u16,
            flags: match direction {
                Direction::Original => flags,
                Direction::Reply => flags | REPLY,
            },
            state: State::from_word(0),
            seen: 0,
            last_seen: now,
            hop: HopReference::NONE,
        }
    }

    /// From the parts of a record.
    #[inline(always)]
    pub(crate) const fn from_parts(
        state: State,
        origin: u16,
        rewrite: Rewrite,
        hop: HopReference,
    ) -> Self {
        Self {
            rewrite,
            origin,
            flags: state.flags(),
            state,
            seen: state.seen(),
            last_seen: state.last_seen(),
            hop,
        }
    }

    /// The state of the line that it was read from, when it was read.
    #[inline(always)]
    pub const fn state(&self) -> State {
        self.state
    }

    #[inline(always)]
    pub(crate) const fn flags(&self) -> u8 {
        self.flags
    }

    #[inline(always)]
    pub(crate) const fn origin_code(&self) -> u16 {
        self.origin
    }

    /// The same, to leave by `hop`.
    #[inline(always)]
    pub const fn by(mut self, hop: HopReference) -> Self {
        self.hop = hop;
        self
    }

    /// What its packets leave with.
    #[inline(always)]
    pub const fn rewrite(&self) -> &Rewrite {
        &self.rewrite
    }

    /// Which packets it is for.
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        if self.flags & REPLY == 0 { Direction::Original } else { Direction::Reply }
    }

    /// What made it.
    #[inline(always)]
    pub const fn origin(&self) -> Origin {
        if self.flags & CONTROL != 0 {
            Origin::Control(SessionId::from_number(self.origin as u32))
        } else if self.flags & RELATED != 0 {
            Origin::Related(SessionId::from_number(self.origin as u32))
        } else {
            Origin::Rule(RuleId::new(self.origin as u32))
        }
    }

    /// The session whose control connection this is.
    #[inline(always)]
    pub const fn control_session(&self) -> Option<SessionId> {
        match self.origin() {
            Origin::Control(session) => Some(session),
            Origin::Rule(_) | Origin::Related(_) => None,
        }
    }

    /// The session that announced this data connection.
    pub const fn related_session(&self) -> Option<SessionId> {
        match self.origin() {
            Origin::Related(session) => Some(session),
            Origin::Rule(_) | Origin::Control(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{FlowRecord, Phase};

    fn key() -> FlowKey {
        FlowKey::new(Zone::Inside, TCP, [10, 0, 1, 2], Port::new(5000), [9, 9, 9, 9], Port::new(21))
    }

    #[test]
    fn the_answer_to_the_answer_is_the_packet() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let answer = key.answer(&out);
        assert_eq!(
            answer,
            FlowKey::new(
                Zone::Outside,
                TCP,
                [9, 9, 9, 9],
                Port::new(21),
                [203, 0, 113, 1],
                Port::new(6000)
            )
        );
        assert_eq!(answer.answer(&Rewrite::answer(&key)), key);
    }

    #[test]
    fn a_record_says_what_it_was_made_for() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let session = SessionId::new(16383);
        for origin in
            [Origin::Rule(RuleId::MAX), Origin::Control(session), Origin::Related(session)]
        {
            let flow =
                Flow::new(Direction::Reply, out, origin, 42).by(HopReference::new(16383, 0xffff));
            let record = FlowRecord::new(State::default(), &key, &flow);
            assert_eq!((record.key(), record.flow(), record.created()), (key, flow, 42));
            assert_eq!(FlowRecord::from_words(record.words()), record);
            assert_eq!(FlowKey::from_words([record.words()[1], record.words()[2]]), key);
            assert_eq!((flow.origin(), flow.direction()), (origin, Direction::Reply));
            assert_eq!((record.packets(), record.bytes()), (0, 0));
        }
        let control = Flow::new(Direction::Original, out, Origin::Control(session), 1);
        assert_eq!((control.control_session(), control.related_session()), (Some(session), None));
    }

    #[test]
    fn a_state_moves_through_its_phases_with_a_new_version_each_time() {
        let key = key();
        let out = Rewrite::source(&key, [203, 0, 113, 1], Port::new(6000));
        let flow = Flow::new(Direction::Reply, out, Origin::Rule(RuleId::NONE), 7);
        let mut free = State::default();
        for version in 0..=255u8 {
            assert!(free.is_free() && !free.has_key());
            let claimed = free.with_phase(Phase::Claimed);
            assert!(!claimed.is_free() && !claimed.has_key() && claimed.phase() == Phase::Claimed);
            let live =
                claimed.live(&flow).touched(9, crate::tcp::SYN).touched(u32::MAX, crate::tcp::FIN);
            assert!(live.is_live() && live.has_key() && live.phase() == Phase::Live);
            assert_eq!(
                (live.last_seen(), live.seen()),
                (u32::MAX, crate::tcp::SYN | crate::tcp::FIN)
            );
            assert_eq!((live.version(), live.flags()), (version, flow.flags()));
            let ending = live.with_phase(Phase::Ending);
            assert!(!ending.is_live() && ending.has_key() && ending.phase() == Phase::Ending);
            free = ending.freed();
        }
        assert_eq!(free, State::default());
    }
}
