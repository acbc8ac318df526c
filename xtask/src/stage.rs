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
    failure: Option<String>,
    elapsed: Duration,
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
        let failure = stage().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("xtask: {name}: {failure}");
        }
        self.outcomes.push(Outcome { name, failure, elapsed: start.elapsed() });
    }

    /// Prints the table; true when no stage failed.
    pub fn finish(&self) -> bool {
        println!("\n{:<14} {:<8} {:>8}", "stage", "result", "seconds");
        for Outcome { name, failure, elapsed } in &self.outcomes {
            let result = if failure.is_none() { "passed" } else { "FAILED" };
            println!("{name:<14} {result:<8} {:>8.1}", elapsed.as_secs_f64());
        }
        let failed = self.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        let total = self.outcomes.len();
        if failed == 0 {
            println!("all {total} stages passed");
        } else {
            println!("{failed} of {total} stages failed");
        }
        failed == 0
    }
}
