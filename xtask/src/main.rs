//! `cargo xtask`: everything that is done with the tree, from a fresh machine to a tested gateway.
//!
//! Invariant: each command first brings about what it needs and does nothing where all is there,
//! so that `cargo xtask run` and `cargo xtask test` are the only two commands a newcomer must know.
//!
//! ```text
//! setup ── packages, toolchain, linker, (deny)     what the machine lacks
//!   └─ build ── ebpf, agent                        target/bpf/nat-ebpf.o, target/release/nat-ctl
//!        ├─ run ── lab or real interfaces
//!        ├─ fuzz ── nat-fuzz                       any input, against the invariants
//!        ├─ bench ── nat-bench                     what a packet costs, beside the peers
//!        ├─ matrix ── the lab                    every server and client, Linux beside
//!        ├─ scale ── nat-scale                   FTP in numbers
//!        ├─ test ── check: stages, one summary
//!        └─ vm ── the same agent on another kernel
//! ```

mod agent;
mod apt;
mod bench;
mod check;
mod command;
mod deny;
mod ebpf;
mod fuzz;
mod lab;
mod linker;
mod matrix;
mod packages;
mod privilege;
mod run;
mod scale;
mod servers;
mod setup;
mod stage;
mod tool;
mod toolchain;
mod unpack;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{packages::Need, workspace::Workspace};

/// Command line of `cargo xtask`.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Set-up, build, lab and tests of the NAT gateway")]
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
    /// Install and build; then run the gateway on --wan and --lan, or without these the main job in
    /// a lab: real FTP transfers between network namespaces
    Run(run::Options),
    /// Install and build, then run every check and test, and print a summary
    Test,
    /// Install and build, then measure the gateway beside its peers
    Bench(bench::Options),
    /// Install and build, then every FTP server and client that the distribution has, with Linux beside
    Matrix(matrix::Options),
    /// Install and build, then bear thousands of FTP sessions, transfers and rewrites in a lab
    Scale(scale::Options),
    /// Install and build, then have a fuzzer look for inputs that break an invariant
    Fuzz(fuzz::Options),
    /// Install and build, then run the gateway on Debian's own kernel in a machine that qemu emulates
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            privilege::exit_code(&error)
        }
    }
}

/// Runs one task; false when it ran to its end and what it checked failed.
fn perform(task: Task) -> anyhow::Result<bool> {
    let workspace = Workspace::here();
    servers::offer(&workspace)?;
    match task {
        Task::Setup => {
            setup::run(&workspace, &[Need::Build, Need::Lab, Need::Checks, Need::Licences])?;
        }
        Task::Build { ebpf_only } => {
            setup::run(&workspace, &[Need::Build])?;
            ebpf::build(&workspace)?;
            if !ebpf_only {
                agent::build(&workspace)?;
            }
        }
        Task::Run(options) => match run::run(&workspace, &options)? {},
        Task::Test => {
            privilege::require_root("`cargo xtask test`", "to load programs and make namespaces")?;
            setup::run(&workspace, &[Need::Build, Need::Lab, Need::Checks])?;
            return check::run(&workspace);
        }
        Task::Bench(options) => match bench::run(&workspace, &options)? {},
        Task::Matrix(options) => match matrix::run(&workspace, &options)? {},
        Task::Scale(options) => match scale::run(&workspace, &options)? {},
        Task::Fuzz(options) => return fuzz::run(&workspace, &options),
        Task::Vm(options) => return vm::run(&workspace, &options),
    }
    Ok(true)
}
