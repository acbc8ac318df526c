//! A flow on its way to a larger table meets packets, in every order with few interruptions.
//!
//! Whatever meets it, its key has one line in both tables together, and a packet either uses that
//! line or is told to come again.

use super::{
    super::{
        Found, Hashed, Lies, Refused, SPAN, find, find_before, host::HostMemory, insert, is_new,
        load_flow, relocate, remove, remove_both, touch,
    },
    arena::{NEW, OLD, Outcome},
    invariants,
    samples::{SEEDS, flow, key},
    schedule::{self, Operation},
    stepped::{Mistake, Stepped},
};
use crate::{flow::FlowKey, record::State, tcp};
use Outcome::{Ended, Inserted, Read, Used};

/// When the packets of the race arrive.
const LATER: u32 = 50;

/// Two tables, each with two near homes and two others, and a flow in the first of them.
struct Growing {
    before: HostMemory,
    now: HostMemory,
    mistake: Option<Mistake>,
    key: FlowKey,
    old: Found<u32>,
}

type Two<'a, 'b> = (Stepped<'a, 'b>, Stepped<'a, 'b>);

impl Growing {
    fn new(mistake: Option<Mistake>) -> Self {
        let [before, now] = [(); 2].map(|()| HostMemory::new(SPAN + 4, SEEDS));
        let key = keys(&now, [0, 1]).next().unwrap();
        let old = insert(&before, &Hashed::new(&before, &key), &flow(&key, OLD, 1)).unwrap();
        Self { before, now, mistake, key, old }
    }

    /// No place is free to which the flow could move; gives one of the lines in its way.
    fn crowded(mistake: Option<Mistake>) -> (Self, Found<u32>) {
        let growing = Self::new(mistake);
        let fill = |key: FlowKey| {
            insert(&growing.now, &Hashed::new(&growing.now, &key), &flow(&key, NEW, 1)).ok()
        };
        let line = keys(&growing.now, [0, 1]).skip(1).map_while(fill).last().unwrap();
        assert!(invariants::is_full_for(&growing.now, &growing.key));
        (growing, line)
    }

    fn does<'a>(
        &'a self,
        operation: impl Fn(&Two<'_, '_>) -> Outcome + Send + 'a,
    ) -> Operation<'a, Outcome> {
        Box::new(move |turns, me| {
            let see = |memory| Stepped::new(memory, turns, me, self.mistake);
            operation(&(see(&self.before), see(&self.now)))
        })
    }

    /// The agent moves the flow as it has seen it.
    fn moves(&self) -> Operation<'_, Outcome> {
        self.does(|(before, now)| Ended(relocate(before, now, self.old).is_ok()))
    }

    /// A packet looks for the flow and notes that it uses it.
    fn uses(&self) -> Operation<'_, Outcome> {
        self.does(|tables| {
            Used(with(tables, &self.key, |memory, found| {
                touch(memory, found.place, found.state, LATER, tcp::FIN)
            }))
        })
    }

    fn reads(&self) -> Operation<'_, Outcome> {
        self.does(|tables| {
            Read(with(tables, &self.key, |memory, found| {
                load_flow(memory, found.place, found.state).map(|(flow, _)| flow)
            }))
        })
    }

    /// A packet that has found no flow makes one.
    fn makes(&self) -> Operation<'_, Outcome> {
        self.does(|(before, now)| {
            let key = Hashed::new(now, &self.key);
            let made =
                is_new(before, &key).and_then(|()| insert(now, &key, &flow(&self.key, NEW, LATER)));
            Inserted(made.map(|found| found.line().index))
        })
    }

    fn removes(&self) -> Operation<'_, Outcome> {
        self.does(|(before, now)| Ended(remove_both(before, now, &Hashed::new(now, &self.key))))
    }

    /// Lines of the key in the tables, if both are as they must be at rest.
    fn lines(&self) -> Result<[usize; 2], String> {
        let lines = [invariants::check(&self.before)?, invariants::check(&self.now)?];
        Ok(lines.map(|lines| usize::from(lines.contains_key(&self.key))))
    }

    /// Whether the line of the key has seen the packet of [`Growing::uses`].
    fn has_noted(&self) -> bool {
        let noted = |memory| {
            let found = find(memory, &Hashed::new(memory, &self.key));
            found.is_some_and(|found: Found<u32>| {
                (found.state.last_seen(), found.state.seen()) == (LATER, tcp::FIN)
            })
        };
        noted(&self.now) || noted(&self.before)
    }
}

/// What a packet does with the line that it finds; `None` where it has to come again.
fn with<T>(
    (before, now): &Two<'_, '_>,
    key: &FlowKey,
    work: impl Fn(&Stepped<'_, '_>, Found<u32>) -> Option<T>,
) -> Option<T> {
    let key = Hashed::new(now, key);
    if let Some(found) = find(now, &key) {
        return work(now, found);
    }
    match find_before(before, now, &key) {
        Some(Lies::Now(found)) => work(now, found),
        Some(Lies::Before(found)) => work(before, found),
        None => {
            now.report("a packet finds no flow".to_owned());
            None
        }
    }
}

fn keys(memory: &HostMemory, homes: [u32; 2]) -> impl Iterator<Item = FlowKey> {
    (0..u32::MAX).map(key).filter(move |key| {
        let hashed = Hashed::new(memory, key);
        [0, 1, 2, 3].map(|choice| hashed.home(memory, choice))
            == [homes[0], 2 + homes[1], 2 + homes[1], 2 + homes[1]]
    })
}

