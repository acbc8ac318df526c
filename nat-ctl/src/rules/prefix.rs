//! Pairs of prefixes of IPv6 (RFC 6296): what is inside below the one is known outside below the other.
//!
//! Invariant: both are of IPv6, of one length that a translation has room for, and have no address in
//! common; the pairs of a list lead every address to one other.

use std::net::{IpAddr, Ipv6Addr};

use nat_common::six::{self, LONGEST_PREFIX, PrefixKey};
use serde::{Deserialize, Serialize};

use super::{Cidr, PublicAddress, Rule, RuleError};

/// A pair of prefixes at a WAN: `[[prefix]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Draft", into = "Draft")]
pub struct Prefix {
    wan: String,
    inside: Network,
    public: Network,
}

/// As it is written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    wan: String,
    inside: Cidr,
    public: Cidr,
}

/// A network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    cidr: Cidr,
    address: Ipv6Addr,
}

impl Prefix {
    /// The interface that it is for.
    pub fn wan(&self) -> &str {
        &self.wan
    }

    /// What is translated inside.
    pub fn inside(&self) -> Cidr {
        self.inside.cidr
    }

    /// What that is known as outside.
    pub fn public(&self) -> Cidr {
        self.public.cidr
    }

    /// Entries of the map `prefixes`, each with the bits of its address, where the WAN has this number.
    pub fn entries(&self, wan: u32) -> [(PrefixKey, u8, six::Prefix); 3] {
        let bits = self.inside.cidr.prefix_length();
        let (inside, public) = (self.inside.address.octets(), self.public.address.octets());
        let out = six::Prefix::new(inside, public, bits, wan);
        [
            (PrefixKey::leaving(wan, inside), bits, out),
            (PrefixKey::inside(inside), bits, out),
            (PrefixKey::public(public), bits, six::Prefix::new(public, inside, bits, wan)),
        ]
    }

    /// What the outside knows an inside address as; `None` for one that it does not translate.
    pub fn public_of(&self, inside: Ipv6Addr) -> Option<Ipv6Addr> {
        if !self.inside.cidr.contains(inside) {
            return None;
        }
        let [(_, _, out), ..] = self.entries(1);
        out.translate(inside.octets()).map(Ipv6Addr::from)
    }

    fn clashes_with(&self, other: &Self) -> bool {
        let meet = |a: Network, b: Network| a.cidr.covers(b.cidr) || b.cidr.covers(a.cidr);
        self.wan == other.wan && meet(self.inside, other.inside)
            || meet(self.public, other.public)
            || meet(self.inside, other.public)
            || meet(self.public, other.inside)
    }
}

impl TryFrom<Draft> for Prefix {
    type Error = String;

    fn try_from(draft: Draft) -> Result<Self, String> {
        let Draft { wan, inside, public } = draft;
        let (inside, public) = (network(inside)?, network(public)?);
        let bits = inside.cidr.prefix_length();
        if bits != public.cidr.prefix_length() {
            return Err(format!(
                "prefixes {} and {} differ in length: give both the longer one's",
                inside.cidr, public.cidr
            ));
        }
        if bits == 0 || bits > LONGEST_PREFIX {
            return Err(format!(
                "prefix {}: a prefix of 1 to {LONGEST_PREFIX} bits can be translated (RFC 6296)",
                inside.cidr
            ));
        }
        let prefix = Self { wan, inside, public };
        if prefix.inside.cidr.covers(public.cidr) || public.cidr.covers(prefix.inside.cidr) {
            return Err(format!("prefix {} would become itself", prefix.inside.cidr));
        }
        Ok(prefix)
    }
}

fn network(cidr: Cidr) -> Result<Network, String> {
    match cidr.network() {
        IpAddr::V6(address) if address.is_unspecified() || !six::stays(&address.octets()) => {
            Ok(Network { cidr, address })
        }
        IpAddr::V6(_) => Err(format!("prefix {cidr}: its addresses never leave their link")),
        IpAddr::V4(_) => Err(format!("prefix {cidr}: prefixes are translated of IPv6 alone")),
    }
}

impl From<Prefix> for Draft {
    fn from(prefix: Prefix) -> Self {
        Self { wan: prefix.wan, inside: prefix.inside.cidr, public: prefix.public.cidr }
    }
}

/// Two pairs that can't both be in force.
pub fn clash(prefixes: &[Prefix]) -> Option<String> {
    prefixes.iter().enumerate().find_map(|(index, prefix)| {
        let mut others = prefixes.iter().take(index);
        let other = others.find(|other| prefix.clashes_with(other))?;
        Some(format!(
            "prefix {} at {} and {} at {} overlap: an address would have two translations",
            prefix.inside.cidr, prefix.wan, other.inside.cidr, other.wan
        ))
    })
}

