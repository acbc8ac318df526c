//! Flows by the inside host that has opened them, counted along the lines of a pass, and public ports by
//! the one that has them.
//!
//! Invariant: what the pass has counted is the truth; the count of the data plane goes on from it with
//! the flows that were made since the pass began. No host has fewer flows by it than in truth; those
//! that were made in the second in which the pass began may count twice until the next one. Ports
//! likewise, with those that were taken while they were looked through.

use std::collections::HashMap;

use nat_common::{
    flow::{Direction, Zone},
    host::{self, Count, Host},
    six::{Flow6, Flow6Key},
};

use crate::plane::{clock::Now, host_memory::HostMemory, pair::Record};

/// What was counted.
#[derive(Debug)]
pub struct Tally {
    hosts: HostMemory,
    begun: Now,
    /// What was made in each place when the pass began.
    made: Vec<u64>,
    /// Flows met of the host in each place.
    met: Vec<u64>,
    /// Those of hosts that have no place.
    others: HashMap<u64, u64>,
}

/// Whose flow it is, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The host, by the first word of its place.
    who: u64,
    created: u32,
}

impl Opened {
    /// By the line of its first packet; none of another one, and where somebody outside has opened it.
    pub fn of(record: &Record) -> Option<Self> {
        let key = record.key();
        let opens = (record.flow().direction(), key.zone()) == (Direction::Original, Zone::Inside);
        opens.then(|| Self { who: host::who(key.src()), created: record.created() })
    }

    /// Of a flow of IPv6, where the map `hosts6` has these seeds.
    pub fn of6(key: &Flow6Key, flow: &Flow6, seeds: [u64; 2]) -> Option<Self> {
        let opens = flow.begun() == Zone::Inside;
        let who = || host::who6(host::words6(&key.inside()), seeds);
        opens.then(|| Self { who: who(), created: flow.created() })
    }
}

impl Tally {
    /// Before the first pass.
    pub fn new(hosts: HostMemory) -> Self {
        Self { hosts, begun: Now::at(0), made: vec![], met: vec![], others: HashMap::new() }
    }

    /// Begins a pass.
    pub fn begin(&mut self, now: Now) {
        let Self { hosts, begun, made, met, others } = self;
        *begun = now;
        made.clear();
        made.extend((0..hosts.places()).map(|place| hosts.added(place, Count::Flows)));
        met.clear();
        met.resize(made.len(), 0);
        others.clear();
    }

    /// A flow was met that stays.
    pub fn add(&mut self, opened: Option<Opened>) {
        if let Some(met) = opened.and_then(|opened| self.met(opened)) {
            *met += 1;
        }
    }

    /// A flow that was met before is over after all.
    pub fn take(&mut self, opened: Option<Opened>) {
        if let Some(met) = opened.and_then(|opened| self.met(opened)) {
            *met = met.saturating_sub(1);
        }
    }

    /// Ends a pass: counts go on from what was met.
    pub fn settle(&mut self) {
        let Self { hosts, made, met, others, .. } = self;
        // Some of them have found a place meanwhile.
        others.retain(|who, flows| match hosts.find(*who) {
            Some(place) => {
                if let Some(met) = met.get_mut(place as usize) {
                    *met += *flows;
                }
                false
            }
            None => true,
        });
        for ((place, made), met) in (0u32..).zip(made.iter()).zip(met.iter()) {
            let now = hosts.read(place);
            let Host { who, .. } = now;
            if who == 0 {
                continue;
            }
            if *met == 0 && now.made == *made && hosts.has(place, Count::Ports) == 0 {
                hosts.free(place, &now);
            } else {
                hosts.begin(place, Count::Flows, made.wrapping_sub(*met));
            }
        }
        for (who, flows) in others.drain() {
            if let Some((place, fewest)) = hosts.emptiest(who)
                && fewest < flows
            {
                hosts.give(place, who, flows);
            }
        }
    }

