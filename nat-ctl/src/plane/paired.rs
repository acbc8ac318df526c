//! The map `paired`: which of several public addresses each inside host is hidden behind.
//!
//! Every WAN that has some of the addresses has a place for each that the configuration names, in its
//! order, and a host takes the place that its own address leads to. So a host keeps its public address
//! (paired pooling, RFC 4787 REQ-2), and nothing has to be remembered.
//!
//! Invariant: in the place of an address that the WAN has not stands one that it has; only hosts of
//! that place are moved by it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nat_common::interface::{Interface, PAIRED, Paired};

use super::numbers::Numbers;

/// The places, and where those of each interface lie.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    places: Vec<Paired>,
    /// First place and number of places, by number of the interface.
    rows: BTreeMap<u32, (u16, u16)>,
}

impl Places {
    /// Gives an interface places for all of `named`; `there` are those that it has.
    pub fn add(
        &mut self,
        interface: u32,
        named: &[Ipv4Addr],
        there: &[Ipv4Addr],
        numbers: &Numbers,
    ) {
        let number = |address: &Ipv4Addr| {
            let number = numbers.of(*address)?;
            Some(Paired { address: address.octets(), number })
        };
        let numbered: Vec<Paired> = there.iter().filter_map(number).collect();
        let first = self.places.len();
        // Each interface here has a numbered address of its own, so the room is never short.
        if numbered.is_empty() || first + named.len() > PAIRED as usize {
            return;
        }
        let mut others = numbered.iter().cycle();
        for address in named {
            let its = numbered.iter().find(|paired| paired.address == address.octets());
            self.places.extend(its.or_else(|| others.next()));
        }
        let row = (u16::try_from(first), u16::try_from(named.len()));
        if let (Ok(first), Ok(count)) = row {
            self.rows.insert(interface, (first, count));
        }
    }

    /// The record of an interface, with the places of interface `of`.
    pub fn pair(&self, record: Interface, of: u32) -> Interface {
        match self.rows.get(&of) {
            Some((first, count)) => record.pairing(*first, *count),
            None => record,
        }
    }

    /// What stands in each place of the map.
    pub fn all(&self) -> impl Iterator<Item = (u32, Paired)> {
        let unused = std::iter::repeat(Paired::default());
        (0..PAIRED).zip(self.places.iter().copied().chain(unused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(lasts: [u8; N]) -> [Ipv4Addr; N] {
        lasts.map(|last| Ipv4Addr::new(203, 0, 113, last))
    }

    fn numbers() -> Numbers {
        let mut numbers = Numbers::default();
        numbers.assign(&addresses([1, 2, 3, 4, 5]), &[]);
        numbers
    }

    fn lasts(places: &Places) -> Vec<(u8, u32)> {
        places.all().map(|(_, paired)| (paired.address[3], paired.number)).collect()
    }

    #[test]
    fn an_address_that_is_not_there_moves_its_own_hosts_alone() {
        let (numbers, named) = (numbers(), addresses([3, 4, 5, 2]));
        let mut whole = Places::default();
        whole.add(7, &named, &named, &numbers);
        assert_eq!(lasts(&whole)[..5], [(3, 2), (4, 3), (5, 4), (2, 1), (0, 0)]);
        let mut less = Places::default();
        less.add(7, &named, &addresses([3, 2]), &numbers);
        assert_eq!(lasts(&less)[..5], [(3, 2), (3, 2), (2, 1), (2, 1), (0, 0)]);
        assert_eq!(less.all().count(), PAIRED as usize);
    }

    #[test]
    fn each_interface_has_places_of_its_own_and_a_lan_those_of_a_wan() {
        let (numbers, named) = (numbers(), addresses([3, 4]));
        let mut places = Places::default();
        places.add(7, &named, &addresses([3]), &numbers);
        places.add(8, &named, &addresses([4]), &numbers);
        // Nobody has it, or it has no number.
        places.add(9, &named, &[], &numbers);
        places.add(10, &named, &addresses([9]), &numbers);
        assert_eq!(lasts(&places)[..5], [(3, 2), (3, 2), (4, 3), (4, 3), (0, 0)]);
        let wan = Interface::wan([203, 0, 113, 1], 0);
        let host = [10, 0, 0, 0];
        let place = |record: Interface| record.place(host);
        let [first, second] = [7, 8].map(|of| place(places.pair(wan, of)).expect("a place"));
        assert!(first < 2);
        assert_eq!(second, first + 2);
        assert_eq!(place(places.pair(Interface::lan([0; 4], 0), 8)), Some(second));
        assert_eq!([9, 10].map(|of| place(places.pair(wan, of))), [None, None]);
    }
}
