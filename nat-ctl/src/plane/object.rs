//! The eBPF object that the binary carries, loaded with the sizes that the configuration asks for.
//!
//! Invariant: a map that is pinned is used as it is, so that a successor goes on with its flows;
//! [`super::pins`] has checked version and sizes before.

use std::{fs::File, io::Read, path::Path};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{MapData, MapError, ProgramArray},
    programs::{ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use nat_common::{
    flow_table,
    layout::{self, Geometry, Stage},
};
use zerocopy::IntoBytes;

use super::error::{PlaneError, Result};
use super::maps;
use crate::config::Limits;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("NAT_EBPF_OBJECT"));

/// Entries of the `forwards` map, and of what every forward needs in `other_ports` where its address
/// has no number.
const FORWARDS: u32 = 131_072;

/// Lines that every flow has, one a direction.
const LINES: u32 = 2;

/// Entries of the maps whose size follows from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Places for flow records: three of five are taken at the limit.
    pub flows: u32,
    /// Owners of public ports on addresses without a number.
    pub other_ports: u32,
    /// Expectations.
    pub expectations: u32,
}

impl Sizes {
    /// Of `limits`.
    pub fn of(limits: &Limits) -> Self {
        let lines = limits.flows.get().saturating_mul(LINES);
        let expectations = limits.expectations.get();
        Self {
            flows: flow_table::places(lines),
            other_ports: FORWARDS.saturating_add(expectations),
            expectations,
        }
    }

    /// By name of the map.
    pub fn each(&self) -> [(&'static str, u32); 3] {
        [
            ("flows", self.flows),
            ("other_ports", self.other_ports),
            ("expectations", self.expectations),
        ]
    }

    /// What follows from them for where flows lie, with a lot of the system.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn geometry(&self) -> Result<Geometry> {
        const LOT: &str = "/dev/urandom";
        let mut seeds = [0; 2];
        File::open(LOT)
            .and_then(|mut lot| lot.read_exact(seeds.as_mut_bytes()))
            .map_err(PlaneError::file("read", LOT))?;
        Ok(Geometry { seeds, homes: flow_table::homes(self.flows), padding: 0 })
    }
}

/// The loaded object: maps are made and pinned, programs are not yet in the kernel.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Makes the maps, or opens those that are pinned in `pins`. `geometry` is that of the map
    /// `flows`, which becomes a constant in the programs.
    ///
    /// # Errors
    /// Where the kernel refuses a map.
    pub fn load(pins: &Path, sizes: &Sizes, geometry: &Geometry) -> Result<Self> {
        let paths: Vec<_> = maps::NAMES.iter().map(|name| (*name, pins.join(name))).collect();
        let mut loader = EbpfLoader::new();
        // The full log of a refused program is asked for with a growing buffer, and every time the
        // verifier starts over: minutes. This level holds the verdict and fits the first one.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.override_global("GEOMETRY", geometry, true);
        for (name, entries) in sizes.each() {
            loader.map_max_entries(name, entries);
        }
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
        let what = format!("make the maps of the data plane in {}", pins.display());
        loader.load(OBJECT).map(Self).map_err(PlaneError::refused(what))
    }

    /// Brings the classifier of that name into the kernel, if it isn't there yet.
    ///
    /// # Errors
    /// Where the verifier refuses it.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program = self.0.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(refuse_load(name))?;
        if program.fd().is_err() {
            program.load().map_err(refuse_load(name))?;
        }
        Ok(program)
    }

    /// Brings the XDP program of that name into the kernel, if it isn't there yet.
    ///
    /// # Errors
    /// Where the verifier refuses it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.0.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut Xdp = program.try_into().map_err(refuse_load(name))?;
        if program.fd().is_err() {
            program.load().map_err(refuse_load(name))?;
        }
        Ok(program)
    }
}

impl Object {
    /// Puts the TC programs in their places in the map `stages`, from where they call each other.
    ///
    /// # Errors
    /// Where the verifier refuses one, or the kernel the map.
    pub fn stages(&mut self) -> Result<()> {
        for stage in Stage::ALL {
            let name = stage.program();
            let program = self.classifier(name)?.fd().map_err(refuse_load(name))?;
            let program = program.try_clone().map_err(PlaneError::refused(name))?;
            self.place("stages", stage, &program)?;
        }
        Ok(())
    }

    /// The same for XDP.
    ///
    /// # Errors
    /// As [`Object::stages`].
    pub fn xdp_stages(&mut self) -> Result<()> {
        for stage in Stage::ALL {
            let Some(name) = stage.xdp_program() else { continue };
            let program = self.xdp(name)?.fd().map_err(refuse_load(name))?;
            let program = program.try_clone().map_err(PlaneError::refused(name))?;
            self.place("xdp_stages", stage, &program)?;
        }
        Ok(())
    }

    fn place(&mut self, map: &str, stage: Stage, program: &ProgramFd) -> Result<()> {
        let what = || format!("write the map {map}");
        let map = self.0.map_mut(map).ok_or_else(|| missing(map))?;
        let mut map: ProgramArray<&mut MapData> =
            map.try_into().map_err(PlaneError::refused::<MapError>(what()))?;
        map.set(stage as u32, program, 0).map_err(PlaneError::refused(what()))
    }
}

/// The verifier says EACCES too, but not for want of a permission: then it also says why.
fn refuse_load(name: &str) -> impl FnOnce(ProgramError) -> PlaneError {
    move |error| {
        let what = format!("load the program {name}");
        let said = match &error {
            ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
            _ => String::new(),
        };
        match said.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => PlaneError::Refused {
                what,
                why: format!("the verifier of this kernel refuses it: {}", line.trim()),
            },
            None => PlaneError::refused(what)(error),
        }
    }
}

fn missing(name: &str) -> PlaneError {
    PlaneError::Refused {
        what: format!("load the program {name}"),
        why: format!(
            "it is not in the eBPF object of this binary (layout {}): build it again with \
             `cargo xtask build`",
            layout::VERSION
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_at_its_limit_is_full_by_three_fifths() {
        let sizes = Sizes::of(&Limits::default());
        let lines = 2 * u64::from(Limits::default().flows.get());
        let homes = u64::from(flow_table::homes(sizes.flows));
        assert!(homes * 3 >= lines * 5 && homes * 3 <= lines * 5 + 6, "{homes} homes");
        // 64 bytes a line: what a flow costs, all in.
        assert_eq!(u64::from(sizes.flows) * 64 / (lines / 2), 213);
        assert_eq!(sizes.other_ports, 131_072 + sizes.expectations);
    }

    #[test]
    fn seeds_are_drawn_anew() {
        let sizes = Sizes::of(&Limits::default());
        let [one, other] = [sizes.geometry().unwrap(), sizes.geometry().unwrap()];
        assert_ne!(one.seeds, other.seeds);
        assert_eq!((one.homes, one.padding), (flow_table::homes(sizes.flows), 0));
    }
}
