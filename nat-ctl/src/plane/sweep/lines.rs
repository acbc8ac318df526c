//! The walk along the lines of flows, a slice at a time.
//!
//! Invariant: a flow is ended by the states in which its lines were read: one that a packet has used
//! since goes on. A line that somebody left ending is freed when it is met so in two walks.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use nat_common::{
    flow::{Direction, TCP},
    flow_table,
    lifetime::Timeouts,
    record::{Phase, State},
    session::SessionId,
    tcp,
};

use super::{
    contacts::Contacts,
    decide,
    marks::Marks,
    pressure::Pressure,
    tally::{Opened, Tally},
};
use crate::plane::{
    clock::Now,
    flow_memory::FlowMemory,
    pair::{Pair, Record},
};

/// Walks between two that look at every flow that may be over, also at those that were missed when
/// their time came.
const SELDOM: u32 = 8;

/// Lines that were ending, by place.
type Ending = Vec<(u32, State)>;

/// Where the walk is, and what it has met.
#[derive(Debug, Default)]
pub struct Walk {
    number: u32,
    next: u32,
    /// Live lines that were met in the last walk, and in this one.
    used: (u64, u64),
    /// Whether the table of another family is nearly full, which is looked at after each walk.
    hastens: bool,
    /// Lines that were ending in the last walk, and in this one, by place.
    ending: (Ending, Ending),
    expired: u64,
    hurried: u64,
    pressure: Pressure,
    /// Contacts of flows that were met.
    contacts: Contacts,
    /// Places of sessions whose control connections were met.
    sessions: BTreeSet<u32>,
    /// Lines of data connections that were met.
    data: Vec<DataLine>,
}

/// One direction of a data connection of an FTP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLine {
    /// The session that has announced it.
    pub session: SessionId,
    /// What was dialled.
    pub to: SocketAddr,
    /// Second of the monotonic clock when it was made.
    pub created: u32,
    /// Which direction.
    pub direction: Direction,
    /// Bytes of its packets.
    pub bytes: u64,
}

/// What a walk along the whole table has met.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Live lines that are left.
    pub lines: u64,
    /// Flows that were over.
    pub expired: u64,
    /// Flows that nobody had answered, and that had to make room.
    pub hurried: u64,
    /// Contacts of flows that were met.
    pub contacts: Contacts,
    /// Places of sessions whose control connections were met.
    pub sessions: BTreeSet<u32>,
    /// Lines of data connections that were met.
    pub data: Vec<DataLine>,
}

impl Walk {
    /// Whether the next slice begins a walk.
    pub fn begins(&self) -> bool {
        self.next == 0
    }

    /// Before the first slice of a walk: what it is to meet beside flows, and whether it has to be as short as
    /// that along a table that is nearly full.
    pub fn begin(&mut self, contacts: Contacts, hastens: bool) {
        (self.contacts, self.hastens) = (contacts, hastens);
    }

    /// One slice; gives what was met with the last one.
    pub fn slice(
        &mut self,
        flows: &FlowMemory,
        marks: &mut Marks,
        tally: &mut Tally,
        timeouts: &Timeouts,
        now: Now,
    ) -> Option<Met> {
        let places = flows.places();
        let used = if self.hastens { flow_table::room(places) } else { self.used.0 };
        let count = decide::slice(used, places);
        let look = Look {
            timeouts,
            now,
            // A slice may be late by a step.
            window: 2 * decide::interval(used, places) + 1,
            any: self.number.is_multiple_of(SELDOM),
        };
        for (place, state) in flows.states(self.next, count) {
            match state.phase() {
                Phase::Live => self.line(flows, marks, tally, place, &look),
                Phase::Ending => self.ending(flows, place, state),
                Phase::Free | Phase::Claimed => {}
            }
        }
        self.next = self.next.saturating_add(count);
        (self.next >= places).then(|| self.end(places))
    }

    fn end(&mut self, places: u32) -> Met {
        self.number = self.number.wrapping_add(1);
        self.next = 0;
        self.ending.0 = std::mem::take(&mut self.ending.1);
        // Lines of flows that were ended behind the walk have been counted.
        let expired = std::mem::take(&mut self.expired);
        let used = std::mem::take(&mut self.used.1);
        self.used.0 = used;
        self.pressure.settle(used, flow_table::room(places), 2);
        let hurried = std::mem::take(&mut self.hurried);
        let (sessions, data) = (std::mem::take(&mut self.sessions), std::mem::take(&mut self.data));
        let contacts = std::mem::take(&mut self.contacts);
        Met { lines: used, expired, hurried, contacts, sessions, data }
    }

