//! What established traffic keeps during a flood of new flows, and whether a flow of it is lost.
//!
//! ```text
//!   before   E   E   E   E   E      established flows alone, at their pace
//!   flood    E n E n E n E n E      the same pace, and as many new flows as the gateway takes on,
//!                                   far more than its tables have room for
//!   after    answers of every established flow have to come through
//! ```
//!
//! The pace is eight tenths of what the gateway carries of such a mix flat out: beyond that packets
//! are lost in the ring in front of it, whatever the gateway does. What is compared is the share of the
//! established packets sent that arrives.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nat_common::bench::{Order, Tally, mode};

use crate::{
    bench::{
        Options,
        contender::{Contender, Sizes},
        field::{Field, Reading, Side, count},
        kit::FLOWS,
        names,
        sample::Sample,
        schedule,
        topology::{Topology, Wiring},
    },
    gateway::Mode,
};

/// Room of the tables: little, so that the flood fills them.
const ROOM: u32 = 1 << 16;
const ESTABLISHED: u32 = 20_000;
/// Share of the rate flat out.
const SHARE: f64 = 0.8;
const WARM_UP: Duration = Duration::from_millis(200);
const CALIBRATION: Duration = Duration::from_millis(300);
const LENGTH: Duration = Duration::from_millis(1000);
/// Numbers of new flows that the calibration may use up; it offers as many as it can make.
const CALIBRATED: u32 = 2_000_000;

/// Takes the samples of [`names::FLOOD`] and [`names::FLOOD_LOST`].
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    let rounds = if options.quick { 1 } else { 6 };
    let mut contenders =
        vec![Contender::Ours(Mode::Xdp), Contender::Ours(Mode::Tc), Contender::Nft];
    contenders.extend(options.peers.iter().cloned().map(Contender::Peer));
    schedule::rounds(&mut contenders, rounds, |contender, round| {
        take(options, contender, round).with_context(|| format!("flood {}", contender.name()))
    })
}

fn take(options: &Options, contender: &Contender, round: u32) -> Result<Vec<Sample>> {
    let sizes = Sizes { flows: ROOM, ftp: false, binary: &options.binary, object: &options.object };
    let topology = Topology::new(Wiring::Threaded)?;
    let mut field = Field::new(contender, &topology, sizes)?;
    field.open(ESTABLISHED)?;
    let mix = Order { first: ESTABLISHED, ..field.order(Side::Inside, mode::FLOOD, FLOWS) };
    let alone = Order { first: FLOWS, ..field.order(Side::Inside, mode::UNIFORM, ESTABLISHED) };

    field.kit.order(Order { flows: CALIBRATED, ..mix })?;
    let flat_out = field.read(Side::Inside, Duration::from_millis(50), CALIBRATION)?;
    let rate = flat_out.rate() * SHARE;
    // Some microseconds: a rate of a thousand packets a second or more.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let interval = (1e9 / rate).min(1e6) as u32;

    field.kit.order(Order { interval: interval * 2, ..alone })?;
    let before = field.read(Side::Inside, WARM_UP, LENGTH)?;
    field.kit.order_from(Order { interval, ..mix }, u64::from(CALIBRATED) * 2)?;
    let flooded = field.read(Side::Inside, WARM_UP, LENGTH)?;
    // Of those that were sent, as a generator that is held up is not the gateway's fault.
    let arrived = |reading: &Reading| {
        let Tally { packets, fresh, sent, .. } = reading.tally;
        count(packets - fresh) / count(sent)
    };
    ensure!(arrived(&before) > 0.0, "no established packet came through before the flood");
    let kept = arrived(&flooded) * 100.0 / arrived(&before);
    let lost = count(field.lost(ESTABLISHED)?);
    let sample = |measure, value, unit| Sample {
        measure,
        case: "flat out".to_owned(),
        contender: contender.name().to_owned(),
        round,
        value,
        unit,
    };
    Ok(vec![sample(names::FLOOD, kept, "%"), sample(names::FLOOD_LOST, lost, "flows")])
}
