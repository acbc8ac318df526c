//! What is to be done, given the records.
//!
//! Invariant: pure: no map, no clock. Every answer errs on the side of keeping.

use nat_common::{
    expectation::Expectation,
    flow::{ICMP, TCP},
    flow_table,
    lifetime::Timeouts,
    port::{Owner, PortOwner},
    session::Session,
};

use crate::plane::clock::Now;

/// Seconds that a session is left alone: its flow may not be in the table yet.
const GRACE: u32 = 2;

/// Lines that are looked at in one step at least: 4 MiB, which takes less than a millisecond.
const LEAST: u32 = 65_536;

/// Steps for a whole large table, one a second, while few of its lines are in use: they cost most.
const STEPS: u32 = 4;

/// From this part of the room on, in percent, there are [`LATER`] steps.
const MANY: u64 = 50;

/// Steps of a table with many flows.
const LATER: u32 = 6;

/// From this part of the room on, in percent, what is over is wanted: a little before flows have to
/// make room (pressure.rs).
const SCARCE: u64 = 80;

/// Steps from [`SCARCE`] on.
const SOONER: u32 = 3;

/// What to do with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Note that this pass has not seen it in use.
    Mark,
    /// Take that note away.
    Unmark,
    /// Give it back.
    Release,
}

/// Whether a table with room for so many is so full that what is over is wanted.
pub fn is_scarce(used: u64, room: u64) -> bool {
    used * 100 >= room * SCARCE
}

/// Lines to look at in the next step of a table with so many places, of which so many were in use in
/// the last pass.
pub fn slice(used: u64, places: u32) -> u32 {
    let room = flow_table::room(places);
    let steps = match (used * 100 >= room * MANY, is_scarce(used, room)) {
        (_, true) => SOONER,
        (true, false) => LATER,
        (false, false) => STEPS,
    };
    places.div_ceil(steps).max(LEAST)
}

/// Most seconds between two looks at one line.
pub fn interval(used: u64, places: u32) -> u32 {
    places.div_ceil(slice(used, places)).max(1)
}

/// Whether a flow of `protocol` may be over, by one of its lines that has been idle for so long: its
/// lifetime, whichever it has, came to its end within the last `window` seconds; or before, and this
/// is one of the passes (`any`) that look at everything that was missed then.
///
/// A flow ends when the line that was used last has been idle for its lifetime, so one of the two
/// lines says so in time, and all others of an old flow need no look at the other line.
pub fn may_be_over(protocol: u8, idle: u32, timeouts: &Timeouts, window: u32, any: bool) -> bool {
    let ends = match protocol {
        TCP => [timeouts.tcp_transitory, timeouts.tcp_established],
        ICMP => [timeouts.icmp; 2],
        _ => [timeouts.udp; 2],
    };
    ends.iter().any(|end| idle >= *end && (any || idle - *end < window))
}

/// What to do with a public port. `socket`: a socket of the gateway has it.
pub fn port(owner: &PortOwner, used: bool, socket: impl FnOnce() -> bool) -> Verdict {
    match owner.owner() {
        // A forward's port goes with the forward; a code of a later version is not ours.
        Some(Owner::Forward) | None => Verdict::Keep,
        // The sockets were looked at in this pass; a new one claims the port anew.
        Some(Owner::Gateway) if socket() => Verdict::Keep,
        Some(Owner::Gateway) => Verdict::Release,
        Some(Owner::Masquerade | Owner::Expectation | Owner::Shared) => {
            match (used, owner.is_idle()) {
                (true, false) => Verdict::Keep,
                (true, true) => Verdict::Unmark,
                (false, false) => Verdict::Mark,
                (false, true) => Verdict::Release,
            }
        }
    }
}

/// Whether an expectation is over.
pub fn is_over(expectation: &Expectation, now: Now) -> bool {
    now.seconds() >= expectation.expires()
}

/// Whether a session has ended. `controls`: a flow has it as its control session.
pub fn has_ended(session: &Session, controls: impl FnOnce() -> bool, now: Now) -> bool {
    session.claimed != 0 && now.since(session.created()) >= GRACE && !controls()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{FlowKey, UDP},
        port::Port,
        rule::RuleId,
        session::SessionId,
    };

    const OLD: u32 = 10;
    const NOW: Now = Now::at(100);

    fn owner(kind: Owner) -> PortOwner {
        PortOwner::new(kind, [10, 0, 0, 2], Port::new(5000))
    }

    #[test]
    fn a_port_goes_after_two_passes_without_use() {
        for kind in [Owner::Masquerade, Owner::Expectation, Owner::Shared] {
            let (fresh, idle) = (owner(kind), owner(kind).idle(true));
            assert_eq!(port(&fresh, true, || true), Verdict::Keep);
            assert_eq!(port(&fresh, false, || true), Verdict::Mark);
            assert_eq!(port(&idle, true, || false), Verdict::Unmark);
            assert_eq!(port(&idle, false, || true), Verdict::Release);
        }
    }

    #[test]
    fn ports_of_forwards_are_left_alone_and_those_of_the_gateway_live_with_their_sockets() {
        for used in [false, true] {
            for kind in [owner(Owner::Forward), owner(Owner::Forward).idle(true), PortOwner::NONE] {
                assert_eq!(port(&kind, used, || false), Verdict::Keep);
            }
            assert_eq!(port(&owner(Owner::Gateway), used, || true), Verdict::Keep);
            assert_eq!(port(&owner(Owner::Gateway), used, || false), Verdict::Release);
        }
    }

    #[test]
    fn a_line_says_that_its_flow_may_be_over_at_the_end_of_each_lifetime() {
        let timeouts = Timeouts::default();
        let over = |protocol, idle| may_be_over(protocol, idle, &timeouts, 10, false);
        for (protocol, end) in [(TCP, 240), (TCP, 7440), (UDP, 300), (ICMP, 60), (47, 300)] {
            assert!(!over(protocol, end - 1) && over(protocol, end) && over(protocol, end + 9));
            assert!(!over(protocol, end + 10));
        }
        // What was missed then is found later.
        for idle in [250, 7000, 8000, u32::MAX] {
            assert!(may_be_over(TCP, idle, &timeouts, 10, true));
        }
        assert!(!may_be_over(TCP, 239, &timeouts, 10, true));
    }

    #[test]
    fn a_small_table_is_looked_at_in_one_step_and_a_large_one_later_when_there_is_much_to_see_but_not_when_room_is_scarce()
     {
        assert_eq!((slice(0, 12_303), interval(0, 12_303)), (LEAST, 1));
        let places = 3 * (1 << 20) + 15;
        let room = flow_table::room(places);
        let (half, scarce) = (room / 2, room * 4 / 5);
        let used = [0, half - 1, half + 1, scarce - 1, scarce + 1, room];
        let intervals = used.map(|used| interval(used, places));
        assert_eq!(intervals, [4, 4, 6, 6, 3, 3]);
        assert_eq!(slice(0, u32::MAX), u32::MAX.div_ceil(4));
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
        assert!(!has_ended(&made(OLD), || true, NOW));
        assert!(!has_ended(&made(99), || false, NOW));
        assert!(has_ended(&made(OLD), || false, NOW));
        assert!(!has_ended(&Session::default(), || false, NOW));
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
        assert!(!is_over(&until(101), NOW));
        assert!(is_over(&until(100), NOW));
    }
}
