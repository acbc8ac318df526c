//! Threads that take turns, one access of the memory each, in every order or in random ones.
//!
//! Only the thread whose turn it is runs. Before each access it asks where to go on; a schedule is
//! the row of answers. [`every`] goes through all schedules in which a thread is interrupted at most
//! a given number of times, [`random`] picks some. What a weakly ordered machine may do beside that
//! is not in here: [`super::super::Memory`] says what order it has to keep.

use super::samples::Dice;
use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

/// Accesses in one schedule after which something spins.
const MOST_STEPS: u32 = 5000;

/// Where to go on.
trait Choices {
    /// One of `options`, at a place where going on as before is the first.
    fn choose(&mut self, options: usize) -> usize;
    /// Whether the running thread may be interrupted here.
    fn may_interrupt(&mut self) -> bool;
}

/// The next schedule in the order of a depth-first search.
struct Path {
    taken: Vec<(usize, usize)>,
    at: usize,
    interruptions: u32,
    most: u32,
}

impl Path {
    /// Moves on to the next schedule; whether there is one.
    fn advance(&mut self) -> bool {
        while let Some((chosen, options)) = self.taken.pop() {
            if chosen + 1 < options {
                self.taken.push((chosen + 1, options));
                return true;
            }
        }
        false
    }
}

impl Choices for Path {
    fn choose(&mut self, options: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, options));
        }
        let (chosen, _) = self.taken[self.at];
        self.at += 1;
        chosen
    }

    fn may_interrupt(&mut self) -> bool {
        if self.interruptions == self.most {
            return false;
        }
        // Two threads at a time matter; who comes next is chosen when one is interrupted.
        let interrupted = self.choose(2) == 1;
        self.interruptions += u32::from(interrupted);
        interrupted
    }
}

/// A schedule by chance.
struct Chance(Dice);

impl Choices for Chance {
    fn choose(&mut self, options: usize) -> usize {
        self.0.below(options as u32) as usize
    }

    fn may_interrupt(&mut self) -> bool {
        self.0.below(4) == 0
    }
}

struct Turn<'a> {
    current: Option<usize>,
    running: Vec<bool>,
    steps: u32,
    fault: Option<String>,
    choices: &'a mut (dyn Choices + Send),
}

impl Turn<'_> {
    /// The turn goes to another thread, if there is one.
    fn pass(&mut self, me: usize) {
        let others: Vec<usize> =
            (0..self.running.len()).filter(|i| *i != me && self.running[*i]).collect();
        self.current = match others.len() {
            0 => self.running[me].then_some(me),
            1 => Some(others[0]),
            several => Some(others[self.choices.choose(several)]),
        };
    }
}

/// Whose turn it is.
pub struct Turns<'a> {
    turn: Mutex<Turn<'a>>,
    passed: Condvar,
}

impl<'a> Turns<'a> {
    fn lock(&self) -> MutexGuard<'_, Turn<'a>> {
        self.turn.lock().unwrap()
    }

    fn wait<'g>(&'g self, me: usize, mut turn: MutexGuard<'g, Turn<'a>>) {
        self.passed.notify_all();
        while turn.current != Some(me) {
            turn = self.passed.wait(turn).unwrap();
        }
    }

    /// Thread `me` is about to access the memory.
    pub fn step(&self, me: usize) {
        let mut turn = self.lock();
        turn.steps += 1;
        if turn.steps > MOST_STEPS {
            turn.fault.get_or_insert("something spins".into());
        }
        let alone = turn.running.iter().filter(|running| **running).count() == 1;
        if !alone && turn.choices.may_interrupt() {
            turn.pass(me);
            self.wait(me, turn);
        }
    }

    /// Thread `me` can do nothing until another has gone on.
    pub fn give_way(&self, me: usize) {
        let mut turn = self.lock();
        turn.pass(me);
        self.wait(me, turn);
    }

    /// Something is not as it must be.
    pub fn report(&self, fault: String) {
        self.lock().fault.get_or_insert(fault);
    }
}

/// Ends the turn of a thread, also when it panics.
struct Running<'a, 'b>(&'a Turns<'b>, usize);

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        let mut turn = self.0.lock();
        turn.running[self.1] = false;
        turn.pass(self.1);
        self.0.passed.notify_all();
    }
}

/// What one thread does; it is given the turns, and who it is.
pub type Operation<'a, T> = Box<dyn FnOnce(&Turns<'_>, usize) -> T + Send + 'a>;

/// Runs operations against each other once.
fn run<T: Send>(
    choices: &mut (dyn Choices + Send),
    operations: Vec<Operation<'_, T>>,
) -> Result<Vec<T>, String> {
    let count = operations.len();
    let current = Some(choices.choose(count));
    let turn = Turn { current, running: vec![true; count], steps: 0, fault: None, choices };
    let turns = Turns { turn: Mutex::new(turn), passed: Condvar::new() };
    let results = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (me, operation) in operations.into_iter().enumerate() {
            let turns = &turns;
            threads.push(scope.spawn(move || {
                turns.wait(me, turns.lock());
                let _running = Running(turns, me);
                operation(turns, me)
            }));
        }
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "an operation panics".to_owned()))
            .collect::<Result<Vec<T>, String>>()
    })?;
    match turns.lock().fault.take() {
        Some(fault) => Err(fault),
        None => Ok(results),
    }
}

/// Runs `once` with every schedule of at most `most` interruptions, until one fails; how many there
/// are.
///
/// # Errors
/// What is wrong in the first schedule in which something is.
pub fn every<T: Send>(
    most: u32,
    once: impl Fn(&mut dyn FnMut(Vec<Operation<'_, T>>) -> Result<Vec<T>, String>) -> Result<(), String>,
) -> Result<u32, String> {
    let mut path = Path { taken: Vec::new(), at: 0, interruptions: 0, most };
    let mut count = 0;
    loop {
        (path.at, path.interruptions) = (0, 0);
        once(&mut |operations| run(&mut path, operations))
            .map_err(|fault| format!("schedule {count}: {fault}"))?;
        count += 1;
        if !path.advance() {
            return Ok(count);
        }
    }
}

/// Runs `once` with a schedule by chance.
///
/// # Errors
/// What is wrong.
pub fn random<T: Send>(seed: u64, operations: Vec<Operation<'_, T>>) -> Result<Vec<T>, String> {
    run(&mut Chance(Dice::new(seed)), operations)
}
