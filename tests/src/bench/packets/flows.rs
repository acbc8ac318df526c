//! New UDP flows in a second of the gateway's core: two packets each, one way.
//!
//! More are offered than any contender can open, so a flow counts once its first packet has arrived
//! outside; and time is that of the gateway's threads, so a contender that had to wait loses nothing.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use nat_common::bench::{Order, mode};

use crate::bench::{
    Options,
    contender::{Contender, Sizes},
    field::{Field, Side, count},
    names,
    sample::Sample,
    schedule,
    topology::{Topology, Wiring},
};

/// For all that the fastest of them can open in all rounds, with the quarter more that an agent gets just
/// below twice the default: with more the table would begin smaller, and grow in the middle of a round
/// (`burst` measures that), while the agent rests.
const ROOM: u32 = (1 << 21) / 5 * 4;
const _: () = assert!(ROOM + ROOM / 4 < 1 << 21);
/// A million packets a second.
const INTERVAL: u32 = 1000;
const WARM_UP: Duration = Duration::from_millis(100);
const LENGTH: Duration = Duration::from_millis(300);
/// Numbers of flows that a turn takes at most: what is offered, and what a late start makes good.
const TURN: u32 = 400_000;

/// Takes the samples of [`names::UDP_FLOWS`].
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    let rounds = if options.quick { 3 } else { 9 };
    let sizes = Sizes { flows: ROOM, ftp: false, binary: &options.binary, object: &options.object };
    let mut contenders = Contender::all(&options.peers);
    contenders.retain(|contender| !contender.is_ceiling());
    let topologies =
        contenders.iter().map(|_| Topology::new(Wiring::Threaded)).collect::<Result<Vec<_>>>()?;
    let mut fields = Vec::new();
    for (contender, topology) in contenders.iter().zip(&topologies) {
        let field = Field::new(contender, topology, sizes)
            .with_context(|| format!("start {}", contender.name()))?;
        field.running.pause()?;
        fields.push(field);
    }
    schedule::rounds(&mut fields, rounds, |field, round| {
        field.running.resume()?;
        let sample = take(field, round);
        field.running.pause()?;
        Ok(vec![sample?])
    })
}

fn take(field: &mut Field<'_>, round: u32) -> Result<Sample> {
    // The numbers of earlier turns are used up, and those of later ones are not to be touched.
    let first = round * TURN;
    let order = field.order(Side::Inside, mode::FRESH, first + TURN);
    field.kit.order(Order { first, interval: INTERVAL, ..order })?;
    let reading = field.under_load(Side::Inside, || {
        thread::sleep(WARM_UP);
        field.observe(|| thread::sleep(LENGTH))
    })?;
    field.check(&reading)?;
    Ok(Sample {
        measure: names::UDP_FLOWS,
        case: "flat out".to_owned(),
        contender: field.contender.name().to_owned(),
        round,
        value: count(reading.tally.opened) / reading.gateway.as_secs_f64(),
        unit: "flows/s",
    })
}
