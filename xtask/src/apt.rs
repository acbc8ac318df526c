//! Debian's package manager, asked only when something is missing.
//!
//! Invariant: it removes nothing, asks nothing, and installs nothing that starts a service: servers
//! for the lab are unpacked beside the tree, see `servers`.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::{command, privilege};

/// apt-get, and whether its list of packages was refreshed by us.
#[derive(Default)]
pub struct Apt {
    is_fresh: bool,
}

impl Apt {
    /// Whether this machine has it.
    pub fn is_here() -> bool {
        command::find("apt-get").is_some()
    }

    /// Installs packages by name; `list` says what they bring.
    pub fn install(&mut self, names: &[&str], list: &str) -> anyhow::Result<()> {
        self.refresh(list)?;
        eprintln!("xtask: installing {list}");
        let mut install = apt_get(&["install", "--yes", "--no-install-recommends", "--no-remove"]);
        install.args(names);
        command::run(&mut install).with_context(|| format!("cannot install {list}"))
    }

    /// Installs whatever satisfies dependencies in the words of a package's control file.
    pub fn satisfy(&mut self, dependencies: &str, what: &str) -> anyhow::Result<()> {
        self.refresh(what)?;
        let mut satisfy = apt_get(&["satisfy", "--yes", "--no-install-recommends", "--no-remove"]);
        satisfy.arg(dependencies);
        command::run(&mut satisfy).with_context(|| format!("cannot install libraries of {what}"))
    }

    /// Downloads the files of packages into `folder` without installing them.
    pub fn download(&mut self, names: &[&str], folder: &Path) -> anyhow::Result<()> {
        let list = names.join(", ");
        self.refresh(&list)?;
        eprintln!("xtask: downloading {list}");
        // The folder is ours, the user `_apt` that downloads by default can't write to it.
        let mut download = apt_get(&["--option", "APT::Sandbox::User=root", "download"]);
        download.args(names).current_dir(folder);
        command::run(&mut download).with_context(|| format!("cannot download {list}"))
    }

    /// Names of all packages that installing these would bring, themselves included; those that
    /// the machine has are not among them.
    pub fn closure(&mut self, names: &[&str]) -> anyhow::Result<Vec<String>> {
        self.refresh(&names.join(", "))?;
        // Removals are shown only, like everything else: nothing is installed.
        let mut simulate = Command::new("apt-get");
        simulate.args(["--simulate", "--no-install-recommends", "install"]).args(names);
        let plan = command::output(&mut simulate)?;
        let steps = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
        Ok(steps.filter_map(|step| step.split(' ').next()).map(str::to_owned).collect())
    }

    /// Brings the list of packages up to date, once.
    fn refresh(&mut self, wanted: &str) -> anyhow::Result<()> {
        if self.is_fresh {
            return Ok(());
        }
        if !Self::is_here() {
            bail!("missing on this machine: {wanted}; install with its package manager");
        }
        privilege::require_root("installing packages", "as apt-get does")
            .with_context(|| format!("missing on this machine: {wanted}"))?;
        command::run(&mut apt_get(&["update"])).context("cannot refresh the list of packages")?;
        self.is_fresh = true;
        Ok(())
    }
}

/// apt-get without questions, waiting for another one to end.
fn apt_get<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["--quiet=2", "--option", "DPkg::Lock::Timeout=300", "--option", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
