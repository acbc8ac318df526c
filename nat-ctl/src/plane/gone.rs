//! Public addresses that are gone, and whose flows end with them.
//!
//! Invariant: an address that comes back in time costs no flow; one that does not, or in whose place
//! another one came, is told of once.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::Addresses;

/// Seconds in which an address may come back: a lease that is renewed, a link that flaps.
const RETURN: u32 = 10;
/// The same where its interface has another one already; who replaces one by itself adds it again at
/// once.
const REPLACED: u32 = 2;

/// When an address went, and the interface that hid inside hosts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Since {
    seconds: u32,
    interface: Option<String>,
}

/// Addresses of WANs that went, and have not been told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone(BTreeMap<Ipv4Addr, Since>);

impl Gone {
    /// Those among `known` that the gateway does not have: they went while no agent looked.
    pub fn meanwhile(known: impl Iterator<Item = Ipv4Addr>, now: &Addresses, seconds: u32) -> Self {
        let absent = |address: &Ipv4Addr| !now.outside().any(|own| own == address.octets());
        let since = |address| (address, Since { seconds, interface: None });
        Self(known.filter(absent).map(since).collect())
    }

    /// Notes which addresses went and came; `before` is what there was until now.
    pub fn follow(&mut self, before: &Addresses, now: &Addresses, seconds: u32) {
        for address in before.outside().map(Ipv4Addr::from) {
            let interface = before.hides_behind(address).map(str::to_owned);
            self.0.entry(address).or_insert(Since { seconds, interface });
        }
        for address in now.outside().map(Ipv4Addr::from) {
            self.0.remove(&address);
        }
    }

    /// Those that are gone for good, which are forgotten with this; `now` is what there is.
    pub fn over(&mut self, now: &Addresses, seconds: u32) -> Vec<Ipv4Addr> {
        let mut over = vec![];
        self.0.retain(|address, since| {
            let successor = since.interface.as_deref().and_then(|name| now.of_interface(name));
            let patience = if successor.is_some() { REPLACED } else { RETURN };
            let waits = seconds < since.seconds.saturating_add(patience);
            if !waits {
                over.push(*address);
            }
            waits
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::Role,
        plane::{Attached, links::Address},
    };

    const fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, last)
    }

    /// What there is with these addresses on the one WAN.
    fn there(wan: &[u8]) -> Addresses {
        let interface = Attached::planned("wan0", 1, Role::Wan);
        let listed =
            |last: &u8| Address { index: 1, address: address(*last), prefix: 24, global: true };
        Addresses::of(&[interface], &wan.iter().map(listed).collect::<Vec<_>>(), &[], &[])
    }

    #[test]
    fn an_address_may_come_back_for_a_while_and_is_told_of_once() {
        let mut gone = Gone::default();
        gone.follow(&there(&[1]), &there(&[]), 100);
        assert_eq!(gone.over(&there(&[]), 100 + RETURN - 1), Vec::<Ipv4Addr>::new());
        gone.follow(&there(&[]), &there(&[1]), 109);
        assert_eq!(gone.over(&there(&[1]), 200), Vec::<Ipv4Addr>::new());
        gone.follow(&there(&[1]), &there(&[]), 300);
        // Something else changes: it is gone since 300 all the same.
        gone.follow(&there(&[]), &there(&[]), 309);
        assert_eq!(gone.over(&there(&[]), 310), [address(1)]);
        assert_eq!(gone.over(&there(&[]), 400), Vec::<Ipv4Addr>::new());
    }

    #[test]
    fn one_that_another_took_the_place_of_has_less_time() {
        let mut gone = Gone::default();
        gone.follow(&there(&[1, 5]), &there(&[7]), 100);
        assert_eq!(gone.over(&there(&[7]), 100 + REPLACED - 1), Vec::<Ipv4Addr>::new());
        // The second one of the interface was nobody's to hide behind.
        assert_eq!(gone.over(&there(&[7]), 100 + REPLACED), [address(1)]);
        assert_eq!(gone.over(&there(&[7]), 100 + RETURN), [address(5)]);
    }

    #[test]
    fn the_other_one_may_come_later_than_the_first_one_goes() {
        let mut gone = Gone::default();
        gone.follow(&there(&[1]), &there(&[]), 100);
        assert_eq!(gone.over(&there(&[]), 105), Vec::<Ipv4Addr>::new());
        gone.follow(&there(&[]), &there(&[7]), 105);
        assert_eq!(gone.over(&there(&[7]), 105), [address(1)]);
    }

    #[test]
    fn what_went_while_nobody_looked_counts_from_the_start() {
        let known = [address(1), address(2)].into_iter();
        let mut gone = Gone::meanwhile(known, &there(&[2]), 50);
        assert_eq!(gone.over(&there(&[2]), 50 + RETURN - 1), Vec::<Ipv4Addr>::new());
        assert_eq!(gone.over(&there(&[2]), 50 + RETURN), [address(1)]);
    }
}
