//! Which public address has which number: the place of its ports in the map `ports`.
//!
//! Invariant: an address keeps its number while the instance lives, whether it comes and goes; a
//! number passes on to another address only when all are given out.

use std::net::Ipv4Addr;

use nat_common::port::PORT_ADDRESSES;
use serde::{Deserialize, Serialize};

/// The addresses by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numbers(Vec<Ipv4Addr>);

impl Numbers {
    /// The number of an address.
    pub fn of(&self, address: Ipv4Addr) -> Option<u32> {
        let index = self.0.iter().position(|known| *known == address)?;
        u32::try_from(index).ok()
    }

    /// All addresses that have one.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.iter().copied()
    }

    /// Gives numbers to `first`, which inside hosts are hidden behind, and as far as there are more
    /// to `others`. Gives back the numbers that were another address's before.
    pub fn assign(&mut self, first: &[Ipv4Addr], others: &[Ipv4Addr]) -> Vec<u32> {
        let mut passed_on = vec![];
        for (index, address) in first.iter().chain(others).enumerate() {
            if self.0.contains(address) {
                continue;
            }
            if self.0.len() < PORT_ADDRESSES as usize {
                self.0.push(*address);
                continue;
            }
            let gone = |known: &Ipv4Addr| !first.contains(known) && !others.contains(known);
            let spare = |known: &Ipv4Addr| index < first.len() && !first.contains(known);
            let place = self.0.iter().position(gone).or_else(|| self.0.iter().position(spare));
            if let Some((place, known)) = place.and_then(|at| Some((at, self.0.get_mut(at)?))) {
                *known = *address;
                passed_on.extend(u32::try_from(place));
            }
        }
        passed_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, last)
    }

    fn addresses(range: std::ops::Range<u8>) -> Vec<Ipv4Addr> {
        range.map(address).collect()
    }

    #[test]
    fn an_address_that_comes_back_has_its_number_again() {
        let mut numbers = Numbers::default();
        assert!(numbers.assign(&[address(1)], &[address(2)]).is_empty());
        assert!(numbers.assign(&[address(3)], &[]).is_empty());
        assert!(numbers.assign(&[address(2)], &[address(1)]).is_empty());
        assert_eq!(
            [1, 2, 3, 4].map(|last| numbers.of(address(last))),
            [Some(0), Some(1), Some(2), None]
        );
    }

    #[test]
    fn a_number_passes_on_from_an_address_that_is_gone_when_there_is_no_other() {
        let mut numbers = Numbers::default();
        assert!(numbers.assign(&addresses(0..8), &[]).is_empty());
        let mut first = addresses(1..8);
        assert!(numbers.assign(&first, &[]).is_empty());
        first.push(address(8));
        assert_eq!(numbers.assign(&first, &[]), [0]);
        assert_eq!((numbers.of(address(8)), numbers.of(address(0))), (Some(0), None));
    }

    #[test]
    fn what_hosts_are_hidden_behind_comes_first() {
        let mut numbers = Numbers::default();
        assert!(numbers.assign(&[address(0)], &addresses(1..12)).is_empty());
        assert_eq!((numbers.of(address(7)), numbers.of(address(8))), (Some(7), None));
        let others = addresses(1..12);
        assert_eq!(numbers.assign(&[address(0), address(8)], &others), [1]);
        assert_eq!((numbers.of(address(8)), numbers.of(address(1))), (Some(1), None));
        let nine = addresses(20..29);
        numbers.assign(&nine, &[]);
        let numbered = nine.iter().filter(|address| numbers.of(**address).is_some()).count();
        assert_eq!(numbered, 8);
    }

    #[test]
    fn they_are_kept_as_a_list() {
        let mut numbers = Numbers::default();
        numbers.assign(&[address(1)], &[]);
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(text, r#"["203.0.113.1"]"#);
        assert_eq!(serde_json::from_str::<Numbers>(&text).unwrap(), numbers);
    }
}
