//! What a burst of new flows finds at a gateway that has just started: nearly a million, flat out.
//!
//! The table may start smaller and grow meanwhile. What it refuses is counted; afterwards an answer of
//! every flow has to come through, so that one that was lost on its way to a larger table fails here.

use anyhow::{Context as _, Result};

use crate::{
    bench::{
        Options,
        contender::{Contender, Sizes},
        field::{Field, count},
        names,
        sample::Sample,
        schedule,
        topology::{Topology, Wiring},
    },
    gateway::Mode,
};

const ROOM: u32 = 1 << 20;
const BURST: u32 = 950_000;
/// The reason that is counted where a new flow finds no room.
const REFUSED: &str = "table-full";

/// Takes the samples of [`names::BURST`].
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    // No goal speaks of it: only where it is asked for.
    if options.quick && options.only.is_empty() {
        return Ok(Vec::new());
    }
    let rounds = if options.quick { 2 } else { 5 };
    let mut contenders = vec![Contender::Ours(Mode::Xdp), Contender::Ours(Mode::Tc)];
    schedule::rounds(&mut contenders, rounds, |contender, round| {
        take(options, contender, round).with_context(|| format!("burst {}", contender.name()))
    })
}

fn take(options: &Options, contender: &Contender, round: u32) -> Result<Vec<Sample>> {
    let sizes = Sizes { flows: ROOM, ftp: false, binary: &options.binary, object: &options.object };
    let topology = Topology::new(Wiring::Threaded)?;
    let mut field = Field::new(contender, &topology, sizes)?;
    field.open(BURST)?;
    let agent = field.running.agent().context("the agent of our gateway")?;
    let drops = agent.call(&["drops", "-o", "json"])?.stdout;
    let drops: serde_json::Value = serde_json::from_str(&drops).context("read the drops")?;
    let refused = drops[REFUSED].as_u64().with_context(|| format!("{REFUSED} in {drops}"))?;
    Ok(vec![Sample {
        measure: names::BURST,
        case: "refused".to_owned(),
        contender: contender.name().to_owned(),
        round,
        value: count(refused),
        unit: "packets",
    }])
}
