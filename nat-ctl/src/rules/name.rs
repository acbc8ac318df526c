//! The name of a rule, and the number that stands for it in maps.
//!
//! Invariant: the number is a function of the name alone, so that a successor of the agent, or a
//! reader without one, gives the same rule the same number. Zero stands for "no rule".

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::{RuleError, text::serde_by_text};

/// Longest name: what fits a table and a map value.
const LONGEST: usize = 63;

/// The name of a rule: letters, digits, `-`, `_` and `.`, at most 63 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(String);

impl RuleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of the rule in maps.
    pub fn id(&self) -> RuleId {
        RuleId::of(&self.0)
    }
}

impl FromStr for RuleName {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > LONGEST || !text.chars().all(plain) {
            return Err(RuleError::malformed(
                text,
                "a rule name (letters, digits, '-', '_' and '.', at most 63)",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serde_by_text!(RuleName);

/// The number of a rule in maps; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(NonZeroU32);

impl RuleId {
    /// Of a name, by FNV-1a (32 bits; draft-eastlake-fnv). Two names with one number are refused
    /// as a conflict when the second is added.
    fn of(name: &str) -> Self {
        let hash =
            name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Self(NonZeroU32::new(hash).unwrap_or(NonZeroU32::MIN))
    }

    /// The number itself.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}
