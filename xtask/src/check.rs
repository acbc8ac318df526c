//! `cargo xtask test`: all that is checked before a change is called done.
//!
//! Invariant: one run gives every result, from formatting to transfers; the stages need no order
//! among each other but that the build comes first, as the agent carries the eBPF object and the
//! tests start the agent.

use std::process::Command;

use crate::{
    agent, command, deny, ebpf, packages::Need, setup, stage::Stages, toolchain, vm,
    workspace::Workspace,
};

/// Builds and checks the tree; true when all passed.
pub fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let mut stages = Stages::default();
    stages.record("build", "eBPF object and agent", || {
        ebpf::build(workspace)?;
        agent::build(workspace)
    });
    stages.run("format", cargo(workspace, "fmt").args(["--all", "--check"]));
    let deny_warnings = ["--", "-D", "warnings"];
    let host = ["--workspace", "--all-targets", "--keep-going"];
    stages.run("clippy", cargo(workspace, "clippy").args(host).args(deny_warnings));
    let toolchain = toolchain::find()?;
    stages.run("clippy eBPF", &mut ebpf::lint(workspace, &toolchain));
    stages.run("deny", &mut deny::check(workspace));
    // One failing package must not hide the results of the next.
    stages.run("tests", cargo(workspace, "test").args(["--workspace", "--no-fail-fast"]));
    match setup::run(workspace, &[Need::Guest]) {
        Ok(()) => stages.record("vm", "the gateway on Debian's own kernel, under qemu", || {
            vm::stage(workspace)
        }),
        Err(error) => stages.skip("vm", &format!("{error:#}")),
    }
    Ok(stages.finish())
}

/// The host's cargo, in the tree.
fn cargo(workspace: &Workspace, task: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.arg(task).current_dir(workspace.root());
    cargo
}
