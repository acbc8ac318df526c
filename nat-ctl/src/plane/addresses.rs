//! The maps `interfaces`, `paired` and `addresses`: what the gateway's own addresses are, now.
//!
//! Invariant: inside hosts are hidden behind those addresses of a WAN that the configuration names, or
//! where it has none of them behind its first global address; an address that was just
//! added is in the map before one that was removed is taken out; a number is in the maps only while
//! its ports are that address's.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nat_common::{interface::Interface, port::PORT_ADDRESSES};

use super::Plane;
use super::error::{PlaneError, Result};
use super::links::Address;
use super::maps::Maps;
use super::numbers::Numbers;
use super::paired::Places;
use super::six;
use super::state::{Attached, Side, State};
use crate::{output::Role, rules::Cidr};

/// Low half of a value of the map `addresses`, by the interface that the address is on.
const ON_LAN: u32 = 1;
const ON_WAN: u32 = 2;

/// Whether an address with this value in the map `addresses` is on a WAN.
pub(super) const fn is_outside(code: u32) -> bool {
    code & 0xffff == ON_WAN
}

/// The number of an address with this value: the high half, less one.
pub(super) const fn number(code: u32) -> Option<u32> {
    (code >> 16).checked_sub(1)
}

/// The value of an address on a WAN with that number.
const fn numbered(number: u32) -> u32 {
    number.saturating_add(1) << 16 | ON_WAN
}

/// Addresses of the managed interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    public: BTreeMap<String, Ipv4Addr>,
    /// Those that the configuration names to hide hosts behind.
    named: Vec<Ipv4Addr>,
    /// The side of each, and the number of its interface.
    own: BTreeMap<[u8; 4], (Role, u32)>,
}

impl Addresses {
    /// Sorts what the kernel has listed by what the interfaces are for; hosts are hidden behind those that
    /// are `named`. Of an interface on both sides the public address is the first one that is not `inside`,
    /// where it has such, and the others that are inside are those by which its hosts know it.
    pub fn of(
        interfaces: &[Attached],
        listed: &[Address],
        named: &[Ipv4Addr],
        inside: &[Cidr],
    ) -> Self {
        let mut this = Self { named: named.to_vec(), ..Self::default() };
        let is_inside = |side: Side, address: Ipv4Addr| {
            side == Side::Both && inside.iter().any(|network| network.contains(address))
        };
        let all = || {
            listed.iter().filter_map(|found| {
                let interface = interfaces.iter().find(|known| known.index == found.index)?;
                Some((interface, found, is_inside(interface.side, found.address)))
            })
        };
        let mut global: Vec<_> = all().filter(|(_, found, _)| found.global).collect();
        global.sort_by_key(|(.., is_inside)| *is_inside);
        for (interface, found, _) in global {
            this.public.entry(interface.name.clone()).or_insert(found.address);
        }
        for (interface, found, is_inside) in all() {
            let hides = this.public.get(&interface.name) == Some(&found.address);
            let role = match interface.side {
                Side::Lan => Role::Lan,
                Side::Both if is_inside && !hides => Role::Lan,
                Side::Wan | Side::Both => Role::Wan,
            };
            this.own.insert(found.address.octets(), (role, interface.index));
        }
        this
    }

    /// First global address of an interface: what a rule that names the interface means.
    pub fn of_interface(&self, name: &str) -> Option<Ipv4Addr> {
        self.public.get(name).copied()
    }

    /// The gateway's own addresses on its WANs, with the numbers of the interfaces.
    pub fn on_wans(&self) -> impl Iterator<Item = ([u8; 4], u32)> {
        let wans = self.own.iter().filter(|(_, (role, _))| *role == Role::Wan);
        wans.map(|(address, (_, index))| (*address, *index))
    }

