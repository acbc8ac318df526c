//! Public addresses that rules and masquerade name and nobody has: the WAN in whose network they lie gets them.
//!
//! Who wants to send to such an address asks for it by ARP, and only who has it answers (RFC 826).
//! They are added as /32 with scope link: the kernel never dials from one, and the gateway hides no
//! host behind it that the configuration does not.
//!
//! Invariant: the file of the instance names an alias before it is added, so that `down` finds it
//! after any death. One that another station is known to have is not added, and neither is one that was
//! taken off a WAN: the provider may have given it to somebody else.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::{
    Plane, announce,
    ask::{Scope, ask},
    error::Result,
    links::Address,
    state::{Attached, State},
};
use crate::{options::Instance, output::Role};

/// An address that the gateway gave to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alias {
    /// Number of the interface.
    index: u32,
    address: Ipv4Addr,
}

impl Alias {
    /// Whether a listed address is this one, and not one that somebody else added.
    fn is(&self, listed: &Address) -> bool {
        let added = Address {
            index: self.index,
            address: self.address,
            prefix: Ipv4Addr::BITS as u8,
            global: false,
        };
        *listed == added
    }

    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = self.index;
        message.header.prefix_len = Ipv4Addr::BITS as u8;
        message.header.scope = AddressScope::Link;
        let address = IpAddr::V4(self.address);
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    fn add(&self) -> io::Result<()> {
        let added = ask(RouteNetlinkMessage::NewAddress(self.message()), Scope::One);
        unless(added, &[libc::EEXIST])
    }

    fn remove(&self) -> io::Result<()> {
        let removed = ask(RouteNetlinkMessage::DelAddress(self.message()), Scope::One);
        // Its interface may be gone, or somebody has emptied it.
        unless(removed, &[libc::ENODEV, libc::EADDRNOTAVAIL])
    }
}

/// Addresses of WANs that came from others: the operator, a DHCP client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Those that are there.
    there: BTreeSet<Ipv4Addr>,
    /// Those that were there, and have not come back.
    taken_off: BTreeSet<Ipv4Addr>,
}

impl Given {
    /// The same once these are there.
    fn after(&self, now: BTreeSet<Ipv4Addr>) -> Self {
        let gone = self.there.union(&self.taken_off);
        let taken_off = gone.filter(|address| !now.contains(*address)).copied().collect();
        Self { there: now, taken_off }
    }
}

fn unless(done: io::Result<Vec<RouteNetlinkMessage>>, codes: &[i32]) -> io::Result<()> {
    match done {
        Err(error) if !error.raw_os_error().is_some_and(|code| codes.contains(&code)) => Err(error),
        _ => Ok(()),
    }
}

/// Which aliases there should be: for the addresses `public` of rules that no interface has, among
/// those that are `listed`, but for what the gateway itself has added.
fn wanted(
    public: &BTreeSet<Ipv4Addr>,
    interfaces: &[Attached],
    listed: &[Address],
    own: &BTreeSet<Alias>,
    given: &Given,
) -> BTreeSet<Alias> {
    let others = of_others(listed, own);
    let missing = public.iter().filter(|public| {
        !given.taken_off.contains(*public) && others.iter().all(|it| it.address != **public)
    });
    let home = |address: &Ipv4Addr| {
        let mut wans = others.iter().filter(|it| is_wan(interfaces, it.index) && it.global);
        let found = wans.find(|listed| has_station(listed, *address))?;
        Some(Alias { index: found.index, address: *address })
    };
    missing.filter_map(home).collect()
}

/// What is listed but for what the gateway itself has added.
fn of_others(listed: &[Address], own: &BTreeSet<Alias>) -> Vec<Address> {
    let mut others = listed.to_vec();
    others.retain(|listed| !own.iter().any(|alias| alias.is(listed)));
    others
}

fn is_wan(interfaces: &[Attached], index: u32) -> bool {
    interfaces.iter().any(|known| known.index == index && known.side.is(Role::Wan))
}

