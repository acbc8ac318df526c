//! The name of a rule, and the number that stands for it in maps.
//!
//! Invariant: the number follows from the name, as long as no other rule has it: so a successor of
//! the agent, or a reader without one, gives the same rule the same number, and a rule that was
//! removed leaves its number to nobody else. Zero stands for "no rule".

use std::{collections::BTreeSet, fmt, num::NonZeroU16, str::FromStr};

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

    /// The number of the rule in maps beside rules that have these; `None` where all are taken.
    pub fn id(&self, taken: &BTreeSet<RuleId>) -> Option<RuleId> {
        RuleId::of(&self.0).and_after().find(|id| !taken.contains(id))
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

/// The number of a rule in maps; never zero. A flow record has 16 bits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(NonZeroU16);

impl RuleId {
    /// The one that a name asks for: FNV-1a (32 bits; draft-eastlake-fnv), its halves together.
    fn of(name: &str) -> Self {
        let hash =
            name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let half = (hash ^ hash >> 16) & 0xffff;
        Self(u16::try_from(half).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
    }

    /// All numbers, from this one on and around.
    fn and_after(self) -> impl Iterator<Item = Self> {
        let first = self.0.get();
        (first..=u16::MAX).chain(1..first).filter_map(NonZeroU16::new).map(Self)
    }

    /// The number itself.
    pub fn number(self) -> u32 {
        self.0.get().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_given_out_once_and_none_is_zero() {
        let all: Vec<u32> = RuleId::of("a").and_after().map(RuleId::number).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(1..=0xffff));
        assert_eq!(all.first(), Some(&RuleId::of("a").number()));
        let taken: BTreeSet<_> = RuleId::of("a").and_after().collect();
        assert_eq!("a".parse::<RuleName>().unwrap().id(&taken), None);
    }
}
