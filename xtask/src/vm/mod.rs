//! `cargo xtask vm`: the gateway on another kernel, in a machine that qemu emulates.
//!
//! Programs that one kernel's verifier takes, another one refuses, and TC hooks are filters before
//! Linux 6.6 and links since. So Debian's own kernel is booted with an initramfs of the agent, the
//! lab and what both call, and the guest's verdicts are read from its serial console.
//!
//! Invariant: nothing is installed, nothing but loopback of the guest is on a network, and the run
//! ends by its deadline whatever the guest does; a verdict that is missing is a failure.
//!
//! ```text
//! supplies ── qemu, kernel, busybox     unpacked once into .tools/vm
//! image ───── programs (closure), modules, archive     target/vm/initramfs.cpio
//! machine ─── qemu, its console         lines
//! report ──── verdicts, table
//! ```

mod archive;
mod closure;
mod image;
mod machine;
mod modules;
mod report;
mod supplies;

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::{agent, command, ebpf, packages::Need, privilege, setup, workspace::Workspace};
use report::Report;
pub use supplies::ensure;

/// What of the lab to run, and how long at most.
#[derive(Args)]
pub struct Options {
    /// Only those transfers of the lab whose line contains this text
    #[arg(long, value_name = "TEXT", default_value = "vsftpd curl P")]
    filter: String,
    /// The guest is stopped after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    deadline: u64,
    /// Boot what was built last, without set-up and build
    #[arg(long)]
    built: bool,
}

/// Sets up and builds, then runs the guest; true when it passed everything.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<bool> {
    privilege::require_root("`cargo xtask vm`", "as apt-get and the lab's set-up do")?;
    if !options.built {
        setup::run(workspace, &[Need::Build, Need::Lab, Need::Guest])?;
        ebpf::build(workspace)?;
        agent::build(workspace)?;
        build_lab(workspace)?;
    }
    boot(workspace, options, &mut |line| println!("{line}"))
}

/// The same with one transfer of the lab for each hook, on what is built and set up already, beside
/// other stages: it takes longer then.
pub fn stage(workspace: &Workspace, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let filter = "forward vsftpd curl PORT".to_owned();
    build_lab(workspace)?;
    if !boot(workspace, &Options { filter, deadline: 1500, built: true }, say)? {
        bail!("not every check of the guest passed, see above");
    }
    Ok(())
}

/// Builds the program of the lab, with the features that it has among all tests: it is built once.
fn build_lab(workspace: &Workspace) -> anyhow::Result<()> {
    let mut lab = command::cargo();
    lab.args(["build", "--workspace", "--bin", "nat-tests"]);
    command::run(lab.current_dir(workspace.root()))
}

/// Packs and boots what was built; `say` gets each line.
fn boot(
    workspace: &Workspace,
    options: &Options,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<bool> {
    let supplies = supplies::find(workspace)?;
    let image = image::pack(workspace, &supplies, options)?;
    let mut report = Report::default();
    let end = machine::run(&supplies, &image, Duration::from_secs(options.deadline), |line| {
        report.read(line);
        say(line);
    });
    say(&format!("\n{report}"));
    end?;
    Ok(report.has_passed())
}
