//! What tables of many flows cost: the program that looks them up, the insert, the first packet, the
//! sweep, the dump, the memory. All of them want the same open flows, which take their time to open.

use anyhow::{Context as _, Result};

use super::{dump, memory, program, sweep};
use crate::{
    bench::{
        Options,
        contender::{Contender, Sizes},
        field::Field,
        sample::Sample,
        topology::{Topology, Wiring},
    },
    gateway::Mode,
};

/// Flows that the tables have room for: the default of the gateway's configuration.
const ROOM: u32 = 1 << 20;
const MANY: u32 = 4_000_000;
const MILLION: u32 = 1_000_000;

/// Names of these measures, for `--only`.
pub const NAMES: &str = "program-cost insert-cost first-packet session-memory sweep dump";

/// Takes all of them.
pub fn run(options: &Options) -> Result<Vec<Sample>> {
    let rounds = if options.quick { 3 } else { 9 };
    let mut samples = Vec::new();
    for mode in [Mode::Xdp, Mode::Tc] {
        with_field(options, &Contender::Ours(mode), ROOM, |field| {
            for flows in [1_000, 100_000, MILLION] {
                if options.quick && mode == Mode::Xdp && flows == MILLION {
                    break;
                }
                field.open(flows)?;
                samples.extend(program::cost(field, mode, rounds, &options.object)?);
            }
            if mode == Mode::Tc {
                samples.extend(memory::of_maps(field, ROOM)?);
                samples.extend(sweep::share(field, if options.quick { 1 } else { 5 })?);
                samples.extend(dump::time(field, rounds.min(5))?);
                // Last, as they add flows; each has half of the room.
                let room = ROOM - field.flows();
                samples.extend(program::insert(field, room / 2, rounds, &options.object)?);
                samples.extend(program::first_packet(field, ROOM - room / 2, rounds)?);
            }
            Ok(())
        })?;
    }
    if !options.quick {
        with_field(options, &Contender::Nft, ROOM, |field| {
            samples.extend(memory::of_connections(field, MILLION)?);
            Ok(())
        })?;
        with_field(options, &Contender::Ours(Mode::Xdp), MANY + MANY / 10, |field| {
            field.open(MANY)?;
            samples.extend(program::cost(field, Mode::Xdp, rounds, &options.object)?);
            Ok(())
        })?;
    }
    Ok(samples)
}

fn with_field(
    options: &Options,
    contender: &Contender,
    flows: u32,
    work: impl FnOnce(&mut Field<'_>) -> Result<()>,
) -> Result<()> {
    let sizes = Sizes { flows, ftp: false, binary: &options.binary, object: &options.object };
    let topology = Topology::new(Wiring::Threaded)?;
    let name = contender.name();
    let mut field =
        Field::new(contender, &topology, sizes).with_context(|| format!("start {name}"))?;
    work(&mut field).with_context(|| format!("tables of {name}"))
}
