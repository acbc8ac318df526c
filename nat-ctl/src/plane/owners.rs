//! Who owns which public port: the maps `ports` and `other_ports` as one table.
//!
//! Invariant: a port is claimed by one compare-and-swap of nobody for its owner, or by inserting its
//! key where there was none; which of the two follows from its address alone, as in the data plane.
//!
//! ```text
//!   addresses   203.0.113.1 -> number 0          198.51.100.8 -> no number
//!                    |                                 |
//!   ports       [0: tcp 0.. | udp | icmp | 1: ..]    other_ports  198.51.100.8 tcp 80 -> owner
//! ```

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapError;
use nat_common::{
    flow::{ICMP, TCP, UDP},
    port::{Endpoint, PORTS_PER_ADDRESS, Port, PortOwner, place},
};

use super::addresses;
use super::error::Result;
use super::mapped::Mapped;
use super::maps::{self, Hash};

/// Protocols in the order in which their ports lie in the map `ports`.
const PROTOCOLS: [u8; 3] = [TCP, UDP, ICMP];

/// A public address and its number in the map `ports`.
pub type Numbered = ([u8; 4], u32);

/// Where the ports of a public address lie. It holds while nothing else runs on the thread of the
/// agent, which alone changes addresses.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    address: [u8; 4],
    /// Whether the address is one of the gateway's own.
    pub is_own: bool,
    number: Option<u32>,
}

/// Both maps, and the one that tells which of them has a port.
#[derive(Debug)]
pub struct Owners {
    ports: Mapped,
    others: Hash<Endpoint, PortOwner>,
    addresses: Hash<[u8; 4], u32>,
}

impl Owners {
    /// Opens the maps that are pinned in `pins`.
    ///
    /// # Errors
    /// Where one is not there, or can't be mapped.
    pub(super) fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            ports: Mapped::open(pins, "ports")?,
            others: maps::open(pins, "other_ports", aya::maps::Map::HashMap)?,
            addresses: maps::open(pins, "addresses", aya::maps::Map::HashMap)?,
        })
    }

    /// The public addresses that have a number.
    ///
    /// # Errors
    /// Where the kernel refuses; the same goes for everything here.
    pub fn numbered(&self) -> Result<Vec<Numbered>, MapError> {
        let mut numbered = vec![];
        for entry in self.addresses.iter() {
            let (address, code) = entry?;
            numbered.extend(addresses::number(code).map(|number| (address, number)));
        }
        Ok(numbered)
    }

    /// Where the ports of an address lie: one look for any number of them.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn home(&self, address: [u8; 4]) -> Result<Home, MapError> {
        let code = maps::optional(self.addresses.get(&address, 0))?;
        Ok(Home { address, is_own: code.is_some(), number: code.and_then(addresses::number) })
    }

    /// Who owns a port.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn owner(&self, public: &Endpoint) -> Result<Option<PortOwner>, MapError> {
        self.owner_at(&self.home(public.address())?, public)
    }

    /// The same for a port of the address of `home`.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn owner_at(&self, home: &Home, public: &Endpoint) -> Result<Option<PortOwner>, MapError> {
        match self.word_at(home, public) {
            Some(word) => {
                let owner = PortOwner::from_word(word.load(Ordering::Acquire));
                Ok((!owner.is_none()).then_some(owner))
            }
            None => maps::optional(self.others.get(public, 0)),
        }
    }

    /// Makes `owner` own a port; `false` where somebody does already.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn claim(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<bool, MapError> {
        let home = self.home(public.address())?;
        self.claim_at(&home, public, owner)
    }

    /// The same for a port of the address of `home`.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn claim_at(
        &mut self,
        home: &Home,
        public: &Endpoint,
        owner: &PortOwner,
    ) -> Result<bool, MapError> {
        match self.word_at(home, public) {
            Some(word) => Ok(swap(word, PortOwner::NONE, *owner)),
            None => maps::claim(&mut self.others, public, owner),
        }
    }

    /// Hands a port from one owner to another of the agent's; `false` where somebody else has it.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn hand_over(
        &mut self,
        public: &Endpoint,
        from: &PortOwner,
        to: &PortOwner,
    ) -> Result<bool, MapError> {
        if let Some(word) = self.word(public)? {
            return Ok(swap(word, *from, *to));
        }
        // The data plane removes nothing, and the agent is one: what is found stays until it is
        // written over.
        if maps::optional(self.others.get(public, 0))? != Some(*from) {
            return Ok(false);
        }
        self.others.insert(public, to, 0).map(|()| true)
    }

    /// Gives a port back that is `owner`'s; `false` where it is not.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn release(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<bool, MapError> {
        match self.word(public)? {
            Some(word) => Ok(swap(word, *owner, PortOwner::NONE)),
            None => maps::remove(&mut self.others, public),
        }
    }

    /// The ports of a numbered address that have an owner, each with its place and its word.
    pub fn taken(
        &self,
        (address, number): Numbered,
    ) -> impl Iterator<Item = (Endpoint, u32, &AtomicU64)> {
        let first = number.saturating_mul(PORTS_PER_ADDRESS);
        let words = first as usize..first.saturating_add(PORTS_PER_ADDRESS) as usize;
        let words = self.ports.words().get(words).unwrap_or_default();
        words.iter().zip(0u32..).filter_map(move |(word, index)| {
            (word.load(Ordering::Acquire) != 0)
                .then_some(())
                .and_then(|()| Some((endpoint(address, index)?, first.saturating_add(index), word)))
        })
    }

    /// The ports of all other addresses, with their owners.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn others(&self) -> Result<Vec<(Endpoint, PortOwner)>, MapError> {
        self.others.iter().collect()
    }

    /// Every port that has an owner.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn all(&self) -> Result<Vec<(Endpoint, PortOwner)>, MapError> {
        let mut all = self.others()?;
        for numbered in self.numbered()? {
            all.extend(self.taken(numbered).map(|(public, _, word)| {
                (public, PortOwner::from_word(word.load(Ordering::Acquire)))
            }));
        }
        Ok(all)
    }

    /// Takes a port out of `other_ports` whose address has got a number since: nobody looks there.
    ///
    /// # Errors
    /// See [`Owners::numbered`].
    pub fn forget_other(&mut self, public: &Endpoint) -> Result<bool, MapError> {
        maps::remove(&mut self.others, public)
    }

    /// Frees every port of a number that is about to become another address's.
    pub fn clear(&mut self, number: u32) {
        for (_, _, word) in self.taken(([0; 4], number)) {
            word.store(PortOwner::NONE.word(), Ordering::Release);
        }
    }

    /// The word of a port in the map `ports`, where it lies there.
    fn word(&self, public: &Endpoint) -> Result<Option<&AtomicU64>, MapError> {
        Ok(self.word_at(&self.home(public.address())?, public))
    }

    fn word_at(&self, home: &Home, public: &Endpoint) -> Option<&AtomicU64> {
        let number = home.number.filter(|_| home.address == public.address())?;
        self.ports.word(place(number, public)?, 0)
    }
}

