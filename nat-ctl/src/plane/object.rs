//! The eBPF object that the binary carries, loaded with the sizes that the configuration asks for.
//!
//! Invariant: a map that is pinned is used as it is, so that a successor goes on with its flows;
//! [`super::pins`] has checked version and sizes before.

use std::{
    fs::File,
    io::Read,
    panic::resume_unwind,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{MapData, MapError, MapInfo, ProgramArray},
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use nat_common::{
    flow_table,
    layout::{self, Geometry, Stage},
};
use zerocopy::IntoBytes;

use super::attach;
use super::error::{PlaneError, Result};
use super::flow_memory;
use super::grow::tables;
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
    /// Places for flow records, when the table has grown to the limit: two of three are taken then.
    pub flows: u32,
    /// Owners of public ports on addresses without a number.
    pub other_ports: u32,
    /// Expectations.
    pub expectations: u32,
    /// Flows of IPv6.
    pub flows6: u32,
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
            flows6: limits.flows6.get(),
        }
    }

    /// By name of the map.
    pub fn each(&self) -> [(&'static str, u32); 5] {
        [
            ("flows", self.flows),
            ("other_ports", self.other_ports),
            ("expectations", self.expectations),
            ("expectations6", self.expectations),
            ("flows6", self.flows6),
        ]
    }

    /// Of a fresh table for `flows` flows, or fewer where the limit is lower, with a lot of the system.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn geometry(&self, flows: u32) -> Result<Geometry> {
        const LOT: &str = "/dev/urandom";
        let mut seeds = [0; 2];
        File::open(LOT)
            .and_then(|mut lot| lot.read_exact(seeds.as_mut_bytes()))
            .map_err(PlaneError::file("read", LOT))?;
        let places = flow_table::places(flows.saturating_mul(LINES)).min(self.flows);
        Ok(Geometry::new(seeds, flow_table::homes(places)))
    }
}

/// A flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The name that it is pinned by.
    pub pin: &'static str,
    /// Where flows lie in it.
    pub geometry: Geometry,
}

impl Table {
    /// That which is pinned in `pins` as `pin`.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn pinned(pins: &Path, pin: &'static str) -> Result<Self> {
        let path = pins.join(pin);
        let info = MapInfo::from_pin(&path)
            .map_err(PlaneError::refused(format!("read the size of {}", path.display())))?;
        let homes = flow_table::homes(info.max_entries());
        let geometry = flow_memory::geometry(pins)?.with_homes(homes);
        Ok(Self { pin, geometry })
    }
}

/// Which programs the interfaces need beside those that all do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needed {
    /// Those for XDP.
    pub native: bool,
    /// Those for packets without an Ethernet header.
    pub bare: bool,
    /// Those of an interface that is on both sides.
    pub one_armed: bool,
}

/// The loaded object: maps are made and pinned, programs are not yet in the kernel.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Name of the program that moves flows; attached nowhere.
    pub const MOVER: &str = "flows_move";

    /// Makes the maps, or opens those that are pinned in `pins`. The programs look for flows in the
    /// table `now`, whose geometry becomes a constant in them; and take those over that are in
    /// `before`, if there is such a table.
    ///
    /// # Errors
    /// Where the kernel refuses a map.
    pub fn load(pins: &Path, sizes: &Sizes, now: &Table, before: Option<&Table>) -> Result<Self> {
        let mut paths: Vec<_> = maps::NAMES.iter().map(|name| (*name, pins.join(name))).collect();
        paths.push((tables::NOW, pins.join(now.pin)));
        paths.extend(before.map(|before| (tables::BEFORE, pins.join(before.pin))));
        let none = Geometry::default();
        let mut loader = EbpfLoader::new();
        // The full log of a refused program is asked for with a growing buffer, and every time the
        // verifier starts over: minutes. This level holds the verdict and fits the first one.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.override_global("GEOMETRY", &now.geometry, true);
        let geometry_before = before.map_or(&none, |before| &before.geometry);
        loader.override_global("GEOMETRY_BEFORE", geometry_before, true);
        for (name, entries) in sizes.each() {
            loader.map_max_entries(name, entries);
        }
        let places = now.geometry.homes.saturating_add(flow_table::SPAN);
        loader.map_max_entries(tables::NOW, places);
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
        load(name, program)?;
        program.try_into().map_err(refuse_load(name))
    }

    /// Brings the XDP program of that name into the kernel, if it isn't there yet.
    ///
    /// # Errors
    /// Where the verifier refuses it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.0.program_mut(name).ok_or_else(|| missing(name))?;
        load(name, program)?;
        program.try_into().map_err(refuse_load(name))
    }
}

