//! Pairs of prefixes, as entries of `prefixes`.
//!
//! Invariant: written by difference; an entry names a WAN that is attached.

use std::{collections::BTreeMap, net::Ipv6Addr};

use aya::maps::{MapError, lpm_trie::Key};
use nat_common::six::{Address6, Prefix, PrefixKey};
use zerocopy::IntoBytes as _;

use crate::{
    output::Role,
    plane::{
        error::{PlaneError, Result},
        maps::{self, Maps},
        state::Attached,
    },
    rules,
};

/// What the map must hold, or holds: by view, address and bits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prefixes(BTreeMap<([u8; 4], Address6, u32), (PrefixKey, Prefix)>);

impl<K: Into<u32>> FromIterator<(PrefixKey, K, Prefix)> for Prefixes {
    fn from_iter<I: IntoIterator<Item = (PrefixKey, K, Prefix)>>(entries: I) -> Self {
        let entry = |(key, bits, prefix): (PrefixKey, K, Prefix)| {
            ((key.scope(), key.address(), bits.into()), (key, prefix))
        };
        Self(entries.into_iter().map(entry).collect())
    }
}

impl Prefixes {
    /// Of the pairs of a configuration, at the WANs that there are.
    pub fn of(configured: &[rules::Prefix], interfaces: &[Attached]) -> Self {
        let at = |pair: &rules::Prefix| {
            let is_it = |it: &&Attached| it.side.is(Role::Wan) && it.name == pair.wan();
            interfaces.iter().find(is_it).map(|wan| pair.entries(wan.index))
        };
        configured.iter().filter_map(at).flatten().collect()
    }

    /// Those in force.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn read(maps: &Maps) -> Result<Self> {
        let found = maps.prefixes.iter().map(|entry| {
            let (key, prefix) = entry?;
            let bits = key.prefix_len().saturating_sub(PrefixKey::SCOPE_BITS);
            Ok((key.data(), bits, prefix))
        });
        let found: std::result::Result<Self, MapError> = found.collect();
        found.map_err(PlaneError::refused("read the map prefixes"))
    }

    /// Each of them, with the bits of its address.
    pub fn iter(&self) -> impl Iterator<Item = (PrefixKey, u32, Prefix)> {
        self.0.iter().map(|((_, _, bits), (key, prefix))| (*key, *bits, *prefix))
    }

    /// What the outside knows an inside address as: as it is, where no WAN translates it. Where several do
    /// it is what the first of them makes of it.
    pub fn public_of(&self, inside: Ipv6Addr) -> Ipv6Addr {
        self.translated(inside, |key| key.wan().is_some())
    }

    /// What a public address stands for inside.
    pub fn inside_of(&self, public: Ipv6Addr) -> Ipv6Addr {
        let scope = PrefixKey::public([0; 16]).scope();
        self.translated(public, |key| key.scope() == scope)
    }

    fn translated(&self, address: Ipv6Addr, view: impl Fn(&PrefixKey) -> bool) -> Ipv6Addr {
        let number = u128::from(address);
        let below = |key: &PrefixKey, bits: u32| {
            let differ = number ^ u128::from_be_bytes(key.address());
            differ.checked_shr(128 - bits).unwrap_or(0) == 0
        };
        let mut found = self.iter().filter(|(key, bits, _)| view(key) && below(key, *bits));
        let translated = found.next().and_then(|(_, _, prefix)| prefix.translate(address.octets()));
        translated.map_or(address, Ipv6Addr::from)
    }

    /// Brings the map to this.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn write(&self, maps: &mut Maps) -> Result<()> {
        let present = Self::read(maps)?;
        self.write_all(maps, &present).map_err(PlaneError::refused("write the map prefixes"))
    }

    fn write_all(&self, maps: &mut Maps, present: &Self) -> std::result::Result<(), MapError> {
        let trie_key = |key, bits: u32| Key::new(PrefixKey::SCOPE_BITS + bits, key);
        for (place, (key, prefix)) in &self.0 {
            let found = present.0.get(place);
            if found.is_none_or(|(_, found)| found.as_bytes() != prefix.as_bytes()) {
                maps.prefixes.insert(&trie_key(*key, place.2), prefix, 0)?;
            }
        }
        for (place, (key, _)) in &present.0 {
            if !self.0.contains_key(place) {
                match maps.prefixes.remove(&trie_key(*key, place.2)) {
                    Err(error) if !maps::is(&error, nix::libc::ENOENT) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_of_wans_that_are_there_and_lead_both_ways() {
        let pair = |wan: &str, public: &str| {
            let text = format!("wan = '{wan}'\ninside = 'fd00:1::/48'\npublic = '{public}'\n");
            toml::from_str::<rules::Prefix>(&text).unwrap()
        };
        let pairs = [pair("wan0", "2001:db8:1::/48"), pair("lan0", "2001:db8:2::/48")];
        let there =
            [Attached::planned("wan0", 3, Role::Wan), Attached::planned("lan0", 4, Role::Lan)];
        let prefixes = Prefixes::of(&pairs, &there);
        assert_eq!(prefixes.iter().count(), 3);
        let inside: Ipv6Addr = "fd00:1:0:5::9".parse().unwrap();
        let public = prefixes.public_of(inside);
        assert_eq!(Some(public), pairs[0].public_of(inside));
        assert_eq!(prefixes.inside_of(public), inside);
        let other: Ipv6Addr = "2001:db8:9::1".parse().unwrap();
        assert_eq!((prefixes.public_of(other), prefixes.inside_of(other)), (other, other));
        assert_eq!(prefixes.inside_of(inside), inside, "it is no public one");
    }
}
