//! Who is measured: ours in its two modes, the kernel with and without NAT, a ceiling without NAT,
//! and whatever the user names.
//!
//! Invariant: a contender that `start` gives back forwards packets; nothing of it is left after its
//! guard.

use std::{path::Path, process::Command, str::FromStr, time::Duration};

use anyhow::{Context as _, Error, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    agent::Agent,
    ceiling::{Ceiling, Given},
    nft::Nft,
    topology::Topology,
};
use crate::{
    gateway::Mode,
    process::{self, Process},
};

const STOP: Duration = Duration::from_secs(20);

/// A gateway given by shell commands that run in the gateway namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the report.
    pub name: String,
    /// Starts it. It may stay in the foreground; it is ended with its guard then.
    pub start: String,
    /// Ends it.
    pub stop: Option<String>,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contender {
    /// XDP with a FIB lookup and a redirect, no NAT: nothing that asks the kernel for its way can be
    /// faster.
    Ceiling,
    /// TC with link addresses that it was given and a redirect, no NAT, no lookup: nothing in TC can be
    /// faster.
    CeilingTc,
    /// The same, in XDP or TC, with a line of memory for each flow: nothing that keeps flows in a map can be
    /// faster.
    Line(Mode),
    /// `nat-ctl run`.
    Ours(Mode),
    /// The kernel's forwarding, no NAT.
    Forward,
    /// The kernel's masquerade with a stateful filter.
    Nft,
    /// A command of the user.
    Peer(Peer),
}

/// What a contender has to be ready for.
#[derive(Clone, Copy, Debug)]
pub struct Sizes<'a> {
    /// Flows that it has to hold.
    pub flows: u32,
    /// Whether the kernel's FTP helper is on.
    pub ftp: bool,
    /// The agent, `nat-ctl`.
    pub binary: &'a Path,
    /// The object with the ceiling's program.
    pub object: &'a Path,
}

impl Contender {
    /// All that are known here, and the user's.
    #[must_use]
    pub fn all(peers: &[Peer]) -> Vec<Self> {
        let known = [
            Self::Ceiling,
            Self::Ours(Mode::Xdp),
            Self::Line(Mode::Xdp),
            Self::CeilingTc,
            Self::Ours(Mode::Tc),
            Self::Line(Mode::Tc),
            Self::Forward,
            Self::Nft,
        ];
        known.into_iter().chain(peers.iter().cloned().map(Self::Peer)).collect()
    }

    /// What it is called in samples.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Ceiling => "ceiling",
            Self::CeilingTc => "tc-ceiling",
            Self::Line(Mode::Xdp) => "line",
            Self::Line(Mode::Tc) => "tc-line",
            Self::Ours(Mode::Xdp) => "xdp",
            Self::Ours(Mode::Tc) => "tc",
            Self::Forward => "forward",
            Self::Nft => "nft",
            Self::Peer(peer) => &peer.name,
        }
    }

    /// Whether it puts its public address in place of the inside's.
    #[must_use]
    pub const fn translates(&self) -> bool {
        !self.is_ceiling() && !matches!(self, Self::Forward)
    }

    /// Whether it is there for comparison alone: packets pass it, but it is no gateway.
    #[must_use]
    pub const fn is_ceiling(&self) -> bool {
        matches!(self, Self::Ceiling | Self::CeilingTc | Self::Line(_))
    }

    /// Starts it in the gateway namespace of `topology`.
    pub fn start<'t>(&self, topology: &'t Topology, sizes: Sizes<'_>) -> Result<Running<'t>> {
        let work = match self {
            Self::Ceiling => {
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                Work::Ceiling { _programs: Ceiling::start(topology, sizes.object)? }
            }
            Self::CeilingTc => {
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                let ceiling = (Mode::Tc, "ceiling_tc");
                Work::Given(Given::start(topology, sizes.object, ceiling, 1)?)
            }
            Self::Line(mode) => {
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                let name = match mode {
                    Mode::Xdp => "line",
                    Mode::Tc => "line_tc",
                };
                Work::Given(Given::start(topology, sizes.object, (*mode, name), sizes.flows)?)
            }
            Self::Ours(mode) => Work::Agent(Agent::start(topology, *mode, sizes)?),
            Self::Forward => {
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                Work::Kernel
            }
            Self::Nft => {
                let rules = Nft::start(topology, sizes)?;
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                Work::Nft { _rules: rules }
            }
            Self::Peer(peer) => {
                let mut command = shell(topology, &peer.start);
                let log = topology.file("peer.log");
                let mut process = Process::spawn(&mut command, &peer.name, &log)?;
                // It either stays, or has set up everything when it ends.
                if let Some(status) = process.ended()? {
                    ensure!(status.success(), "{} ended with {status}", peer.name);
                }
                topology.gateway.sysctl("net.ipv4.ip_forward", "1")?;
                Work::Peer { peer: peer.clone(), process: Some(process) }
            }
        };
        Ok(Running { topology, work })
    }
}

