//! `cargo xtask matrix`: every FTP server and client of the distribution through the gateway, and
//! through Linux's own NAT beside it.

use std::{convert::Infallible, os::unix::process::CommandExt};

use anyhow::Context;
use clap::Args;

use crate::{agent, command, ebpf, lab, packages::Need, privilege, setup, workspace::Workspace};

/// Which part of it.
#[derive(Args)]
pub struct Options {
    /// Only transfers whose line contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Sets up and builds, then becomes the lab: an interrupted one is waited for until it has cleaned up.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Infallible> {
    privilege::require_root("`cargo xtask matrix`", "to load programs and make namespaces")?;
    setup::run(workspace, &[Need::Build, Need::Lab, Need::Clients])?;
    ebpf::build(workspace)?;
    agent::build(workspace)?;
    let filter = options.filter.as_deref();
    let mut command = lab::command(workspace, &lab::Options { keep: false, large: true, filter });
    let line = command::line(&command);
    Err(command.exec()).with_context(|| format!("cannot start `{line}`"))
}
