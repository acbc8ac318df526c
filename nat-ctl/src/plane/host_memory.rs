//! The maps `hosts` and `hosts6` as the agent works on them: how many flows each inside host has opened, and
//! how many public ports it has.
//!
//! Invariant: packets alone add to what was made and taken, the sweep alone moves where that begins and
//! gives places to others; so neither loses what the other writes.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use nat_common::host::{self, Count, HOST_PROBES, HOSTS, Host, REFUSED, WHO};

use super::error::Result;
use super::mapped::Mapped;

/// The inside hosts of an instance, by addresses of one family. Each is known by the first word of its place
/// ([`host::who`], [`host::who6`]).
#[derive(Debug)]
pub struct HostMemory(Mapped);

/// A host that is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The first word of its place.
    pub who: u64,
    /// Flows that it has opened, and that are there still, as far as the last pass knew.
    pub flows: u64,
    /// Public ports that it has.
    pub ports: u64,
    /// New flows that were refused since it is listed.
    pub refused: u64,
}

impl HostMemory {
    /// Maps the hosts by addresses of IPv4 that are pinned in `pins`.
    ///
    /// # Errors
    /// Where there are none, or they can't be mapped.
    pub fn open(pins: &Path) -> Result<Self> {
        Mapped::open(pins, "hosts").map(Self)
    }

    /// The same by addresses of IPv6.
    ///
    /// # Errors
    /// See [`HostMemory::open`].
    pub fn open6(pins: &Path) -> Result<Self> {
        Mapped::open(pins, "hosts6").map(Self)
    }

    /// Number of places.
    pub fn places(&self) -> u32 {
        self.0.entries()
    }

    /// The hosts that are listed.
    pub fn listed(&self) -> impl Iterator<Item = Listed> {
        (0..self.places()).filter_map(|place| {
            let Host { who, refused, .. } = self.read(place);
            let (flows, ports) = (self.has(place, Count::Flows), self.has(place, Count::Ports));
            (who != 0).then_some(Listed { who, flows, ports, refused })
        })
    }

    /// Flows of a host, if it is listed.
    pub fn flows(&self, who: u64) -> Option<u64> {
        self.find(who).map(|place| self.has(place, Count::Flows))
    }

    /// What was ever added in a place.
    pub(super) fn added(&self, place: u32, count: Count) -> u64 {
        self.0.load(place, count.added()).unwrap_or(0)
    }

    /// What the host in a place has.
    pub(super) fn has(&self, place: u32, count: Count) -> u64 {
        host::since(self.added(place, count), self.0.load(place, count.base()).unwrap_or(0))
    }

    /// What is in a place.
    pub(super) fn read(&self, place: u32) -> Host {
        let word = |word| self.0.load(place, word).unwrap_or(0);
        Host {
            who: word(WHO),
            made: word(Count::Flows.added()),
            base: word(Count::Flows.base()),
            refused: word(REFUSED),
            taken: word(Count::Ports.added()),
            taken_base: word(Count::Ports.base()),
            ..Host::default()
        }
    }

    /// The place of a host: the first one that has its name, as packets find it.
    pub(super) fn find(&self, who: u64) -> Option<u32> {
        self.probes(who).find(|place| self.0.load(*place, WHO) == Some(who))
    }

    /// Of the places that a host may have a free one, or the one whose host has the fewest flows, and
    /// how many those are.
    pub(super) fn emptiest(&self, who: u64) -> Option<(u32, u64)> {
        let flows = |place: u32| match self.read(place).who {
            0 => (0, 0),
            _ => (1, self.has(place, Count::Flows)),
        };
        let place = self.probes(who).min_by_key(|place| flows(*place))?;
        Some((place, flows(place).1))
    }

    /// Gives a place to a host that has so many flows; its ports the next pass knows.
    pub(super) fn give(&self, place: u32, who: u64, flows: u64) {
        self.store(place, WHO, who);
        self.store(place, REFUSED, 0);
        for (count, has) in [(Count::Flows, flows), (Count::Ports, 0)] {
            self.begin(place, count, self.added(place, count).wrapping_sub(has));
        }
    }

    /// Where what was added begins for what there is.
    pub(super) fn begin(&self, place: u32, count: Count, base: u64) {
        self.store(place, count.base(), base);
    }

    /// Takes a place from a host that has no flow and no port.
    pub(super) fn free(&self, place: u32, seen: &Host) {
        self.begin(place, Count::Flows, seen.made);
        self.begin(place, Count::Ports, seen.taken);
        self.store(place, REFUSED, 0);
        self.store(place, WHO, 0);
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        if let Some(word) = self.word(place, word) {
            word.store(value, Ordering::Release);
        }
    }

    fn word(&self, place: u32, word: usize) -> Option<&AtomicU64> {
        self.0.word(place, word)
    }

    /// The places that a host may have, in their order.
    fn probes(&self, who: u64) -> impl Iterator<Item = u32> + use<> {
        // A map without places has no place at all.
        let places = self.places().clamp(1, HOSTS);
        (0..HOST_PROBES).map(move |probe| host::index(who, probe, places))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl HostMemory {
        /// Places of its own, all free.
        pub fn anonymous() -> Self {
            Self(Mapped::anonymous(HOSTS, size_of::<Host>() as u32))
        }

        /// What packets of a host that opens flows do, where it has a place or finds one.
        pub fn open_flows(&self, who: u64, flows: u64) -> bool {
            let free = || self.probes(who).find(|place| self.0.load(*place, WHO) == Some(0));
            let Some(place) = self.find(who).or_else(free) else { return false };
            self.store(place, WHO, who);
            self.add(place, Count::Flows, flows);
            true
        }

        /// What packets of a host that is listed do, for which ports are taken.
        pub fn take_ports(&self, who: u64, ports: u64) {
            self.add(self.find(who).unwrap(), Count::Ports, ports);
        }

        fn add(&self, place: u32, count: Count, more: u64) {
            self.word(place, count.added()).unwrap().fetch_add(more, Ordering::SeqCst);
        }

        /// Ports of a host that is listed.
        pub fn ports(&self, who: u64) -> Option<u64> {
            self.find(who).map(|place| self.has(place, Count::Ports))
        }
    }

    #[test]
    fn a_freed_place_begins_at_nothing_for_the_next_host() {
        let (hosts, host) = (HostMemory::anonymous(), host::who([10, 0, 1, 2]));
        hosts.open_flows(host, 5);
        assert_eq!(hosts.flows(host), Some(5));
        let place = hosts.find(host).unwrap();
        hosts.free(place, &hosts.read(place));
        assert_eq!((hosts.find(host), hosts.listed().count()), (None, 0));
        hosts.open_flows(host, 2);
        assert_eq!((hosts.find(host), hosts.flows(host)), (Some(place), Some(2)));
    }
}
