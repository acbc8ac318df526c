//! A flow as a whole: its two records, found from either.
//!
//! Invariant: pure. Two records belong together when the answer to the one is the key of the other;
//! anything else is an orphan, which is a flow with one record.

use nat_common::{
    flow::{Direction, Flow, FlowKey, TCP, Zone},
    lifetime::{Timeouts, lifetime},
    port::Endpoint,
    tcp::State,
};

use super::clock::Now;

/// A record with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The tuple of its packets on arrival.
    pub key: FlowKey,
    /// The record.
    pub flow: Flow,
}

impl Record {
    /// The key of the record of the other direction.
    pub fn answer(&self) -> FlowKey {
        self.key.answer(self.flow.rewrite())
    }

    /// The end of the flow that the outside sees of the inside.
    pub fn public(&self) -> Endpoint {
        match self.key.zone() {
            Zone::Outside => self.key.destination(),
            Zone::Inside => {
                let rewrite = self.flow.rewrite();
                Endpoint::new(self.key.protocol(), rewrite.src(), rewrite.sport())
            }
        }
    }
}

/// A flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The record that it was found by: the original one, or an orphan.
    pub first: Record,
    /// The record of the answer.
    pub answer: Option<Record>,
}

impl Pair {
    /// The flow of a record that was met in the table, with what `find` gives for the key of its
    /// other direction. `None` for the answer of a flow: that is told of with its original record.
    pub fn of(first: Record, find: impl FnOnce(&FlowKey) -> Option<Flow>) -> Option<Self> {
        let key = first.answer();
        let other = find(&key).map(|flow| Record { key, flow });
        let answer = other.filter(|other| {
            other.answer() == first.key && other.flow.direction() != first.flow.direction()
        });
        match (first.flow.direction(), answer) {
            (Direction::Reply, Some(_)) => None,
            (Direction::Original | Direction::Reply, answer) => Some(Self { first, answer }),
        }
    }

    /// What was seen of the initiator and of the answer.
    fn seen(&self) -> (u8, u8) {
        match self.first.flow.direction() {
            Direction::Original => {
                (self.first.flow.seen, self.answer.map_or(0, |answer| answer.flow.seen))
            }
            Direction::Reply => (0, self.first.flow.seen),
        }
    }

    /// Seconds since the last packet of either direction.
    pub fn idle(&self, now: Now) -> u32 {
        let first = now.since(self.first.flow.last_seen);
        let answer = self.answer.map_or(u32::MAX, |answer| now.since(answer.flow.last_seen));
        first.min(answer)
    }

    /// Seconds that it has left without another packet; 0 where it is over.
    pub fn expires(&self, now: Now, timeouts: &Timeouts) -> u32 {
        let (original, reply) = self.seen();
        let class = lifetime(self.first.key.protocol(), original, reply);
        timeouts.seconds(class).saturating_sub(self.idle(now))
    }

    /// Its state in one word.
    pub fn state(&self) -> &'static str {
        let (original, reply) = self.seen();
        match (self.first.key.protocol(), self.answer) {
            (TCP, _) => State::of(original, reply).name(),
            (_, Some(answer)) if answer.flow.packets > 0 => "replied",
            (_, Some(_) | None) => "unreplied",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use nat_common::{
        flow::Rewrite,
        port::Port,
        rule::RuleId,
        tcp::{ACK, FIN, SYN},
    };

    pub const PUBLIC: [u8; 4] = [203, 0, 113, 1];

    /// A masqueraded TCP flow, made and last used at `then`.
    pub fn masqueraded(protocol: u8, then: u32) -> (Record, Record) {
        let key = FlowKey::new(
            Zone::Inside,
            protocol,
            [10, 0, 0, 2],
            Port::new(5000),
            [198, 51, 100, 7],
            Port::new(80),
        );
        let out = Rewrite::source(&key, PUBLIC, Port::new(6000));
        let flow = Flow::new(Direction::Original, &key, out, RuleId::NONE, then);
        let answer = key.answer(&out);
        let back = Rewrite::answer(&key);
        let reply = Flow::new(Direction::Reply, &answer, back, RuleId::NONE, then);
        (Record { key, flow }, Record { key: answer, flow: reply })
    }

    fn pair(original: Record, reply: Record) -> Pair {
        Pair::of(original, |key| (*key == reply.key).then_some(reply.flow)).unwrap()
    }

    #[test]
    fn a_flow_is_told_of_once_from_its_original_record() {
        let (original, reply) = masqueraded(TCP, 10);
        let found = pair(original, reply);
        assert_eq!(found.answer, Some(reply));
        assert_eq!(Pair::of(reply, |key| (*key == original.key).then_some(original.flow)), None);
        assert_eq!(Pair::of(reply, |_| None).map(|orphan| orphan.first), Some(reply));
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_not_the_answer() {
        let (original, reply) = masqueraded(TCP, 10);
        let other = Rewrite::source(&original.key, PUBLIC, Port::new(6001));
        let moved = Flow::new(Direction::Original, &original.key, other, RuleId::NONE, 10);
        let orphan = Pair::of(reply, |_| Some(moved)).unwrap();
        assert_eq!((orphan.first, orphan.answer), (reply, None));
    }

    #[test]
    fn both_directions_know_the_public_end() {
        let (original, reply) = masqueraded(TCP, 10);
        assert_eq!(original.public(), Endpoint::new(TCP, PUBLIC, Port::new(6000)));
        assert_eq!(original.public(), reply.public());
    }

    #[test]
    fn either_direction_keeps_a_flow_alive() {
        let timeouts = Timeouts::default();
        let (mut original, mut reply) = masqueraded(TCP, 10);
        original.flow.seen = SYN | ACK;
        reply.flow.seen = SYN | ACK;
        reply.flow.last_seen = 1000;
        let found = pair(original, reply);
        assert_eq!(found.state(), "established");
        assert_eq!(found.idle(Now::at(1500)), 500);
        assert_eq!(found.expires(Now::at(1500), &timeouts), timeouts.tcp_established - 500);
        reply.flow.seen |= FIN;
        let closing = pair(original, reply);
        assert_eq!(closing.expires(Now::at(1000 + timeouts.tcp_transitory), &timeouts), 0);
    }
}
