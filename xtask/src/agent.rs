//! The agent: `target/release/nat-ctl`, with the eBPF object inside.

use crate::{command, workspace::Workspace};

/// Builds the agent around the object that is there. The build script of `nat-ctl` finds the object
/// by itself; no variable is set for it, so that a plain `cargo build` afterwards rebuilds nothing.
pub fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let mut build = command::cargo();
    build.args(["build", "--release", "--package", "nat-ctl"]).current_dir(workspace.root());
    command::run(&mut build)
}
