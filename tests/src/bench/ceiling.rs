//! The ceiling: XDP programs that ask the kernel for the way and redirect, and nothing else.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};

use super::topology::Topology;

/// The programs at work on both of the gateway's devices; detached with this guard.
#[derive(Debug)]
pub struct Ceiling {
    _ebpf: Ebpf,
}

impl Ceiling {
    /// Attaches the program `ceiling` of the bench's object.
    pub(super) fn start(topology: &Topology, object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let mut ebpf = Ebpf::load(&bytes).context("load the object of the bench")?;
        let program: &mut Xdp =
            ebpf.program_mut("ceiling").context("no program `ceiling`")?.try_into()?;
        program.load().context("load the program `ceiling`")?;
        topology.gateway.enter(|| -> Result<()> {
            for device in [&topology.devices.lan, &topology.devices.wan] {
                program
                    .attach(device, XdpMode::Driver)
                    .with_context(|| format!("attach the ceiling to {device}"))?;
            }
            Ok(())
        })??;
        Ok(Self { _ebpf: ebpf })
    }
}