/// Exchanges the owner in a word; whether it was `from`.
pub fn swap(word: &AtomicU64, from: PortOwner, to: PortOwner) -> bool {
    word.compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// The endpoint whose word is the one number `index` of those of `address`.
fn endpoint(address: [u8; 4], index: u32) -> Option<Endpoint> {
    let protocol = *PROTOCOLS.get((index >> 16) as usize)?;
    // The low half is the port.
    Some(Endpoint::new(protocol, address, Port::new(index as u16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::port::{Owner, PORT_ADDRESSES};

    #[test]
    fn an_endpoint_lies_where_the_data_plane_looks_for_it() {
        for index in [0, 1, 0xffff, 0x1_0000, 0x1_1234, 0x2_0000, PORTS_PER_ADDRESS - 1] {
            let public = endpoint([203, 0, 113, 1], index).unwrap();
            for number in 0..PORT_ADDRESSES {
                assert_eq!(place(number, &public), Some(number * PORTS_PER_ADDRESS + index));
            }
        }
        assert_eq!(endpoint([203, 0, 113, 1], PORTS_PER_ADDRESS), None);
    }

    #[test]
    fn a_word_has_one_owner_until_that_very_owner_leaves() {
        let word = AtomicU64::new(0);
        let owner = |host| PortOwner::new(Owner::Masquerade, [10, 0, 0, host], Port::new(5000));
        assert!(swap(&word, PortOwner::NONE, owner(2)));
        assert!(!swap(&word, PortOwner::NONE, owner(3)));
        assert!(!swap(&word, owner(2).idle(true), PortOwner::NONE));
        assert!(swap(&word, owner(2), PortOwner::NONE));
    }
}
