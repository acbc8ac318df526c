//! Our own gateway as a contender: `nat-ctl run`, driven by its command line.
//!
//! Invariant: the agent itself works on the core of the ends, so that the time of the gateway's core
//! is that of packets alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    contender::Sizes,
    topology::{ENDS_CORE, Topology},
};
use crate::{
    gateway::Mode,
    process::{self, Finished, Process},
};

/// Loading and verifying programs is most of it; large tables take their time too.
const START: Duration = Duration::from_secs(60);
/// A million flows are a long list.
const CALL: Duration = Duration::from_secs(60);

/// The limit of an agent that has to hold so many flows: a quarter more, for while they are opened none has
/// its answer, and a table that is nearly full does not wait for it.
#[must_use]
pub const fn limit(flows: u32) -> u32 {
    let least = if flows < 1024 { 1024 } else { flows };
    least.saturating_add(flows / 4)
}

/// An agent at work.
#[derive(Debug)]
pub struct Agent {
    enter: PathBuf,
    binary: PathBuf,
    instance: String,
    process: Process,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub(super) fn start(topology: &Topology, mode: Mode, sizes: Sizes<'_>) -> Result<Self> {
        let mut agent = Self::spawn(topology, mode, sizes)?;
        agent.ready()?;
        Ok(agent)
    }

    /// Starts it without waiting.
    pub fn spawn(topology: &Topology, mode: Mode, sizes: Sizes<'_>) -> Result<Self> {
        ensure!(sizes.binary.is_file(), "there is no {}: build it first", sizes.binary.display());
        let config = topology.file("nat.toml");
        // Flows have to outlive the whole measure, as those of the peers do.
        let text = format!(
            "[timeouts]\nudp = \"1h\"\n[limits]\nflows = {}\nflows_per_host = 0\n",
            limit(sizes.flows)
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let instance = topology.name().to_owned();
        let core = ENDS_CORE.to_string();
        let mut command = topology.gateway.command("taskset");
        command.args(["-c", &core]).arg(sizes.binary).args(["--instance", &instance, "run"]);
        command.args(["--wan", &topology.devices.wan, "--lan", &topology.devices.lan]);
        command.args(["--mode", &mode.to_string()]).arg("--config").arg(&config);
        let process = Process::spawn(&mut command, "nat-ctl run", &topology.file("agent.log"))?;
        Ok(Self {
            enter: topology.gateway.path(),
            binary: sizes.binary.to_owned(),
            instance,
            process,
        })
    }

    /// Waits until it says that packets flow.
    pub fn ready(&mut self) -> Result<()> {
        self.process
            .ready(START, "ready", |output| Ok(output.lines().any(|line| line.trim() == "ready")))
    }

    /// `nat-ctl --instance ... WORDS`, in the namespace of the gateway.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.enter.display())).arg("--").arg(&self.binary);
        command.args(["--instance", &self.instance]).args(words);
        command
    }

    /// Runs a command line that has to succeed.
    pub fn call(&self, words: &[&str]) -> Result<Finished> {
        let what = format!("nat-ctl {}", words.join(" "));
        process::run(&mut self.command(words), CALL)?.checked(&what)
    }

    /// Where it keeps its maps and programs.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/nat-ctl").join(&self.instance)
    }

    /// Its process id: `nsenter`, `setpriv` and `taskset` have become the agent.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A paused one can't hear the command to stop.
        let _ = self.process.signal(Signal::SIGCONT);
        let _ = self.process.stop(CALL);
        if self.pins().exists() {
            let _ = self.command(&["down"]).output();
        }
    }
}
