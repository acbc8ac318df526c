//! The eBPF object that the binary carries, loaded with the sizes that the configuration asks for.
//!
//! Invariant: a map that is pinned is used as it is, so that a successor goes on with its flows;
//! [`super::pins`] has checked version and sizes before.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{ProgramError, SchedClassifier, Xdp},
};
use nat_common::layout;

use super::error::{PlaneError, Result};
use super::maps;
use crate::config::Limits;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("NAT_EBPF_OBJECT"));

/// Entries of the `forwards` map, and of what every forward needs in `ports`.
const FORWARDS: u32 = 131_072;

/// Protocols that have ports or identifiers: TCP, UDP, ICMP.
const PROTOCOLS: u32 = 3;

/// Entries of the maps whose size follows from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Two records a flow.
    pub flows: u32,
    /// Owners of public ports.
    pub ports: u32,
    /// Endpoint-independent mappings.
    pub mappings: u32,
    /// Expectations.
    pub expectations: u32,
}

impl Sizes {
    /// Of `limits`, for a gateway with that many public addresses.
    pub fn of(limits: &Limits, addresses: u32) -> Self {
        let flows = limits.flows.get();
        // No more mappings than flows, nor than there are ports on the public addresses.
        let mappings = flows.min(addresses.max(1).saturating_mul(PROTOCOLS << 16));
        let expectations = limits.expectations.get();
        Self {
            flows: flows.saturating_mul(2),
            ports: mappings.saturating_add(expectations).saturating_add(FORWARDS),
            mappings,
            expectations,
        }
    }

    /// By name of the map.
    pub fn each(&self) -> [(&'static str, u32); 4] {
        [
            ("flows", self.flows),
            ("ports", self.ports),
            ("mappings", self.mappings),
            ("expectations", self.expectations),
        ]
    }
}

/// The loaded object: maps are made and pinned, programs are not yet in the kernel.
#[derive(Debug)]
pub struct Object(Ebpf);

impl Object {
    /// Makes the maps, or opens those that are pinned in `pins`.
    ///
    /// # Errors
    /// Where the kernel refuses a map.
    pub fn load(pins: &Path, sizes: &Sizes) -> Result<Self> {
        let paths: Vec<_> = maps::NAMES.iter().map(|name| (*name, pins.join(name))).collect();
        let mut loader = EbpfLoader::new();
        // The full log of a refused program is asked for with a growing buffer, and every time the
        // verifier starts over: minutes. This level holds the verdict and fits the first one.
        loader.verifier_log_level(VerifierLogLevel::STATS);
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
