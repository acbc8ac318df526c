//! What would fight with the gateway: other programs, settings of the kernel, rules.
//!
//! Invariant: a finding says what was found, word for word, why it matters and what to do; what could
//! not be looked at is no finding. The checks are pure: they see [`Facts`] and a [`Subject`], and
//! [`facts`] alone looks at the machine. Nothing here changes anything.
//!
//! ```text
//!   facts, hooks -> Facts --+--> machine, interfaces: kernel, drivers, other programs
//!                           +--> firewall: nft, iptables, Docker
//!                           +--> prefixes: routes of IPv6 prefixes that are translated
//!   rules in force, or -----+--> rules: addresses, hosts, shadows
//!   those that will be      +--> needless: what the FTP engine has made superfluous
//! ```

mod facts;
mod firewall;
mod hooks;
mod interfaces;
mod machine;
mod needless;
mod nft;
mod prefixes;
mod rules;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use nat_common::port::Pool;
use serde::Serialize;

pub use facts::Facts;

use crate::{
    output::{Role, RuleView},
    rules::{Prefix, PublicAddress},
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or will not once the gateway runs.
    Broken,
    /// Something may not work as it seems.
    Warning,
    /// Something could be simpler.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it.
    pub check: &'static str,
    /// The rules or interfaces that it is about.
    pub about: Vec<String>,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub advice: String,
}

/// The gateway that is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// Whether it is at work.
    pub running: bool,
    /// Its interfaces.
    pub interfaces: Vec<(String, Role)>,
    /// Its rules.
    pub rules: Vec<RuleView>,
    /// Whether it adds public addresses that nobody has.
    pub adds_addresses: bool,
    /// The public ports of masquerade, where they are known.
    pub pool: Option<Pool>,
    /// The public addresses that masquerade shares hosts out among; none is that of each WAN.
    pub addresses: Vec<Ipv4Addr>,
    /// The prefixes of IPv6 that it translates.
    pub prefixes: Vec<Prefix>,
}

impl Subject {
    /// Names of the interfaces of a side.
    fn side(&self, role: Role) -> impl Iterator<Item = &str> {
        self.interfaces.iter().filter(move |(_, is)| *is == role).map(|(name, _)| name.as_str())
    }

    fn has(&self, interface: &str) -> bool {
        self.interfaces.iter().any(|(name, _)| name == interface)
    }

    fn is_lan(&self, interface: &str) -> bool {
        self.side(Role::Lan).any(|name| name == interface)
    }
}

/// Everything that there is to say, the worst first.
pub fn examine(subject: &Subject, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![];
    machine::check(subject, facts, &mut findings);
    interfaces::check(subject, facts, &mut findings);
    firewall::check(subject, facts, &mut findings);
    prefixes::check(subject, facts, &mut findings);
    rules::check(subject, facts, &mut findings);
    needless::check(subject, &mut findings);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The public address of a rule, and its name.
fn public_address(rule: &RuleView) -> Option<PublicAddress> {
    match rule {
        RuleView::Forward(view) => view.public.parse().ok(),
        RuleView::OneToOne(view) => Some(PublicAddress::Address(view.public.into())),
    }
}

/// The inside host of a rule.
fn host(rule: &RuleView) -> IpAddr {
    match rule {
        RuleView::Forward(view) => view.to,
        RuleView::OneToOne(view) => view.to.into(),
    }
}
