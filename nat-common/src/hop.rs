//! Next hops by number: what `bpf_fib_lookup` said once, kept true by the agent.
//!
//! A flow record refers to a hop and to the epoch in which the kernel's routing led there. The agent
//! moves the epoch on ([`crate::settings::Settings::epoch`]) when routes, rules, addresses or
//! interfaces change: every reference is void then, and the next packet of a flow asks the kernel
//! anew. Link addresses change without a new epoch: they stand in the hop itself, where the agent
//! writes them from the kernel's neighbour table; while there are none, a packet asks the kernel.
//!
//! ```text
//!   flow record -- hop 17, epoch 4 --> hops[17]  203.0.113.10 on 3, aa:.. from bb:.., MTU 1500
//!                                      settings  epoch 4: still true
//! ```
//!
//! The data plane takes a free place for a new hop, by compare-and-swap of its first word; the agent
//! fills in the rest, and frees places that no epoch of late refers to: it closes them first
//! ([`Hop::CLOSED`], and no MTU), so that packets under way refer to nothing that is about to become
//! another hop; frees them when every packet of that time is long gone; and moves the epoch on in
//! between.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Places in the map `hops`; the first one is never used.
pub const HOPS: u32 = 16384;
/// Places that are tried for a hop.
pub const HOP_PROBES: u32 = 8;

/// Where the search for the hop of the word `who` begins.
#[inline(always)]
pub const fn start(who: u64) -> u32 {
    ((who ^ who >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32
}

/// The place number `probe` of such a search; never the first one, which stands for no hop.
#[inline(always)]
pub const fn index(start: u32, probe: u32) -> u32 {
    start.wrapping_add(probe) % (HOPS - 1) + 1
}

/// A value of the map `hops`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Hop {
    neighbour: [u8; 4],
    ifindex: u32,
    link: [u8; 6],
    resolved: u16,
    own: [u8; 6],
    mtu: u16,
    epoch: u32,
    padding: [u8; 4],
}

const _: () = assert!(size_of::<Hop>() == 32);

/// Words of 64 bits in a hop.
pub const WORDS: usize = 4;
/// Word of who it is: neighbour and interface.
pub const WHO: usize = 0;
/// Word of the neighbour's link address, and whether it is known.
pub const LINK: usize = 1;
/// Word of the interface's own link address and its MTU.
pub const OWN: usize = 2;
/// Offset in bytes of the epoch, 32 bits, in which the data plane last led a flow here.
pub const EPOCH: usize = 24;

impl Hop {
    /// The first word of the hop to `neighbour` on the interface number `ifindex`; never 0.
    #[inline(always)]
    pub const fn who(neighbour: [u8; 4], ifindex: u32) -> u64 {
        u32::from_ne_bytes(neighbour) as u64 | (ifindex as u64) << 32
    }

    /// The second word of a hop whose neighbour has this link address.
    #[inline(always)]
    pub const fn resolved([a, b, c, d, e, f]: [u8; 6]) -> u64 {
        u64::from_ne_bytes([a, b, c, d, e, f, 1, 0])
    }

    /// The third word of a hop on an interface with this link address and MTU.
    #[inline(always)]
    pub const fn own([a, b, c, d, e, f]: [u8; 6], mtu: u16) -> u64 {
        let [high, low] = mtu.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, high, low])
    }

    /// From its words.
    #[inline(always)]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    /// The second word of a hop that the agent is about to free: the data plane makes no reference to
    /// it any more.
    pub const CLOSED: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 2, 0]);

    /// Whether the agent is about to free it.
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        self.resolved == 2
    }

    /// Its words.
    #[inline(always)]
    pub const fn words(&self) -> [u64; WORDS] {
        zerocopy::transmute!(*self)
    }

    /// The same, when a flow was led here in `epoch`.
    #[must_use]
    pub const fn in_epoch(self, epoch: u32) -> Self {
        Self { epoch, ..self }
    }

    /// Whether the place is taken.
    #[inline(always)]
    pub const fn is_taken(&self) -> bool {
        self.ifindex != 0
    }

    /// A router, or the destination itself.
    #[inline(always)]
    pub const fn neighbour(&self) -> [u8; 4] {
        self.neighbour
    }

    /// Number of the interface.
    #[inline(always)]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Link addresses; `None` while the agent has not written them.
    #[inline(always)]
    pub const fn link(&self) -> Option<Link> {
        let [_, link, own, _] = self.words();
        if self.resolved == 1 { Some(Link::of(link, own)) } else { None }
    }

    /// Longest packet from the IP header on; 0 while the agent has not written it.
    #[inline(always)]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The epoch in which the data plane last led a flow here.
    #[inline(always)]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// The link addresses of a frame as they lie at its beginning: of the neighbour, then our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link([u32; 3]);

