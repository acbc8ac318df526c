//! `cargo xtask run`: the gateway at work, on this machine's interfaces or in a lab.

use std::{convert::Infallible, ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::Context;
use clap::Args;

use crate::{agent, command, ebpf, lab, packages::Need, privilege, setup, workspace::Workspace};

/// Where to run, and what else to tell the agent or the lab.
#[derive(Args)]
pub struct Options {
    /// Outside interfaces of this machine
    #[arg(long, value_name = "IF", num_args = 1.., requires = "lan")]
    wan: Vec<OsString>,
    /// Inside interfaces of this machine
    #[arg(long, value_name = "IF", num_args = 1.., requires = "wan")]
    lan: Vec<OsString>,
    /// Leave the lab up at its end, and print the commands to look around in it
    #[arg(long, conflicts_with_all = ["wan", "arguments"])]
    keep: bool,
    /// Only those cases of the lab whose line contains this text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["wan", "arguments"])]
    filter: Option<String>,
    /// Further arguments of `nat-ctl run`
    #[arg(last = true, value_name = "ARGUMENT", requires = "wan")]
    arguments: Vec<OsString>,
}

/// Sets up and builds, then becomes the agent or the lab: signals, output and exit status are its
/// own, and an interrupted lab is waited for until it has cleaned up.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Infallible> {
    privilege::require_root("`cargo xtask run`", "to load programs and make namespaces")?;
    let is_lab = options.wan.is_empty();
    let needs: &[Need] = if is_lab { &[Need::Build, Need::Lab] } else { &[Need::Build] };
    setup::run(workspace, needs)?;
    ebpf::build(workspace)?;
    agent::build(workspace)?;
    let mut command = if is_lab {
        let filter = options.filter.as_deref();
        lab::command(workspace, &lab::Options { keep: options.keep, large: false, filter })
    } else {
        gateway(workspace, options)
    };
    let line = command::line(&command);
    Err(command.exec()).with_context(|| format!("cannot start `{line}`"))
}

/// The agent on the given interfaces.
fn gateway(workspace: &Workspace, options: &Options) -> Command {
    let mut agent = Command::new(workspace.agent());
    command::isolate(&mut agent);
    agent.arg("run");
    for (flag, names) in [("--wan", &options.wan), ("--lan", &options.lan)] {
        for name in names {
            agent.arg(flag).arg(name);
        }
    }
    agent.args(&options.arguments);
    agent
}
