//! Inside hosts by address, how many flows each has opened and how many public ports it has: values of
//! the maps `hosts` and `hosts6`, of which the latter counts no ports.
//!
//! The data plane only ever adds to [`Host::made`]; how many flows there are the agent knows, which
//! counts them with every pass over the flow table and moves [`Host::base`] to where that leads. So a
//! count cannot drift, however a flow ends. Ports are counted alike, with the pass over the ports.
//!
//! ```text
//!   made 1041 --+            flows of the host: made - base
//!               |= 37
//!   base 1004 --+            moved by the agent: made when its pass began, less the flows that it met
//! ```
//!
//! A host is found at one of [`HOST_PROBES`] places in a row. Where others have them all, a new host is
//! let in uncounted, and the next pass puts it in the place of the one with the fewest flows, if it has
//! more: so those that are not listed are small.

use crate::{flow_table::mixed, six::Address6};
use core::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Places in the map `hosts`.
pub const HOSTS: u32 = 65536;
/// Places in the map `hosts6`.
pub const HOSTS6: u32 = 16384;
/// Places that a host may have.
pub const HOST_PROBES: u32 = 16;

/// A value of the map `hosts` or `hosts6`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Host {
    /// Whose place this is, by [`who`] or [`who6`]; 0 while it is nobody's.
    pub who: u64,
    /// Flows that were ever opened, of all hosts that this place was for.
    pub made: u64,
    /// What that was when the host had no flow.
    pub base: u64,
    /// New flows that were refused.
    pub refused: u64,
    /// Public ports that were ever taken, of all hosts that this place was for.
    pub taken: u64,
    /// What that was when the host had no port.
    pub taken_base: u64,
    /// Zeros, which make it a cache line.
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Host>() == 64, "a cache line");

/// Which of its counts of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Flows.
    Flows,
    /// Public ports.
    Ports,
}

impl Count {
    /// Word of what was ever added.
    #[inline(always)]
    pub const fn added(self) -> usize {
        match self {
            Self::Flows => 1,
            Self::Ports => 4,
        }
    }

    /// Word of where that began.
    #[inline(always)]
    pub const fn base(self) -> usize {
        match self {
            Self::Flows => 2,
            Self::Ports => 5,
        }
    }
}

const _: () = {
    assert!(offset_of!(Host, who) == WHO * 8 && offset_of!(Host, refused) == REFUSED * 8);
    assert!(offset_of!(Host, made) == Count::Flows.added() * 8);
    assert!(offset_of!(Host, base) == Count::Flows.base() * 8);
    assert!(offset_of!(Host, taken) == Count::Ports.added() * 8);
    assert!(offset_of!(Host, taken_base) == Count::Ports.base() * 8);
};

/// Word of whose place it is.
pub const WHO: usize = 0;
/// Word of the refusals.
pub const REFUSED: usize = 3;

/// The first word of the place of a host; never 0.
#[inline(always)]
pub const fn who(address: [u8; 4]) -> u64 {
    u32::from_ne_bytes(address) as u64 | 1 << 32
}

/// The address of a host, by the first word of its place.
pub const fn address(who: u64) -> [u8; 4] {
    (who as u32).to_ne_bytes()
}

/// The first word of the place of a host by its address of IPv6 ([`words6`]), in the map `hosts6`; never 0.
/// The `seeds` are those of the flow table ([`crate::layout::Geometry`]): nobody can pick an address that
/// counts as another's. Those with the same first half never do, others by a chance of one in 2^64.
#[inline(always)]
pub const fn who6([first, second]: [u64; 2], seeds: [u64; 2]) -> u64 {
    let who = mixed(mixed(first ^ seeds[0]).wrapping_add(second) ^ seeds[1]);
    if who == 0 { 1 } else { who }
}

/// An address of IPv6 as two words, as they lie in memory.
#[inline(always)]
pub const fn words6(address: &Address6) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// The place number `probe` of those that a host may have among so many, which are a power of two up to
/// [`HOSTS`].
#[inline(always)]
pub const fn index(who: u64, probe: u32, places: u32) -> u32 {
    let start = (who.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
    start.wrapping_add(probe) % places
}

/// What a host has, of what was added since `base`. What is counted and taken back meanwhile may make it
/// one less than none.
#[inline(always)]
pub const fn since(added: u64, base: u64) -> u64 {
    let count = added.wrapping_sub(base);
    if count >> 63 != 0 { 0 } else { count }
}

/// Whether a host with so many may have no more; a limit of 0 is none.
#[inline(always)]
pub const fn is_at_limit(count: u64, limit: u32) -> bool {
    limit != 0 && count >= limit as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_anybodys_but_never_nobodys() {
        for host in [[0; 4], [10, 0, 1, 2], [255; 4]] {
            assert_ne!(who(host), 0);
            assert_eq!(address(who(host)), host);
            for number in [HOSTS, HOSTS6] {
                let place = |probe| index(who(host), probe, number);
                let places: Vec<u32> = (0..HOST_PROBES).map(place).collect();
                assert!(places.iter().all(|place| *place < number));
                assert!(places.windows(2).all(|pair| (pair[0] + 1) % number == pair[1]));
            }
        }
    }

    #[test]
    fn the_hosts_of_a_network_spread_over_the_places() {
        // Of a /16 nobody may be without a place.
        let mut taken = vec![0u64; HOSTS as usize];
        let listed = (0..=255u8)
            .flat_map(|third| (0..128u8).map(move |fourth| who([10, 7, third, fourth])))
            .filter(|who| {
                let free = (0..HOST_PROBES)
                    .map(|probe| index(*who, probe, HOSTS) as usize)
                    .find(|place| taken[*place] == 0);
                free.map(|place| taken[place] = *who).is_some()
            })
            .count();
        assert_eq!(listed, 256 * 128);
    }

    #[test]
    fn no_two_addresses_of_ipv6_count_as_one_and_they_spread_over_the_places() {
        let seeds = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
        let address = |network: u16, host: u32| {
            let mut address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            [address[6], address[7]] = network.to_be_bytes();
            [address[12], address[13], address[14], address[15]] = host.to_be_bytes();
            address
        };
        let all = (0..64).flat_map(|network| (0..1024).map(move |host| address(network, host)));
        let mut seen: Vec<u64> = all.map(|address| who6(words6(&address), seeds)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 64 * 1024);
        assert!(!seen.contains(&0));
        let mut first: Vec<u32> = seen.iter().map(|who| index(*who, 0, HOSTS6)).collect();
        first.sort_unstable();
        first.dedup();
        // Four a place, so that one in e^4 is left out.
        assert!(first.len() > HOSTS6 as usize * 97 / 100, "{}", first.len());
        let other = [seeds[1], seeds[0]];
        assert_ne!(who6(words6(&address(1, 2)), seeds), who6(words6(&address(1, 2)), other));
    }

    #[test]
    fn the_limit_is_reached_with_its_last_flow_and_0_is_none() {
        assert!(!is_at_limit(since(103, 100), 4) && is_at_limit(since(104, 100), 4));
        assert!(!is_at_limit(u64::MAX >> 1, 0));
        assert_eq!((since(99, 100), since(2, u64::MAX)), (0, 3));
    }
}