impl Link {
    /// To a neighbour, from our own address.
    pub const fn new([a, b, c, d, e, f]: [u8; 6], [g, h, i, j, k, l]: [u8; 6]) -> Self {
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ])
    }

    /// From the words [`LINK`] and [`OWN`] of a hop.
    #[inline(always)]
    const fn of(link: u64, own: u64) -> Self {
        Self([link as u32, (link >> 32) as u32 & 0xffff | (own as u32) << 16, (own >> 16) as u32])
    }

    /// The first bytes of the frame.
    pub const fn bytes(self) -> [u8; 12] {
        zerocopy::transmute!(self.0)
    }

    /// The first three words of the frame.
    #[inline(always)]
    pub const fn words(self) -> [u32; 3] {
        self.0
    }
}

/// Reference of a flow to a hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopReference {
    index: u16,
    epoch: u16,
}

impl HopReference {
    /// To no hop.
    pub const NONE: Self = Self { index: 0, epoch: 0 };

    /// To the hop number `index`, found in `epoch`.
    #[inline(always)]
    pub const fn new(index: u32, epoch: u32) -> Self {
        Self { index: index as u16, epoch: epoch as u16 }
    }

    /// As it lies in a record.
    #[inline(always)]
    pub(crate) const fn from_parts(index: u16, epoch: u16) -> Self {
        Self { index, epoch }
    }

    /// From the half word at [`crate::record::HOP`].
    #[inline(always)]
    pub const fn from_half(half: u32) -> Self {
        let [a, b, c, d] = half.to_ne_bytes();
        Self { index: u16::from_ne_bytes([a, b]), epoch: u16::from_ne_bytes([c, d]) }
    }

    /// The half word at [`crate::record::HOP`].
    #[inline(always)]
    pub const fn half(self) -> u32 {
        let [[a, b], [c, d]] = [self.index.to_ne_bytes(), self.epoch.to_ne_bytes()];
        u32::from_ne_bytes([a, b, c, d])
    }

    /// The hop, if it is still true in `epoch`.
    #[inline(always)]
    pub const fn in_epoch(self, epoch: u32) -> Option<u32> {
        if self.index != 0 && self.epoch == epoch as u16 { Some(self.index as u32) } else { None }
    }

    /// Number of the hop; 0 for none.
    #[inline(always)]
    pub const fn index(self) -> u16 {
        self.index
    }

    /// The epoch, its low 16 bits.
    #[inline(always)]
    pub const fn epoch(self) -> u16 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_its_words() {
        let words = [
            Hop::who([203, 0, 113, 10], 3),
            Hop::resolved([1, 2, 3, 4, 5, 6]),
            Hop::own([7, 8, 9, 10, 11, 12], 1500),
            9,
        ];
        let hop = Hop::from_words(words);
        assert!(hop.is_taken());
        assert_eq!((hop.neighbour(), hop.ifindex()), ([203, 0, 113, 10], 3));
        let link = Link::new([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        assert_eq!(hop.link(), Some(link));
        assert_eq!(link.bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!((hop.mtu(), hop.epoch()), (1500, 9));
        let fresh = Hop::from_words([words[WHO], 0, 0, 0]);
        assert_eq!((fresh.link(), fresh.mtu()), (None, 0));
        assert!(!Hop::default().is_taken());
    }

    #[test]
    fn a_reference_is_void_in_another_epoch() {
        let reference = HopReference::new(17, 0x1_0004);
        assert_eq!(HopReference::from_half(reference.half()), reference);
        assert_eq!(reference.in_epoch(4), Some(17));
        assert_eq!(reference.in_epoch(5), None);
        assert_eq!(HopReference::NONE.in_epoch(0), None);
    }
}
