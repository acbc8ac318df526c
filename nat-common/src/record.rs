//! Flow records as they lie in the map `flows`: one line of 64 bytes for each direction.
//!
//! Everything that a packet needs is in one cache line: the key, the action, when it was last used.
//! Whether a line is in use, and by which generation of flow, says its word [`State`], the only word
//! that is ever decided about: packets move it by compare-and-swap when they use a flow, the sweep
//! when it ends one, so that no flow that was just used is deleted. The algorithm that places lines
//! is in [`crate::flow_table`].
//!
//! ```text
//!    0  state      last seen 32 | version 8 | seen 8 | flags 8 | phase 8
//!    8  key        addresses and ports; protocol, zone, and in its hole the origin
//!   24  action     what packets leave with
//!   36  acknowledged, of TCP
//!   40  reach      of this place, whoever lies in it | packets, high | created
//!   48  packets, low | hop and epoch
//!   56  bytes 48 | window 16, of TCP
//! ```

use crate::{
    flow::{Flow, FlowKey, Rewrite},
    hop::HopReference,
    port::Port,
    tcp,
    tcp_window::Receiving,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of 64 bits in a record.
pub const WORDS: usize = 8;

/// What a line is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody's.
    Free,
    /// Taken, and being written.
    Claimed,
    /// A flow.
    Live,
    /// A flow that is being removed: no packet uses it any more, nobody takes its place yet.
    Ending,
}

impl Phase {
    const fn code(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Claimed => 1,
            Self::Live => 2,
            Self::Ending => 3,
        }
    }
}

/// First word of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(u64);

impl State {
    const VERSION: u32 = 32;
    const SEEN: u32 = 40;
    const FLAGS: u32 = 48;
    const PHASE: u32 = 56;

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Seconds of the monotonic clock at the last packet.
    #[inline(always)]
    pub const fn last_seen(self) -> u32 {
        self.0 as u32
    }

    /// Moves on whenever a line is freed.
    #[inline(always)]
    pub const fn version(self) -> u8 {
        (self.0 >> Self::VERSION) as u8
    }

    /// Bits of [`crate::tcp`] that were seen in this direction.
    #[inline(always)]
    pub const fn seen(self) -> u8 {
        (self.0 >> Self::SEEN) as u8
    }

    /// What was seen in this direction, and in the `other` one of the same flow: as if there had been no
    /// RST that the other end has outlived.
    pub const fn seen_with(self, other: Self) -> (u8, u8) {
        let (last, other_last) = (self.last_seen(), other.last_seen());
        (
            tcp::outlived(self.seen(), last, other_last),
            tcp::outlived(other.seen(), other_last, last),
        )
    }

    /// Flags of [`Flow`].
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> Self::FLAGS) as u8
    }

    /// What the line is in.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 >> Self::PHASE {
            0 => Phase::Free,
            2 => Phase::Live,
            3 => Phase::Ending,
            _ => Phase::Claimed,
        }
    }

    /// Whether a packet may use the line.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 >> Self::PHASE == Phase::Live.code()
    }

    /// Whether the flow of the state `observed` is in the line still, and a packet may use it.
    #[inline(always)]
    pub const fn lives_on(self, observed: Self) -> bool {
        let (version, phase) = (0xff << Self::VERSION, 0xff << Self::PHASE);
        self.0 & (version | phase) == observed.0 & version | Phase::Live.code() << Self::PHASE
    }

    /// Whether a flow has its key in the line: live, or ending.
    #[inline(always)]
    pub const fn has_key(self) -> bool {
        self.0 >> Self::PHASE >= Phase::Live.code()
    }

    /// Whether the line may be taken.
    #[inline(always)]
    pub const fn is_free(self) -> bool {
        self.0 >> Self::PHASE == Phase::Free.code()
    }

    /// The same generation of the line in another phase.
    #[inline(always)]
    pub const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !(0xff << Self::PHASE) | phase.code() << Self::PHASE)
    }

    /// Used by a packet at `now` that adds `seen`. A RST is forgotten with the next packet: who goes on
    /// has sent none (RFC 7857 section 2.2).
    #[inline(always)]
    pub const fn touched(self, now: u32, seen: u8) -> Self {
        let reset = (tcp::RST as u64) << Self::SEEN;
        Self(self.0 & !(0xffff_ffff | reset) | now as u64 | (seen as u64) << Self::SEEN)
    }

    /// A flow begins in a line that was claimed in this state.
    #[inline(always)]
    pub const fn live(self, flow: &Flow) -> Self {
        let version = self.0 & 0xff << Self::VERSION;
        Self(
            version
                | flow.last_seen as u64
                | (flow.seen as u64) << Self::SEEN
                | (flow.flags() as u64) << Self::FLAGS
                | Phase::Live.code() << Self::PHASE,
        )
    }

    /// A flow goes on in a line that was claimed in the state `claimed`.
    #[inline(always)]
    pub const fn moved_to(self, claimed: Self) -> Self {
        let version = 0xff << Self::VERSION;
        Self(self.0 & !version | claimed.0 & version).with_phase(Phase::Live)
    }

    /// The line is free for the next generation.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self((self.version().wrapping_add(1) as u64) << Self::VERSION)
    }
}

/// A value of the map `flows`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowRecord {
    state: u64,
    src: [u8; 4],
    dst: [u8; 4],
    sport: Port,
    dport: Port,
    protocol: u8,
    zone: u8,
    origin: u16,
    rewrite: Rewrite,
    acknowledged: u32,
    reach: u16,
    packets_high: u16,
    created: u32,
    packets_low: u32,
    hop: u16,
    epoch: u16,
    bytes_low: u32,
    bytes_high: u16,
    window: u16,
}

