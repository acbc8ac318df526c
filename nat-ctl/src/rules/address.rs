//! Addresses as rules name them: public, inside, and prefixes of remote ends.
//!
//! Invariant: a host address is a unicast address that a packet can carry; a prefix has no
//! bits beyond its length.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::{PortRange, RuleError, text::serde_by_text};

/// Longest interface name (IFNAMSIZ less the final zero; linux/if.h).
const LONGEST_INTERFACE: usize = 15;

/// A prefix of remote addresses, such as `198.51.100.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Every address.
    pub const ALL: Self = Self(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)));

    /// The lowest address of the prefix.
    pub fn network(self) -> IpAddr {
        self.0.network()
    }

    /// How many leading bits count, 0 to 32 or 128.
    pub fn prefix_length(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the address is under the prefix.
    pub fn contains(self, address: impl Into<IpAddr>) -> bool {
        self.0.contains(&address.into())
    }

    /// The same addresses without a prefix that another one covers.
    pub fn reduce(list: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut reduced: Vec<Self> = vec![];
        for cidr in list {
            if !reduced.iter().any(|wider| wider.covers(cidr)) {
                reduced.retain(|narrower| !cidr.covers(*narrower));
                reduced.push(cidr);
            }
        }
        reduced
    }

    /// Whether every address of `other` is under this prefix.
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }
}

impl FromStr for Cidr {
    type Err = RuleError;

    /// `any` is every address (the dashboard's word); an address alone is a prefix of 32 bits.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let malformed = || {
            RuleError::malformed(
                text,
                "a prefix (198.51.100.0/24, 198.51.100.7, 2001:db8::/32 or any)",
            )
        };
        if text == "any" {
            return Ok(Self::ALL);
        }
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| malformed())?,
        };
        Ok(Self(net.trunc()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The outside of a forward: an address, or an interface whose address counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicAddress {
    /// This address.
    Address(IpAddr),
    /// The first address of this interface, whatever it is at the time.
    Interface(String),
}

impl FromStr for PublicAddress {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let malformed = || {
            RuleError::malformed(
                text,
                "a public address or interface (203.0.113.10, 2001:db8::10 or eth0)",
            )
        };
        // An interface may be called nearly anything; what looks like an address is meant as one.
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if numeric {
            let address = unicast(text).map(|address| Self::Address(address.into()));
            return address.ok_or_else(malformed);
        }
        if text.contains(':') {
            return unicast6(text)
                .map(|address| Self::Address(address.into()))
                .ok_or_else(malformed);
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
        if text.len() > LONGEST_INTERFACE || !text.chars().all(plain) {
            return Err(malformed());
        }
        Ok(Self::Interface(text.to_owned()))
    }
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.pad(name),
        }
    }
}

/// `ADDR|IF[:PORTS]`: where a forward is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicEndpoint {
    /// The address or interface.
    pub address: PublicAddress,
    /// The ports, where some are named.
    pub ports: Option<PortRange>,
}

impl FromStr for PublicEndpoint {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (address, ports) = endpoint(text)?;
        Ok(Self { address: address.parse()?, ports })
    }
}

impl fmt::Display for PublicEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            PublicAddress::Address(address) => write_host(f, *address, self.ports),
            PublicAddress::Interface(_) => write_endpoint(f, &self.address, self.ports),
        }
    }
}

/// `ADDR[:PORTS]`: the host inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InsideEndpoint {
    /// The host's own address.
    pub address: IpAddr,
    /// The ports, where some are named.
    pub ports: Option<PortRange>,
}

impl FromStr for InsideEndpoint {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (address, ports) = endpoint(text)?;
        let address = match unicast6(address) {
            Some(address) => address.into(),
            None => parse_host(address)?.into(),
        };
        Ok(Self { address, ports })
    }
}

impl fmt::Display for InsideEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, self.address, self.ports)
    }
}

serde_by_text!(Cidr, PublicAddress, PublicEndpoint, InsideEndpoint);

/// An address that a host can have, from text.
///
/// # Errors
/// Says what is wrong with the text, in one line.
pub fn parse_host(text: &str) -> Result<Ipv4Addr, RuleError> {
    unicast(text).ok_or_else(|| RuleError::malformed(text, "the IPv4 address of a host (10.0.0.5)"))
}

/// serde's way in for a host address that must be unicast.
pub(crate) fn deserialize_host<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Ipv4Addr, D::Error> {
    let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
    parse_host(&text).map_err(serde::de::Error::custom)
}

fn unicast(text: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    // RFC 1122, 3.2.1.3: none of these can be the address of a host on a wire; 240/4 can't either.
    let usable = address.octets()[0] != 0 && address.octets()[0] < 224 && !address.is_loopback();
    usable.then_some(address)
}

/// An address of IPv6 that a host can have and that leaves its link.
fn unicast6(text: &str) -> Option<Ipv6Addr> {
    let address: Ipv6Addr = text.parse().ok()?;
    (!nat_common::six::stays(&address.octets())).then_some(address)
}

fn endpoint(text: &str) -> Result<(&str, Option<PortRange>), RuleError> {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((address, Some(ports.parse()?))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(RuleError::malformed(
                text,
                "an address in brackets, then ports ([2001:db8::1]:80)",
            )),
        };
    }
    // Two colons are an address of IPv6 alone.
    match text.split_once(':') {
        Some((address, ports)) if !ports.contains(':') => Ok((address, Some(ports.parse()?))),
        _ => Ok((text, None)),
    }
}

/// An address of IPv6 stands in brackets before ports.
fn write_host(
    f: &mut fmt::Formatter<'_>,
    address: IpAddr,
    ports: Option<PortRange>,
) -> fmt::Result {
    match (address, ports) {
        (IpAddr::V6(address), Some(ports)) => write!(f, "[{address}]:{ports}"),
        (address, ports) => write_endpoint(f, &address, ports),
    }
}

fn write_endpoint(
    f: &mut fmt::Formatter<'_>,
    address: &dyn fmt::Display,
    ports: Option<PortRange>,
) -> fmt::Result {
    write!(f, "{address}")?;
    match ports {
        Some(ports) => write!(f, ":{ports}"),
        None => Ok(()),
    }
}
