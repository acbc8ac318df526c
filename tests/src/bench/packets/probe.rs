//! Parts of the gateway, one by one, on the maps of one that is at work.
//!
//! The programs are the bench's own, but what they call is the gateway's, in maps that they find where
//! the gateway has pinned them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    programs::{ProgramFd, Xdp},
    util::nr_cpus,
};
use nat_common::{
    bench::{FRAME, Turns},
    layout::Geometry,
};

/// The programs, with the maps of one gateway.
pub(super) struct Probe {
    ebpf: Ebpf,
    turns: PerCpuArray<MapData, Turns>,
    cpus: usize,
}

impl Probe {
    /// Loads the programs that lie beside the bench's `object`, for the gateway whose maps are in `pins`.
    pub(super) fn load(object: &Path, pins: &Path) -> Result<Self> {
        let object = object.with_file_name("nat-probe.o");
        let bytes = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
        let geometry = Map::Array(MapData::from_pin(pins.join("geometry"))?);
        let geometry = Array::<_, Geometry>::try_from(geometry)?.get(&0, 0)?;
        let pinned: Vec<(String, PathBuf)> = fs::read_dir(pins)
            .with_context(|| format!("list {}", pins.display()))?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.file_name().into_string().ok()?, entry.path()))
            })
            .collect();
        let mut loader = EbpfLoader::new();
        loader.override_global("GEOMETRY", &geometry, true);
        for (name, path) in &pinned {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader.load(&bytes).context("load the probe")?;
        for name in ["insert", "number", "claim", "redirect", "index"] {
            let program: &mut Xdp =
                ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("load the program {name}"))?;
        }
        let turns = ebpf.take_map("turns").context("no map turns")?.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?;
        Ok(Self { ebpf, turns, cpus })
    }

    /// The program of that name, to be called by another.
    pub(super) fn program(&self, name: &str) -> Result<ProgramFd> {
        self.xdp(name)?.fd()?.try_clone().context("share a program")
    }

    /// Mean nanoseconds that one of the flows takes to be made, from number `from` on; and to go once to each
    /// place in memory that a flow has.
    pub(super) fn insert(&mut self, from: u32, flows: u32) -> Result<[f64; 2]> {
        // Those that are only numbered first: what they touch is there for all.
        let numbering = self.time("number", from, flows)?;
        let mut beyond = |name| -> Result<f64> {
            let whole = self.time(name, from, flows)?;
            ensure!(whole > numbering, "{name} took {whole} ns, and {numbering} ns without it");
            Ok(whole - numbering)
        };
        Ok([beyond("insert")?, beyond("claim")?])
    }

    fn time(&mut self, name: &str, from: u32, flows: u32) -> Result<f64> {
        let turns = Turns { next: from.into(), ..Turns::default() };
        self.turns
            .set(0, PerCpuValues::try_from(vec![turns; self.cpus])?, 0)
            .context("set the number of the next flow")?;
        let frame = [0; FRAME];
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: flows, ..TestRunOptions::default() };
        let result = self.xdp(name)?.test_run(options).with_context(|| format!("run {name}"))?;
        let turns = self.turns.get(&0, 0).context("read how many flows were made")?;
        let done: u64 = turns.iter().map(|turns| turns.next - u64::from(from)).sum();
        let refused: u64 = turns.iter().map(|turns| turns.refused).sum();
        ensure!(done == u64::from(flows), "{name} took {done} turns for {flows} flows");
        ensure!(refused == 0, "{refused} of {flows} flows were not made");
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    fn xdp(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name).with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }
}
