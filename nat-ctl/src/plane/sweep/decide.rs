//! What is to be removed, given the records.
//!
//! Invariant: pure: no map, no clock. Every answer errs on the side of keeping.

use std::collections::HashSet;

use nat_common::{
    expectation::{Expectation, ExpectationKey},
    flow::Zone,
    port::{Endpoint, Owner, PortOwner},
    session::Session,
};

use crate::plane::clock::Now;

/// Seconds that a claim is left alone: what it was made for may not be in the maps yet.
const GRACE: u32 = 2;

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Remove it.
    Remove,
    /// Put the mapping back that leads to this port: a flow came while it was being released.
    Restore,
}

/// Public endpoints by what was seen of them.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    used: HashSet<Endpoint>,
    /// Unused in the pass before this one.
    before: HashSet<Endpoint>,
    /// Unused in this pass.
    idle: HashSet<Endpoint>,
}

impl Uses {
    /// Begins a pass: what was idle in the last one is a candidate now.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.idle);
        self.used.clear();
    }

    /// A flow or an expectation uses the endpoint.
    pub fn add(&mut self, endpoint: Endpoint) {
        self.used.insert(endpoint);
    }

    /// Whether it was unused in this pass and in the one before.
    fn unused_twice(&mut self, endpoint: &Endpoint) -> bool {
        if self.used.contains(endpoint) {
            return false;
        }
        self.idle.insert(*endpoint);
        self.before.contains(endpoint)
    }

    /// What to do with the mapping that leads to the public `endpoint`.
    pub fn mapping(&mut self, endpoint: &Endpoint) -> Verdict {
        if self.unused_twice(endpoint) {
            // The port is released in a later pass: it has to be idle for two more from now on.
            self.idle.remove(endpoint);
            return Verdict::Remove;
        }
        Verdict::Keep
    }

    /// What to do with a public port. `mapped`: a mapping leads to it. `socket`: a socket of the
    /// gateway has it.
    pub fn port(
        &mut self,
        endpoint: &Endpoint,
        owner: &PortOwner,
        mapped: impl FnOnce() -> bool,
        socket: impl FnOnce() -> bool,
        now: Now,
    ) -> Verdict {
        if now.since(owner.since()) < GRACE {
            return Verdict::Keep;
        }
        match owner.owner() {
            // A forward's port goes with the forward; a code of a later version is not ours.
            Some(Owner::Forward) | None => Verdict::Keep,
            Some(Owner::Masquerade) if mapped() => Verdict::Keep,
            Some(Owner::Masquerade) if self.used.contains(endpoint) => Verdict::Restore,
            // The sockets were looked at in this pass; a new one claims the port anew.
            Some(Owner::Gateway) => {
                if socket() {
                    Verdict::Keep
                } else {
                    Verdict::Remove
                }
            }
            Some(Owner::Masquerade | Owner::Expectation) => {
                if self.unused_twice(endpoint) {
                    Verdict::Remove
                } else {
                    Verdict::Keep
                }
            }
        }
    }
}

/// The public port that an expectation keeps claimed: the one that is dialled from outside.
pub fn announced(key: &ExpectationKey) -> Option<Endpoint> {
    match key.zone() {
        Zone::Outside => Some(Endpoint::new(key.protocol(), key.dst(), key.dport())),
        Zone::Inside => None,
    }
}

/// Whether an expectation is over.
pub fn expectation(expectation: &Expectation, now: Now) -> Verdict {
    if now.seconds() >= expectation.expires() { Verdict::Remove } else { Verdict::Keep }
}

