//! One inside network, a gateway, and an outside that has no route to the inside.
//!
//! ```text
//!   inside                 gateway                        outside
//!   in0 10.0.1.2/24 ---- lan0 10.0.1.1/24
//!                        wan0 203.0.113.1/24, .11/24 ---- out0 203.0.113.10/24
//! ```
//!
//! Invariant: a packet with an inside address that reaches `out0` finds no way back, so a transfer
//! that works was translated.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::{
    link::{self, End, Offloads},
    netns::{self, Lifetime, Namespace},
    payload::{Payload, TEN_MEGABYTES},
};

/// The host inside.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// The gateway as the inside knows it.
pub const LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The gateway's primary public address.
pub const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A second public address, for one-to-one.
pub const WAN_SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The host outside.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Device of the host inside.
pub const INSIDE_DEVICE: &str = "in0";
/// The gateway's device towards the inside.
pub const LAN_DEVICE: &str = "lan0";
/// The gateway's device towards the outside.
pub const WAN_DEVICE: &str = "wan0";
/// Device of the host outside.
pub const OUTSIDE_DEVICE: &str = "out0";

/// The namespaces, the file that travels, and a folder for everything else.
#[derive(Debug)]
pub struct Lab {
    /// Where 10.0.1.2 lives.
    pub inside: Namespace,
    /// Where the gateway works.
    pub gateway: Namespace,
    /// Where 203.0.113.10 lives.
    pub outside: Namespace,
    /// The file of every transfer.
    pub payload: Payload,
    name: String,
    folders: AtomicU32,
    root: tempfile::TempDir,
}

impl Lab {
    /// A lab that ends with its guard, with a file of 10 MB.
    pub fn new() -> Result<Self> {
        Self::with(Lifetime::Run, TEN_MEGABYTES)
    }

    /// A lab with a file of `size` bytes.
    pub fn with(lifetime: Lifetime, size: usize) -> Result<Self> {
        netns::remove_stale()?;
        remove_stale_folders();
        let name = netns::unique_name(lifetime);
        let mut root = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()
            .context("create a folder for the lab")?;
        root.disable_cleanup(lifetime == Lifetime::Kept);
        make_enterable(root.path())?;
        let lab = Self {
            inside: Namespace::new(&name, "inside", lifetime)?,
            gateway: Namespace::new(&name, "gateway", lifetime)?,
            outside: Namespace::new(&name, "outside", lifetime)?,
            payload: Payload::new(size),
            name,
            folders: AtomicU32::new(0),
            root,
        };
        lab.connect()?;
        Ok(lab)
    }

    /// The run's unique name, with which the names of its namespaces begin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A new folder in the lab's own.
    pub fn folder(&self, what: &str) -> Result<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.root.path().join(format!("{what}{number}"));
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// The folder in which all the others are.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Turns the offloads of all four devices on or off.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<()> {
        link::set_offloads(&self.inside, INSIDE_DEVICE, offloads)?;
        link::set_offloads(&self.gateway, LAN_DEVICE, offloads)?;
        link::set_offloads(&self.gateway, WAN_DEVICE, offloads)?;
        link::set_offloads(&self.outside, OUTSIDE_DEVICE, offloads)
    }

    fn connect(&self) -> Result<()> {
        let [inside, lan, wan, second, outside] =
            [INSIDE, LAN, WAN, WAN_SECOND, OUTSIDE].map(|address| format!("{address}/24"));
        link::connect(
            End { namespace: &self.gateway, name: LAN_DEVICE, addresses: &[&lan] },
            End { namespace: &self.inside, name: INSIDE_DEVICE, addresses: &[&inside] },
        )?;
        link::connect(
            End { namespace: &self.gateway, name: WAN_DEVICE, addresses: &[&wan, &second] },
            End { namespace: &self.outside, name: OUTSIDE_DEVICE, addresses: &[&outside] },
        )?;
        self.inside.ip(&format!("route add default via {LAN}")).map(drop)
    }
}

/// Folders of runs that were killed; one that can't be removed does no harm.
fn remove_stale_folders() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(netns::is_stale) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Servers give up root before they enter their folder.
fn make_enterable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set the mode of {}", folder.display()))
}
