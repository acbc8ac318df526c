//! Stages of a check, one after the other, and the table at their end.
//!
//! Invariant: a stage that fails hides no later one, and the table has a row for each.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::command;

/// What came of a stage.
struct Outcome {
    name: &'static str,
    verdict: Verdict,
    elapsed: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// Stages that were run.
#[derive(Default)]
pub struct Stages {
    outcomes: Vec<Outcome>,
}

impl Stages {
    /// Runs one command as a stage, its output going where ours goes.
    pub fn run(&mut self, name: &'static str, command: &mut Command) {
        self.record(name, &command::line(command), || command::run(command));
    }

    /// Runs anything as a stage.
    pub fn record(
        &mut self,
        name: &'static str,
        line: &str,
        stage: impl FnOnce() -> anyhow::Result<()>,
    ) {
        eprintln!("\n== {name}: {line}");
        let start = Instant::now();
        let verdict = match stage() {
            Ok(()) => Verdict::Passed,
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                Verdict::Failed
            }
        };
        self.outcomes.push(Outcome { name, verdict, elapsed: start.elapsed() });
    }

    /// Notes a stage that this machine can't run, and why.
    pub fn skip(&mut self, name: &'static str, reason: &str) {
        eprintln!("\n== {name}: SKIPPED: {reason}");
        let (verdict, elapsed) = (Verdict::Skipped, Duration::ZERO);
        self.outcomes.push(Outcome { name, verdict, elapsed });
    }

    /// Prints the table; true when no stage failed.
    pub fn finish(&self) -> bool {
        println!("\n{:<14} {:<8} {:>8}", "stage", "result", "seconds");
        for Outcome { name, verdict, elapsed } in &self.outcomes {
            let result = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "SKIPPED",
            };
            println!("{name:<14} {result:<8} {:>8.1}", elapsed.as_secs_f64());
        }
        let count = |verdict| self.outcomes.iter().filter(|one| one.verdict == verdict).count();
        let (failed, skipped) = (count(Verdict::Failed), count(Verdict::Skipped));
        let total = self.outcomes.len();
        match (failed, skipped) {
            (0, 0) => println!("all {total} stages passed"),
            (0, _) => println!("{} of {total} stages passed, {skipped} skipped", total - skipped),
            _ => println!("{failed} of {total} stages failed"),
        }
        failed == 0
    }
}
