//! IPv4 forwarding of the namespace: on while a gateway is at work in it, then as it was found.
//!
//! Invariant: it is turned on after the programs are attached and put back before they are
//! detached, so that the kernel never forwards a packet that nobody translates.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::error::{PlaneError, Result};
use super::state::State;
use crate::options::Instance;

const SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether the kernel forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// It does not.
    Off,
    /// It does.
    On,
}

impl Forwarding {
    /// As it is now.
    ///
    /// # Errors
    /// Where the sysctl can't be read.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(SYSCTL).map_err(PlaneError::file("read", SYSCTL))?;
        Ok(if text.trim() == "0" { Self::Off } else { Self::On })
    }

    fn write(self) -> Result<()> {
        let text = match self {
            Self::Off => "0",
            Self::On => "1",
        };
        fs::write(Path::new(SYSCTL), text).map_err(PlaneError::file("write", SYSCTL))
    }
}

/// Turns it on. What was found is kept in the file of the instance before, unless it says already
/// what a predecessor found.
///
/// # Errors
/// Where the sysctl or the file can't be written.
pub fn turn_on(instance: &Instance, state: &mut State) -> Result<()> {
    let found = Forwarding::read()?;
    if state.forwarding.is_none() {
        state.forwarding = Some(found);
        state.write(instance)?;
    }
    match found {
        Forwarding::On => Ok(()),
        Forwarding::Off => Forwarding::On.write(),
    }
}

/// Puts it back, and forgets what was found. Where another instance is at work in this namespace it
/// stays on, and that instance is to put it back.
///
/// # Errors
/// Where the sysctl or a file can't be written.
pub fn put_back(instance: &Instance, state: &mut State) -> Result<()> {
    if state.forwarding == Some(Forwarding::Off) {
        match neighbour(state)? {
            Some((other, mut heir)) => {
                heir.forwarding = Some(Forwarding::Off);
                heir.write(&other)?;
            }
            None => Forwarding::Off.write()?,
        }
    }
    state.forwarding = None;
    state.write(instance)
}

/// Another instance that has forwarding in use in the same namespace.
fn neighbour(state: &State) -> Result<Option<(Instance, State)>> {
    let others = State::all()?.into_iter().filter(|other| {
        other.instance != state.instance
            && other.namespace == state.namespace
            && other.forwarding.is_some()
    });
    let mut named =
        others.filter_map(|other| Some((other.instance.parse::<Instance>().ok()?, other)));
    Ok(named.find(|(instance, _)| instance.pins().exists()))
}
