//! The rules that are in force together.
//!
//! Invariant: no two rules of a set contradict each other, and together they fit the map.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use super::{
    Forward, ForwardEntry, HostEntry, MAX_ENTRIES, OneToOne, OpeningEntry, Prefix, RuleError,
    RuleId, RuleName, conflict, expand, prefix,
};

/// The address of an interface by its name, where it has one.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Option<Ipv4Addr>;

/// A rule of either kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Rule {
    /// Ports of a public address lead to a host inside.
    Forward(Forward),
    /// A public address belongs to a host inside.
    OneToOne(OneToOne),
}

impl Rule {
    /// What it is called; unique over both kinds.
    pub fn name(&self) -> &RuleName {
        match self {
            Self::Forward(rule) => rule.name(),
            Self::OneToOne(rule) => rule.name(),
        }
    }

    /// Which of the two it is.
    pub fn kind(&self) -> RuleKind {
        match self {
            Self::Forward(_) => RuleKind::Forward,
            Self::OneToOne(_) => RuleKind::OneToOne,
        }
    }
}

/// The kinds of rules, by the word of their command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// `forward`.
    Forward,
    /// `one-to-one`.
    OneToOne,
}

impl std::fmt::Display for RuleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::OneToOne => "one-to-one",
        })
    }
}

/// Rules without a contradiction, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    numbers: Numbers,
    /// What inside addresses of IPv6 are known as.
    prefixes: Vec<Prefix>,
}

/// The number of each rule.
pub(super) type Numbers = BTreeMap<RuleName, RuleId>;

impl RuleSet {
    /// None yet, where these prefixes are translated.
    pub fn behind(prefixes: &[Prefix]) -> Self {
        Self { prefixes: prefixes.to_vec(), ..Self::default() }
    }

    /// Adds a rule that fits beside the others. `resolve` lets a rule that names an interface be
    /// compared with one that names its address.
    ///
    /// # Errors
    /// [`RuleError::Inconsistent`] where it names another address than that of its host,
    /// [`RuleError::Conflict`] names the rule that is in the way, [`RuleError::TooMany`] and
    /// [`RuleError::TooManyRules`] say that a map is full; the set is unchanged then.
    pub fn insert(&mut self, rule: Rule, resolve: Resolve<'_>) -> Result<(), RuleError> {
        prefix::check(&self.prefixes, &rule)?;
        for other in &self.rules {
            if let Some(why) = conflict::between(&rule, other, resolve) {
                let (rule, other) = (rule.name().clone(), other.name().clone());
                return Err(RuleError::Conflict { rule, other, why });
            }
        }
        let entries = self.rules.iter().chain([&rule]).map(expand::size).sum();
        if entries > MAX_ENTRIES {
            return Err(RuleError::TooMany { rule: rule.name().clone(), entries });
        }
        let taken: BTreeSet<_> = self.numbers.values().copied().collect();
        let number = rule.name().id(&taken);
        let number = number.ok_or_else(|| RuleError::TooManyRules(rule.name().clone()))?;
        self.numbers.insert(rule.name().clone(), number);
        self.rules.push(rule);
        Ok(())
    }

    /// Takes a rule out, by name; `None` where there is none.
    pub fn remove(&mut self, name: &str) -> Option<Rule> {
        let index = self.rules.iter().position(|rule| rule.name().as_str() == name)?;
        let rule = self.rules.remove(index);
        self.numbers.remove(rule.name());
        Some(rule)
    }

    /// The rule of a name.
    pub fn find(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name().as_str() == name)
    }

    /// The rule of a number in a map.
    pub fn find_id(&self, id: u32) -> Option<&Rule> {
        let (name, _) = self.numbers.iter().find(|(_, number)| number.number() == id)?;
        self.find(name.as_str())
    }

    /// The number of a rule of this set in maps; 0, which is no rule's, for any other.
    pub fn number(&self, name: &RuleName) -> u32 {
        self.numbers.get(name).map_or(0, |number| number.number())
    }

    /// Every rule, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// What map `forwards` must hold. A rule whose interface has no address yet has no entry.
    ///
    /// The lookup that goes with it: address, protocol and port; then address and protocol; then
    /// the address alone. The first entry found decides.
    ///
    /// # Errors
    /// [`RuleError::Conflict`] where an interface has taken an address that another rule names.
    pub fn entries(&self, resolve: Resolve<'_>) -> Result<Vec<ForwardEntry>, RuleError> {
        expand::entries(&self.rules, &self.numbers, resolve)
    }

    /// What map `forwards6` must hold.
    pub fn openings(&self) -> Vec<OpeningEntry> {
        expand::openings(&self.rules, &self.numbers)
    }

    /// The hosts whose outbound packets use an address of their own.
    pub fn hosts(&self) -> Vec<HostEntry> {
        self.rules
            .iter()
            .filter_map(|rule| match rule {
                Rule::OneToOne(rule) => Some(HostEntry {
                    inside: rule.to(),
                    public: rule.public(),
                    rule: *self.numbers.get(rule.name())?,
                }),
                Rule::Forward(_) => None,
            })
            .collect()
    }
}
