//! Operations that meet, in every order with few interruptions and in random ones with many.
//!
//! Each case says what may come out of it. [`Mistake`]s made on purpose show that the cases tell
//! right from wrong.

use super::{
    super::{Line, Memory, NEAR_WINDOW, Refused, remove, touch},
    arena::{NEW, OLD, Outcome, Table, inserted, search},
    samples::flow,
    schedule::{self, Operation},
    stepped::{Mistake, Stepped},
};
use crate::{
    flow::FlowKey,
    record::{STATE, State},
    tcp,
};

/// Fails with what came out, unless `right`.
fn expect(right: bool, outcomes: &[Outcome], lines: usize) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("{lines} lines after {outcomes:?}")) }
}

type Race<'r> = &'r mut dyn FnMut(Vec<Operation<'_, Outcome>>) -> Result<Vec<Outcome>, String>;

use Outcome::{Ended, Inserted, Read, Used};

fn two_inserts_of_a_key(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let out = race(vec![table.inserts(key, OLD), table.inserts(key, NEW)])?;
    let lines = table.lines()?;
    let right = matches!(
        out[..],
        [Inserted(Ok(_)), Inserted(Err(Refused::Exists | Refused::Busy))]
            | [Inserted(Err(Refused::Exists | Refused::Busy)), Inserted(Ok(_))]
    );
    expect(right && lines == 1, &out, lines)
}

fn two_inserts_for_a_place(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let (one, other) = (table.key([0, 1], 0), table.key([0, 1], 1));
    let out = race(vec![table.inserts(one, OLD), table.inserts(other, NEW)])?;
    let lines = table.lines()?;
    let right = matches!(out[..], [Inserted(Ok(a)), Inserted(Ok(b))] if a != b);
    expect(right && lines == 2, &out, lines)
}

fn an_insert_meets_a_removal(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let old = table.with(&key, OLD);
    let out = race(vec![table.inserts(key, NEW), table.removes(old)])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Inserted(Ok(_)), Ended(true)] => lines == 1,
        [Inserted(Err(Refused::Exists | Refused::Busy)), Ended(true)] => lines == 0,
        _ => false,
    };
    expect(right, &out, lines)
}

fn a_reader_meets_reuse(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let (key, other) = (table.key([0, 1], 0), table.key([0, 1], 1));
    let (line, state) = table.with(&key, OLD);
    let reuses = table.does(|memory| {
        remove(memory, line, state);
        inserted(memory, &other, NEW)
    });
    let out = race(vec![table.reads(key), reuses])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Read(read), Inserted(Ok(place))] => {
            place == line.index && read.is_none_or(|read| read == flow(&key, OLD, 1))
        }
        _ => false,
    };
    expect(right && lines == 1, &out, lines)
}

fn a_reader_meets_a_new_flow_of_its_key(
    mistake: Option<Mistake>,
    race: Race<'_>,
) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let (line, state) = table.with(&key, OLD);
    let renews = table.does(|memory| {
        remove(memory, line, state);
        inserted(memory, &key, NEW)
    });
    let out = race(vec![table.reads(key), renews])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Read(read), Inserted(Ok(_))] => {
            read.is_none_or(|read| [OLD, NEW].map(|v| flow(&key, v, 1)).contains(&read))
        }
        _ => false,
    };
    expect(right && lines == 1, &out, lines)
}

fn a_reader_meets_an_insert(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let out = race(vec![table.reads(key), table.inserts(key, NEW)])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Read(read), Inserted(Ok(_))] => read.is_none_or(|read| read == flow(&key, NEW, 1)),
        _ => false,
    };
    expect(right && lines == 1, &out, lines)
}

fn a_use_meets_reuse(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let (key, other) = (table.key([0, 1], 0), table.key([0, 1], 1));
    let (line, state) = table.with(&key, OLD);
    let reuses = table.does(|memory| {
        if !remove(memory, line, state) {
            return Ended(false);
        }
        inserted(memory, &other, NEW)
    });
    let out = race(vec![table.uses(key), reuses])?;
    let lines = table.lines()?;
    let seen = table.memory.record(line.index).flow().seen;
    let right = match out[..] {
        [Used(Some(_)), Ended(false)] => seen == tcp::FIN,
        [Used(None), Inserted(Ok(_))] => seen == 0,
        _ => false,
    };
    expect(right && lines == 1, &out, lines)
}

/// Whoever comes first wins: the packet that uses one direction, or the end of both.
fn a_use_meets_the_end(mistake: Option<Mistake>, race: Race<'_>, of: usize) -> Result<(), String> {
    let table = Table::new(mistake);
    let keys = [table.key([0, 1], 0), table.key([1, 0], 0)];
    let pair = keys.map(|key| table.with(&key, OLD));
    let out = race(vec![table.uses(keys[of]), table.ends_pair(pair)])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Used(Some(_)), Ended(false)] => lines == 2,
        [Used(None), Ended(true)] => lines == 0,
        _ => false,
    };
    expect(right, &out, lines)
}

/// A pair whose second direction is in use is put back; meanwhile `operation` is done.
fn while_a_pair_is_put_back(
    mistake: Option<Mistake>,
    race: Race<'_>,
    operation: impl Fn(&Stepped<'_, '_>, &FlowKey) -> Outcome + Send + Sync,
    right: impl Fn(Outcome) -> bool,
) -> Result<(), String> {
    let table = Table::new(mistake);
    let keys = [table.key([0, 1], 0), table.key([1, 0], 0)];
    let pair = keys.map(|key| table.with(&key, OLD));
    touch(&table.memory, pair[1].0.place, pair[1].1, 50, 0).unwrap();
    let out = race(vec![table.does(|memory| operation(memory, &keys[0])), table.ends_pair(pair)])?;
    let lines = table.lines()?;
    expect(right(out[0]) && out[1] == Ended(false) && lines == 2, &out, lines)
}