const _: () = assert!(size_of::<FlowRecord>() == WORDS * 8);

/// Word of the state.
pub const STATE: usize = 0;
/// First word of the key.
pub const KEY: usize = 1;
/// First word of the action.
pub const ACTION: usize = 3;
/// Word in whose low 16 bits the reach is.
pub const REACH: usize = 5;
/// Offset of the high half of the packet count in bytes.
pub const PACKETS_HIGH: usize = 42;
/// Offset of the time of creation in bytes.
pub const CREATED: usize = 44;
/// Offset of the low half of the packet count in bytes.
pub const PACKETS_LOW: usize = 48;
/// Offset of hop and epoch in bytes.
pub const HOP: usize = 52;
/// Offset of the acknowledgement number in bytes.
pub const ACKNOWLEDGED: usize = 36;
/// Offset of the byte count in bytes; in the upper 16 bits of its word is the window.
pub const BYTES: usize = 56;
/// Offset of the window in bytes.
pub const WINDOW: usize = 62;
/// Bits of the byte count in its word.
const COUNT_BITS: u32 = 48;
/// Bits of the second word of the key that are the key's; the others are the origin.
pub const KEY_MASK: u64 = 0x0000_ffff_ffff_ffff;

/// A packet that uses a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// When, in seconds of the monotonic clock.
    pub now: u32,
    /// Its bytes from the IP header on.
    pub bytes: u32,
    /// The bits that it adds to what was seen.
    pub seen: u8,
    /// What it says that its sender is ready to receive; nothing where it is not TCP.
    pub receiving: Receiving,
}

/// The word at [`BYTES`] after a packet of `bytes` that states `window`.
#[inline(always)]
pub const fn counted(word: u64, bytes: u32, window: u16) -> u64 {
    (word.wrapping_add(bytes as u64) & ((1 << COUNT_BITS) - 1)) | (window as u64) << COUNT_BITS
}

impl FlowRecord {
    /// The line of a flow that begins; its reach is that of a line alone.
    pub const fn new(state: State, key: &FlowKey, flow: &Flow) -> Self {
        Self {
            state: state.live(flow).word(),
            src: key.src(),
            dst: key.dst(),
            sport: key.sport(),
            dport: key.dport(),
            protocol: key.protocol(),
            zone: key.zone_code(),
            origin: flow.origin_code(),
            rewrite: *flow.rewrite(),
            acknowledged: 0,
            reach: 0,
            packets_high: 0,
            created: flow.last_seen,
            packets_low: 0,
            hop: flow.hop.index(),
            epoch: flow.hop.epoch(),
            bytes_low: 0,
            bytes_high: 0,
            window: 0,
        }
    }

    /// Its words.
    #[inline(always)]
    pub const fn words(&self) -> [u64; WORDS] {
        zerocopy::transmute!(*self)
    }

    /// From its words.
    #[inline(always)]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    /// Its state.
    #[inline(always)]
    pub const fn state(&self) -> State {
        State(self.state)
    }

    /// The packets that it is for.
    pub const fn key(&self) -> FlowKey {
        FlowKey::from_parts(self.zone, self.protocol, self.src, self.sport, self.dst, self.dport)
    }

    /// The flow as packets see it.
    #[inline(always)]
    pub const fn flow(&self) -> Flow {
        Flow::from_parts(
            self.state(),
            self.origin,
            self.rewrite,
            HopReference::from_parts(self.hop, self.epoch),
        )
    }

    /// The line after a packet: what the data plane does word by word.
    #[must_use]
    pub const fn used(mut self, by: Use) -> Self {
        let packets = self.packets() + 1;
        self.state = self.state().touched(by.now, by.seen).word();
        self.packets_low = packets as u32;
        self.packets_high = (packets >> 32) as u16;
        self.acknowledged = by.receiving.acknowledged;
        let word = counted(self.bytes(), by.bytes, by.receiving.window);
        self.bytes_low = word as u32;
        self.bytes_high = (word >> 32) as u16;
        self.window = (word >> COUNT_BITS) as u16;
        self
    }

    /// The line when its packets leave by `hop`.
    #[must_use]
    pub const fn led(mut self, hop: HopReference) -> Self {
        self.hop = hop.index();
        self.epoch = hop.epoch();
        self
    }

    /// The same generation of the line in another phase.
    #[must_use]
    pub const fn in_phase(mut self, phase: Phase) -> Self {
        self.state = self.state().with_phase(phase).word();
        self
    }

    /// The line when its flow has ended: free, of the next version.
    #[must_use]
    pub const fn freed(self) -> Self {
        let state = self.state().freed().word();
        let mut words = [0; WORDS];
        words[STATE] = state;
        Self::from_words(words)
    }

    /// Seconds of the monotonic clock when it was made.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// Packets of this direction that were translated.
    pub const fn packets(&self) -> u64 {
        (self.packets_high as u64) << 32 | self.packets_low as u64
    }

    /// Their bytes from the IP header on.
    pub const fn bytes(&self) -> u64 {
        (self.bytes_high as u64) << 32 | self.bytes_low as u64
    }

    /// What the last of them said that its sender is ready to receive.
    pub const fn receiving(&self) -> Receiving {
        Receiving { acknowledged: self.acknowledged, window: self.window }
    }
}
