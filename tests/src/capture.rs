//! Captures with tcpdump, read back as frames.
//!
//! Invariant: a capture that `start` gives back sees every later frame; `finish` gives back all that
//! had passed by then. On the gateway's own devices a tap misses what XDP redirects: capture at the
//! peers.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{
    frame::{self, Frame},
    netns::Namespace,
    process::Process,
};

/// tcpdump at work.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture what `filter` (empty: everything) matches on a device.
    pub fn start(namespace: &Namespace, device: &str, filter: &str, folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{device}.pcap"));
        let mut command = namespace.command("tcpdump");
        command.args(["-i", device, "-n", "-p", "-U", "-s", "512", "-B", "16384", "-Z", "root"]);
        command.arg("--immediate-mode").arg("-w").arg(&file);
        command.args(filter.split_whitespace());
        let mut process = Process::spawn(&mut command, "tcpdump", &folder.join("tcpdump.log"))?;
        process
            .ready(Duration::from_secs(10), "listening", |said| Ok(said.contains("listening")))?;
        Ok(Self { process, file })
    }

    /// What has been seen so far.
    pub fn so_far(&self) -> Result<Vec<Frame>> {
        let bytes =
            fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        frame::read_pcap(&bytes)
    }

    /// Waits until it has written what it has seen: when it is told to end, what it has not read yet is lost.
    fn settle(&self) -> Result<()> {
        const STILL: Duration = Duration::from_millis(150);
        const LIMIT: Duration = Duration::from_secs(5);
        let size = || {
            let file = fs::metadata(&self.file);
            file.map(|file| file.len()).with_context(|| format!("look at {}", self.file.display()))
        };
        let (start, mut before) = (Instant::now(), size()?);
        while start.elapsed() < LIMIT {
            thread::sleep(STILL);
            let now = size()?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Ends the capture and gives back what it saw.
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        self.settle()?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(10))?;
        self.so_far()
    }
}
