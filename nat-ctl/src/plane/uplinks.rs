//! The map `uplinks`: by which WAN packets with a public address leave.
//!
//! With one WAN there is nothing to decide, and the map is empty. With several, what has an address of
//! a WAN leaves there if the kernel has a route by it: an answer goes back the way on which the
//! question came, whatever the best route is. A rule may name another uplink for its address.
//!
//! Invariant: the map is written before the data plane is told that there is something in it, and a
//! change voids what flows know of next hops.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    Addresses, Plane,
    error::{PlaneError, Result},
    route::{self, Way},
    state::{Attached, Side},
};
use crate::{
    output::Role,
    rules::{PublicAddress, Rule, RuleSet},
};

/// Numbers of interfaces by public address.
pub type Uplinks = BTreeMap<[u8; 4], u32>;

/// What the map must hold.
fn wanted(interfaces: &[Attached], addresses: &Addresses, rules: &RuleSet) -> Uplinks {
    let wans = || interfaces.iter().filter(|interface| interface.side.is(Role::Wan));
    let mut uplinks = Uplinks::new();
    if wans().count() > 1 {
        uplinks.extend(addresses.on_wans());
    }
    for rule in rules.iter() {
        let (uplink, public) = match rule {
            Rule::Forward(forward) => (forward.uplink(), forward.public().address),
            Rule::OneToOne(host) => (host.uplink(), PublicAddress::Address(host.public().into())),
        };
        let Some(uplink) = uplink else { continue };
        let named = wans().find(|interface| interface.name == uplink.name());
        let address = match public {
            PublicAddress::Address(IpAddr::V4(address)) => Some(address),
            PublicAddress::Address(IpAddr::V6(_)) => None,
            PublicAddress::Interface(name) => addresses.of_interface(&name),
        };
        if let (Some(interface), Some(address)) = (named, address) {
            uplinks.insert(address.octets(), interface.index);
        }
    }
    uplinks
}

impl Plane {
    /// By which interface packets with this public address leave, where that is not left to the
    /// kernel's routing alone.
    pub fn uplink(&self, public: Ipv4Addr) -> Option<u32> {
        self.uplinks.get(&public.octets()).copied()
    }

    /// Whether the kernel leads packets to a host to the inside: what turns back there leaves by no uplink,
    /// though a default route of one would take it.
    pub fn leads_inside(&self, to: Ipv4Addr) -> bool {
        let Way::Forward { index, .. } = route::of_own(to.into()) else { return false };
        let interfaces = &self.state.interfaces;
        interfaces.iter().any(|it| {
            it.index == index
                && match it.side {
                    Side::Lan => true,
                    Side::Wan => false,
                    Side::Both => self.inside.iter().any(|network| network.contains(to)),
                }
        })
    }

    /// Brings the map to what interfaces, addresses and rules say.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn write_uplinks(&mut self) -> Result<()> {
        let wanted = wanted(&self.state.interfaces, &self.addresses, &self.rules);
        if wanted == self.uplinks {
            return Ok(());
        }
        super::difference::apply(&mut self.maps.uplinks, &wanted)
            .map_err(PlaneError::refused("write the map uplinks"))?;
        self.uplinks = wanted;
        self.settings.uplinks = u8::from(!self.uplinks.is_empty());
        self.hops.void();
        self.write_epoch(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::links::Address;

    const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn listed(index: u32, address: Ipv4Addr) -> Address {
        Address { index, address, prefix: 24, global: true }
    }

    fn of(wans: &[Attached], rules: &[serde_json::Value]) -> Vec<([u8; 4], u32)> {
        let lan = Attached::planned("lan0", 9, Role::Lan);
        let interfaces: Vec<_> = wans.iter().cloned().chain([lan]).collect();
        let all = [listed(3, FIRST), listed(4, SECOND), listed(9, Ipv4Addr::new(10, 0, 0, 1))];
        let addresses = Addresses::of(&interfaces, &all, &[], &[]);
        let mut set = RuleSet::default();
        for rule in rules {
            let rule = serde_json::from_value(rule.clone()).expect("a rule");
            set.insert(rule, &|_| None).expect("it fits");
        }
        wanted(&interfaces, &addresses, &set).into_iter().collect()
    }

    #[test]
    fn addresses_of_several_wans_have_their_own_and_that_of_one_has_none() {
        let [first, second] =
            [Attached::planned("wan0", 3, Role::Wan), Attached::planned("wan1", 4, Role::Wan)];
        assert_eq!(of(std::slice::from_ref(&first), &[]), []);
        assert_eq!(of(&[first, second], &[]), [(SECOND.octets(), 4), (FIRST.octets(), 3)]);
    }

    #[test]
    fn a_rule_names_the_uplink_of_its_address() {
        let [first, second] =
            [Attached::planned("wan0", 3, Role::Wan), Attached::planned("wan1", 4, Role::Wan)];
        let rule = |public: &str, uplink: &str| {
            serde_json::json!({
                "kind": "forward", "name": "web", "protocol": "tcp", "public": public,
                "to": "10.0.0.5", "uplink": uplink,
            })
        };
        let routed = [192, 0, 2, 1];
        assert_eq!(
            of(std::slice::from_ref(&first), &[rule("192.0.2.1:80", "wan0")]),
            [(routed, 3)]
        );
        assert_eq!(of(std::slice::from_ref(&first), &[rule("192.0.2.1:80", "wan7")]), []);
        assert_eq!(of(std::slice::from_ref(&first), &[rule("192.0.2.1:80", "lan0")]), []);
        let both = [first, second];
        let other = of(&both, &[rule("wan0:80", "wan1")]);
        assert_eq!(other, [(SECOND.octets(), 4), (FIRST.octets(), 4)]);
    }
}