    /// The interface whose first global address this is.
    pub(super) fn hides_behind(&self, address: Ipv4Addr) -> Option<&str> {
        let mut interfaces = self.public.iter().filter(|(_, public)| **public == address);
        interfaces.next().map(|(name, _)| name.as_str())
    }

    /// The gateway's own addresses on its WANs.
    pub fn outside(&self) -> impl Iterator<Item = [u8; 4]> {
        self.on_wans().map(|(address, _)| address)
    }

    /// Those among the named ones that an interface has.
    fn named_on(&self, interface: &Attached) -> Vec<Ipv4Addr> {
        let is_there = |address: &&Ipv4Addr| {
            self.own.get(&address.octets()).is_some_and(|(_, index)| *index == interface.index)
        };
        self.named.iter().filter(is_there).copied().collect()
    }

    /// The addresses of the WANs among `interfaces` that inside hosts are hidden behind, each with the number
    /// of its interface.
    fn hiding(&self, interfaces: &[Attached]) -> Vec<(Ipv4Addr, u32)> {
        let wans = interfaces.iter().filter(|interface| interface.side.is(Role::Wan));
        let those_of = |wan: &Attached| {
            let mut hiding = self.named_on(wan);
            if hiding.is_empty() {
                hiding.extend(self.of_interface(&wan.name));
            }
            hiding.into_iter().map(|address| (address, wan.index)).collect::<Vec<_>>()
        };
        wans.flat_map(those_of).collect()
    }

    /// Gives the addresses on WANs their numbers; gives back those that were another's before.
    fn number(&self, numbers: &mut Numbers, interfaces: &[Attached]) -> Vec<u32> {
        let outside: Vec<_> = self.outside().map(Ipv4Addr::from).collect();
        let hiding: Vec<_> =
            self.hiding(interfaces).into_iter().map(|(address, _)| address).collect();
        numbers.assign(&hiding, &outside)
    }

    /// The values of the map `addresses`.
    fn codes(&self, numbers: &Numbers) -> BTreeMap<[u8; 4], u32> {
        let code = |address: [u8; 4], role: Role| match (role, numbers.of(address.into())) {
            (Role::Lan, _) => ON_LAN,
            (Role::Wan, Some(number)) => numbered(number),
            (Role::Wan, None) => ON_WAN,
        };
        self.own.iter().map(|(address, (role, _))| (*address, code(*address, *role))).collect()
    }

    /// The values of the map `interfaces`, and the places that they refer to. An address without a number
    /// is none to hide behind.
    fn records(
        &self,
        numbers: &Numbers,
        interfaces: &[Attached],
    ) -> (BTreeMap<u32, Interface>, Places) {
        let mut places = Places::default();
        for wan in interfaces.iter().filter(|interface| interface.side.is(Role::Wan)) {
            places.add(wan.index, &self.named, &self.named_on(wan), numbers);
        }
        let hiding: Vec<_> = (self.hiding(interfaces).into_iter())
            .filter_map(|(public, index)| {
                let number = u16::try_from(numbers.of(public)?).ok()?;
                Some((public.octets(), number, index))
            })
            .collect();
        let way_out = |interface: &Attached| {
            let found = hiding.iter().find(|(.., index)| *index == interface.index);
            let (public, number, of) = found.copied().unwrap_or_default();
            places.pair(Interface::wan(public, number), of)
        };
        let record = |interface: &Attached| match interface.side {
            // Hosts that dial a public address have that of the first WAN themselves.
            Side::Lan => {
                let (public, number, of) = hiding.first().copied().unwrap_or_default();
                places.pair(Interface::lan(public, number), of)
            }
            Side::Wan => way_out(interface),
            Side::Both => way_out(interface).one_armed(),
        };
        (interfaces.iter().map(|interface| (interface.index, record(interface))).collect(), places)
    }

