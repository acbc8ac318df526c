//! What the agent takes of a core to look after flows that nobody uses.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::bench::{field::Field, load::Threads, names, population::short, sample::Sample};

/// Many sweeps of an agent that makes one a second. One that sweeps for long and rests for long may
/// be caught at either.
const LENGTH: Duration = Duration::from_secs(12);

/// Share of a core, in percent, that the agent's threads take while no packet comes.
pub(super) fn share(field: &Field<'_>, rounds: u32) -> Result<Vec<Sample>> {
    let agent = field.running.agent().context("only ours sweeps by itself")?;
    let threads = Threads::of_process(agent.id())?;
    let mut samples = Vec::new();
    for round in 0..rounds {
        let (start, before) = (Instant::now(), threads.time()?);
        thread::sleep(LENGTH);
        let spent = threads.time()? - before;
        samples.push(Sample {
            measure: names::SWEEP,
            case: short(field.flows()),
            contender: field.contender.name().to_owned(),
            round,
            value: spent.as_secs_f64() * 100.0 / start.elapsed().as_secs_f64(),
            unit: "%",
        });
    }
    Ok(samples)
}