type Race<'r> = &'r mut dyn FnMut(Vec<Operation<'_, Outcome>>) -> Result<Vec<Outcome>, String>;

fn expect(right: bool, outcomes: &[Outcome], lines: [usize; 2]) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("{lines:?} lines after {outcomes:?}")) }
}

fn a_move_meets_a_use(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let growing = Growing::new(mistake);
    let out = race(vec![growing.moves(), growing.uses()])?;
    let lines = growing.lines()?;
    let right = match out[..] {
        [Ended(moved), Used(used)] => {
            used.is_none_or(|_| growing.has_noted()) && (moved || used.is_some())
        }
        _ => false,
    };
    expect(right && lines.iter().sum::<usize>() == 1, &out, lines)
}

fn a_move_meets_a_reader(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let growing = Growing::new(mistake);
    let out = race(vec![growing.moves(), growing.reads()])?;
    let lines = growing.lines()?;
    let right = match out[..] {
        [Ended(_), Read(read)] => read.is_none_or(|read| read == flow(&growing.key, OLD, 1)),
        _ => false,
    };
    expect(right && lines == [0, 1], &out, lines)
}

fn two_packets_move_a_flow(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let growing = Growing::new(mistake);
    let out = race(vec![growing.uses(), growing.uses()])?;
    let lines = growing.lines()?;
    let right = matches!(out[..], [Used(one), Used(other)] if one.or(other).is_some());
    expect(right && growing.has_noted() && lines.iter().sum::<usize>() == 1, &out, lines)
}

fn a_move_meets_a_packet_that_makes_the_flow(
    mistake: Option<Mistake>,
    race: Race<'_>,
) -> Result<(), String> {
    let growing = Growing::new(mistake);
    let out = race(vec![growing.moves(), growing.makes()])?;
    let lines = growing.lines()?;
    let right = matches!(out[..], [Ended(_), Inserted(Err(Refused::Exists | Refused::Busy))]);
    expect(right && lines.iter().sum::<usize>() == 1, &out, lines)
}

/// A move that began before is over, or the line is where it was: never is one half done.
fn a_move_meets_a_removal(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let growing = Growing::new(mistake);
    let out = race(vec![growing.moves(), growing.removes()])?;
    let lines = growing.lines()?;
    let right = match out[..] {
        [Ended(moved), Ended(removed)] => lines == [0, usize::from(moved && !removed)],
        _ => false,
    };
    expect(right, &out, lines)
}

/// The larger table has no room: the flow goes on where it is.
fn a_flow_without_a_place_is_used(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let (growing, _) = Growing::crowded(mistake);
    let out = race(vec![growing.moves(), growing.uses()])?;
    let lines = growing.lines()?;
    let right = match out[..] {
        // Refused only while it is tried to be moved.
        [Ended(false), Used(used)] => used.is_some() == growing.has_noted(),
        _ => false,
    };
    expect(right && lines == [1, 0], &out, lines)
}

fn a_flow_without_a_place_moves_when_there_is_one(
    mistake: Option<Mistake>,
    race: Race<'_>,
) -> Result<(), String> {
    let (growing, line) = Growing::crowded(mistake);
    let ends = growing.does(|(_, now)| Ended(remove(now, line.line(), line.state)));
    let out = race(vec![growing.uses(), ends])?;
    let lines = growing.lines()?;
    let right = matches!(out[..], [Used(Some(State { .. })), Ended(true)]);
    expect(right && growing.has_noted() && lines.iter().sum::<usize>() == 1, &out, lines)
}

type Case = (&'static str, u32, fn(Option<Mistake>, Race<'_>) -> Result<(), String>);

const CASES: [Case; 7] = [
    ("a move meets a use", 3, a_move_meets_a_use),
    ("a move meets a reader", 3, a_move_meets_a_reader),
    ("two packets move a flow", 3, two_packets_move_a_flow),
    ("a move meets a packet that makes the flow", 3, a_move_meets_a_packet_that_makes_the_flow),
    ("a move meets a removal", 3, a_move_meets_a_removal),
    ("a flow without a place is used", 2, a_flow_without_a_place_is_used),
    ("a flow without a place moves", 2, a_flow_without_a_place_moves_when_there_is_one),
];

#[test]
fn a_flow_on_its_way_has_one_line_in_every_order() {
    for (name, most, case) in CASES {
        match schedule::every(most, |race| case(None, race)) {
            Ok(count) => println!("{name}: {count} schedules of up to {most} interruptions"),
            Err(fault) => panic!("{name}: {fault}"),
        }
    }
}

#[test]
fn a_mistake_that_loses_a_flow_on_its_way_comes_out_wrong() {
    for mistake in [Mistake::NoPutBack, Mistake::PublishBeforeBody, Mistake::EndDespiteUse] {
        let caught = CASES.into_iter().filter_map(|(name, most, case)| {
            let fault = schedule::every(most.min(2), |race| case(Some(mistake), race)).err()?;
            Some(format!("{name}: {fault}"))
        });
        let caught: Vec<String> = caught.collect();
        println!("{mistake:?} is caught by\n  {}", caught.join("\n  "));
        assert!(!caught.is_empty(), "{mistake:?} is not caught");
    }
}

#[test]
fn a_table_takes_on_what_moves_to_it_beside_all_that_it_may() {
    use super::super::{allowance, homes, places};
    let (before, now) = (homes(places(2 * 300)), homes(places(2 * 1200)));
    let allowed = allowance(now, before);
    assert!(allowed + u64::from(before) <= 2 * 1200 + 1);
    assert_eq!(allowance(100, 100), 0);
}
