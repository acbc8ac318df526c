//! `cargo xtask test`: all that is checked before a change is called done.
//!
//! Invariant: one run gives every result, from formatting to transfers; the stages need no order
//! among each other but that the build comes first, as the agent carries the eBPF object and the
//! tests start the agent.
//!
//! The guest is at work beside the tests, and these are more at once than there are cores: much of
//! them is waiting for time to pass, and many a program of tests ends with a single long one.

use std::{num::NonZero, process::Command, thread};

use crate::{
    agent, command, deny, ebpf,
    packages::Need,
    setup,
    stage::{Beside, Stages},
    toolchain, vm,
    workspace::Workspace,
};

/// Tests at once, beyond one for each core.
const MORE: usize = 1;

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
    let ready = setup::run(workspace, &[Need::Guest]);
    if ready.is_ok() {
        stages.record("lab", "the program of the lab", || vm::build_lab(workspace));
    }
    thread::scope(|scope| {
        let guest = ready.map(|()| {
            let what = "the gateway on Debian's own kernel, under qemu, beside the tests";
            Beside::start(scope, "vm", what, |say| vm::stage(workspace, say))
        });
        stages.run("tests", &mut tests(workspace));
        match guest {
            Ok(guest) => stages.join(guest),
            Err(error) => stages.skip("vm", &format!("{error:#}")),
        }
    });
    Ok(stages.finish())
}

/// All tests. One failing package must not hide the results of the next.
fn tests(workspace: &Workspace) -> Command {
    let mut tests = cargo(workspace, "test");
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    tests.args(["--workspace", "--no-fail-fast"]);
    tests.env("RUST_TEST_THREADS", (cores + MORE).to_string());
    tests
}

/// The host's cargo, in the tree.
fn cargo(workspace: &Workspace, task: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.arg(task).current_dir(workspace.root());
    cargo
}
