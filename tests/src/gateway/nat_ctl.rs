//! Our gateway, driven as a user drives it: by its command line.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Mode, Packets, Rule, attached};
use crate::{
    lab::{LAN_DEVICE, Lab, WAN_DEVICE},
    link,
    netns::{self, Namespace},
    process::{self, Finished, Process},
    wait,
};

/// Loading and verifying the programs is most of it.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(10);

/// `nat-ctl run` in the gateway namespace, and the commands that speak to it.
#[derive(Debug)]
pub struct NatCtl<'lab> {
    namespace: &'lab Namespace,
    binary: PathBuf,
    instance: String,
    mode: Mode,
    config: PathBuf,
    log: PathBuf,
    agent: Option<Process>,
    left: bool,
}

impl<'lab> NatCtl<'lab> {
    /// Starts the agent and waits until it is ready.
    pub fn start(lab: &'lab Lab, mode: Mode, binary: &Path) -> Result<Self> {
        let mut gateway = Self::prepare(lab, mode, binary)?;
        gateway.run(&[])?;
        Ok(gateway)
    }

    /// Everything but the start of the agent.
    pub fn prepare(lab: &'lab Lab, mode: Mode, binary: &Path) -> Result<Self> {
        Self::prepare_in(&lab.gateway, lab, mode, binary)
    }

    /// The same in another namespace of the lab, whose devices have the names of the gateway's.
    pub fn prepare_in(
        namespace: &'lab Namespace,
        lab: &'lab Lab,
        mode: Mode,
        binary: &Path,
    ) -> Result<Self> {
        ensure!(
            binary.is_file(),
            "start the gateway: no {}: build it first (cargo xtask build)",
            binary.display()
        );
        if mode == Mode::Xdp {
            link::receive_redirected(&lab.inside, crate::lab::INSIDE_DEVICE)?;
            link::receive_redirected(&lab.outside, crate::lab::OUTSIDE_DEVICE)?;
        }
        remove_stale(binary);
        let folder = lab.folder("gw")?;
        let number = folder.file_name().and_then(OsStr::to_str).unwrap_or("gw");
        let gateway = Self {
            namespace,
            binary: binary.to_owned(),
            instance: format!("{}-{number}", lab.name()),
            mode,
            config: folder.join("nat.toml"),
            log: folder.join("agent.log"),
            agent: None,
            left: false,
        };
        gateway.configure("")?;
        Ok(gateway)
    }

    /// Writes the configuration file: the interfaces, and whatever tables are wanted beside them.
    pub fn configure(&self, tables: &str) -> Result<()> {
        let text =
            format!("[gateway]\nwan = [\"{WAN_DEVICE}\"]\nlan = [\"{LAN_DEVICE}\"]\n\n{tables}");
        fs::write(&self.config, text).with_context(|| format!("write {}", self.config.display()))
    }

    /// Starts the agent (again) with further options, and waits until it is ready.
    pub fn run(&mut self, options: &[&str]) -> Result<()> {
        let mut command = self.agent_command(options);
        let mut agent = Process::spawn(&mut command, "nat-ctl run", &self.log)?;
        let ready = agent
            .ready(START, "ready", |output| Ok(output.lines().any(|line| line.trim() == "ready")));
        self.agent = Some(agent);
        ready
    }

    /// The command that starts an agent for this instance.
    #[must_use]
    pub fn agent_command(&self, options: &[&str]) -> Command {
        let mut command = self.command(&["run", "--wan", WAN_DEVICE, "--lan", LAN_DEVICE]);
        command.args(["--mode", &self.mode.to_string()]).arg("--config").arg(&self.config);
        command.args(options);
        command
    }