impl Object {
    /// Brings all programs into the kernel that the interfaces can need, so that to attach them takes
    /// no time. Several at once: the verifier takes two seconds of a processor for all of them.
    ///
    /// # Errors
    /// Where the verifier refuses one.
    pub fn prepare(&mut self, needed: Needed) -> Result<()> {
        let bare = attach::BARE_CLASSIFIERS.into_iter().filter(|_| needed.bare);
        let arm = attach::ONE_ARMED_CLASSIFIERS.into_iter().filter(|_| needed.one_armed);
        // Those of every interface are among the stages.
        let classifiers = Stage::ALL.map(Stage::program).into_iter().chain(bare).chain(arm);
        let stages = Stage::ALL.into_iter().filter_map(Stage::xdp_program);
        let xdp = stages.chain(attach::XDP_PROGRAMS).filter(|_| needed.native);
        let names: Vec<&str> = classifiers.chain(xdp).collect();
        if let Some(name) = names.iter().find(|name| self.0.program(name).is_none()) {
            return Err(missing(name));
        }
        let programs = self.0.programs_mut().filter(|(name, _)| names.contains(name));
        let waiting = Mutex::new(programs.collect::<Vec<_>>());
        let loads = || -> Result<()> {
            // Not while the lock is held: the verifier takes its time.
            let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            while let Some((name, program)) = next() {
                load(name, program)?;
            }
            Ok(())
        };
        let helpers =
            thread::available_parallelism().map_or(0, |all| all.get().min(names.len()) - 1);
        thread::scope(|scope| {
            let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(loads)).collect();
            let own = loads();
            helpers.into_iter().try_for_each(|helper| match helper.join() {
                Ok(loaded) => loaded,
                Err(panic) => resume_unwind(panic),
            })?;
            own
        })
    }

    /// Moves the flows of [`layout::MOVES`] places of the table before, from `first` on.
    ///
    /// # Errors
    /// Where the kernel does not run the program.
    pub fn move_flows(&mut self, first: u32) -> Result<()> {
        /// Of the frame, the shortest that any kernel takes; the place comes first in it.
        const FRAME: usize = 64;
        let mut frame = [0; FRAME];
        if let Some(place) = frame.first_chunk_mut() {
            *place = first.to_le_bytes();
        }
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        let program = self.xdp(Self::MOVER)?;
        program.test_run(options).map_err(PlaneError::refused("move flows to a larger table"))?;
        Ok(())
    }

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

/// Brings a program into the kernel, if it isn't there yet.
fn load(name: &str, program: &mut Program) -> Result<()> {
    let loaded = match program {
        Program::SchedClassifier(program) if program.fd().is_err() => program.load(),
        Program::Xdp(program) if program.fd().is_err() => program.load(),
        _ => Ok(()),
    };
    loaded.map_err(refuse_load(name))
}

/// The verifier says EACCES too, but not for want of a permission: then it also says why.
fn refuse_load(name: &str) -> impl FnOnce(ProgramError) -> PlaneError {
    move |error| {
        let what = format!("load the program {name}");
        let said = match &error {
            ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
            _ => String::new(),
        };
        // What it has to say of calls that it takes all the same comes first, its statistics last.
        let is_reason = |line: &&str| {
            let line = line.trim();
            !line.is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word))
        };
        match said.lines().rfind(is_reason) {
            Some(line) => PlaneError::Refused {
                what,
                why: format!("the verifier of this kernel refuses it: {}", line.trim()),
            },
            None => PlaneError::refused(what)(error),
        }
    }
}

/// How the lines begin with which the verifier ends its log (`print_verification_stats` of
/// kernel/bpf/verifier.c).
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

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
    fn a_table_at_its_limit_is_full_by_two_thirds() {
        let sizes = Sizes::of(&Limits::default());
        let lines = 2 * u64::from(Limits::default().flows.get());
        let homes = u64::from(flow_table::homes(sizes.flows));
        assert!(homes * 2 >= lines * 3 && homes * 2 <= lines * 3 + 4, "{homes} homes");
        // 64 bytes a line: what a flow costs, all in.
        assert_eq!(u64::from(sizes.flows) * 64 / (lines / 2), 192);
        assert_eq!(sizes.other_ports, 131_072 + sizes.expectations);
    }

    #[test]
    fn the_programs_of_every_interface_are_among_the_stages() {
        let stages = Stage::ALL.map(Stage::program);
        assert!(attach::CLASSIFIERS.iter().all(|name| stages.contains(name)));
    }

    #[test]
    fn seeds_are_drawn_anew() {
        let sizes = Sizes::of(&Limits::default());
        let [one, other] = [1000, u32::MAX].map(|flows| sizes.geometry(flows).unwrap());
        assert_ne!(one.seeds, other.seeds);
        assert_eq!((one.homes, one.near_homes), (3001, 1500));
        assert_eq!(other.homes, flow_table::homes(sizes.flows));
        assert_eq!(other.near_homes, flow_table::NEAR);
    }
}