/// Whether a station of the network that an interface is in may have an address. The other end of a
/// link of two is no address of ours (RFC 3021).
fn has_station(interface: &Address, address: Ipv4Addr) -> bool {
    Ipv4Net::new(interface.address, interface.prefix)
        .is_ok_and(|network| is_station(&network, address))
}

/// Whether a station of a network may have an address that is not its own or its neighbour's.
pub fn is_station(network: &Ipv4Net, address: Ipv4Addr) -> bool {
    network.prefix_len() <= 30
        && network.contains(&address)
        && address != network.network()
        && address != network.broadcast()
}

impl Plane {
    /// Notes which addresses others have given to the WANs, and which they have taken off them.
    ///
    /// # Errors
    /// Where the file of the instance can't be written.
    pub(super) fn note_given(&mut self) -> Result<()> {
        let others = of_others(&self.listed, &self.state.aliases);
        let on_wans = others.iter().filter(|it| is_wan(&self.state.interfaces, it.index));
        let given = self.state.given.after(on_wans.map(|it| it.address).collect());
        if given != self.state.given {
            self.state.given = given;
            self.state.write(&self.instance)?;
        }
        Ok(())
    }

    /// Adds the public addresses of the rules in force that are missing, and removes those that no
    /// rule needs any more.
    ///
    /// # Errors
    /// Where the file of the instance can't be written.
    pub(super) fn follow_aliases(&mut self) -> Result<()> {
        if !self.adds_addresses {
            return put_back(&self.instance, &mut self.state);
        }
        let State { interfaces, aliases, given, .. } = &self.state;
        let mut wanted = wanted(&self.public, interfaces, &self.listed, aliases, given);
        let taken: BTreeSet<Alias> =
            wanted.iter().filter(|alias| self.is_taken(alias)).copied().collect();
        for alias in taken.difference(&self.taken) {
            tracing::warn!(
                "the configuration names {}, which another station of {} has: not added here",
                alias.address,
                self.name_of(alias.index)
            );
        }
        wanted.retain(|alias| !taken.contains(alias));
        self.taken = taken;
        let before = self.state.aliases.clone();
        for alias in before.difference(&wanted) {
            remove(alias);
            tracing::info!("{} removed: it is not needed here any more", alias.address);
        }
        if before != wanted {
            self.state.aliases.clone_from(&wanted);
            self.state.write(&self.instance)?;
        }
        for alias in &wanted {
            if self.listed.iter().any(|listed| alias.is(listed)) {
                continue;
            }
            let name = self.name_of(alias.index);
            match alias.add() {
                Ok(()) => {
                    if !before.contains(alias) {
                        tracing::info!(
                            "{} added to {name}: the configuration names it",
                            alias.address
                        );
                    }
                    self.announce(alias);
                }
                Err(error) => tracing::error!("add {} to {name}: {error}", alias.address),
            }
        }
        Ok(())
    }

    /// Whether another station has it, as far as the kernel knows.
    fn is_taken(&self, alias: &Alias) -> bool {
        !self.state.aliases.contains(alias)
            && self.hops.has_neighbour(alias.index, alias.address.octets())
    }

    fn announce(&self, alias: &Alias) {
        let Some(link) = self.hops.link_address(alias.index) else { return };
        if let Err(error) = announce::announce(alias.index, link, alias.address) {
            tracing::warn!("announce {} by ARP: {error}", alias.address);
        }
    }

    fn name_of(&self, index: u32) -> &str {
        let mut interfaces = self.state.interfaces.iter();
        interfaces.find(|known| known.index == index).map_or("?", |known| known.name.as_str())
    }
}

/// Removes what was added.
///
/// # Errors
/// Where the file of the instance can't be written.
pub fn put_back(instance: &Instance, state: &mut State) -> Result<()> {
    if state.aliases.is_empty() {
        return Ok(());
    }
    state.aliases.iter().for_each(remove);
    state.aliases.clear();
    state.write(instance)
}

