//! What an operator asks of sessions: what is done about third hosts, how much a client may
//! announce, and strict mode.
//!
//! Invariant: a policy never loosens what the engine refuses by itself.

use std::{collections::BTreeMap, net::IpAddr};

use super::{keyword, quota::Quota, refusal::ForeignAddress};

/// What holds for every session of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is done about a line that names a third host.
    pub foreign: ForeignAddress,
    /// Other addresses of a server, by that of its control connections: its data connections may come
    /// from there, and it may announce them as its own.
    pub data_addresses: BTreeMap<IpAddr, Vec<IpAddr>>,
    /// What one client may announce.
    pub quota: Quota,
    /// The rules of strict mode, where it is on.
    pub strict: Option<Strict>,
    /// Those of sessions whose rule of the gateway turns it on by itself.
    pub by_rule: Strict,
}

/// Strict mode: a session that leaves the rules of FTP is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strict {
    /// Commands that nobody may give, in capitals.
    pub denied: Vec<String>,
}

impl Policy {
    /// The same with strict mode on, or off.
    pub fn held(&self, strict: bool) -> Policy {
        let by_rule = strict.then(|| self.by_rule.clone());
        Policy { strict: by_rule, ..self.clone() }
    }

    /// The other addresses of a server.
    pub fn others(&self, server: IpAddr) -> &[IpAddr] {
        self.data_addresses.get(&server).map_or(&[], Vec::as_slice)
    }
}

impl Strict {
    /// Whether nobody may give this command.
    pub fn denies(&self, command: &keyword::Command<'_>) -> bool {
        self.denied.iter().any(|denied| denied.as_bytes().eq_ignore_ascii_case(command.word))
    }
}
