//! The bench: what a packet costs, how fast flows come and go, beside the peers.
//!
//! ```text
//!   nat-bench --> run -- MEASURES: packets/* (frames), sockets/* (streams, requests, FTP)
//!                  |        |
//!                  |     schedule (A B C, C B A) of contenders, each in a topology
//!                  v
//!               samples --> report (table, JSON lines, plots)
//! ```
//!
//! Invariant: a number that is reported was counted at the far end; what was lost on the way is not
//! work done.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};

use crate::{interrupt, netns};

pub mod agent;
pub mod ceiling;
pub mod contender;
pub mod field;
pub mod kit;
pub mod load;
pub mod names;
pub mod nft;
pub mod packets;
pub mod population;
pub mod report;
pub mod sample;
pub mod schedule;
mod sockets;
pub mod stats;
pub mod topology;

use contender::Peer;
use sample::Sample;

/// What to run, and with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Under three minutes in all, with fewer cases and rounds.
    pub quick: bool,
    /// Gateways beside the known ones.
    pub peers: Vec<Peer>,
    /// Only the measures whose name contains one of these; all where there are none.
    pub only: Vec<String>,
    /// Folder of the report.
    pub out: PathBuf,
    /// The agent, `nat-ctl`.
    pub binary: PathBuf,
    /// The object with the programs of the bench itself.
    pub object: PathBuf,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name, for `--only`; the names of its samples begin with it.
    pub name: &'static str,
    /// Takes its samples.
    pub run: fn(&Options) -> Result<Vec<Sample>>,
}

/// All measures, in the order in which they are taken.
pub const MEASURES: &[Measure] = &[
    Measure { name: names::GATEWAY_COST, run: packets::cost::run },
    Measure { name: packets::tables::NAMES, run: packets::tables::run },
    Measure { name: names::UDP_FLOWS, run: packets::flows::run },
    Measure { name: names::START, run: packets::start::run },
    Measure { name: names::FLOOD, run: packets::flood::run },
    Measure { name: names::BURST, run: packets::burst::run },
    Measure { name: names::TCP_CONNECTION, run: sockets::connections::measure },
    Measure { name: names::BULK_TCP, run: sockets::bulk::measure },
    Measure { name: names::REQUEST_RESPONSE, run: sockets::latency::measure },
    Measure { name: "ftp", run: sockets::ftp::measure },
];

/// Takes the measures that are asked for and reports them. One that fails does not take the others
/// along: its error is given back when all are through.
pub fn run(options: &Options) -> Result<Vec<anyhow::Error>> {
    interrupt::catch()?;
    netns::remove_stale()?;
    let is_wanted = |measure: &&Measure| {
        options.only.is_empty() || options.only.iter().any(|part| measure.name.contains(part))
    };
    let wanted: Vec<_> = MEASURES.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        let names: Vec<_> = MEASURES.iter().map(|measure| measure.name).collect();
        bail!("no measure is named like that; there are {}", names.join(", "));
    }
    let here = report::Run::here(options.quick);
    let (mut samples, mut errors) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for measure in wanted {
        eprint!("{}: ", measure.name);
        let start = Instant::now();
        match (measure.run)(options) {
            Ok(taken) => samples.extend(taken),
            Err(error) => errors.push(error.context(measure.name)),
        }
        eprintln!("{:.0} s", start.elapsed().as_secs_f64());
        interrupt::check()?;
    }
    eprintln!("all of it: {:.0} s", begun.elapsed().as_secs_f64());
    println!("{}", report::table(&here, &samples));
    for file in report::write(&here, &samples, &options.out)? {
        println!("{}", file.display());
    }
    Ok(errors)
}
