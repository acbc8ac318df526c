//! `cargo xtask setup`: brings about what the machine lacks, in the order in which it is used.
//!
//! Invariant: where everything is there nothing is started but `rustc -vV`, and two set-ups of one
//! tree at the same time wait for each other.

use std::fs::{self, File};

use anyhow::{Context, bail};

use crate::{
    apt::Apt,
    deny, linker,
    packages::{self, Need},
    servers,
    toolchain::{self, Toolchain},
    vm,
    workspace::Workspace,
};

/// Installs and builds what `needs` ask for and is not there yet.
pub fn run(workspace: &Workspace, needs: &[Need]) -> anyhow::Result<()> {
    let _lock = lock(workspace)?;
    let mut apt = Apt::default();
    packages::install(&mut apt, &packages::wanted(needs))?;
    for need in needs {
        match need {
            Need::Build => linker::ensure(workspace, &ensure_toolchain(&mut apt)?)?,
            Need::Lab => servers::ensure(workspace, &mut apt)?,
            Need::Clients | Need::Fuzzer => {}
            Need::Guest => vm::ensure(workspace, &mut apt)?,
            Need::Checks => {
                // rustup's toolchains have a clippy of their own.
                if toolchain::find()?.is_of_system() && Apt::is_here() {
                    packages::install(&mut apt, &[packages::LINTER])?;
                }
            }
            Need::Licences => deny::ensure(workspace)?,
        }
    }
    Ok(())
}

/// Finds a compiler for eBPF, or installs Debian's.
fn ensure_toolchain(apt: &mut Apt) -> anyhow::Result<Toolchain> {
    let absent = match toolchain::find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(absent) => absent,
    };
    let remedy = "install one with `rustup toolchain install nightly --component rust-src`";
    if !Apt::is_here() {
        bail!("{absent}: {remedy}");
    }
    let names = packages::COMPILER;
    apt.install(&names, &names.join(", ")).with_context(|| format!("{absent}: {remedy}"))?;
    toolchain::find().context(remedy)
}

/// Held until the set-up is through; the kernel frees it if we die.
fn lock(workspace: &Workspace) -> anyhow::Result<File> {
    let tools = workspace.tools();
    let file = tools.join("lock");
    let context = || format!("cannot lock {}", file.display());
    fs::create_dir_all(&tools).with_context(context)?;
    let lock = File::create(&file).with_context(context)?;
    lock.lock().with_context(context)?;
    Ok(lock)
}
