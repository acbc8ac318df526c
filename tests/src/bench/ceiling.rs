//! The ceilings: XDP programs that ask the kernel for the way and redirect, and TC programs that were
//! given the way; and nothing else.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::Array,
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode},
};
use nat_common::bench::Way;

use super::{
    field::{ifindex, links},
    topology::Topology,
};

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

/// The TC programs at work on both of the gateway's devices; detached with this guard.
#[derive(Debug)]
pub struct CeilingTc {
    _ebpf: [Ebpf; 2],
}

impl CeilingTc {
    /// Attaches the program `ceiling_tc` of the bench's object.
    pub(super) fn start(topology: &Topology, object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let devices = &topology.devices;
        let (gateway, client, server) = (&topology.gateway, &topology.client, &topology.server);
        let one = |on: &str, to: &str, far, far_device: &str| -> Result<Ebpf> {
            let mut ebpf = Ebpf::load(&bytes).context("load the object of the bench")?;
            let way = Way {
                ifindex: ifindex(gateway, to)?,
                links: links((gateway, to), (far, far_device))?,
            };
            let ways = ebpf.map_mut("ways").context("no map `ways`")?;
            Array::try_from(ways)?.set(0, way, 0).context("set a way")?;
            let program: &mut SchedClassifier =
                ebpf.program_mut("ceiling_tc").context("no program `ceiling_tc`")?.try_into()?;
            program.load().context("load the program `ceiling_tc`")?;
            gateway
                .enter(|| program.attach(on, TcAttachType::Ingress).map(drop))?
                .with_context(|| format!("attach the ceiling to {on}"))?;
            Ok(ebpf)
        };
        Ok(Self {
            _ebpf: [
                one(&devices.lan, &devices.wan, server, &devices.server)?,
                one(&devices.wan, &devices.lan, client, &devices.client)?,
            ],
        })
    }
}
