//! The WAN that the packets of a rule leave by.

use std::{fmt, str::FromStr};

use super::{PublicAddress, RuleError, text::serde_by_text};

/// The name of an interface, which may not be there yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink(String);

impl Uplink {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uplink {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text.parse() {
            Ok(PublicAddress::Interface(name)) => Ok(Self(name)),
            Ok(PublicAddress::Address(_)) | Err(_) => {
                Err(RuleError::malformed(text, "the name of a WAN interface (eth0)"))
            }
        }
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serde_by_text!(Uplink);
