//! Everything that an instance left is removed: at its end, and after a `kill -9` at any moment.
//!
//! Invariant: forwarding is put back before anything is detached, the guards of the WANs go last,
//! and every step may have been done already.

use super::aliases;
use super::attach;
use super::error::{PlaneError, Result};
use super::forwarding;
use super::netns::Namespace;
use super::pins;
use super::six;
use super::state::{self, Lock, State};
use crate::options::Instance;

/// What there was to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Attached programs.
    pub links: usize,
    /// Pinned maps.
    pub maps: usize,
}

/// Removes an instance whose agent is not running; nothing to remove is no error.
///
/// # Errors
/// [`PlaneError::Conflict`] where its agent runs, or where it lives in another namespace.
pub fn down(instance: &Instance) -> Result<Removed> {
    let _lock = Lock::take(instance)?;
    let mut state = State::read(instance)?;
    let here = Namespace::current()?;
    let elsewhere = state.as_ref().map(|state| state.namespace).filter(|there| *there != here);
    if let Some(there) = elsewhere {
        if let Some(path) = there.find() {
            return Err(PlaneError::Conflict(format!(
                "remove instance '{instance}': it is in another network namespace: run \
                 `nsenter --net={} nat-ctl --instance {instance} down`",
                path.display()
            )));
        }
        // The namespace is gone, and its interfaces and sysctls with it: pins are all there is.
        state = None;
    }
    let removed = remove(instance, state.as_mut())?;
    State::remove(instance)?;
    state::remove(&instance.socket())?;
    Ok(removed)
}

/// The same for one that holds the lock.
pub(super) fn remove(instance: &Instance, mut state: Option<&mut State>) -> Result<Removed> {
    if let Some(state) = state.as_deref_mut() {
        forwarding::put_back(instance, state)?;
        aliases::put_back(instance, state)?;
        six::put_back(instance, state)?;
    }
    let links = pins::remove_links(instance)?;
    for interface in state.iter().flat_map(|state| &state.interfaces) {
        attach::detach_filters(interface)?;
    }
    let maps = pins::remove_maps(instance)?;
    Ok(Removed { links, maps })
}
