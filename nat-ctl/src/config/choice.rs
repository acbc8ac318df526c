//! The choices of the file that are words.
//!
//! Invariant: a word that stands for something this version does not do is refused with "not
//! supported yet", never taken for something else.

use std::num::NonZeroU16;

use nat_common::settings::{self, CONTROL_PORTS};
use serde::{Deserialize, Deserializer, de::Error};

/// When a host keeps its public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// One inside address and port has one public port, whoever it talks to (RFC 4787, REQ-1).
    EndpointIndependent,
    /// It has one for each address and port it talks to.
    AddressAndPortDependent,
}

/// Who may send to a public port that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// The very address and port that were sent to (RFC 4787, 5).
    AddressAndPortDependent,
    /// Anybody.
    EndpointIndependent,
}

/// What becomes of a PORT or 227 that names a third host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignAddress {
    /// The line passes, no connection is opened for it, and it is counted.
    Refuse,
    /// The line passes without a count; no connection is opened for it either.
    Pass,
}

/// How many flows one host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerHost {
    /// As many as the table holds.
    Unbounded,
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
            "endpoint-independent" => Ok(Self::EndpointIndependent),
            "address-dependent" => Err(D::Error::custom(
                "filtering 'address-dependent' is not supported yet: take \
                 'address-and-port-dependent' or 'endpoint-independent'",
            )),
            _ => Err(D::Error::custom(format_args!(
                "filtering '{word}' is not a choice: 'address-and-port-dependent' or \
                 'endpoint-independent'"
            ))),
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
            Filtering::EndpointIndependent => settings::Filtering::EndpointIndependent as Self,
        }
    }
}

/// `strict = true` asks for checks that the engine does not make.
pub(super) fn not_strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    if bool::deserialize(deserializer)? {
        return Err(D::Error::custom("strict mode is not supported yet: leave it at false"));
    }
    Ok(false)
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

/// A number asks for a bound that the data plane does not keep.
pub(super) fn no_bound_per_host<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<PerHost, D::Error> {
    let number = u32::deserialize(deserializer)?;
    Err(D::Error::custom(format_args!(
        "flows_per_host = {number} is not supported yet: leave it out"
    )))
}
