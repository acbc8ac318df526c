//! Datagrams that come in fragments: what the first one, which has the ports, tells about the others.
//!
//! Each fragment is translated by itself, and none is put together: its identification names the
//! datagram (RFC 791 section 3.2), an entry of the map `fragments` says what the datagram's ports are
//! and what its fragments leave with.

use crate::{
    flow::{Rewrite, Zone},
    flow_table,
    port::Port,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Datagrams that are remembered at a time; the one that was used longest ago makes room.
pub const FRAGMENTED: u32 = 16384;

/// Seconds in which the fragments of a datagram have to come: as long as Linux puts one together
/// (`net.ipv4.ipfrag_time`). RFC 791 begins with 15, RFC 1122 section 3.3.2 wants 60 of a host; but the
/// sooner an identification is forgotten, the sooner it may come again.
pub const LIFETIME: u32 = 30;

/// Counters of identifications; those of several pairs of addresses may be one.
pub const IDENTIFICATIONS: u32 = 1024;

/// A datagram on its way: key of the map `fragments`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey {
    src: [u8; 4],
    dst: [u8; 4],
    identification: [u8; 2],
    protocol: u8,
    zone: u8,
}

const _: () = assert!(size_of::<FragmentKey>() == 12);

impl FragmentKey {
    /// The datagram with this identification, as its fragments arrive from `zone`.
    #[inline(always)]
    pub const fn new(
        zone: Zone,
        protocol: u8,
        src: [u8; 4],
        dst: [u8; 4],
        identification: u16,
    ) -> Self {
        let zone = match zone {
            Zone::Inside => 1,
            Zone::Outside => 2,
        };
        Self { src, dst, identification: identification.to_be_bytes(), protocol, zone }
    }

    /// What its fragments arrive with.
    #[inline(always)]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes(self.identification)
    }

    /// Who sends it.
    pub const fn src(&self) -> [u8; 4] {
        self.src
    }
}

/// What is known of a datagram: value of the map `fragments`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fragmented {
    sport: Port,
    dport: Port,
    identification: u16,
    mtu: u16,
    src: [u8; 4],
    dst: [u8; 4],
    ifindex: u32,
    expires: u32,
}

const _: () = assert!(size_of::<Fragmented>() == 24);

impl Fragmented {
    /// A datagram with these ports, whose fragments leave as `rewrite` says with this identification, by
    /// the interface `ifindex`, which takes packets of up to `mtu` bytes (0: not known); until `expires`.
    #[inline(always)]
    pub const fn new(
        [sport, dport]: [Port; 2],
        rewrite: &Rewrite,
        identification: u16,
        (ifindex, mtu): (u32, u32),
        expires: u32,
    ) -> Self {
        let mtu = if mtu > u16::MAX as u32 { u16::MAX } else { mtu as u16 };
        let (src, dst) = (rewrite.src(), rewrite.dst());
        Self { sport, dport, identification, mtu, src, dst, ifindex, expires }
    }

    /// Source and destination port, as they arrive.
    #[inline(always)]
    pub const fn ports(&self) -> [Port; 2] {
        [self.sport, self.dport]
    }

    /// What its fragments leave with.
    #[inline(always)]
    pub const fn identification(&self) -> u16 {
        self.identification
    }

    /// Source and destination that its fragments leave with.
    pub const fn addresses(&self) -> [[u8; 4]; 2] {
        [self.src, self.dst]
    }

    /// The interface that its fragments leave by.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The longest packet that leaves there; `None` where that is not known.
    pub const fn mtu(&self) -> Option<usize> {
        if self.mtu == 0 { None } else { Some(self.mtu as usize) }
    }

    /// Whether its fragments may still come.
    #[inline(always)]
    pub const fn is_alive(&self, now: u32) -> bool {
        now < self.expires
    }
}

/// The place of the counter of identifications from `src` to `dst` (RFC 6864 section 4.3 wants them
/// unique for addresses and protocol); nobody outside can know which others have the same.
#[inline(always)]
pub const fn counter(src: [u8; 4], dst: [u8; 4], protocol: u8, seeds: [u64; 2]) -> u32 {
    let [a, b, c, d] = src;
    let [e, f, g, h] = dst;
    let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    flow_table::hash([addresses, protocol as u64], seeds) as u32 % IDENTIFICATIONS
}

/// An identification for a count; never 0, in whose place a raw socket puts its own (raw(7)).
#[inline(always)]
pub const fn identification(count: u64) -> u16 {
    (count % 0xffff) as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifications_come_again_only_after_all_others() {
        let all: std::collections::HashSet<u16> = (7..7 + 0xffff).map(identification).collect();
        assert_eq!(all.len(), 0xffff);
        assert!(!all.contains(&0));
        assert_eq!(identification(u64::MAX), identification(u64::MAX % 0xffff));
    }
}
