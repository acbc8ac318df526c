//! The contenders of a measure, all at work at the same time.

use anyhow::{Context as _, Result};

use super::super::{
    Options,
    contender::{Contender, Running, Sizes},
    topology::{Topology, Wiring},
};
use crate::{gateway::Mode, link};

/// One contender at work.
#[derive(Debug)]
pub(super) struct Player<'t> {
    /// Who it is.
    pub contender: &'t Contender,
    /// Where it works.
    pub topology: &'t Topology,
    /// Ends it when dropped.
    pub running: Running<'t>,
}

/// Room for the connections of the longest run, closed ones included.
const FLOWS: u32 = 262_144;

/// Starts all contenders that sockets can pass, and gives them to `work`.
pub(super) fn play<T>(
    options: &Options,
    ftp: bool,
    work: impl FnOnce(Vec<Player<'_>>) -> Result<T>,
) -> Result<T> {
    let mut contenders = Contender::all(&options.peers);
    contenders.retain(|contender| *contender != Contender::Ceiling);
    let topologies =
        contenders.iter().map(|_| Topology::new(Wiring::Plain)).collect::<Result<Vec<_>>>()?;
    let sizes = Sizes { flows: FLOWS, ftp, binary: &options.binary, object: &options.object };
    let mut players = Vec::new();
    for (contender, topology) in contenders.iter().zip(&topologies) {
        if *contender == Contender::Ours(Mode::Xdp) {
            link::receive_redirected(&topology.client, &topology.devices.client)?;
            link::receive_redirected(&topology.server, &topology.devices.server)?;
        }
        let running = contender
            .start(topology, sizes)
            .with_context(|| format!("start {}", contender.name()))?;
        players.push(Player { contender, topology, running });
    }
    work(players)
}
