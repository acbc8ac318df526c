//! `cargo xtask setup`: brings about what the machine lacks, in the order in which it is used.
//!
//! Invariant: where everything is there nothing is started but `rustc -vV`, and two set-ups of one
//! tree at the same time wait for each other.

use std::fs::{self, File};

use anyhow::{Context, bail};

use crate::{
    linker,
    packages::{self, Need},
    toolchain,
    workspace::Workspace,
};

/// Installs and builds what `needs` ask for and is not there yet.
pub fn run(workspace: &Workspace, needs: &[Need]) -> anyhow::Result<()> {
    let _lock = lock(workspace)?;
    packages::install(&packages::missing(needs))?;
    if needs.contains(&Need::Build) {
        let toolchain = ensure_toolchain()?;
        linker::ensure(workspace, &toolchain)?;
    }
    Ok(())
}

/// Finds a compiler for eBPF, or installs Debian's.
fn ensure_toolchain() -> anyhow::Result<toolchain::Toolchain> {
    let absent = match toolchain::find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(absent) => absent,
    };
    let remedy = "install one with `rustup toolchain install nightly --component rust-src`";
    if !packages::has_apt() {
        bail!("{absent}: {remedy}");
    }
    packages::install(&packages::COMPILER).with_context(|| format!("{absent}: {remedy}"))?;
    toolchain::find().context(remedy)
}

/// Held until the set-up is through; the kernel frees it if we die.
fn lock(workspace: &Workspace) -> anyhow::Result<File> {
    let tools = workspace.tools();
    let file = tools.join("lock");
    let describe = || format!("cannot lock {}", file.display());
    fs::create_dir_all(&tools).with_context(describe)?;
    let lock = File::create(&file).with_context(describe)?;
    lock.lock().with_context(describe)?;
    Ok(lock)
}
