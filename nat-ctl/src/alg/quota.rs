//! How many data connections one client may have announced, and how fast.
//!
//! Invariant: what a client has announced is the number of pinholes in its sessions, whatever happened
//! in between; a client that has none and has been quiet takes no memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use super::refusal::Refusal;

/// What one client may announce. A client is an address: many hosts behind another NAT are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Pinholes of one session at a time; the oldest makes way for one more.
    pub per_session: usize,
    /// Pinholes of one client at a time, in all of its sessions.
    pub per_client: u32,
    /// Announcements of one client a second; twice as many in one go.
    pub per_second: u32,
}

impl Default for Quota {
    /// A quarter of the expectations that there are by default, and more announcements a second than
    /// one client has been seen to make (`docs/perf.md`: 2,600 transfers a second, all ends on one core).
    fn default() -> Quota {
        Quota { per_session: super::pinhole::PINHOLES, per_client: 16_384, per_second: 5000 }
    }
}

/// The clients that have announced something.
#[derive(Debug, Default)]
pub struct Clients {
    quota: Quota,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug)]
struct Client {
    pinholes: u32,
    /// Announcements that it may still make.
    credit: u64,
    /// In which second that was so.
    at: u32,
}

impl Clients {
    /// Nobody yet.
    pub fn new(quota: Quota) -> Clients {
        Clients { quota, clients: HashMap::new() }
    }

    /// Whether a client may announce one connection more in the second `now`, which is taken from its credit then.
    pub fn admit(&mut self, client: IpAddr, now: u32) -> Result<(), Refusal> {
        let Quota { per_client, per_second, .. } = self.quota;
        let known = self.client(client);
        known.refill(per_second, now);
        if known.pinholes >= per_client {
            return Err(Refusal::ClientFull);
        }
        known.credit = known.credit.checked_sub(1).ok_or(Refusal::ClientTooFast)?;
        Ok(())
    }

    /// A session of a client had `before` pinholes and has `after` now.
    pub fn changed(&mut self, client: IpAddr, before: usize, after: usize) {
        if before == after {
            return;
        }
        let count = |pinholes| u32::try_from(pinholes).unwrap_or(u32::MAX);
        let known = self.client(client);
        known.pinholes = known.pinholes.saturating_sub(count(before)).saturating_add(count(after));
    }

    /// Forgets clients that have nothing announced and all of their credit.
    pub fn forget(&mut self, now: u32) {
        let Quota { per_second, .. } = self.quota;
        self.clients.retain(|_, client| {
            client.refill(per_second, now);
            client.pinholes > 0 || client.credit < most(per_second)
        });
    }

    fn client(&mut self, client: IpAddr) -> &mut Client {
        let credit = most(self.quota.per_second);
        match self.clients.entry(client) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Client { pinholes: 0, credit, at: 0 }),
        }
    }
}

impl Client {
    fn refill(&mut self, per_second: u32, now: u32) {
        let passed = now.saturating_sub(self.at);
        let earned = u64::from(passed) * u64::from(per_second);
        (self.credit, self.at) = (self.credit.saturating_add(earned).min(most(per_second)), now);
    }
}

/// The credit of two seconds.
fn most(per_second: u32) -> u64 {
    2 * u64::from(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 2));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 3));

    fn at(second: u32) -> u32 {
        1000 + second
    }

    #[test]
    fn a_client_that_has_all_it_may_have_waits_for_one_to_go_and_others_do_not() {
        let mut clients = Clients::new(Quota { per_client: 3, ..Quota::default() });
        clients.changed(CLIENT, 0, 2);
        assert_eq!(clients.admit(CLIENT, at(0)), Ok(()));
        clients.changed(CLIENT, 0, 1);
        assert_eq!(clients.admit(CLIENT, at(0)), Err(Refusal::ClientFull));
        assert_eq!(clients.admit(OTHER, at(0)), Ok(()));
        clients.changed(CLIENT, 2, 1);
        assert_eq!(clients.admit(CLIENT, at(0)), Ok(()));
    }

    #[test]
    fn a_client_announces_two_seconds_worth_at_once_and_then_at_its_rate() {
        let mut clients = Clients::new(Quota { per_second: 100, ..Quota::default() });
        let mut made =
            |now, tries| (0..tries).filter(|_| clients.admit(CLIENT, now).is_ok()).count();
        assert_eq!(made(at(0), 1000), 200);
        assert_eq!(made(at(0), 10), 0);
        assert_eq!(made(at(1), 1000), 100);
        assert_eq!(made(at(60), 1000), 200);
    }

    #[test]
    fn who_has_nothing_and_is_quiet_is_forgotten() {
        let mut clients = Clients::new(Quota { per_second: 100, ..Quota::default() });
        assert_eq!(clients.admit(CLIENT, at(0)), Ok(()));
        clients.changed(OTHER, 0, 1);
        clients.forget(at(0));
        assert_eq!(clients.clients.len(), 2);
        clients.forget(at(1));
        assert_eq!(clients.clients.len(), 1);
        clients.changed(OTHER, 1, 0);
        clients.forget(at(2));
        assert!(clients.clients.is_empty());
    }
}
