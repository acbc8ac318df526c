//! Remote addresses that inside endpoints have flows to, where filtering goes by them.
//!
//! Invariant: a contact goes only when no flow from inside was met in a whole pass that has it, and none
//! was begun since that pass did.

use std::collections::HashSet;

use nat_common::{
    contact::Contact,
    flow::{Direction, TCP, UDP, Zone},
};

use crate::plane::{clock::Now, pair::Record};

/// Seconds by which the clock of the data plane may be late.
const LATE: u32 = 1;

/// What a pass has met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contacts {
    met: HashSet<Contact>,
    /// Second in which the pass began; `None` where nobody filters by address.
    since: Option<u32>,
}

impl Contacts {
    /// Begins a pass; `wanted`: filtering goes by address.
    pub fn begin(wanted: bool, now: Now) -> Self {
        Self { met: HashSet::new(), since: wanted.then_some(now.seconds()) }
    }

    /// A live line was met.
    pub fn add(&mut self, record: &Record) {
        if self.since.is_some() {
            self.met.extend(of(record));
        }
    }

    /// Whether a contact that was noted in that second is over.
    pub fn is_over(&self, contact: &Contact, noted: u32) -> bool {
        self.since.is_some_and(|since| noted.saturating_add(LATE) < since)
            && !self.met.contains(contact)
    }

    /// Whether anybody filters by address.
    pub fn are_wanted(&self) -> bool {
        self.since.is_some()
    }
}

/// The contact of the line that has the answers to a flow from inside.
fn of(record: &Record) -> Option<Contact> {
    let key = record.key();
    let answers = record.flow().direction() == Direction::Reply && key.zone() == Zone::Outside;
    (answers && matches!(key.protocol(), TCP | UDP))
        .then(|| Contact::new(key.destination(), key.src()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::pair::tests::masqueraded;
    use nat_common::flow::ICMP;

    #[test]
    fn a_contact_goes_when_no_flow_has_it_and_none_was_begun_since_the_pass() {
        let (there, back) = masqueraded(UDP, 0);
        let contact = Contact::new(back.key().destination(), back.key().src());
        let mut contacts = Contacts::begin(true, Now::at(100));
        contacts.add(&there);
        assert!(contacts.is_over(&contact, 98) && !contacts.is_over(&contact, 99));
        contacts.add(&back);
        assert!(!contacts.is_over(&contact, 0));
        let other = Contact::new(back.key().destination(), [192, 0, 2, 1]);
        assert!(contacts.is_over(&other, 98));
    }

    #[test]
    fn nothing_goes_where_nobody_filters_by_address_and_echoes_are_none() {
        let (_, back) = masqueraded(ICMP, 0);
        assert_eq!(of(&back), None);
        let (_, back) = masqueraded(TCP, 0);
        let mut contacts = Contacts::begin(false, Now::at(100));
        contacts.add(&back);
        assert_eq!(contacts, Contacts::default());
        assert!(!contacts.is_over(&of(&back).expect("a contact"), 0));
    }
}