    /// Before the ports are looked through.
    pub fn ports(&self) -> PortTally<'_> {
        let hosts = &self.hosts;
        let taken = (0..hosts.places()).map(|place| hosts.added(place, Count::Ports)).collect();
        PortTally { hosts, taken, met: HashMap::new() }
    }

    /// Where a flow is counted that was there when the pass began.
    fn met(&mut self, opened: Opened) -> Option<&mut u64> {
        if opened.created > self.begun.seconds() {
            return None;
        }
        match self.hosts.find(opened.who) {
            Some(place) => self.met.get_mut(place as usize),
            None => Some(self.others.entry(opened.who).or_default()),
        }
    }
}

/// Public ports by who has them, of those that have a place.
#[derive(Debug)]
pub struct PortTally<'a> {
    hosts: &'a HostMemory,
    /// What was taken in each place before.
    taken: Vec<u64>,
    /// Ports met, by host.
    met: HashMap<[u8; 4], u64>,
}

impl PortTally<'_> {
    /// A port of a host was met that stays its own.
    pub fn add(&mut self, host: [u8; 4]) {
        *self.met.entry(host).or_default() += 1;
    }

    /// All are looked through: counts go on from what was met.
    pub fn settle(self) {
        let Self { hosts, taken, met } = self;
        let mut places = vec![0; taken.len()];
        for (host, ports) in met {
            if let Some(met) =
                hosts.find(host::who(host)).and_then(|place| places.get_mut(place as usize))
            {
                *met = ports;
            }
        }
        for ((place, taken), met) in (0u32..).zip(taken).zip(places) {
            // Nobody's places stay as they are: few hosts have one, and all are some megabytes.
            if hosts.read(place).who != 0 {
                hosts.begin(place, Count::Ports, taken.wrapping_sub(met));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::pair::tests::{masqueraded, record};
    use nat_common::{
        flow::{Flow, FlowKey, Origin, Rewrite, UDP},
        host::{HOST_PROBES, HOSTS, index, who, who6, words6},
        port::Port,
        record::Use,
        rule::RuleId,
    };

    /// The line of the first packet of a flow that a host has opened at `then`.
    fn line(host: [u8; 4], then: u32) -> Record {
        let (port, remote) = (Port::new(5000), [198, 51, 100, 7]);
        let key = FlowKey::new(Zone::Inside, UDP, host, port, remote, port);
        let out = Rewrite::source(&key, [203, 0, 113, 1], port);
        let flow = Flow::new(Direction::Original, out, Origin::Rule(RuleId::NONE), then);
        record(1, &key, &flow)
    }

    fn opened(host: [u8; 4], then: u32) -> Option<Opened> {
        Opened::of(&line(host, then))
    }

    fn pass(tally: &mut Tally, met: impl IntoIterator<Item = ([u8; 4], u64)>) {
        tally.begin(Now::at(100));
        for (host, flows) in met {
            (0..flows).for_each(|_| tally.add(opened(host, 99)));
        }
        tally.settle();
    }

    const HOST: [u8; 4] = [10, 0, 1, 2];
    const WHO: u64 = who(HOST);

    #[test]
    fn a_pass_puts_any_count_right_and_a_host_without_flows_gives_its_place_back() {
        let mut tally = Tally::new(HostMemory::anonymous());
        for counted in [9, 3, 0] {
            tally.hosts.open_flows(WHO, counted);
            pass(&mut tally, [(HOST, 5)]);
            assert_eq!(tally.hosts.flows(WHO), Some(5), "{counted} opened");
        }
        pass(&mut tally, []);
        assert_eq!(tally.hosts.flows(WHO), None);
    }

    #[test]
    fn ports_are_put_right_by_those_that_were_met_and_a_host_that_has_one_keeps_its_place() {
        let mut tally = Tally::new(HostMemory::anonymous());
        tally.hosts.open_flows(WHO, 1);
        for (taken, met) in [(9, 5), (0, 7), (2, 1)] {
            tally.hosts.take_ports(WHO, taken);
            let mut ports = tally.ports();
            (0..met).for_each(|_| ports.add(HOST));
            ports.add([10, 0, 1, 3]);
            // Taken meanwhile.
            tally.hosts.take_ports(WHO, 2);
            ports.settle();
            assert_eq!(tally.hosts.ports(WHO), Some(met + 2), "{taken} taken");
        }
        pass(&mut tally, []);
        assert_eq!((tally.hosts.flows(WHO), tally.hosts.ports(WHO)), (Some(0), Some(3)));
        tally.ports().settle();
        pass(&mut tally, []);
        assert_eq!(tally.hosts.ports(WHO), None);
    }

    #[test]
    fn flows_that_are_made_during_a_pass_count_once() {
        let mut tally = Tally::new(HostMemory::anonymous());
        tally.hosts.open_flows(WHO, 2);
        tally.begin(Now::at(100));
        tally.add(opened(HOST, 99));
        tally.add(opened(HOST, 100));
        tally.hosts.open_flows(WHO, 3);
        (0..3).for_each(|_| tally.add(opened(HOST, 101)));
        tally.settle();
        assert_eq!(tally.hosts.flows(WHO), Some(5));
    }

    #[test]
    fn who_has_opened_it_is_counted_and_nobody_else() {
        let mut tally = Tally::new(HostMemory::anonymous());
        let (there, back) = masqueraded(UDP, 10);
        let host = who(there.key().src());
        tally.hosts.open_flows(host, 1);
        tally.begin(Now::at(100));
        for record in [&back, &there, &there] {
            tally.add(Opened::of(record));
        }
        tally.take(Opened::of(&there));
        tally.settle();
        let listed: Vec<_> = tally.hosts.listed().map(|it| (it.who, it.flows)).collect();
        assert_eq!(listed, [(host, 1)]);
    }

    #[test]
    fn flows_of_ipv6_count_for_the_inside_host_that_has_begun_them() {
        const SEEDS: [u64; 2] = [3, 5];
        let (here, there) = ([1; 16], [2; 16]);
        let key = Flow6Key::new(Zone::Inside, UDP, here, Port::new(1), there, Port::new(2));
        let at = |zone, now| {
            let flow = Flow6::new(zone, RuleId::NONE, Use { now, ..Use::default() });
            Opened::of6(&key, &flow, SEEDS)
        };
        assert_eq!(at(Zone::Outside, 99), None);
        let mut tally = Tally::new(HostMemory::anonymous());
        let host = who6(words6(&here), SEEDS);
        tally.hosts.open_flows(host, 7);
        tally.begin(Now::at(100));
        tally.hosts.open_flows(host, 1);
        [99, 100, 101].into_iter().for_each(|then| tally.add(at(Zone::Inside, then)));
        tally.settle();
        assert_eq!(tally.hosts.flows(host), Some(3));
    }

    #[test]
    fn a_host_without_a_place_gets_that_of_the_smallest_once_it_has_more() {
        let mut tally = Tally::new(HostMemory::anonymous());
        let near = (0..HOST_PROBES).map(|probe| index(WHO, probe, HOSTS)).collect::<Vec<_>>();
        let is_near = |host: &[u8; 4]| near.contains(&index(who(*host), 0, HOSTS));
        let crowd: Vec<[u8; 4]> = (0..=u32::from(u16::MAX) * 64)
            .map(|number| (number | 10 << 24).to_be_bytes())
            .filter(|host| *host != HOST && is_near(host))
            .collect();
        assert!(crowd.len() > 2 * HOST_PROBES as usize && HOSTS > HOST_PROBES);
        for host in &crowd {
            tally.hosts.open_flows(who(*host), 2);
        }
        assert!(!tally.hosts.open_flows(WHO, 1), "its places are others'");
        let small = crowd.iter().map(|host| (*host, 2)).collect::<Vec<_>>();
        for (flows, listed) in [(2, None), (7, Some(7))] {
            pass(&mut tally, small.iter().copied().chain([(HOST, flows)]));
            assert_eq!(tally.hosts.flows(WHO), listed);
        }
    }
}