fn an_insert_meets_a_put_back(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    while_a_pair_is_put_back(
        mistake,
        race,
        |memory, key| inserted(memory, key, NEW),
        |out| matches!(out, Inserted(Err(Refused::Exists | Refused::Busy))),
    )
}

fn a_search_meets_a_put_back(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    while_a_pair_is_put_back(
        mistake,
        race,
        |memory, key| Ended(search(memory, key).is_some()),
        |out| out == Ended(true),
    )
}

fn two_removals(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let line = table.with(&key, OLD);
    let out = race(vec![table.removes(line), table.removes(line)])?;
    let lines = table.lines()?;
    let right = matches!(out[..], [Ended(true), Ended(false)] | [Ended(false), Ended(true)]);
    expect(right && lines == 0, &out, lines)
}

fn a_removal_meets_an_insert_for_its_place(
    mistake: Option<Mistake>,
    race: Race<'_>,
) -> Result<(), String> {
    let table = Table::new(mistake);
    let (key, other) = (table.key([0, 1], 0), table.key([0, 1], 1));
    let line = table.with(&key, OLD);
    let out = race(vec![table.removes(line), table.inserts(other, NEW)])?;
    let lines = table.lines()?;
    expect(matches!(out[..], [Ended(true), Inserted(Ok(_))]) && lines == 1, &out, lines)
}

fn a_sweep_meets_an_insert(mistake: Option<Mistake>, race: Race<'_>) -> Result<(), String> {
    let table = Table::new(mistake);
    let key = table.key([0, 1], 0);
    let sweeps = table.does(|memory| {
        let state = State::from_word(memory.load(0, STATE));
        Ended(remove(memory, Line { place: 0, index: 0 }, state))
    });
    let out = race(vec![sweeps, table.inserts(key, NEW)])?;
    let lines = table.lines()?;
    let right = match out[..] {
        [Ended(ended), Inserted(Ok(0))] => lines == usize::from(!ended),
        _ => false,
    };
    expect(right, &out, lines)
}

fn a_removal_makes_room_between_two_inserts(
    mistake: Option<Mistake>,
    race: Race<'_>,
) -> Result<(), String> {
    let table = Table::new(mistake);
    let taken = table.keys([0, 0]).take(NEAR_WINDOW as usize).map(|key| table.with(&key, OLD));
    let Some(line) = taken.reduce(|first, _| first) else {
        return Err("no line to remove".into());
    };
    let key = table.key([0, 1], 0);
    let out = race(vec![table.inserts(key, OLD), table.removes(line), table.inserts(key, NEW)])?;
    let lines = table.lines()?;
    let right = matches!(
        out[..],
        [Inserted(Ok(_)), Ended(true), Inserted(Err(Refused::Exists | Refused::Busy))]
            | [Inserted(Err(Refused::Exists | Refused::Busy)), Ended(true), Inserted(Ok(_))]
    );
    expect(right && lines == NEAR_WINDOW as usize, &out, lines)
}

/// A case: its name, how many interruptions, what it does.
type Case = (&'static str, u32, fn(Option<Mistake>, Race<'_>) -> Result<(), String>);

const CASES: [Case; 15] = [
    ("two inserts of a key", 3, two_inserts_of_a_key),
    ("two inserts for a place", 3, two_inserts_for_a_place),
    ("an insert meets a removal", 3, an_insert_meets_a_removal),
    ("a reader meets reuse", 3, a_reader_meets_reuse),
    ("a reader meets a new flow of its key", 3, a_reader_meets_a_new_flow_of_its_key),
    ("a reader meets an insert", 4, a_reader_meets_an_insert),
    ("a use meets reuse", 3, a_use_meets_reuse),
    ("a use of the first meets the end", 4, |m, race| a_use_meets_the_end(m, race, 0)),
    ("a use of the second meets the end", 4, |m, race| a_use_meets_the_end(m, race, 1)),
    ("an insert meets a put back", 4, an_insert_meets_a_put_back),
    ("a search meets a put back", 4, a_search_meets_a_put_back),
    ("two removals", 4, two_removals),
    ("a removal meets an insert for its place", 3, a_removal_meets_an_insert_for_its_place),
    ("a sweep meets an insert", 4, a_sweep_meets_an_insert),
    ("a removal makes room between inserts", 1, a_removal_makes_room_between_two_inserts),
];

#[test]
fn operations_that_meet_come_out_right_in_every_order() {
    for (name, most, case) in CASES {
        match schedule::every(most, |race| case(None, race)) {
            Ok(count) => println!("{name}: {count} schedules of up to {most} interruptions"),
            Err(fault) => panic!("{name}: {fault}"),
        }
    }
}

#[test]
fn every_mistake_comes_out_wrong_somewhere() {
    for mistake in Mistake::ALL {
        let caught = CASES.into_iter().filter_map(|(name, most, case)| {
            let fault = schedule::every(most.min(2), |race| case(Some(mistake), race)).err()?;
            Some(format!("{name}: {fault}"))
        });
        let caught: Vec<String> = caught.collect();
        println!("{mistake:?} is caught by\n  {}", caught.join("\n  "));
        assert!(!caught.is_empty(), "{mistake:?} is not caught");
    }
}
