//! What programs with sockets notice of a gateway: streams, answers, connections, FTP.
//!
//! All contenders are at work at the same time, each in a topology of its own, and take turns. The
//! ceiling is not among them: it redirects frames whose checksum was left to the device, which a
//! receiver drops.

pub(super) mod bulk;
pub(super) mod connections;
mod core;
pub(super) mod ftp;
pub(super) mod latency;
mod players;

use std::time::Duration;

use super::{Options, sample::Sample};
use players::{Player, play};

/// No single step may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rounds of a measure: an odd number, so that a median is one of them.
const fn rounds(options: &Options) -> u32 {
    if options.quick { 3 } else { 11 }
}

/// A value of one player, as a sample.
fn sample(
    player: &Player<'_>,
    round: u32,
    measure: &'static str,
    case: &str,
    value: f64,
    unit: &'static str,
) -> Sample {
    let contender = player.contender.name().to_owned();
    Sample { measure, case: case.to_owned(), contender, round, value, unit }
}
