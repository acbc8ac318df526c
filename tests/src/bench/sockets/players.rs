//! The contenders of a measure, all at work at the same time.
//!
//! Invariant: a player that is given to a measure has let a connection through, translated if that is its job.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::super::{
    Options,
    contender::{Contender, Running, Sizes},
    topology::{CLIENT, SERVER, Topology, WAN, Wiring},
};
use crate::{gateway::Mode, link, wait};

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
    contenders.retain(|contender| !contender.is_ceiling());
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
        match carries_connections(contender, topology) {
            Ok(()) => players.push(Player { contender, topology, running }),
            // One of the user's may be for datagrams only, or may lack something on this machine.
            Err(error) if matches!(contender, Contender::Peer(_)) => {
                eprintln!("  without {}: {error:#}", contender.name());
            }
            Err(error) => return Err(error.context(contender.name().to_owned())),
        }
    }
    work(players)
}

/// Waits for a first connection that arrives as it should: a gateway of the user may be a moment
/// late, and until then the kernel forwards what it doesn't translate yet.
fn carries_connections(contender: &Contender, topology: &Topology) -> Result<()> {
    let listener = topology
        .server
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
        .context("listen on the server")?;
    let server = (SERVER, listener.local_addr().context("ask for the server's port")?.port());
    let source = if contender.translates() { WAN } else { CLIENT };
    let once = Duration::from_millis(500);
    wait::until_true(Duration::from_secs(5), &format!("a connection from {source}"), || {
        let opened = topology.client.enter(|| TcpStream::connect_timeout(&server.into(), once))?;
        if opened.is_err() {
            return Ok(false);
        }
        let (_, from) = listener.accept().context("accept a connection")?;
        Ok(from.ip() == source)
    })
}