    /// Writes all three maps by difference.
    fn write(&self, maps: &mut Maps, numbers: &Numbers, interfaces: &[Attached]) -> Result<()> {
        let (records, places) = self.records(numbers, interfaces);
        for (place, paired) in places.all() {
            let what = "write the map paired";
            if maps.paired.get(&place, 0).map_err(PlaneError::refused(what))? != paired {
                maps.paired.set(place, paired, 0).map_err(PlaneError::refused(what))?;
            }
        }
        super::difference::apply(&mut maps.interfaces, &records).map_err(PlaneError::refused::<
            aya::maps::MapError,
        >(
            "write the map interfaces",
        ))?;
        super::difference::apply(&mut maps.addresses, &self.codes(numbers))
            .map_err(PlaneError::refused("write the map addresses"))
    }
}

impl Plane {
    /// Tells the data plane which addresses there are now.
    pub(super) fn write_addresses(&mut self) -> Result<()> {
        let mut numbers = self.state.numbers.clone();
        let passed_on = self.addresses.number(&mut numbers, &self.state.interfaces);
        if numbers != self.state.numbers {
            self.state.numbers = numbers;
            self.state.write(&self.instance)?;
        }
        for number in passed_on {
            self.maps.ports.clear(number);
        }
        for address in self.unnumbered() {
            tracing::warn!("{}", unnumbered(address));
        }
        let State { numbers, interfaces, .. } = &self.state;
        self.addresses.write(&mut self.maps, numbers, interfaces)?;
        self.translated = six::Prefixes::of(&self.prefixes, interfaces);
        self.translated.write(&mut self.maps)
    }