    fn line(
        &mut self,
        flows: &FlowMemory,
        marks: &mut Marks,
        tally: &mut Tally,
        place: u32,
        look: &Look<'_>,
    ) {
        let Some(record) = flows.record(place) else { return };
        self.data.extend(data_line(&record));
        let idle = look.now.since(record.state().last_seen());
        let hurries =
            is_unanswered(&record) && self.pressure.meets(look.now.since(record.created()));
        let any = look.any;
        if hurries
            || decide::may_be_over(record.key().protocol(), idle, look.timeouts, look.window, any)
        {
            let pair = whole(flows, record);
            let over = pair.expires(look.now, look.timeouts) == 0;
            if (over || hurries) && flows.end(&pair) {
                *if over { &mut self.expired } else { &mut self.hurried } += 1;
                // The other line has been counted, unless the walk has yet to come to it.
                if let Some(other) = pair.other(place).filter(|other| other.place() < place) {
                    self.used.1 = self.used.1.saturating_sub(1);
                    tally.take(Opened::of(other));
                }
                return;
            }
        }
        self.used.1 += 1;
        tally.add(Opened::of(&record));
        marks.add(&record.public());
        self.contacts.add(&record);
        if let Some(place) = record.flow().control_session().and_then(|session| session.index()) {
            self.sessions.insert(place);
        }
    }

    fn ending(&mut self, flows: &FlowMemory, place: u32, state: State) {
        if self
            .ending
            .0
            .binary_search_by_key(&place, |(place, _)| *place)
            .is_ok_and(|index| self.ending.0.get(index).is_some_and(|(_, before)| *before == state))
        {
            flows.finish(place, state);
        } else {
            self.ending.1.push((place, state));
        }
    }
}

/// What makes a flow over.
struct Look<'a> {
    timeouts: &'a Timeouts,
    now: Now,
    window: u32,
    any: bool,
}

/// Whether this is the line that knows that nobody has taken the flow up: that of an answer that has not
/// come yet, or of a TCP initiator that has not acknowledged one. (The other line does not know.)
fn is_unanswered(record: &Record) -> bool {
    match (record.key().protocol(), record.flow().direction()) {
        (TCP, Direction::Original) => record.state().seen() & tcp::ACK == 0,
        (TCP, Direction::Reply) | (_, Direction::Original) => false,
        (_, Direction::Reply) => record.packets() == 0,
    }
}

/// The flow of a line, whichever of its two that is.
fn whole(flows: &FlowMemory, record: Record) -> Pair {
    let other = flows.find(&record.answer());
    let alone = || Pair { first: record, answer: None };
    match (record.flow().direction(), other) {
        (Direction::Reply, Some(original)) => {
            Pair::of(original, |_| Some(record)).filter(|pair| pair.answer.is_some())
        }
        (_, other) => Pair::of(record, |_| other),
    }
    .unwrap_or_else(alone)
}