/// What to do with the record of a session. `controls`: a flow has it as its control session.
pub fn session(session: &Session, controls: impl FnOnce() -> bool, now: Now) -> Verdict {
    if session.claimed == 0 || now.since(session.created()) < GRACE || controls() {
        Verdict::Keep
    } else {
        Verdict::Remove
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{FlowKey, TCP},
        port::Port,
        rule::RuleId,
        session::SessionId,
    };

    const OLD: u32 = 10;
    const NOW: Now = Now::at(100);

    fn endpoint() -> Endpoint {
        Endpoint::new(TCP, [203, 0, 113, 1], Port::new(6000))
    }

    fn owner(kind: Owner) -> PortOwner {
        PortOwner::new(kind, [10, 0, 0, 2], Port::new(5000), OLD)
    }

    fn port(uses: &mut Uses, kind: Owner, mapped: bool) -> Verdict {
        uses.port(&endpoint(), &owner(kind), || mapped, || false, NOW)
    }

    #[test]
    fn a_mapping_goes_after_two_idle_passes_and_its_port_two_later() {
        let mut uses = Uses::default();
        let mut verdicts = vec![];
        for pass in 0..5 {
            uses.begin();
            let mapped = pass < 2;
            let mapping = if mapped { uses.mapping(&endpoint()) } else { Verdict::Keep };
            let still = mapped && mapping == Verdict::Keep;
            // In the pass that removes the mapping the port is not looked at.
            let looked = mapping != Verdict::Remove;
            let port =
                if looked { port(&mut uses, Owner::Masquerade, still) } else { Verdict::Keep };
            verdicts.push((mapping, port));
        }
        use Verdict::{Keep, Remove};
        let wanted = [(Keep, Keep), (Remove, Keep), (Keep, Keep), (Keep, Remove), (Keep, Keep)];
        assert_eq!(verdicts[..4], wanted[..4]);
    }

    #[test]
    fn a_flow_that_came_in_between_gets_its_mapping_back() {
        let mut uses = Uses::default();
        for _ in 0..2 {
            uses.begin();
            uses.mapping(&endpoint());
        }
        uses.begin();
        uses.add(endpoint());
        assert_eq!(port(&mut uses, Owner::Masquerade, false), Verdict::Restore);
    }

    #[test]
    fn use_in_one_of_two_passes_keeps_everything() {
        let mut uses = Uses::default();
        for pass in 0..6 {
            uses.begin();
            if pass % 2 == 0 {
                uses.add(endpoint());
            }
            assert_eq!(uses.mapping(&endpoint()), Verdict::Keep);
            assert_eq!(port(&mut uses, Owner::Expectation, false), Verdict::Keep);
        }
    }

    #[test]
    fn ports_of_forwards_and_fresh_claims_are_left_alone() {
        let mut uses = Uses::default();
        for _ in 0..3 {
            uses.begin();
            assert_eq!(port(&mut uses, Owner::Forward, false), Verdict::Keep);
            let fresh = PortOwner::new(Owner::Expectation, [10, 0, 0, 2], Port::NONE, 99);
            let verdict = uses.port(&endpoint(), &fresh, || false, || false, NOW);
            assert_eq!(verdict, Verdict::Keep);
        }
    }

    #[test]
    fn a_port_of_the_gateway_lives_as_long_as_its_socket() {
        let mut uses = Uses::default();
        for _ in 0..2 {
            uses.begin();
            let open = uses.port(&endpoint(), &owner(Owner::Gateway), || false, || true, NOW);
            assert_eq!(open, Verdict::Keep);
        }
        uses.begin();
        assert_eq!(port(&mut uses, Owner::Gateway, false), Verdict::Remove);
    }

    #[test]
    fn a_session_outlives_its_last_flow_and_its_first_seconds() {
        let key = FlowKey::default();
        let made = |created| {
            let mut session = Session::default();
            session.claimed = 1;
            session.open(&key, &key, RuleId::NONE, created);
            session
        };
        assert_eq!(session(&made(OLD), || true, NOW), Verdict::Keep);
        assert_eq!(session(&made(99), || false, NOW), Verdict::Keep);
        assert_eq!(session(&made(OLD), || false, NOW), Verdict::Remove);
        assert_eq!(session(&Session::default(), || false, NOW), Verdict::Keep);
    }

    #[test]
    fn an_expectation_ends_with_its_last_second() {
        let until = |expires| {
            Expectation::inbound(
                [10, 0, 0, 2],
                Port::new(20),
                SessionId::new(0),
                RuleId::NONE,
                expires,
            )
        };
        assert_eq!(expectation(&until(101), NOW), Verdict::Keep);
        assert_eq!(expectation(&until(100), NOW), Verdict::Remove);
    }
}