    /// Refuses to start where inside hosts would have nothing to be hidden behind.
    ///
    /// # Errors
    /// [`PlaneError::Refused`] names the address.
    pub(super) fn check_numbers(&self) -> Result<()> {
        match self.unnumbered().first() {
            Some(address) if self.settings.masquerade != 0 => Err(PlaneError::Refused {
                what: "masquerade".to_owned(),
                why: unnumbered(*address),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn unnumbered(&self) -> Vec<Ipv4Addr> {
        let hiding = self.addresses.hiding(&self.state.interfaces);
        let hiding = hiding.into_iter().map(|(address, _)| address);
        hiding.filter(|address| self.state.numbers.of(*address).is_none()).collect()
    }
}

fn unnumbered(address: Ipv4Addr) -> String {
    format!(
        "there is no room for the ports of {address}: {PORT_ADDRESSES} public addresses of WANs are \
         the most that hosts can be hidden behind: name fewer with --wan or masquerade.addresses"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(index: u32, last: u8) -> Address {
        Address { index, address: Ipv4Addr::new(203, 0, 113, last), prefix: 24, global: true }
    }

    #[test]
    fn the_first_address_of_a_wan_is_hidden_behind_and_all_of_them_have_numbers() {
        let interfaces =
            [Attached::planned("wan0", 3, Role::Wan), Attached::planned("lan0", 4, Role::Lan)];
        let addresses = Addresses::of(
            &interfaces,
            &[listed(3, 9), listed(3, 1), listed(4, 5), listed(7, 6)],
            &[],
            &[],
        );
        let mut numbers = Numbers::default();
        assert!(addresses.number(&mut numbers, &interfaces).is_empty());
        let codes = addresses.codes(&numbers);
        let code = |last: u8| codes.get(&[203, 0, 113, last]).copied();
        assert_eq!(code(9).and_then(number), Some(0));
        assert_eq!(code(1).and_then(number), Some(1));
        assert_eq!((code(5), code(6)), (Some(ON_LAN), None));
        assert!([9, 1].iter().all(|last| code(*last).is_some_and(is_outside)));
        let (records, _) = addresses.records(&numbers, &interfaces);
        assert_eq!(records[&3].public(), Some(([203, 0, 113, 9], 0)));
        assert_eq!(records[&4], Interface::lan([203, 0, 113, 9], 0));
    }

    #[test]
    fn a_single_arm_hides_hosts_behind_its_address_that_is_not_inside_if_it_has_one() {
        let interfaces = [Attached::planned("arm0", 3, Side::Both)];
        let inside: Vec<Cidr> = vec!["203.0.113.0/25".parse().unwrap()];
        let of = |listed: &[Address]| Addresses::of(&interfaces, listed, &[], &inside);
        let two = of(&[listed(3, 1), listed(3, 201), listed(3, 202)]);
        assert_eq!(two.of_interface("arm0"), Some(Ipv4Addr::new(203, 0, 113, 201)));
        let mut numbers = Numbers::default();
        two.number(&mut numbers, &interfaces);
        let codes = two.codes(&numbers);
        assert_eq!(codes[&[203, 0, 113, 1]], ON_LAN);
        assert!([201, 202].iter().all(|last| is_outside(codes[&[203, 0, 113, *last]])));
        let (records, _) = two.records(&numbers, &interfaces);
        let sides = [nat_common::interface::Role::Lan, nat_common::interface::Role::Wan];
        assert_eq!(sides.map(|side| records[&3].is(side)), [true; 2]);
        // An instance of a cloud has one address, which is as private as those of its hosts.
        let one = of(&[listed(3, 1)]);
        assert_eq!(one.of_interface("arm0"), Some(Ipv4Addr::new(203, 0, 113, 1)));
        one.number(&mut numbers, &interfaces);
        assert!(is_outside(one.codes(&numbers)[&[203, 0, 113, 1]]));
    }

    #[test]
    fn an_address_beyond_the_numbers_is_not_hidden_behind() {
        let interfaces: Vec<_> = (1..=9)
            .map(|index| Attached::planned(&format!("wan{index}"), index, Role::Wan))
            .collect();
        let all: Vec<_> = (1..=9u8).map(|last| listed(last.into(), last)).collect();
        let addresses = Addresses::of(&interfaces, &all, &[], &[]);
        let mut numbers = Numbers::default();
        addresses.number(&mut numbers, &interfaces);
        let (records, _) = addresses.records(&numbers, &interfaces);
        assert_eq!(records[&8].public(), Some(([203, 0, 113, 8], 7)));
        assert_eq!(records[&9].public(), None);
        assert_eq!(addresses.codes(&numbers)[&[203, 0, 113, 9]], ON_WAN);
    }

    #[test]
    fn hosts_are_shared_out_among_the_named_addresses_that_a_wan_has() {
        let interfaces = [
            Attached::planned("wan0", 3, Role::Wan),
            Attached::planned("wan1", 5, Role::Wan),
            Attached::planned("lan0", 4, Role::Lan),
        ];
        let named = [7, 8].map(|last| listed(0, last).address);
        let there = [listed(3, 1), listed(3, 7), listed(3, 8), listed(5, 2), listed(4, 5)];
        let addresses = Addresses::of(&interfaces, &there, &named, &[]);
        let mut numbers = Numbers::default();
        addresses.number(&mut numbers, &interfaces);
        let number = |last: u8| numbers.of(Ipv4Addr::new(203, 0, 113, last)).expect("a number");
        let (records, places) = addresses.records(&numbers, &interfaces);
        let places: BTreeMap<_, _> = places.all().collect();
        let behind = |index: u32, host: u8| {
            let place = records[&index].place([10, 0, 1, host])?;
            Some((places[&place].address[3], places[&place].number))
        };
        let mut seen = [2, 3].map(|host| behind(3, host).expect("an address"));
        assert_eq!(behind(3, 4), behind(3, 2));
        assert_eq!([2, 3].map(|host| behind(4, host)), seen.map(Some));
        seen.sort_unstable();
        assert_eq!(seen, [7, 8].map(|last| (last, number(last))));
        // The other one has none of them.
        assert_eq!(behind(5, 2), None);
        assert_eq!(records[&5].public().map(|(address, _)| address[3]), Some(2));
    }
}
