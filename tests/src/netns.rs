//! Network namespaces with names of this run only.
//!
//! Invariant: a namespace ends with its guard, by its own name, and takes the processes that are
//! still in it along. What a killed run left is found by the process id in its name.

use std::{
    collections::hash_map::RandomState,
    ffi::OsStr,
    fs::{self, File},
    hash::{BuildHasher as _, Hasher as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
/// First letters of every name that ends with its run.
const PREFIX: &str = "natlab";

/// Whether a lab ends with this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Removed at the end, and processes in it die with this program even if it is killed.
    Run,
    /// Left up, to look around in it.
    Kept,
}

/// A name that no other run on this machine uses.
#[must_use]
pub fn unique_name(lifetime: Lifetime) -> String {
    let prefix = match lifetime {
        Lifetime::Run => PREFIX,
        Lifetime::Kept => "natkept",
    };
    let random = RandomState::new().build_hasher().finish() & 0xff_ffff;
    format!("{prefix}-{}-{random:06x}", std::process::id())
}

/// One network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    lifetime: Lifetime,
}

impl Namespace {
    /// Makes a namespace `run`-`role` with its loopback up and IPv6 off, whose background chatter
    /// would only blur captures and counters.
    pub fn new(run: &str, role: &str, lifetime: Lifetime) -> Result<Self> {
        let name = format!("{run}-{role}");
        process::must(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, lifetime };
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// A command that will run in this namespace. `ip netns exec` isn't used: it remounts /sys, and
    /// what is pinned under /sys/fs/bpf is out of sight then.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        if self.lifetime == Lifetime::Run {
            command.args(["setpriv", "--pdeathsig", "TERM"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread in this namespace: sockets made there stay in it wherever they go.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file =
            File::open(self.path()).with_context(|| format!("open {}", self.path().display()))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("enter namespace {}", self.name))?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// `ip WORDS...` here.
    pub fn ip(&self, words: &str) -> Result<String> {
        process::must(self.command("ip").args(words.split_whitespace()))
    }

    /// Sets a kernel variable of this namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        process::must(self.command("sh").args(["-c", &format!("echo {value} > {file}")])).map(drop)
    }

    /// Reads a kernel variable of this namespace.
    pub fn read_sysctl(&self, name: &str) -> Result<String> {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        Ok(process::must(self.command("cat").arg(file))?.trim().to_owned())
    }

    /// Whether some socket listens on this TCP port here.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let files = ["/proc/net/tcp", "/proc/net/tcp6"];
        let table = process::must(self.command("cat").args(files))?;
        let wanted = format!(":{port:04X}");
        Ok(table.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A")
        }))
    }

    fn remove(&self) {
        // Sessions that a server forked outlive it; they are in a namespace that is ours alone.
        // No waiting with `process::run`: an interrupted run comes here too.
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", &self.name]).output() {
            let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
            for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Run {
            self.remove();
        }
    }
}

/// Removes the namespaces of runs that were killed: those whose process is no more.
pub fn remove_stale() -> Result<()> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Ok(()) };
    for entry in entries {
        let name = entry.context("list the namespaces")?.file_name();
        let Some(name) = name.to_str() else { continue };
        if is_stale(name) {
            Namespace { name: name.to_owned(), lifetime: Lifetime::Kept }.remove();
        }
    }
    Ok(())
}

/// Whether a name was given by a run of the past.
#[must_use]
pub fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    parts.next() == Some(PREFIX)
        && parts
            .next()
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_run_are_not_stale_and_names_of_ended_ones_are() {
        assert!(!is_stale(&unique_name(Lifetime::Run)));
        assert!(is_stale("natlab-4294967295-abcdef-inside"));
        assert!(!is_stale("natkept-4294967295-abcdef-inside"));
        assert!(!is_stale("somebody-else"));
    }
}
