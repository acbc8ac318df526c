//! The choices of the file that are words.
//!
//! Invariant: a word that is no choice is refused, never taken for something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::{NonZeroU8, NonZeroU16},
};

use nat_common::settings::{self, CONTROL_PORTS};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{alg::pinhole::PINHOLES, rules::Cidr};

/// Other addresses of a server: each takes an expectation for each PORT.
const DATA_ADDRESSES: usize = 4;
/// What fits the least MTU of IPv4, 68 bytes (RFC 791 section 3.2).
const LEAST_MSS: u16 = 28;

/// When a host keeps its public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// One inside address and port has one public port, whoever it talks to (RFC 4787, REQ-1).
    EndpointIndependent,
    /// It has one for each address and port it talks to.
    AddressAndPortDependent,
}

/// Who may send to a public port that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// The very address and port that were sent to (RFC 4787, 5).
    AddressAndPortDependent,
    /// The very address that was sent to, from any port.
    AddressDependent,
    /// Anybody.
    EndpointIndependent,
}

/// Which MSS TCP connections through the gateway may announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClampMss {
    /// What fits their path.
    Auto,
    /// What fits their path, and no more than this.
    Most(u16),
    /// Any.
    Off,
}

/// What becomes of a PORT or 227 that names a third host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignAddress {
    /// The line passes, no connection is opened for it, and it is counted.
    Refuse,
    /// The line passes without a count; no connection is opened for it either.
    Pass,
}

impl<'de> Deserialize<'de> for Mapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "endpoint-independent" => Ok(Self::EndpointIndependent),
            "address-and-port-dependent" => Ok(Self::AddressAndPortDependent),
            _ => Err(D::Error::custom(format_args!(
                "mapping '{word}' is not a choice: 'endpoint-independent' or \
                 'address-and-port-dependent'"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Filtering {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "address-and-port-dependent" => Ok(Self::AddressAndPortDependent),
            "address-dependent" => Ok(Self::AddressDependent),
            "endpoint-independent" => Ok(Self::EndpointIndependent),
            _ => Err(D::Error::custom(format_args!(
                "filtering '{word}' is not a choice: 'address-and-port-dependent', \
                 'address-dependent' or 'endpoint-independent'"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for ClampMss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "clamp_mss is 'auto', 'off' or a number of bytes")]
        enum Given {
            Word(String),
            Number(i64),
        }
        match Given::deserialize(deserializer)? {
            Given::Word(word) => match word.as_str() {
                "auto" => Ok(Self::Auto),
                "off" => Ok(Self::Off),
                _ => Err(D::Error::custom(format_args!(
                    "clamp_mss '{word}' is not a choice: 'auto', 'off' or a number of bytes"
                ))),
            },
            Given::Number(number) => u16::try_from(number)
                .ok()
                .filter(|most| *most >= LEAST_MSS)
                .map(Self::Most)
                .ok_or_else(|| {
                    D::Error::custom(format_args!(
                        "clamp_mss = {number}: an MSS is a number from {LEAST_MSS} to 65535"
                    ))
                }),
        }
    }
}

impl Serialize for ClampMss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Most(most) => serializer.serialize_u16(*most),
            Self::Off => serializer.serialize_str("off"),
        }
    }
}

impl From<ClampMss> for u16 {
    /// As the data plane is told.
    fn from(clamp: ClampMss) -> Self {
        match clamp {
            ClampMss::Auto => Self::MAX,
            ClampMss::Most(most) => most,
            ClampMss::Off => 0,
        }
    }
}

impl From<Mapping> for u16 {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::EndpointIndependent => settings::Mapping::EndpointIndependent as Self,
            Mapping::AddressAndPortDependent => settings::Mapping::AddressAndPortDependent as Self,
        }
    }
}

impl From<Filtering> for u16 {
    fn from(filtering: Filtering) -> Self {
        match filtering {
            Filtering::AddressAndPortDependent => {
                settings::Filtering::AddressAndPortDependent as Self
            }
            Filtering::AddressDependent => settings::Filtering::AddressDependent as Self,
            Filtering::EndpointIndependent => settings::Filtering::EndpointIndependent as Self,
        }
    }
}

/// Other addresses of servers: a few of each, all told apart.
pub(super) fn data_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<IpAddr, Vec<IpAddr>>, D::Error> {
    let servers = BTreeMap::<IpAddr, Vec<IpAddr>>::deserialize(deserializer)?;
    for (server, others) in &servers {
        let all = others.iter().chain([server]).collect::<BTreeSet<_>>();
        if all.len() != others.len() + 1 {
            return Err(D::Error::custom(format_args!("an address of {server} is there twice")));
        }
        if others.iter().any(|other| other.is_ipv6() != server.is_ipv6()) {
            return Err(D::Error::custom(format_args!(
                "{server} has an address of another family: its data connections have its own"
            )));
        }
        if others.len() > DATA_ADDRESSES {
            return Err(D::Error::custom(format_args!(
                "{server} has {} other addresses: at most {DATA_ADDRESSES} are possible",
                others.len()
            )));
        }
    }
    Ok(servers)
}

/// Commands by their words, in capitals: RFC 959, 5.3.1 has letters alone, of at most four; later ones
/// are longer.
pub(super) fn denied_commands<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let is_command = |word: &String| {
        !word.is_empty() && word.len() <= 8 && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    match words.iter().find(|word| !is_command(word)) {
        Some(word) => Err(D::Error::custom(format_args!("'{word}' is no command of FTP"))),
        None => Ok(words.iter().map(|word| word.to_ascii_uppercase()).collect()),
    }
}

/// The networks that are nobody's outside (RFC 1918, section 3; RFC 6598, section 7).
pub(super) fn private() -> Vec<Cidr> {
    let networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

/// Networks of inside hosts.
pub(super) fn inside<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    let networks = Vec::<Cidr>::deserialize(deserializer)?;
    match networks.iter().find(|network| network.network().is_ipv6()) {
        Some(six) => Err(D::Error::custom(format_args!(
            "inside '{six}': an interface that is WAN and LAN in one leaves IPv6 to the kernel"
        ))),
        None if networks.is_empty() => {
            Err(D::Error::custom("inside: no network: name those of the hosts inside"))
        }
        None => Ok(networks),
    }
}

/// Networks that are exempt from NAT.
pub(super) fn exempt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    let networks = Vec::<Cidr>::deserialize(deserializer)?;
    match networks.iter().find(|network| network.network().is_ipv6()) {
        Some(six) => Err(D::Error::custom(format_args!(
            "exempt '{six}': nothing of IPv6 is translated, so nothing is exempt from that"
        ))),
        None => Ok(networks),
    }
}

/// No more control ports than the data plane looks for.
pub(super) fn control_ports<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<NonZeroU16>, D::Error> {
    let ports = Vec::<NonZeroU16>::deserialize(deserializer)?;
    if ports.len() > CONTROL_PORTS {
        return Err(D::Error::custom(format_args!(
            "{} control ports: at most {CONTROL_PORTS} are possible",
            ports.len()
        )));
    }
    Ok(ports)
}

/// No more than the engine remembers.
pub(super) fn pinholes_per_session<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<NonZeroU8, D::Error> {
    let number = NonZeroU8::deserialize(deserializer)?;
    if usize::from(number.get()) > PINHOLES {
        return Err(D::Error::custom(format_args!(
            "pinholes_per_session = {number}: at most {PINHOLES} are possible"
        )));
    }
    Ok(number)
}
