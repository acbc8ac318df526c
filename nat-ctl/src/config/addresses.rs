//! The public addresses that masquerade shares hosts out among.
//!
//! Invariant: each is named once, a host can have it, and the data plane has room for them.

use std::{net::Ipv4Addr, ops::Deref};

use ipnet::Ipv4Net;
use nat_common::port::PORT_ADDRESSES;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::rules::parse_host;

/// Which addresses, in the order of the file. A file may say `203.0.113.10`,
/// `203.0.113.10-203.0.113.13` or `203.0.113.8/30`, which is all four of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicAddresses(Vec<Ipv4Addr>);

impl Deref for PublicAddresses {
    type Target = [Ipv4Addr];

    fn deref(&self) -> &[Ipv4Addr] {
        &self.0
    }
}

impl PublicAddresses {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let (first, last) = ends(text)?;
        for address in u32::from(first)..=u32::from(last) {
            let address = Ipv4Addr::from(address);
            if self.0.contains(&address) {
                return Err(format!("addresses: {address} is named twice"));
            }
            if self.0.len() == PORT_ADDRESSES as usize {
                return Err(format!(
                    "addresses: {PORT_ADDRESSES} are the most that hosts can be hidden behind"
                ));
            }
            parse_host(&address.to_string()).map_err(|error| format!("addresses: {error}"))?;
            self.0.push(address);
        }
        Ok(())
    }
}

/// The first and the last of what a text names.
fn ends(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let malformed = || {
        format!(
            "addresses '{text}': not an address (203.0.113.10), a range \
             (203.0.113.10-203.0.113.13) or a prefix (203.0.113.8/30)"
        )
    };
    if text.contains('/') {
        let network: Ipv4Net = text.parse().map_err(|_| malformed())?;
        return Ok((network.network(), network.broadcast()));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| malformed());
    let (first, last) = (parse(first)?, parse(last)?);
    if last < first {
        return Err(format!("addresses '{text}': it ends before it begins"));
    }
    Ok((first, last))
}

impl<'de> Deserialize<'de> for PublicAddresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut addresses = Self::default();
        for text in Vec::<String>::deserialize(deserializer)? {
            addresses.add(&text).map_err(D::Error::custom)?;
        }
        Ok(addresses)
    }
}

impl Serialize for PublicAddresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