/// Whether a forward of IPv6 names the public address of the host that it leads to.
///
/// # Errors
/// [`RuleError::Inconsistent`] says what its host is known as.
pub(super) fn check(prefixes: &[Prefix], rule: &Rule) -> Result<(), RuleError> {
    let Rule::Forward(forward) = rule else { return Ok(()) };
    let (PublicAddress::Address(IpAddr::V6(public)), IpAddr::V6(to)) =
        (forward.public().address, forward.to().address)
    else {
        return Ok(());
    };
    let known = || prefixes.iter().filter_map(|prefix| prefix.public_of(to));
    if public == to || known().any(|known| known == public) {
        return Ok(());
    }
    Err(RuleError::Inconsistent(format!(
        "forward '{}': {to} is known outside as {}, not as {public}: name that in 'public'",
        forward.name(),
        known().next().unwrap_or(to)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ForwardDraft;

    fn pair(wan: &str, inside: &str, public: &str) -> Result<Prefix, String> {
        let draft = format!("wan = '{wan}'\ninside = '{inside}'\npublic = '{public}'\n");
        toml::from_str::<Prefix>(&draft).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_pair_translates_what_is_below_it_and_is_written_as_it_was_read() {
        let pair = pair("wan0", "fd01:203:405::/48", "2001:db8:1::/48").unwrap();
        let host = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let public = host("2001:db8:1:d550::1234");
        assert_eq!(pair.public_of(host("fd01:203:405:1::1234")), Some(public));
        assert_eq!(pair.public_of(host("fd01:203:406:1::1234")), None);
        assert_eq!(pair.public_of(host("fd01:203:405:ffff::1")), None);
        let text = toml::to_string(&pair).unwrap();
        assert_eq!(toml::from_str::<Prefix>(&text).unwrap(), pair, "{text}");
        let [(leaving, bits, _), _, (_, _, back)] = pair.entries(7);
        assert_eq!((leaving.wan(), bits, back.wan()), (Some(7), 48, 7));
        assert_eq!(back.translate(public.octets()), Some(host("fd01:203:405:1::1234").octets()));
    }

    #[test]
    fn what_cannot_be_translated_is_refused_with_the_reason() {
        for (inside, public, why) in [
            ("fd00::/48", "2001:db8::/56", "differ in length"),
            ("fd00::/65", "2001:db8::/65", "1 to 64 bits"),
            ("::/0", "::/0", "1 to 64 bits"),
            ("10.0.0.0/8", "2001:db8::/48", "IPv6 alone"),
            ("fe80::/48", "2001:db8::/48", "never leave"),
            ("ff05::/48", "2001:db8::/48", "never leave"),
            ("fd00::/48", "fd00::/48", "become itself"),
        ] {
            let said = pair("wan0", inside, public).expect_err(inside);
            assert!(said.contains(why), "{inside}: {said}");
        }
    }

    #[test]
    fn an_address_has_one_translation_at_a_wan_and_two_wans_may_share_an_inside() {
        let list = |pairs: &[[&str; 3]]| -> Vec<Prefix> {
            pairs.iter().map(|[wan, inside, public]| pair(wan, inside, public).unwrap()).collect()
        };
        let one = ["wan0", "fd00:1::/48", "2001:db8:1::/48"];
        assert_eq!(clash(&list(&[one, ["wan1", "fd00:1::/48", "2001:db8:2::/48"]])), None);
        for other in [
            ["wan0", "fd00:1:0:1::/64", "2001:db8:3:1::/64"],
            ["wan1", "fd00:2::/48", "2001:db8:1::/48"],
            ["wan1", "2001:db8:1::/48", "2001:db8:2::/48"],
            ["wan1", "fd00:2::/48", "fd00:1::/48"],
        ] {
            assert!(clash(&list(&[one, other])).is_some(), "{other:?}");
        }
    }

    #[test]
    fn a_forward_names_what_its_host_is_known_as() {
        let pairs = [pair("wan0", "fd01:203:405::/48", "2001:db8:1::/48").unwrap()];
        let rule = |public: &str, to: &str| {
            let text = format!(
                "name = 'x'\nprotocol = 'tcp'\npublic = '[{public}]:80'\nto = '[{to}]:80'\n"
            );
            Rule::Forward(toml::from_str::<ForwardDraft>(&text).unwrap().finish().unwrap())
        };
        let inside = "fd01:203:405:1::1234";
        assert_eq!(check(&pairs, &rule("2001:db8:1:d550::1234", inside)), Ok(()));
        assert_eq!(check(&pairs, &rule(inside, inside)), Ok(()));
        for (public, to, known) in [
            ("2001:db8:1:d551::1234", inside, "2001:db8:1:d550::1234"),
            ("2001:db8:2::1", "2001:db8:2::2", "2001:db8:2::2"),
        ] {
            let said = check(&pairs, &rule(public, to)).unwrap_err().to_string();
            assert!(said.contains(&format!("known outside as {known}")), "{said}");
        }
    }
}
