//! The public ports that masquerade may hand out.
//!
//! Invariant: ranges are sorted, apart, leave the system ports alone, and are no more than the data
//! plane has room for.

use nat_common::port::POOL_RANGES;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::rules::PortRange;

/// Lowest port that masquerade may use: below are the system ports (RFC 6335, 6).
const LOWEST: u16 = 1024;

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pool {
    /// 1024-65535 less the ephemeral range and the listening ports of this host.
    #[default]
    Auto,
    /// These and no others.
    Ranges(Vec<PortRange>),
}

impl<'de> Deserialize<'de> for Pool {
    /// `"auto"`, or ranges with commas between: `"20000-29999,40000-49999"`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let mut ranges = vec![];
        for part in text.split(',') {
            let range: PortRange = part.trim().parse().map_err(D::Error::custom)?;
            if range.first() < LOWEST {
                return Err(D::Error::custom(format_args!(
                    "ports {range}: masquerade uses no port below {LOWEST}"
                )));
            }
            ranges.push(range);
        }
        ranges.sort_unstable();
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
            return Err(D::Error::custom(format_args!(
                "ports {} and {} overlap",
                pair[0], pair[1]
            )));
        }
        if ranges.len() > POOL_RANGES {
            return Err(D::Error::custom(format_args!(
                "{} ranges of ports: at most {POOL_RANGES} are possible",
                ranges.len()
            )));
        }
        Ok(Self::Ranges(ranges))
    }
}

impl Serialize for Pool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Ranges(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                serializer.serialize_str(&ranges.join(","))
            }
        }
    }
}