    /// `nat-ctl --instance ... WORDS`.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.args(["--instance", &self.instance]).args(words);
        command
    }

    /// Runs a command line to its end, whatever that is.
    pub fn call(&self, words: &[&str]) -> Result<Finished> {
        process::run(&mut self.command(words), STOP)
    }

    /// Runs a command line that has to succeed, as JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let what = format!("nat-ctl {}", words.join(" "));
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        let text = self.call(&all)?.checked(&what)?.stdout;
        serde_json::from_str(&text).with_context(|| format!("{what} is no JSON: {text}"))
    }

    /// Packets dropped for this reason.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.json(&["drops"])?[reason].as_u64().unwrap_or(0))
    }

    /// Bytes of memory that the agent has.
    pub fn resident(&self) -> Result<u64> {
        let id = self.agent.as_ref().context("the agent isn't running")?.id();
        let file = format!("/proc/{id}/status");
        let status = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("no VmRSS in {file}"))? * 1024)
    }

    /// Bytes that an FTP session has in maps: its record, its state, and what is wanted of each side.
    pub fn map_bytes_a_session(&self) -> Result<u64> {
        let mut bytes = 0;
        for (map, records) in [("sessions", 1), ("journal", 1), ("watches", 2)] {
            let mut bpftool = self.namespace.command("bpftool");
            bpftool.args(["-j", "map", "show", "pinned"]).arg(self.pins().join(map));
            let shown: Value = serde_json::from_str(&process::must(&mut bpftool)?)?;
            let value = shown["bytes_value"].as_u64().with_context(|| format!("{map}: {shown}"))?;
            bytes += records * value;
        }
        Ok(bytes)
    }

    /// Waits until it follows a session that is encrypted; gives that.
    pub fn encrypted_session(&self, limit: Duration) -> Result<Value> {
        wait::until(limit, "an encrypted session", || {
            let sessions = self.json(&["ftp", "sessions"])?;
            let mut found = sessions.as_array().into_iter().flatten();
            Ok(found.find(|session| session["state"] == "encrypted").cloned())
        })
    }

    /// Name of the instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where the instance keeps its maps and links.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/nat-ctl").join(&self.instance)
    }

    /// What the agent has printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.agent.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.agent.as_ref().context("the agent isn't running")?.signal(signal)
    }

    /// Ends the agent by a signal and waits until it is gone. The data plane may well live on.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut agent = self.agent.take().context("the agent isn't running")?;
        agent.signal(signal)?;
        agent.wait(STOP)
    }

    /// What is left of this instance: pins and what is attached to the interfaces.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        if self.pins().exists() {
            left.push(self.pins().display().to_string());
        }
        let socket = PathBuf::from(format!("/run/nat-ctl/{}.sock", self.instance));
        if socket.exists() {
            left.push(socket.display().to_string());
        }
        left.extend(attached(self.namespace)?);
        Ok(left)
    }

    /// Adds a rule.
    pub fn add(&mut self, rule: &Rule) -> Result<()> {
        let (public, to) = match rule {
            Rule::ForwardFtp { public, to, .. } | Rule::OneToOne { public, to, .. } => {
                (public.to_string(), to.to_string())
            }
        };
        let words: &[&str] = match rule {
            Rule::ForwardFtp { .. } => &["forward", "add", "--service", "ftp"],
            Rule::OneToOne { .. } => &["one-to-one", "add", "--inbound", "tcp:21"],
        };
        let rest = ["--name", rule.name(), "--public", &public, "--to", &to];
        self.call(&[words, &rest].concat())?.checked("nat-ctl add a rule").map(drop)
    }

    /// Takes a rule away.
    pub fn remove(&mut self, rule: &Rule) -> Result<()> {
        let word = match rule {
            Rule::ForwardFtp { .. } => "forward",
            Rule::OneToOne { .. } => "one-to-one",
        };
        self.call(&[word, "remove", rule.name()])?.checked("nat-ctl remove a rule").map(drop)
    }

    /// Packets by the hook that finished them.
    pub fn packets(&self) -> Result<Packets> {
        let status = self.json(&["status"])?;
        let packets = status.get("packets").context("nat-ctl status has no field `packets`")?;
        Packets::deserialize_from(packets)
    }

    /// Packets that the agent has been handed so far.
    pub fn punted(&self) -> Result<u64> {
        let status = self.json(&["status"])?;
        status["packets"]["punted"].as_u64().context("nat-ctl status has no packets.punted")
    }

    /// Tables, counters and the agent's last words.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = format!("agent: {}\n", process::tail(&self.output(), 3000).trim());
        for words in [
            &["status"][..],
            &["drops"],
            &["ftp", "sessions"],
            &["expectations", "list"],
            &["flows", "list"],
        ] {
            let said = match self.call(words) {
                Ok(finished) => finished.stdout + &finished.stderr,
                Err(error) => format!("{error:#}"),
            };
            text.push_str(&format!("nat-ctl {}:\n{}\n", words.join(" "), said.trim()));
        }
        text
    }

    /// Ends the agent, and says what it left, if anything.
    pub fn stop(mut self) -> Result<()> {
        if let Some(mut agent) = self.agent.take() {
            let status = agent.stop(STOP)?;
            let said = agent.output();
            ensure!(
                status.success(),
                "nat-ctl run ended with {status}: {}",
                process::tail(&said, 800)
            );
        }
        let left = self.leftovers()?;
        if !left.is_empty() {
            bail!("nat-ctl run ended and left {}", left.join(", "));
        }
        Ok(())
    }

    pub(super) fn leave(mut self) {
        self.left = true;
        if let Some(agent) = self.agent.take() {
            agent.leave();
        }
    }
}

impl Drop for NatCtl<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        drop(self.agent.take());
        if self.pins().exists() {
            let _ = self.command(&["down"]).output();
        }
    }
}

impl Packets {
    fn deserialize_from(value: &Value) -> Result<Self> {
        serde_json::from_value(value.clone()).context("read the field `packets` of nat-ctl status")
    }
}

/// Ends the instances that runs of the past left, where those were killed.
fn remove_stale(binary: &Path) {
    let Ok(entries) = fs::read_dir("/sys/fs/bpf/nat-ctl") else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(netns::is_stale) {
            let mut command = Command::new(binary);
            let _ = command.arg("--instance").arg(entry.file_name()).arg("down").output();
        }
    }
}