/// The line as one of a data connection, if it is.
fn data_line(record: &Record) -> Option<DataLine> {
    let flow = record.flow();
    let session = flow.related_session()?;
    let original = match flow.direction() {
        Direction::Original => record.key(),
        Direction::Reply => record.answer(),
    };
    let (address, port) = (Ipv4Addr::from(original.dst()), original.dport().number());
    let (to, created) = (SocketAddr::new(address.into(), port), record.created());
    let (direction, bytes) = (flow.direction(), record.bytes());
    Some(DataLine { session, to, created, direction, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::host_memory::HostMemory;
    use crate::plane::pair::tests::{PUBLIC, masqueraded, used};
    use nat_common::{
        flow::{Flow, FlowKey, Origin, Rewrite, UDP, Zone},
        host,
        port::{Port, place},
        rule::RuleId,
        tcp::{ACK, SYN},
    };

    const TIMEOUTS: Timeouts = Timeouts {
        tcp_established: 7440,
        tcp_transitory: 240,
        udp: 300,
        icmp: 60,
        expectation: 30,
    };

    /// A flow whose lines were last used then, in a table.
    fn table(protocol: u8, seen: u8, original: u32, reply: u32) -> FlowMemory {
        let flows = FlowMemory::anonymous(256);
        let (there, back) = masqueraded(protocol, 0);
        for record in [used(there, original, seen), used(back, reply, seen)] {
            flows.insert(&record.key(), &record.flow());
        }
        flows
    }

    fn walk(walk: &mut Walk, flows: &FlowMemory, now: u32) -> (Met, Marks) {
        let mut marks = Marks::new();
        marks.begin(vec![(PUBLIC, 0)], [].into_iter());
        assert!(walk.begins());
        let mut tally = Tally::new(HostMemory::anonymous());
        let met = walk.slice(flows, &mut marks, &mut tally, &TIMEOUTS, Now::at(now)).unwrap();
        (met, marks)
    }

    #[test]
    fn a_flow_ends_when_both_lines_have_been_idle_for_its_lifetime() {
        for (original, reply) in [(100, 400), (400, 100), (400, 400)] {
            let flows = table(UDP, 0, original, reply);
            let mut steps = Walk { number: 1, ..Walk::default() };
            for (now, lines, expired) in [(401, 2, 0), (699, 2, 0), (700, 0, 1), (701, 0, 0)] {
                let (met, _) = walk(&mut steps, &flows, now);
                assert_eq!((met.lines, met.expired), (lines, expired), "at {now}");
                assert_eq!(flows.used(), lines);
            }
        }
    }

    #[test]
    fn a_flow_whose_time_came_while_nobody_looked_ends_all_the_same() {
        let flows = table(TCP, SYN | ACK, 100, 100);
        let mut steps = Walk { number: 1, ..Walk::default() };
        let passes = (0..).find(|_| walk(&mut steps, &flows, 100_000).0.expired == 1).unwrap();
        assert!(passes < SELDOM, "{passes}");
    }

    #[test]
    fn an_orphan_ends_on_its_own_and_its_port_counts_until_then() {
        for kept in [0, 1] {
            let flows = FlowMemory::anonymous(256);
            let (there, back) = masqueraded(UDP, 0);
            let record = used([there, back][kept], 100, 0);
            flows.insert(&record.key(), &record.flow());
            let mut steps = Walk::default();
            let (met, marks) = walk(&mut steps, &flows, 399);
            assert_eq!((met.lines, met.expired), (1, 0));
            assert!(marks.has(place(0, &record.public()).unwrap()));
            let (met, marks) = walk(&mut steps, &flows, 400);
            assert_eq!((met.lines, met.expired), (0, 1));
            assert!(!marks.has(place(0, &record.public()).unwrap()));
        }
    }

    #[test]
    fn a_line_left_ending_is_freed_by_the_second_walk_that_meets_it() {
        let flows = table(UDP, 0, 100, 100);
        let (there, _) = masqueraded(UDP, 0);
        let left = flows.find(&there.key()).unwrap();
        flow_table::end(&flows, left.place(), left.state()).unwrap();
        let mut steps = Walk::default();
        for lines in [2, 2] {
            assert_eq!(flows.states(0, 256).count(), lines);
            walk(&mut steps, &flows, 101);
        }
        assert_eq!(flows.states(0, 256).count(), 1);
        assert_eq!(flows.states(left.place(), 1).count(), 0);
    }

    /// Both lines of a flow that was made at 100.
    fn numbered(number: u16) -> [(FlowKey, Flow); 2] {
        let (port, remote) = (Port::new(5000 + number), [198, 51, 100, 7]);
        let key = FlowKey::new(Zone::Inside, UDP, [10, 0, 0, 2], port, remote, Port::new(53));
        let out = Rewrite::source(&key, PUBLIC, port);
        let origin = Origin::Rule(RuleId::NONE);
        let there = Flow::new(Direction::Original, out, origin, 100);
        let back = Flow::new(Direction::Reply, Rewrite::answer(&key), origin, 100);
        [(key, there), (key.answer(&out), back)]
    }

    #[test]
    fn unanswered_flows_make_room_in_a_table_that_is_nearly_full_and_answered_ones_stay() {
        let flows = FlowMemory::anonymous(256);
        let mut made = vec![];
        for number in 0..80u16 {
            let [there, back] = numbered(number);
            flows.insert(&there.0, &there.1);
            flows.insert(&back.0, &back.1);
            made.push(back.0);
        }
        let answered: Vec<_> = made.iter().step_by(7).collect();
        for key in &answered {
            let found = flows.find(key).unwrap();
            flows.count_packet(found.place());
        }
        let mut steps = Walk::default();
        // Made at 100, and too young; then old enough to be met, and over in the walk after that.
        for (now, lines, hurried) in [(102, 160, 0), (105, 160, 0), (106, 24, 68), (107, 24, 0)] {
            let (met, _) = walk(&mut steps, &flows, now);
            assert_eq!((met.lines, met.hurried, met.expired), (lines, hurried, 0), "at {now}");
        }
        assert!(answered.iter().all(|key| flows.find(key).is_some()));
    }

    #[test]
    fn a_flow_is_unanswered_until_a_packet_answers_it_or_its_initiator_acknowledges() {
        for (protocol, original, reply, unanswered) in [
            (UDP, 0, 0, true),
            (TCP, SYN, 0, true),
            // A server has answered, and a forged initiator never will.
            (TCP, SYN, SYN | ACK, true),
            (TCP, SYN | ACK, SYN | ACK, false),
        ] {
            let (there, back) = masqueraded(protocol, 0);
            let lines = [used(there, 10, original), used(back, 10, reply)];
            assert_eq!(
                lines.iter().any(is_unanswered),
                unanswered,
                "{protocol} {original} {reply}"
            );
        }
    }

    #[test]
    fn a_large_table_takes_several_slices() {
        let flows = FlowMemory::anonymous(200_000);
        let (there, back) = masqueraded(UDP, 100);
        for record in [there, back] {
            flows.insert(&record.key(), &record.flow());
        }
        let mut marks = Marks::new();
        let mut steps = Walk::default();
        let mut tally = Tally::new(HostMemory::anonymous());
        let mut slice = || steps.slice(&flows, &mut marks, &mut tally, &TIMEOUTS, Now::at(101));
        let met: Vec<Option<u64>> = (0..4).map(|_| slice().map(|met| met.lines)).collect();
        assert_eq!(met, [None, None, None, Some(2)]);
        // Another table is nearly full.
        steps.begin(Contacts::default(), true);
        let mut slice = || steps.slice(&flows, &mut marks, &mut tally, &TIMEOUTS, Now::at(101));
        let met: Vec<Option<u64>> = (0..3).map(|_| slice().map(|met| met.lines)).collect();
        assert_eq!(met, [None, None, Some(2)]);
    }

    #[test]
    #[ignore = "it measures: cargo test --release -p nat-ctl million -- --ignored --nocapture"]
    fn a_walk_along_a_million_flows() {
        let flows = FlowMemory::anonymous(flow_table::places(5 << 19));
        for number in 0..1_000_000u32 {
            let [_, _, high, low] = (number / 33_000).to_be_bytes();
            let (port, remote) = (Port::new(1024 + (number % 33_000) as u16), [198, 51, high, low]);
            let key = FlowKey::new(Zone::Inside, UDP, [10, 0, 0, low], port, remote, Port::new(53));
            let out = Rewrite::source(&key, PUBLIC, port);
            let origin = Origin::Rule(RuleId::NONE);
            let back = Flow::new(Direction::Reply, Rewrite::answer(&key), origin, 100);
            flows.insert(&key, &Flow::new(Direction::Original, out, origin, 100));
            flows.insert(&key.answer(&out), &back);
        }
        let mut marks = Marks::new();
        marks.begin(vec![(PUBLIC, 0)], [].into_iter());
        let hosts = HostMemory::anonymous();
        for low in 0..31 {
            let who = host::who([10, 0, 0, low]);
            hosts.give(hosts.emptiest(who).expect("a place").0, who, 0);
        }
        let mut tally = Tally::new(hosts);
        tally.begin(Now::at(100));
        let mut steps = Walk::default();
        for _ in 0..10 {
            let begin = crate::plane::clock::moment();
            while steps.slice(&flows, &mut marks, &mut tally, &TIMEOUTS, Now::at(101)).is_none() {}
            println!("{:?} a walk", crate::plane::clock::moment() - begin);
        }
    }
}