impl FromStr for Peer {
    type Err = Error;

    /// `NAME=START[,STOP]`; the first comma ends the start.
    fn from_str(text: &str) -> Result<Self> {
        let (name, commands) = text.split_once('=').context("a peer is NAME=START[,STOP]")?;
        let (start, stop) = match commands.split_once(',') {
            Some((start, stop)) => (start, Some(stop.to_owned())),
            None => (commands, None),
        };
        ensure!(!name.is_empty() && !start.is_empty(), "a peer is NAME=START[,STOP]");
        Ok(Self { name: name.to_owned(), start: start.to_owned(), stop })
    }
}

/// A contender at work.
#[derive(Debug)]
pub struct Running<'t> {
    topology: &'t Topology,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Ceiling { _programs: Ceiling },
    Given(Given),
    Agent(Agent),
    Kernel,
    Nft { _rules: Nft },
    Peer { peer: Peer, process: Option<Process> },
}

impl Running<'_> {
    /// Our agent, if it is ours.
    #[must_use]
    pub const fn agent(&self) -> Option<&Agent> {
        match &self.work {
            Work::Agent(agent) => Some(agent),
            _ => None,
        }
    }

    /// Says how many flows there are, to what has lines for them and nothing else.
    pub(super) fn hold(&mut self, flows: u32) -> Result<()> {
        if let Work::Given(given) = &mut self.work { given.hold(flows) } else { Ok(()) }
    }

    /// Stops what it does beside packets, so that it doesn't disturb the turn of another.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on, and waits until it is at work again.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        // The heartbeat comes before answers: after one of them XDP trusts the agent again.
        self.agent()
            .map_or(Ok(()), |agent| agent.call(&["forward", "list", "-o", "json"]).map(drop))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match &self.work {
            Work::Agent(agent) => agent.signal(signal),
            Work::Peer { process: Some(process), .. } => process.signal(signal),
            _ => Ok(()),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        match &mut self.work {
            Work::Peer { peer, process } => {
                // A process that is still there ends by its guard, after its own command to stop.
                if let Some(stop) = &peer.stop {
                    let _ = process::run(&mut shell(self.topology, stop), STOP);
                }
                drop(process.take());
            }
            Work::Agent(_)
            | Work::Ceiling { .. }
            | Work::Given(_)
            | Work::Kernel
            | Work::Nft { .. } => {}
        }
        let _ = self.topology.gateway.sysctl("net.ipv4.ip_forward", "0");
    }
}

/// A command of the user in the gateway namespace; it finds the devices in `$LAN` and `$WAN`.
fn shell(topology: &Topology, line: &str) -> Command {
    let mut command = topology.gateway.command("sh");
    command.args(["-c", line]);
    command.env("LAN", &topology.devices.lan).env("WAN", &topology.devices.wan);
    command
}
