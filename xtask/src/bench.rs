//! `cargo xtask bench`: the gateway measured beside its peers, by the program `nat-bench` of the
//! package `nat-tests`.

use std::{convert::Infallible, env, ffi::OsString, os::unix::process::CommandExt, path::PathBuf};

use anyhow::Context;
use clap::Args;

use crate::{agent, command, ebpf, packages::Need, privilege, setup, workspace::Workspace};

/// What to measure; handed on as it is.
#[derive(Args)]
pub struct Options {
    /// Fewer cases and rounds: under three minutes in all
    #[arg(long)]
    quick: bool,
    /// A gateway to measure beside: shell commands for its namespace, which find its devices in $LAN
    /// and $WAN
    #[arg(long = "peer", value_name = "NAME=START[,STOP]")]
    peers: Vec<OsString>,
    /// Only measures whose name contains this
    #[arg(long, value_name = "MEASURE")]
    only: Vec<OsString>,
    /// Folder for JSON lines and plots
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
}

/// Sets up and builds, then becomes the bench: an interrupted one is waited for until it has cleaned
/// up.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Infallible> {
    privilege::require_root("`cargo xtask bench`", "to load programs and make namespaces")?;
    setup::run(workspace, &[Need::Build, Need::Lab])?;
    ebpf::build(workspace)?;
    ebpf::build_bench(workspace)?;
    agent::build(workspace)?;
    let mut bench = command::cargo();
    bench.args(["run", "--quiet", "--release", "--package", "nat-tests", "--bin", "nat-bench"]);
    bench.current_dir(workspace.root()).arg("--");
    // A gateway of another build may be measured in place of this one.
    let binary = env::var_os("NAT_CTL").map_or_else(|| workspace.agent(), PathBuf::from);
    bench.arg("--binary").arg(binary).arg("--object").arg(workspace.bench_object());
    bench.arg("--out").arg(&options.out);
    if options.quick {
        bench.arg("--quick");
    }
    for (flag, values) in [("--peer", &options.peers), ("--only", &options.only)] {
        for value in values {
            bench.arg(flag).arg(value);
        }
    }
    let line = command::line(&bench);
    Err(bench.exec()).with_context(|| format!("cannot start `{line}`"))
}
