//! `cargo xtask run --wan IF --lan IF`: the gateway at work on this machine's interfaces.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::Context;
use clap::Args;

use crate::{agent, command, ebpf, packages::Need, privilege, setup, workspace::Workspace};

/// What `nat-ctl run` is started with.
#[derive(Args)]
pub struct Interfaces {
    /// Outside interfaces
    #[arg(long, value_name = "IF", num_args = 1..)]
    wan: Vec<String>,
    /// Inside interfaces
    #[arg(long, value_name = "IF", num_args = 1..)]
    lan: Vec<String>,
    /// Further arguments of `nat-ctl run`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Builds the agent and becomes it: signals, output and exit status are the agent's own.
pub fn run(workspace: &Workspace, interfaces: &Interfaces) -> anyhow::Result<()> {
    privilege::require_root("`cargo xtask run`", "to load programs")?;
    setup::run(workspace, &[Need::Build])?;
    ebpf::build(workspace)?;
    agent::build(workspace)?;
    let mut agent = Command::new(workspace.agent());
    command::isolate(&mut agent);
    agent.arg("run");
    for (flag, names) in [("--wan", &interfaces.wan), ("--lan", &interfaces.lan)] {
        for name in names {
            agent.args([flag, name]);
        }
    }
    agent.args(&interfaces.arguments);
    let line = command::line(&agent);
    Err(agent.exec()).with_context(|| format!("cannot start `{line}`"))
}
