//! The rules in force, as entries of `forwards`, `allowed`, `one_to_one` and `ports`.
//!
//! Invariant: written by difference, so that live flows and unchanged rules are not touched; the
//! networks of a filter are there before a forward names it, and go after the last one has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use aya::maps::{MapError, lpm_trie::Key};
use nat_common::{
    port::{Endpoint, Owner, Port, PortOwner},
    rule::{AllowedKey, Forward, OneToOne, RuleId},
};

use super::difference;
use super::error::{PlaneError, Result};
use super::maps::{self, Maps};
use crate::rules::{Cidr, EntryKind as Kind, ForwardEntry, HostEntry};

/// What the maps must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    forwards: BTreeMap<Key4, Forward4>,
    one_to_one: BTreeMap<[u8; 4], OneToOne4>,
    allowed: BTreeSet<(u32, [u8; 4], u8)>,
    ports: BTreeMap<Key4, (Ipv4Addr, u16)>,
}

type Key4 = (u8, [u8; 4], u16);
type Forward4 = (Ipv4Addr, u16, u32, u32, Kind);
type OneToOne4 = (Ipv4Addr, u32);

impl Wanted {
    /// Of the entries that the rules expand to.
    pub fn of(entries: &[ForwardEntry], hosts: &[HostEntry]) -> Self {
        let mut wanted = Self::default();
        for entry in entries {
            let protocol = entry.protocol.map_or(0, |protocol| protocol.number());
            let port = entry.port.unwrap_or(0);
            let key = (protocol, entry.public.octets(), port);
            let filter = wanted.filter(&entry.allow);
            let to_port = entry.to_port.unwrap_or(0);
            let forward = (entry.to, to_port, entry.rule.number(), filter, entry.kind);
            wanted.forwards.insert(key, forward);
            if port != 0 && protocol != 0 {
                wanted.ports.insert(key, (entry.to, if to_port == 0 { port } else { to_port }));
            }
        }
        for host in hosts {
            let value = (host.public, host.rule.number());
            wanted.one_to_one.insert(host.inside.octets(), value);
        }
        wanted
    }

    /// The same, with networks to which packets leave as they are.
    #[must_use]
    pub fn exempting(mut self, networks: &[Cidr]) -> Self {
        self.allow(AllowedKey::EXEMPT, networks);
        self
    }

    /// The same, with the networks of inside hosts that are not told by where their packets come in.
    #[must_use]
    pub fn within(mut self, inside: &[Cidr]) -> Self {
        self.allow(AllowedKey::INSIDE, inside);
        self
    }

    /// The number of the filter for these networks: 0 where everybody is allowed. It is a function
    /// of the networks, so that an unchanged filter keeps its number whatever else changes.
    fn filter(&mut self, allow: &[Cidr]) -> u32 {
        if allow.contains(&Cidr::ALL) {
            return 0;
        }
        let mut networks: Vec<Cidr> = allow.to_vec();
        networks.sort_unstable();
        networks.dedup();
        let number = number(&networks);
        self.allow(number, &networks);
        number
    }

    /// Adds networks to a filter.
    fn allow(&mut self, filter: u32, networks: &[Cidr]) {
        for network in networks {
            // Nobody names others here.
            if let IpAddr::V4(address) = network.network() {
                self.allowed.insert((filter, address.octets(), network.prefix_length()));
            }
        }
    }

