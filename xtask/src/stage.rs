//! Stages of a check, one after the other or beside each other, and the table at their end.
//!
//! Invariant: a stage that fails hides no later one, and the table has a row for each.

use std::{
    panic::resume_unwind,
    process::Command,
    thread::{Scope, ScopedJoinHandle},
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

/// A stage at work beside others.
pub struct Beside<'scope> {
    name: &'static str,
    line: &'static str,
    thread: ScopedJoinHandle<'scope, Said>,
}

/// What came of a stage that was at work beside others.
struct Said {
    lines: Vec<String>,
    result: anyhow::Result<()>,
    elapsed: Duration,
}

impl<'scope> Beside<'scope> {
    /// Starts a stage that hands on what it has to say, line by line: it is kept until the stage is
    /// joined, so that it does not stand among the lines of another one.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        line: &'static str,
        stage: impl FnOnce(&mut dyn FnMut(&str)) -> anyhow::Result<()> + Send + 'scope,
    ) -> Self {
        let thread = scope.spawn(move || {
            let start = Instant::now();
            let mut lines = vec![];
            let result = stage(&mut |line| lines.push(line.to_owned()));
            Said { lines, result, elapsed: start.elapsed() }
        });
        Self { name, line, thread }
    }
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
        self.note(name, stage(), start.elapsed());
    }

    /// Waits for the end of a stage that was at work beside others, and prints what it has said.
    pub fn join(&mut self, beside: Beside<'_>) {
        let Beside { name, line, thread } = beside;
        let Said { lines, result, elapsed } =
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        eprintln!("\n== {name}: {line}");
        lines.iter().for_each(|line| println!("{line}"));
        self.note(name, result, elapsed);
    }

    /// Notes a stage that this machine can't run, and why.
    pub fn skip(&mut self, name: &'static str, reason: &str) {
        eprintln!("\n== {name}: SKIPPED: {reason}");
        let (verdict, elapsed) = (Verdict::Skipped, Duration::ZERO);
        self.outcomes.push(Outcome { name, verdict, elapsed });
    }

    fn note(&mut self, name: &'static str, result: anyhow::Result<()>, elapsed: Duration) {
        let verdict = match result {
            Ok(()) => Verdict::Passed,
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                Verdict::Failed
            }
        };
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

#[cfg(test)]
mod tests {
    use std::thread;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_stage_beside_others_has_its_own_verdict() {
        let mut stages = Stages::default();
        thread::scope(|scope| {
            let good = Beside::start(scope, "good", "", |say| {
                say("a line");
                Ok(())
            });
            let bad = Beside::start(scope, "bad", "", |_| bail!("on purpose"));
            stages.record("between", "", || Ok(()));
            stages.join(good);
            assert!(stages.finish());
            stages.join(bad);
        });
        assert!(!stages.finish());
        let verdicts: Vec<_> = stages.outcomes.iter().map(|it| (it.name, it.verdict)).collect();
        let [passed, failed] = [Verdict::Passed, Verdict::Failed];
        assert!(verdicts == [("between", passed), ("good", passed), ("bad", failed)]);
    }
}
