//! `cargo xtask`: everything that is done with the tree, from a fresh machine to a tested gateway.
//!
//! Invariant: each command first brings about what it needs and does nothing where all is there,
//! so that `cargo xtask run` and `cargo xtask test` are the only two commands a newcomer must know.
//!
//! ```text
//! setup ── packages, toolchain, linker, (deny)     what the machine lacks
//!   └─ build ── ebpf, agent                        target/bpf/nat-ebpf.o, target/release/nat-ctl
//!        ├─ run ── lab or real interfaces
//!        └─ test ── check: stages, one summary
//! ```

mod agent;
mod command;
mod ebpf;
mod linker;
mod packages;
mod privilege;
mod setup;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{packages::Need, workspace::Workspace};

/// Command line of `cargo xtask`.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, lab and tests of the NAT gateway")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: packages, compiler and linker for eBPF, tools of the tests
    Setup,
    /// Install what a build needs, then build the eBPF object and the agent around it
    Build {
        /// Only the eBPF object, target/bpf/nat-ebpf.o
        #[arg(long)]
        ebpf_only: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            privilege::exit_code(&error)
        }
    }
}

/// Runs one task; the status of a program that it stands for (the agent, the tests) is handed on.
fn run(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::here();
    match task {
        Task::Setup => setup::run(&workspace, &[Need::Build, Need::Lab, Need::Checks])?,
        Task::Build { ebpf_only } => {
            setup::run(&workspace, &[Need::Build])?;
            ebpf::build(&workspace)?;
            if !ebpf_only {
                agent::build(&workspace)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
