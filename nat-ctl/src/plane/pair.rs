//! A flow as a whole: its two records, found from either.
//!
//! Invariant: pure. Two records belong together when the answer to the one is the key of the other;
//! anything else is an orphan, which is a flow with one record.

use nat_common::{
    flow::{Direction, Flow, FlowKey, TCP, Zone},
    lifetime::{Timeouts, lifetime},
    port::Endpoint,
    record::{self, FlowRecord},
    tcp::State,
    tcp_window::Receiving,
};

use super::clock::Now;

/// One direction, as it was read from its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    place: u32,
    line: FlowRecord,
}

impl Record {
    /// What was read at `place`.
    pub fn new(place: u32, line: FlowRecord) -> Self {
        Self { place, line }
    }

    /// Where it lies.
    pub fn place(&self) -> u32 {
        self.place
    }

    /// The state in which it was read.
    pub fn state(&self) -> record::State {
        self.line.state()
    }

    /// The tuple of its packets on arrival.
    pub fn key(&self) -> FlowKey {
        self.line.key()
    }

    /// What is done with them.
    pub fn flow(&self) -> Flow {
        self.line.flow()
    }

    /// Seconds of the monotonic clock when it was made.
    pub fn created(&self) -> u32 {
        self.line.created()
    }

    /// What the last of its TCP segments said that its sender is ready to receive.
    pub fn receiving(&self) -> Receiving {
        self.line.receiving()
    }

    /// Packets that were translated.
    pub fn packets(&self) -> u64 {
        self.line.packets()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.line.bytes()
    }

    /// The key of the record of the other direction.
    pub fn answer(&self) -> FlowKey {
        self.key().answer(self.flow().rewrite())
    }

    /// The end of the flow that the outside sees of the inside.
    pub fn public(&self) -> Endpoint {
        let key = self.key();
        match key.zone() {
            Zone::Outside => key.destination(),
            Zone::Inside => {
                let flow = self.flow();
                let rewrite = flow.rewrite();
                Endpoint::new(key.protocol(), rewrite.src(), rewrite.sport())
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
    pub fn of(first: Record, find: impl FnOnce(&FlowKey) -> Option<Record>) -> Option<Self> {
        let direction = first.flow().direction();
        let answer = find(&first.answer())
            .filter(|other| other.answer() == first.key() && other.flow().direction() != direction);
        match (direction, answer) {
            (Direction::Reply, Some(_)) => None,
            (Direction::Original | Direction::Reply, answer) => Some(Self { first, answer }),
        }
    }

    /// The record that is not the one at `place`.
    pub fn other(&self, place: u32) -> Option<&Record> {
        if self.first.place == place { self.answer.as_ref() } else { Some(&self.first) }
    }

    /// What was seen of the initiator and of the answer.
    fn seen(&self) -> (u8, u8) {
        let first = self.first.state();
        match (self.first.flow().direction(), self.answer) {
            (Direction::Original, Some(answer)) => first.seen_with(answer.state()),
            (Direction::Original, None) => (first.seen(), 0),
            (Direction::Reply, _) => (0, first.seen()),
        }
    }

    /// Seconds since the last packet of either direction.
    pub fn idle(&self, now: Now) -> u32 {
        let first = now.since(self.first.state().last_seen());
        let answer = self.answer.map_or(u32::MAX, |answer| now.since(answer.state().last_seen()));
        first.min(answer)
    }

    /// Seconds that it has left without another packet; 0 where it is over.
    pub fn expires(&self, now: Now, timeouts: &Timeouts) -> u32 {
        let (original, reply) = self.seen();
        let class = lifetime(self.first.key().protocol(), original, reply);
        timeouts.seconds(class).saturating_sub(self.idle(now))
    }

    /// Its state in one word.
    pub fn state(&self) -> &'static str {
        let (original, reply) = self.seen();
        match (self.first.key().protocol(), self.answer) {
            (TCP, _) => State::of(original, reply).name(),
            (_, Some(answer)) if answer.packets() > 0 => "replied",
            (_, Some(_) | None) => "unreplied",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use nat_common::{
        flow::{Origin, Rewrite},
        port::Port,
        rule::RuleId,
        tcp::{ACK, FIN, SYN},
    };

    pub const PUBLIC: [u8; 4] = [203, 0, 113, 1];

    /// The line of a flow in a place that was free.
    pub fn record(place: u32, key: &FlowKey, flow: &Flow) -> Record {
        Record::new(place, FlowRecord::new(record::State::default(), key, flow))
    }

    /// A masqueraded flow, made and last used at `then`.
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
        let origin = Origin::Rule(RuleId::NONE);
        let flow = Flow::new(Direction::Original, out, origin, then);
        let answer = key.answer(&out);
        let reply = Flow::new(Direction::Reply, Rewrite::answer(&key), origin, then);
        (record(1, &key, &flow), record(2, &answer, &reply))
    }

    /// The same record, last used at `then` with `seen`.
    pub fn used(before: Record, then: u32, seen: u8) -> Record {
        let mut flow = before.flow();
        (flow.last_seen, flow.seen) = (then, seen);
        record(before.place(), &before.key(), &flow)
    }

    fn pair(original: Record, reply: Record) -> Pair {
        Pair::of(original, |key| (*key == reply.key()).then_some(reply)).unwrap()
    }

    #[test]
    fn a_flow_is_told_of_once_from_its_original_record() {
        let (original, reply) = masqueraded(TCP, 10);
        let found = pair(original, reply);
        assert_eq!(found.answer, Some(reply));
        assert_eq!(Pair::of(reply, |key| (*key == original.key()).then_some(original)), None);
        assert_eq!(Pair::of(reply, |_| None).map(|orphan| orphan.first), Some(reply));
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_not_the_answer() {
        let (original, reply) = masqueraded(TCP, 10);
        let key = original.key();
        let other = Rewrite::source(&key, PUBLIC, Port::new(6001));
        let origin = Origin::Rule(RuleId::NONE);
        let moved = record(3, &key, &Flow::new(Direction::Original, other, origin, 10));
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
        let (original, reply) = masqueraded(TCP, 10);
        let original = used(original, 10, SYN | ACK);
        let found = pair(original, used(reply, 1000, SYN | ACK));
        assert_eq!(found.state(), "established");
        assert_eq!(found.idle(Now::at(1500)), 500);
        assert_eq!(found.expires(Now::at(1500), &timeouts), timeouts.tcp_established - 500);
        let closing = pair(original, used(reply, 1000, SYN | ACK | FIN));
        assert_eq!(closing.expires(Now::at(1000 + timeouts.tcp_transitory), &timeouts), 0);
    }
}
