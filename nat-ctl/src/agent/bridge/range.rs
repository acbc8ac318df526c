//! Clients that hold encrypted control sessions, to whom the passive ranges of the rules are open.
//!
//! Invariant: a client has the range of a rule while at least one of its sessions through that rule is
//! encrypted, and data connections belong to the one that became so last. A rule without a range has no
//! ports that would ask.

use std::collections::HashMap;

use nat_common::{
    rule::{EncryptedKey, RuleId},
    session::{Session, SessionId},
};

use crate::{
    agent::{control, kernel::Kernel, report},
    alg,
};

/// The sessions of each client, the one that data connections belong to last.
#[derive(Debug, Default)]
pub struct Ranges(HashMap<EncryptedKey, Vec<SessionId>>);

impl Ranges {
    /// A session has become encrypted, or is found to be.
    pub fn open(&mut self, kernel: &mut impl Kernel, id: SessionId, record: &Session) {
        let Some(key) = key(id, record) else { return };
        let sessions = self.0.entry(key).or_default();
        sessions.retain(|other| *other != id);
        sessions.push(id);
        write(kernel, &key, Some(id));
    }

    /// A session is in clear text again, or over.
    pub fn close(&mut self, kernel: &mut impl Kernel, id: SessionId) {
        let holds = |sessions: &Vec<SessionId>| sessions.contains(&id);
        let Some(key) = self.0.iter().find_map(|(key, sessions)| holds(sessions).then_some(*key))
        else {
            return;
        };
        if let Some(sessions) = self.0.get_mut(&key) {
            sessions.retain(|other| *other != id);
            write(kernel, &key, sessions.last().copied());
            if sessions.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// Closes what sessions had that a predecessor saw the last of.
    pub fn close_others(&self, kernel: &mut impl Kernel) {
        if let Err(error) = kernel.keep_ranges(&|key| self.0.contains_key(key)) {
            report::failed(&error);
        }
    }
}

/// Who holds the session, and through which rule; `None` where no server inside is reached by one.
fn key(id: SessionId, record: &Session) -> Option<EncryptedKey> {
    let flow = control::flow(id, record);
    let by_rule = flow.inside == alg::Side::Server && record.rule() != RuleId::NONE;
    let client = flow.seen(alg::Side::Client).ip();
    by_rule.then(|| EncryptedKey::new(record.rule(), control::octets(client)))
}

fn write(kernel: &mut impl Kernel, key: &EncryptedKey, session: Option<SessionId>) {
    if let Err(error) = kernel.open_range(key, session) {
        report::failed(&error);
    }
}
