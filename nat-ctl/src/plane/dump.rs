//! Every flow of the table, once, in one walk along its lines.
//!
//! Invariant: a flow that is there all the while is told of exactly once, by its original record, or
//! as an orphan by the one that it has; what packets make and end meanwhile may be told of or not.
//!
//! An answer whose original record has not come by yet waits in a bitmap, and is an orphan if none
//! has at the end: so each flow costs one search, whichever of its lines comes first. Searches of
//! many flows are under way at a time, because each waits for memory.

use std::ops::ControlFlow;

use nat_common::flow::Direction;

use super::flow_memory::FlowMemory;
use super::pair::{Pair, Record};

/// Flows whose answers are looked for together.
const TOGETHER: usize = 32;

/// Hands every flow to `each`, until that says that nobody wants more.
pub fn flows(
    flows: &FlowMemory,
    mut each: impl FnMut(&Pair) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut told = Places::of(flows);
    let mut waiting = Places::of(flows);
    let mut together: Vec<Record> = Vec::with_capacity(TOGETHER);
    let mut places = flows.states(0, flows.places()).filter(|(_, state)| state.is_live());
    loop {
        together.clear();
        while together.len() < TOGETHER
            && let Some((place, _)) = places.next()
        {
            let Some(record) = flows.record(place) else { continue };
            match record.flow().direction() {
                Direction::Original => together.push(record),
                Direction::Reply => waiting.add(place),
            }
        }
        if together.is_empty() {
            break;
        }
        flows.expect(together.iter().map(Record::answer));
        for original in &together {
            let Some(pair) = flows.pair(*original) else { continue };
            if let Some(answer) = &pair.answer {
                told.add(answer.place());
            }
            each(&pair)?;
        }
    }
    for place in waiting.without(&told) {
        // The original record may have come, or gone, behind the walk.
        let orphan = flows.record(place).and_then(|record| flows.pair(record));
        if let Some(pair) = orphan {
            each(&pair)?;
        }
    }
    ControlFlow::Continue(())
}

/// Places of a table, a bit each.
struct Places(Vec<u64>);

impl Places {
    fn of(flows: &FlowMemory) -> Self {
        Self(vec![0; flows.places().div_ceil(u64::BITS) as usize])
    }

    fn add(&mut self, place: u32) {
        if let Some(bits) = self.0.get_mut((place / u64::BITS) as usize) {
            *bits |= 1 << (place % u64::BITS);
        }
    }

    fn without(&self, others: &Self) -> impl Iterator<Item = u32> {
        self.0.iter().zip(&others.0).zip(0u32..).flat_map(|((bits, others), word)| {
            let mut left = bits & !others;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(word * u64::BITS + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{Flow, FlowKey, Origin, Rewrite, UDP, Zone},
        port::Port,
        rule::RuleId,
    };

    const PUBLIC: [u8; 4] = [203, 0, 113, 1];

    /// Both records of the flow number `index`.
    fn lines(index: u16) -> [(FlowKey, Flow); 2] {
        let (port, remote) = (Port::new(index), [198, 51, 100, 7]);
        let key = FlowKey::new(Zone::Inside, UDP, [10, 0, 0, 2], port, remote, Port::new(53));
        let out = Rewrite::source(&key, PUBLIC, port);
        let (answer, origin) = (key.answer(&out), Origin::Rule(RuleId::NONE));
        let there = Flow::new(Direction::Original, out, origin, 1);
        let back = Flow::new(Direction::Reply, Rewrite::answer(&key), origin, 1);
        [(key, there), (answer, back)]
    }

    #[test]
    fn every_flow_comes_once_whichever_line_lies_first_and_orphans_do_too() {
        let table = FlowMemory::anonymous(2000);
        for index in 0..300 {
            let [there, back] = lines(index);
            // Of every fourth flow one line alone is there.
            let kept = match index % 8 {
                3 => vec![there],
                7 => vec![back],
                _ => vec![there, back],
            };
            for (key, flow) in kept {
                table.insert(&key, &flow);
            }
        }
        let mut seen = vec![];
        let done = flows(&table, |pair| {
            let key = pair.first.key();
            let lone = pair.answer.is_none();
            seen.push((if key.zone() == Zone::Inside { key.sport() } else { key.dport() }, lone));
            ControlFlow::Continue(())
        });
        assert!(done.is_continue());
        seen.sort_unstable();
        let wanted: Vec<_> =
            (0..300u16).map(|index| (Port::new(index), matches!(index % 8, 3 | 7))).collect();
        assert_eq!(seen, wanted);
    }

    #[test]
    fn the_walk_ends_when_nobody_wants_more() {
        let table = FlowMemory::anonymous(2000);
        for (key, flow) in (0..100).flat_map(lines) {
            table.insert(&key, &flow);
        }
        let mut seen = 0;
        let done = flows(&table, |_| {
            seen += 1;
            if seen < 40 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert_eq!((seen, done), (40, ControlFlow::Break(())));
    }
}
