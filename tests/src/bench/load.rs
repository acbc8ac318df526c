//! Time that threads have spent on a core.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use super::topology::{Topology, napi_threads};

/// Some threads of the kernel, or a process.
#[derive(Clone, Debug)]
pub struct Threads(Vec<i32>);

impl Threads {
    /// Those that carry the packets of a gateway.
    pub fn of_gateway(topology: &Topology) -> Result<Self> {
        let mut threads = napi_threads(&topology.devices.lan)?;
        threads.extend(napi_threads(&topology.devices.wan)?);
        Ok(Self(threads))
    }

    /// All threads of a process.
    pub fn of_process(id: u32) -> Result<Self> {
        Ok(Self(vec![i32::try_from(id).context("a process id beyond i32")?]))
    }

    /// Run time so far, up to this very moment even of one that is running.
    pub fn time(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for id in &self.0 {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(*id))
                .with_context(|| format!("no clock of process {id}"))?;
            let time = clock_gettime(clock).with_context(|| format!("clock of process {id}"))?;
            sum += Duration::from(time);
        }
        Ok(sum)
    }
}
