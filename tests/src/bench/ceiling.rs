//! The ceilings: XDP programs that ask the kernel for the way and redirect, and programs that were given the
//! way, some with a line of memory for each flow; and nothing else.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{Program, SchedClassifier, TcAttachType, Xdp, XdpMode},
};
use nat_common::bench::Way;

use super::{
    field::{ifindex, links},
    topology::Topology,
};
use crate::gateway::Mode;

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

/// Programs at work on both of the gateway's devices that were told where packets go; detached with this
/// guard.
#[derive(Debug)]
pub struct Given {
    sides: [(Ebpf, Way); 2],
}

impl Given {
    /// Attaches a program of the bench's object: to `mode`'s hook, with lines for so many flows.
    pub(super) fn start(
        topology: &Topology,
        object: &Path,
        (mode, name): (Mode, &str),
        flows: u32,
    ) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let devices = &topology.devices;
        let (gateway, client, server) = (&topology.gateway, &topology.client, &topology.server);
        let one = |on: &str, to: &str, far, far_device: &str| -> Result<(Ebpf, Way)> {
            let mut loader = EbpfLoader::new();
            loader.map_max_entries("lines", lines(flows));
            let mut ebpf = loader.load(&bytes).context("load the object of the bench")?;
            let way = Way {
                ifindex: ifindex(gateway, to)?,
                links: links((gateway, to), (far, far_device))?,
                lines: 0,
            };
            lead(&mut ebpf, way)?;
            let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
            gateway
                .enter(|| match mode {
                    Mode::Xdp => attach_xdp(program, on),
                    Mode::Tc => attach_tc(program, on),
                })?
                .with_context(|| format!("attach `{name}` to {on}"))?;
            Ok((ebpf, way))
        };
        Ok(Self {
            sides: [
                one(&devices.lan, &devices.wan, server, &devices.server)?,
                one(&devices.wan, &devices.lan, client, &devices.client)?,
            ],
        })
    }

    /// From here on packets are of so many flows: no more than it was made for.
    pub(super) fn hold(&mut self, flows: u32) -> Result<()> {
        self.sides
            .iter_mut()
            .try_for_each(|(ebpf, way)| lead(ebpf, Way { lines: lines(flows) - 1, ..*way }))
    }
}

/// Lines of so many flows.
const fn lines(flows: u32) -> u32 {
    flows.next_power_of_two()
}

fn lead(ebpf: &mut Ebpf, way: Way) -> Result<()> {
    let ways = ebpf.map_mut("ways").context("no map `ways`")?;
    Array::try_from(ways)?.set(0, way, 0).context("set a way")
}

fn attach_xdp(program: &mut Program, device: &str) -> Result<()> {
    let program: &mut Xdp = program.try_into()?;
    program.load()?;
    program.attach(device, XdpMode::Driver)?;
    Ok(())
}

fn attach_tc(program: &mut Program, device: &str) -> Result<()> {
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    program.attach(device, TcAttachType::Ingress)?;
    Ok(())
}
