//! Which network namespace this is: an instance belongs to one.
//!
//! Invariant: interface numbers and sysctls are only compared or written in the namespace that
//! they were read in.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::error::{PlaneError, Result};

/// Identity of a network namespace, while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    device: u64,
    inode: u64,
}

impl Namespace {
    /// The one that this process is in.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn current() -> Result<Self> {
        let path = Path::new("/proc/thread-self/ns/net");
        Self::of(path).ok_or_else(|| {
            PlaneError::NotFound(format!("read {}: no /proc here: mount it", path.display()))
        })
    }

    /// A file by which the namespace can be entered, where one is found: a name of `ip netns`, or a
    /// process that is in it.
    pub fn find(self) -> Option<PathBuf> {
        let named = entries("/run/netns");
        let processes = entries("/proc").map(|path| path.join("ns/net"));
        named.chain(processes).find(|path| Self::of(path) == Some(self))
    }

    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
