//! The rules of IPv6 in force, as entries of `forwards6` and `allowed6`.
//!
//! Invariant: as for IPv4, written by difference; the networks of a filter are there before an opening
//! names it, and go after the last one has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::{MapError, lpm_trie::Key};
use nat_common::{
    port::Port,
    rule::RuleId,
    six::{Address6, Allowed6Key, Endpoint6, Opening},
};

use crate::{
    plane::{
        difference,
        error::{PlaneError, Result},
        maps::{self, Maps},
        rules::number,
    },
    rules::{Cidr, OpeningEntry},
};

/// What the maps must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings {
    openings: BTreeMap<Endpoint6, Opening>,
    allowed: BTreeSet<(u32, Address6, u8)>,
}

impl Openings {
    /// Of the entries that the rules expand to.
    pub fn of(entries: &[OpeningEntry]) -> Self {
        let mut wanted = Self::default();
        for entry in entries {
            let port = Port::new(entry.port.unwrap_or(0));
            let end = Endpoint6::new(entry.protocol.number(), entry.host.octets(), port);
            let filter = wanted.filter(&entry.allow);
            let rule = RuleId::new(entry.rule.number());
            let opening = Opening::new(rule, filter);
            let opening = if entry.control { opening.control() } else { opening };
            wanted.openings.insert(end, opening);
        }
        wanted
    }

    /// The number of the filter for these networks: 0 where everybody is allowed.
    fn filter(&mut self, allow: &[Cidr]) -> u32 {
        if allow.iter().any(|network| network.prefix_length() == 0) {
            return 0;
        }
        let mut networks = allow.to_vec();
        networks.sort_unstable();
        networks.dedup();
        let number = number(&networks);
        for network in networks {
            if let IpAddr::V6(address) = network.network() {
                self.allowed.insert((number, address.octets(), network.prefix_length()));
            }
        }
        number
    }

    /// Brings the maps to this.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn write(&self, maps: &mut Maps) -> Result<()> {
        self.write_all(maps).map_err(PlaneError::refused("write the rules of IPv6"))
    }

    fn write_all(&self, maps: &mut Maps) -> std::result::Result<(), MapError> {
        for (filter, remote, bits) in &self.allowed {
            let bits = Allowed6Key::FILTER_BITS + u32::from(*bits);
            maps.allowed6.insert(&Key::new(bits, Allowed6Key::new(*filter, *remote)), 1, 0)?;
        }
        difference::apply(&mut maps.forwards6, &self.openings)?;
        let present: Vec<Key<Allowed6Key>> =
            maps.allowed6.keys().collect::<std::result::Result<_, _>>()?;
        for key in present {
            let (bits, data) = (key.prefix_len() - Allowed6Key::FILTER_BITS, key.data());
            if !self.allowed.contains(&(data.filter(), data.remote(), bits as u8)) {
                match maps.allowed6.remove(&key) {
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
    use crate::rules::{ForwardDraft, Rule, RuleSet};

    fn wanted(tables: &[&str]) -> Openings {
        let mut set = RuleSet::default();
        for table in tables {
            let draft: ForwardDraft = toml::from_str(table).unwrap();
            set.insert(Rule::Forward(draft.finish().unwrap()), &|_| None).unwrap();
        }
        assert!(set.entries(&|_| None).unwrap().is_empty(), "nothing of IPv4");
        Openings::of(&set.openings())
    }

    #[test]
    fn a_forward_opens_each_of_its_ports_to_those_that_it_allows() {
        let web = "name = 'web'\nprotocol = 'tcp+udp'\npublic = '[2001:db8::5]:80-81'\n\
                   to = '[2001:db8::5]:80-81'\n";
        let all = "name = 'all'\nprotocol = 'udp'\npublic = '2001:db8::6'\nto = '2001:db8::6'\n\
                   allow = ['2001:db8:9::/48']\n";
        let wanted = wanted(&[web, all]);
        assert_eq!(wanted.openings.len(), 5);
        let end = |text: &str, protocol, port| {
            let address: std::net::Ipv6Addr = text.parse().unwrap();
            Endpoint6::new(protocol, address.octets(), Port::new(port))
        };
        assert_eq!(wanted.openings[&end("2001:db8::5", 6, 81)].filter(), 0);
        let filter = wanted.openings[&end("2001:db8::6", 17, 0)].filter();
        assert_ne!(filter, 0);
        let network: std::net::Ipv6Addr = "2001:db8:9::".parse().unwrap();
        assert_eq!(wanted.allowed, BTreeSet::from([(filter, network.octets(), 48)]));
    }

    #[test]
    fn ftp_is_followed_on_its_port_and_where_it_is_asked_for() {
        let rule = |name: &str, ports: &str, more: &str| {
            format!(
                "name = '{name}'\nprotocol = 'tcp'\npublic = '[2001:db8::{name}]{ports}'\n\
                 to = '[2001:db8::{name}]{ports}'\n{more}\n"
            )
        };
        let wanted = wanted(&[
            &rule("a", ":21", ""),
            &rule("b", ":2121", "alg = 'ftp'"),
            &rule("c", ":21", "alg = 'none'"),
            &rule("d", "", "").replace("[2001:db8::d]", "2001:db8::d"),
            &rule("e", ":80", ""),
        ]);
        let is_control = |host: &str, port| {
            let address: std::net::Ipv6Addr = format!("2001:db8::{host}").parse().unwrap();
            let opening = wanted.openings[&Endpoint6::new(6, address.octets(), Port::new(port))];
            opening.is_control()
        };
        assert!(is_control("a", 21) && is_control("b", 2121) && is_control("d", 21));
        assert!(!is_control("c", 21) && !is_control("d", 0) && !is_control("e", 80));
    }

    #[test]
    fn what_would_need_translation_or_an_alg_is_refused() {
        for (rest, why) in [
            ("public = '[2001:db8::5]:80'\nto = '[2001:db8::5]:81'", "not translated"),
            ("public = 'eth0:80'\nto = '[2001:db8::5]:80'", "does not stand for"),
            ("public = '203.0.113.1:80'\nto = '[2001:db8::5]:80'", "of IPv4 and the other"),
            (
                "public = '[2001:db8::5]:21'\nto = '[2001:db8::5]:21'\npassive_range = '5000-5009'",
                "needs IPv4",
            ),
            (
                "public = '[2001:db8::5]:80'\nto = '[2001:db8::5]:80'\nallow = ['10.0.0.0/8']",
                "another",
            ),
        ] {
            let text = format!("name = 'x'\nprotocol = 'tcp'\n{rest}\n");
            let draft: ForwardDraft = toml::from_str(&text).unwrap();
            let said = draft.finish().unwrap_err().to_string();
            assert!(said.contains(why), "{rest}: {said}");
        }
    }
}