    /// Brings the maps to this. Gives back the forwards whose public port is in use by something
    /// else: they work for new connections, and the port is theirs once it is released.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn write(&self, maps: &mut Maps) -> Result<Vec<Endpoint>> {
        let forwards = self.forwards();
        let hosts = self.one_to_one();
        self.write_all(maps, &forwards, &hosts).map_err(PlaneError::refused("write the rules"))?;
        self.claim_ports(maps).map_err(PlaneError::refused("claim the ports of the rules"))
    }

    fn write_all(
        &self,
        maps: &mut Maps,
        forwards: &BTreeMap<Ordered, Forward>,
        hosts: &BTreeMap<[u8; 4], OneToOne>,
    ) -> Result<(), MapError> {
        for (filter, remote, bits) in &self.allowed {
            maps.allowed.insert(&trie_key(*filter, *remote, *bits), 1, 0)?;
        }
        difference::apply(&mut maps.one_to_one, hosts)?;
        for (Ordered(key), value) in forwards {
            let found = maps::optional(maps.forwards.get(key, 0))?;
            if found != Some(*value) {
                maps.forwards.insert(key, value, 0)?;
            }
        }
        let present: Vec<Endpoint> = maps.forwards.keys().collect::<Result<_, _>>()?;
        for key in present {
            if !forwards.contains_key(&Ordered(key)) {
                maps::remove(&mut maps.forwards, &key)?;
            }
        }
        let present: Vec<Key<AllowedKey>> = maps.allowed.keys().collect::<Result<_, _>>()?;
        for key in present {
            // The trie gives keys back as they were inserted, the length in front.
            let (bits, data) = (key.prefix_len(), key.data());
            let bits = bits.saturating_sub(AllowedKey::FILTER_BITS) as u8;
            if !self.allowed.contains(&(data.filter(), data.remote(), bits)) {
                match maps.allowed.remove(&key) {
                    Err(error) if !maps::is(&error, nix::libc::ENOENT) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn forwards(&self) -> BTreeMap<Ordered, Forward> {
        let made = |(&(protocol, address, port), &(to, to_port, rule, filter, kind)): (
            &Key4,
            &Forward4,
        )| {
            let key = Endpoint::new(protocol, address, Port::new(port));
            let forward = Forward::new(to.octets(), Port::new(to_port), RuleId::new(rule), filter);
            let forward = match kind {
                Kind::Plain => forward,
                Kind::Control => forward.with_ftp(),
                Kind::Range => forward.for_encrypted(),
            };
            (Ordered(key), forward)
        };
        self.forwards.iter().map(made).collect()
    }

    fn one_to_one(&self) -> BTreeMap<[u8; 4], OneToOne> {
        self.one_to_one
            .iter()
            .map(|(inside, &(public, rule))| {
                (*inside, OneToOne::new(public.octets(), RuleId::new(rule)))
            })
            .collect()
    }

    fn claim_ports(&self, maps: &mut Maps) -> Result<Vec<Endpoint>, MapError> {
        let mut taken = vec![];
        for (&(protocol, address, port), &(to, to_port)) in &self.ports {
            let key = Endpoint::new(protocol, address, Port::new(port));
            let to_port = Port::new(to_port);
            let owner = PortOwner::new(Owner::Forward, to.octets(), to_port);
            if maps.ports.claim(&key, &owner)? {
                continue;
            }
            match maps.ports.owner(&key)? {
                Some(found) if found.owner() == Some(Owner::Forward) => {
                    if found != owner {
                        maps.ports.hand_over(&key, &found, &owner)?;
                    }
                }
                Some(_) | None => taken.push(key),
            }
        }
        self.release_ports(maps)?;
        Ok(taken)
    }

    /// Ports of forwards that are no more. Flows that came in by them go on: they are found by
    /// their records, and the sweep of masquerade does not meet these ports.
    fn release_ports(&self, maps: &mut Maps) -> Result<(), MapError> {
        for (key, owner) in maps.ports.all()? {
            let place = (key.protocol(), key.address(), key.port().number());
            if owner.owner() == Some(Owner::Forward) && !self.ports.contains_key(&place) {
                maps.ports.release(&key, &owner)?;
            }
        }
        Ok(())
    }
}

/// An endpoint with an order, for maps here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ordered(Endpoint);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |Self(key): &Self| (key.protocol(), key.address(), key.port());
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn trie_key(filter: u32, remote: [u8; 4], bits: u8) -> Key<AllowedKey> {
    Key::new(AllowedKey::FILTER_BITS + u32::from(bits), AllowedKey::new(filter, remote))
}

/// FNV-1a over the networks (draft-eastlake-fnv), never that of no rule.
pub(super) fn number(networks: &[Cidr]) -> u32 {
    let octets = |network: &Cidr| match network.network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bytes = networks
        .iter()
        .flat_map(|network| octets(network).into_iter().chain([network.prefix_length()]));
    let hash = bytes
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.clamp(1, AllowedKey::INSIDE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Protocol, RuleName};

    fn entry(port: Option<u16>, allow: &[&str]) -> ForwardEntry {
        ForwardEntry {
            public: Ipv4Addr::new(203, 0, 113, 1),
            protocol: Some(Protocol::Tcp.into()),
            port,
            to: Ipv4Addr::new(10, 0, 0, 5),
            to_port: port,
            kind: if port == Some(21) { Kind::Control } else { Kind::Plain },
            rule: "web".parse::<RuleName>().unwrap().id(&BTreeSet::new()).unwrap(),
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn everybody_needs_no_filter_and_equal_networks_share_one() {
        let entries = [
            entry(Some(80), &["0.0.0.0/0"]),
            entry(Some(81), &["192.0.2.0/24", "198.51.100.7"]),
            entry(Some(82), &["198.51.100.7", "192.0.2.0/24"]),
            entry(Some(83), &["192.0.2.0/25"]),
        ];
        let wanted = Wanted::of(&entries, &[]);
        let filters: Vec<u32> = wanted.forwards.values().map(|forward| forward.3).collect();
        assert_eq!(filters[0], 0);
        assert_eq!(filters[1], filters[2]);
        assert_ne!(filters[1], filters[3]);
        assert_eq!(wanted.allowed.len(), 3);
    }

    #[test]
    fn exempt_networks_are_a_filter_that_no_rule_has() {
        let networks = ["10.8.0.0/16", "192.0.2.0/24"].map(|text| text.parse().unwrap());
        let wanted = Wanted::of(&[entry(Some(81), &["192.0.2.0/24"])], &[]).exempting(&networks);
        let exempt = wanted.allowed.iter().filter(|(filter, ..)| *filter == AllowedKey::EXEMPT);
        assert_eq!((exempt.count(), wanted.allowed.len()), (2, 3));
    }

    #[test]
    fn an_exact_port_is_owned_and_a_whole_protocol_is_not() {
        let wanted = Wanted::of(&[entry(Some(21), &["any"]), entry(None, &["any"])], &[]);
        assert_eq!(wanted.ports.len(), 1);
        let forwards = wanted.forwards();
        let control = Ordered(Endpoint::new(6, [203, 0, 113, 1], Port::new(21)));
        let all = Ordered(Endpoint::new(6, [203, 0, 113, 1], Port::NONE));
        assert!(forwards[&control].is_ftp());
        assert!(!forwards[&all].is_ftp());
        assert_eq!(forwards[&all].port_for(Port::new(8080)), Port::new(8080));
    }
}