fn remove(alias: &Alias) {
    if let Err(error) = alias.remove() {
        tracing::error!("remove the address {}: {error}", alias.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: u32 = 3;
    const LAN: u32 = 4;

    fn interfaces() -> Vec<Attached> {
        let planned = Attached::planned;
        vec![planned("wan0", WAN, Role::Wan), planned("lan0", LAN, Role::Lan)]
    }

    fn listed(index: u32, text: &str) -> Address {
        let network: Ipv4Net = text.parse().expect("a network");
        Address { index, address: network.addr(), prefix: network.prefix_len(), global: true }
    }

    fn added(last: u8) -> Alias {
        Alias { index: WAN, address: Ipv4Addr::new(203, 0, 113, last) }
    }

    fn as_listed(alias: Alias) -> Address {
        Address { index: alias.index, address: alias.address, prefix: 32, global: false }
    }

    fn missing(lasts: &[u8], listed: &[Address], own: &[Alias]) -> Vec<Alias> {
        let public = lasts.iter().map(|last| added(*last).address).collect();
        let own = own.iter().copied().collect();
        wanted(&public, &interfaces(), listed, &own, &Given::default()).into_iter().collect()
    }

    #[test]
    fn an_address_in_the_network_of_a_wan_is_added_there_unless_somebody_has_it() {
        let wan = listed(WAN, "203.0.113.1/24");
        assert_eq!(missing(&[1, 11], &[wan], &[]), [added(11)]);
        // An interface that the gateway does not manage has it.
        assert_eq!(missing(&[11], &[wan, listed(9, "203.0.113.11/32")], &[]), []);
        // It is routed here, or lies in a network of the inside.
        assert_eq!(missing(&[11], &[listed(WAN, "198.51.100.1/24")], &[]), []);
        assert_eq!(missing(&[11], &[listed(LAN, "203.0.113.1/24")], &[]), []);
        assert_eq!(missing(&[], &[wan], &[added(11)]), []);
    }

    #[test]
    fn what_was_taken_off_a_wan_is_not_added_until_it_has_been_back() {
        let [first, second] = [1, 7].map(|last| added(last).address);
        let set = |addresses: &[Ipv4Addr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        let all = |given: &Given, listed: &[Address]| {
            wanted(&set(&[first]), &interfaces(), listed, &BTreeSet::new(), given)
        };
        // The provider has given another address of the same network.
        let given = Given::default().after(set(&[first])).after(set(&[second]));
        let now = [listed(WAN, "203.0.113.7/24")];
        assert_eq!(all(&given, &now), BTreeSet::new());
        assert_eq!(all(&given.after(set(&[second])), &now), BTreeSet::new());
        // It has come back, and what goes then is the other one.
        let back = given.after(set(&[first]));
        assert_eq!(back.taken_off, set(&[second]));
        assert_eq!(all(&Given::default().after(set(&[second])), &now), [added(1)].into());
    }

    #[test]
    fn the_ends_of_a_network_are_nobodys() {
        let wan = listed(WAN, "203.0.113.66/30");
        assert_eq!(missing(&[63, 64, 65, 66, 67, 68], &[wan], &[]), [added(65)]);
        assert_eq!(missing(&[66, 67], &[listed(WAN, "203.0.113.66/31")], &[]), []);
        assert_eq!(missing(&[67], &[listed(WAN, "203.0.113.66/32")], &[]), []);
    }

    #[test]
    fn what_was_added_stays_and_counts_for_no_address_of_the_machine() {
        let wan = listed(WAN, "203.0.113.1/24");
        let own = [added(11)];
        assert_eq!(missing(&[11], &[wan, as_listed(added(11))], &own), own);
        // The operator has added it since.
        let theirs = listed(WAN, "203.0.113.11/24");
        assert_eq!(missing(&[11], &[wan, theirs, as_listed(added(11))], &own), []);
        // Nor is it added to what was left when the address of the network went.
        assert_eq!(missing(&[11], &[as_listed(added(11))], &own), []);
    }
}
