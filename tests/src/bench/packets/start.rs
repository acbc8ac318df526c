//! How long it takes from the start of a gateway to `ready`, and to the first packet outside.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nat_common::bench::mode;

use crate::{
    bench::{
        Options,
        contender::{Contender, Sizes},
        field::{Field, Side},
        names,
        sample::Sample,
        schedule,
        topology::{Topology, Wiring},
    },
    wait,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Takes the samples of [`names::START`].
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    let rounds = if options.quick { 2 } else { 5 };
    let mut contenders = Contender::all(&options.peers);
    // What belongs to the bench, or is always there, has no start.
    contenders.retain(|contender| !contender.is_ceiling() && *contender != Contender::Forward);
    schedule::rounds(&mut contenders, rounds, |contender, round| {
        take(options, contender, round).with_context(|| format!("start {}", contender.name()))
    })
}

fn take(options: &Options, contender: &Contender, round: u32) -> Result<Vec<Sample>> {
    let sizes =
        Sizes { flows: 1 << 20, ftp: false, binary: &options.binary, object: &options.object };
    let topology = Topology::new(Wiring::Threaded)?;
    let mut field = Field::new(contender, &topology, sizes)?;
    let ready = field.start;
    let begun = Instant::now();
    field.kit.order(field.order(Side::Inside, mode::UNIFORM, 1))?;
    let first = field.under_load(Side::Inside, || {
        wait::until_true(LIMIT, "the first packet", || Ok(field.kit.tally()?.packets > 0))?;
        Ok(ready + begun.elapsed())
    })?;
    let sample = |case: &str, value: Duration| Sample {
        measure: names::START,
        case: case.to_owned(),
        contender: contender.name().to_owned(),
        round,
        value: value.as_secs_f64(),
        unit: "s",
    };
    Ok(vec![sample("ready", ready), sample("first packet", first)])
}
