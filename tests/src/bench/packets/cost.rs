//! What a packet of an open flow costs the gateway, by number of flows.
//!
//! Cost is run time of the gateway's NAPI threads for each packet that arrived; the generator sends
//! more than any contender can carry, so the threads never wait.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    bench::{
        Options,
        contender::{Contender, Sizes},
        field::{Field, Side},
        names,
        population::{Popularity, Population, short},
        sample::Sample,
        schedule,
        topology::{Topology, Wiring},
    },
    gateway::Mode,
};

const WARM_UP: Duration = Duration::from_millis(150);
const LENGTH: Duration = Duration::from_millis(400);

/// Flows that are measured with tables of one size.
struct Stage {
    room: u32,
    flows: &'static [Step],
    rounds: u32,
}

/// So many flows, and which packets of them.
struct Step {
    flows: u32,
    loads: &'static [Load],
}

/// Which packets of the open flows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Those of the hosts inside.
    Outbound(Popularity),
    /// Those of the hosts and answers to them at the same time, all flows alike.
    BothWays,
}

const UNIFORM: Load = Load::Outbound(Popularity::Uniform);
const ZIPF: Load = Load::Outbound(Popularity::Zipf);

const fn step(flows: u32, loads: &'static [Load]) -> Step {
    Step { flows, loads }
}

const QUICK: &[Stage] = &[Stage {
    room: 1 << 20,
    flows: &[
        step(1, &[UNIFORM]),
        step(1_000, &[UNIFORM]),
        step(50_000, &[UNIFORM]),
        step(1_000_000, &[UNIFORM]),
    ],
    rounds: 3,
}];
const FULL: &[Stage] = &[
    Stage {
        room: 1 << 20,
        flows: &[
            step(1, &[UNIFORM]),
            step(1_000, &[UNIFORM, ZIPF]),
            step(50_000, &[UNIFORM]),
            step(100_000, &[UNIFORM, ZIPF, Load::BothWays]),
            step(1_000_000, &[UNIFORM, ZIPF]),
        ],
        rounds: 8,
    },
    // At the limit itself one of a million finds no place.
    Stage { room: 4_400_000, flows: &[step(4_000_000, &[UNIFORM, ZIPF])], rounds: 6 },
];

/// Takes the samples [`names::GATEWAY_COST`] and [`names::GATEWAY_RATE`].
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for stage in if options.quick { QUICK } else { FULL } {
        samples.extend(run_stage(options, stage)?);
    }
    Ok(samples)
}

fn run_stage(options: &Options, stage: &Stage) -> Result<Vec<Sample>> {
    let sizes =
        Sizes { flows: stage.room, ftp: false, binary: &options.binary, object: &options.object };
    let mut contenders = Contender::all(&options.peers);
    if options.quick {
        // What no goal speaks of says what a gateway of that kind could do at most.
        contenders.retain(|it| !matches!(it, Contender::CeilingTc | Contender::Line(_)));
    }
    let topologies =
        contenders.iter().map(|_| Topology::new(Wiring::Threaded)).collect::<Result<Vec<_>>>()?;
    let mut fields = Vec::new();
    for (contender, topology) in contenders.iter().zip(&topologies) {
        let field = Field::new(contender, topology, sizes)
            .with_context(|| format!("start {}", contender.name()))?;
        field.running.pause()?;
        fields.push(field);
    }
    let mut samples = Vec::new();
    for &Step { flows, loads } in stage.flows {
        if options.quick && flows > 50_000 {
            // A million flows take long to open: only for the two of whom a goal speaks.
            fields.retain(|field| {
                matches!(field.contender, Contender::Ceiling | Contender::Ours(Mode::Xdp))
            });
        }
        for field in &mut fields {
            field.running.resume()?;
            field.open(flows)?;
            field.running.pause()?;
        }
        for &load in loads {
            if let Load::Outbound(popularity) = load {
                for field in &mut fields {
                    field.ask_for(Population { flows, popularity })?;
                }
            }
            samples.extend(schedule::rounds(&mut fields, stage.rounds, |field, round| {
                take(field, load, round)
            })?);
        }
    }
    Ok(samples)
}

fn take(field: &mut Field<'_>, load: Load, round: u32) -> Result<Vec<Sample>> {
    let flows = field.flows();
    field.running.resume()?;
    let (case, reading) = match load {
        Load::Outbound(popularity) => (
            Population { flows, popularity }.to_string(),
            field.read(Side::Inside, WARM_UP, LENGTH),
        ),
        Load::BothWays => {
            (format!("{} both ways", short(flows)), field.read_both_ways(WARM_UP, LENGTH))
        }
    };
    field.running.pause()?;
    let reading = reading?;
    let sample = |measure, value, unit| Sample {
        measure,
        case: case.clone(),
        contender: field.contender.name().to_owned(),
        round,
        value,
        unit,
    };
    Ok(vec![
        sample(names::GATEWAY_COST, reading.cost(), "ns/packet"),
        sample(names::GATEWAY_RATE, reading.rate(), "packets/s"),
    ])
}
