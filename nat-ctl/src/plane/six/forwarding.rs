//! IPv6 forwarding of the namespace: on while a gateway that filters it is at work, then as it was found.
//!
//! Invariant: as for IPv4, it is turned on after the programs are attached and put back before they are
//! detached. A WAN that has its own address and route from a router's advertisements keeps them: Linux
//! listens to those no more where it forwards, unless `accept_ra` says 2.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    options::Instance,
    output::Role,
    plane::{
        error::{PlaneError, Result},
        state::State,
    },
};

const FOLDER: &str = "/proc/sys/net/ipv6/conf";
/// All interfaces, those to come included.
const ALL: &str = "all";
const FORWARDING: &str = "forwarding";
const ACCEPT: &str = "accept_ra";
/// Accepts advertisements of routers unless it forwards; and also then (Documentation/networking/ip-sysctl).
const UNLESS_FORWARDING: &str = "1";
const ALWAYS: &str = "2";

/// What was there before this gateway came: of each interface that is named, whether it forwarded, or what
/// it did with advertisements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whether the kernel forwarded at all.
    forwarded: bool,
    /// Interfaces that were set to forward on their own.
    forwarding: Vec<String>,
    /// By WAN.
    accept: BTreeMap<String, String>,
}

/// Whether the kernel forwards IPv6; `None` where it has none.
///
/// # Errors
/// Where the sysctl can't be read.
fn read() -> Result<Option<bool>> {
    Ok(value(ALL, FORWARDING)?.map(|value| value != "0"))
}

/// Whether the kernel forwarded before the gateway of this state came.
///
/// # Errors
/// As [`turn_on`].
pub fn forwards(state: &State) -> Result<bool> {
    match &state.ipv6 {
        Some(found) => Ok(found.forwarded),
        None => Ok(read()?.unwrap_or(false)),
    }
}

/// Turns it on. What was found is kept in the file of the instance before, unless it says already what a
/// predecessor found. Where the kernel has no IPv6 nothing is done.
///
/// # Errors
/// Where a sysctl or the file can't be written.
pub fn turn_on(instance: &Instance, state: &mut State) -> Result<()> {
    let Some(forwards) = read()? else { return Ok(()) };
    if state.ipv6.is_none() {
        state.ipv6 = Some(found(state, forwards)?);
        state.write(instance)?;
    }
    if forwards {
        return Ok(());
    }
    accept_routers(state)?;
    set(ALL, FORWARDING, "1")
}

/// Has the WANs listen to routers although the kernel forwards, if it does so for the gateway's sake.
///
/// # Errors
/// Where a sysctl can't be written.
pub fn accept_routers(state: &State) -> Result<()> {
    let Some(Found { forwarded: false, .. }) = &state.ipv6 else { return Ok(()) };
    for name in wans(state) {
        if value(name, ACCEPT)?.as_deref() == Some(UNLESS_FORWARDING) {
            set(name, ACCEPT, ALWAYS)?;
        }
    }
    Ok(())
}

/// Puts it back, and forgets what was found. Where another instance filters IPv6 in this namespace it
/// stays on, and that instance is to put it back.
///
/// # Errors
/// Where a sysctl or a file can't be written.
pub fn put_back(instance: &Instance, state: &mut State) -> Result<()> {
    let Some(found) = state.ipv6.clone() else { return Ok(()) };
    if !found.forwarded {
        match neighbour(state)? {
            Some((other, mut heir)) => {
                heir.ipv6 = Some(found);
                heir.write(&other)?;
            }
            None => found.write()?,
        }
    }
    state.ipv6 = None;
    state.write(instance)
}

fn found(state: &State, forwarded: bool) -> Result<Found> {
    let mut found = Found { forwarded, ..Found::default() };
    if forwarded {
        return Ok(found);
    }
    for name in crate::plane::pins::list(Path::new(FOLDER))? {
        if name != ALL && value(&name, FORWARDING)?.is_some_and(|value| value != "0") {
            found.forwarding.push(name);
        }
    }
    for name in wans(state) {
        if let Some(value) = value(name, ACCEPT)?
            && value == UNLESS_FORWARDING
        {
            found.accept.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

impl Found {
    fn write(&self) -> Result<()> {
        // This sets every interface, too.
        set(ALL, FORWARDING, "0")?;
        for name in &self.forwarding {
            set(name, FORWARDING, "1")?;
        }
        for (name, value) in &self.accept {
            set(name, ACCEPT, value)?;
        }
        Ok(())
    }
}

fn wans(state: &State) -> impl Iterator<Item = &str> {
    let wans = state.interfaces.iter().filter(|interface| interface.side.is(Role::Wan));
    wans.map(|interface| interface.name.as_str())
}

/// Another instance that filters IPv6 in the same namespace.
fn neighbour(state: &State) -> Result<Option<(Instance, State)>> {
    let others = State::all()?.into_iter().filter(|other| {
        other.instance != state.instance
            && other.namespace == state.namespace
            && other.ipv6.is_some()
    });
    let mut named =
        others.filter_map(|other| Some((other.instance.parse::<Instance>().ok()?, other)));
    Ok(named.find(|(instance, _)| instance.pins().exists()))
}

/// A sysctl of an interface; `None` where there is none, or no such interface.
fn value(name: &str, sysctl: &str) -> Result<Option<String>> {
    let path = path(name, sysctl);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PlaneError::file("read", path)(error)),
    }
}

/// Sets it, where it is.
fn set(name: &str, sysctl: &str, value: &str) -> Result<()> {
    let path = path(name, sysctl);
    match fs::write(&path, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PlaneError::file("write", path)(error))
        }
        _ => Ok(()),
    }
}

fn path(name: &str, sysctl: &str) -> PathBuf {
    Path::new(FOLDER).join(name).join(sysctl)
}
