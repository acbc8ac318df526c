//! Programs from the Rust registry that this tree brings along: built once, at a pinned version.
//!
//! Invariant: a program is used only if the stamp beside it says that it was built at the pinned
//! version from what it depends on; otherwise it is built anew.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{command, workspace::Workspace};

/// A program and how it is built.
pub struct Tool {
    /// Name of package and program.
    pub name: &'static str,
    /// The release that this tree was tested with.
    pub version: &'static str,
    /// Cargo features, instead of the default ones.
    pub features: Option<String>,
    /// What else it depends on, as text to compare.
    pub depends_on: String,
    /// Variables for its build.
    pub environment: Vec<(&'static str, OsString)>,
    /// What to tell who waits.
    pub duration: &'static str,
    /// Whether anything waits for it; its build gives way to all else if not.
    pub is_urgent: bool,
}

impl Tool {
    /// Where a program is, whether it was built yet or not.
    pub fn path(workspace: &Workspace, name: &str) -> PathBuf {
        workspace.tools().join("bin").join(name)
    }

    /// Builds the program unless the one that is there is right.
    pub fn ensure(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let Self { name, version, depends_on, duration, .. } = self;
        let stamp = format!("{name} {version}\n{depends_on}");
        let stamp_file = workspace.tools().join(format!("{name}.stamp"));
        let is_built = Self::path(workspace, name).is_file();
        if is_built && fs::read_to_string(&stamp_file).is_ok_and(|known| known == stamp) {
            return Ok(());
        }
        eprintln!("xtask: building {name} {version} (once, {duration})");
        self.install(workspace)?;
        fs::write(&stamp_file, stamp)
            .with_context(|| format!("cannot write {}", stamp_file.display()))
    }

    /// `cargo install` into the tools folder; what it compiled on the way is removed.
    fn install(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let target = workspace.tools().join("build");
        let cargo = command::cargo();
        let mut install = if self.is_urgent {
            cargo
        } else {
            let mut nice = Command::new("nice");
            nice.args(["-n", "19"]).arg(cargo.get_program());
            nice
        };
        install
            .args(["install", self.name, "--version", self.version])
            .args(["--locked", "--force", "--quiet", "--root"])
            .arg(workspace.tools())
            .arg("--target-dir")
            .arg(&target)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(workspace.tools());
        if let Some(features) = &self.features {
            install.args(["--no-default-features", "--features", features]);
        }
        command::run(&mut install)?;
        remove(&target)
    }
}

/// Removes a folder that may be absent.
fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
