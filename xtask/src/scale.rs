//! `cargo xtask scale`: FTP in numbers, by the program `nat-scale` of the package `nat-tests`.

use std::{convert::Infallible, os::unix::process::CommandExt};

use anyhow::Context;
use clap::Args;

use crate::{agent, command, ebpf, packages::Need, privilege, setup, workspace::Workspace};

/// Which loads.
#[derive(Args)]
pub struct Options {
    /// Only loads whose line contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Sets up and builds, then becomes the program: an interrupted one is waited for until it has cleaned
/// up.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Infallible> {
    privilege::require_root("`cargo xtask scale`", "to load programs and make namespaces")?;
    setup::run(workspace, &[Need::Build, Need::Lab])?;
    ebpf::build(workspace)?;
    agent::build(workspace)?;
    let mut scale = command::cargo();
    scale.args(["run", "--quiet", "--package", "nat-tests", "--bin", "nat-scale", "--"]);
    scale.current_dir(workspace.root()).arg("--binary").arg(workspace.agent());
    scale.args(&options.filter);
    let line = command::line(&scale);
    Err(scale.exec()).with_context(|| format!("cannot start `{line}`"))
}
