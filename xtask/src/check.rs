//! `cargo xtask test`: all that is checked before a change is called done.
//!
//! Invariant: one run gives every result, from formatting to transfers; the stages need no order
//! among each other but that the build comes first, as the agent carries the eBPF object and the
//! tests start the agent.
//!
//! The guest is at work beside the tests, and these are more at once than there are cores: much of
//! them is waiting for time to pass, and many a program of tests ends with a single long one. What
//! cores have left is for cargo-deny, whose build gives way to all else.

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
    let toolchain = toolchain::find()?;
    // Before the set-up of cargo-deny, which keeps others out for minutes.
    let guest = setup::run(workspace, &[Need::Guest]);
    thread::scope(|scope| {
        let deny = Beside::start(scope, "deny", "cargo-deny, beside everything else", |say| {
            setup::run(workspace, &[Need::Licences])?;
            command::run_kept(&mut deny::check(workspace), say)
        });
        stages.run("format", cargo(workspace, "fmt").args(["--all", "--check"]));
        let deny_warnings = ["--", "-D", "warnings"];
        let host = ["--workspace", "--all-targets", "--keep-going"];
        stages.run("clippy", cargo(workspace, "clippy").args(host).args(deny_warnings));
        stages.run("clippy eBPF", &mut ebpf::lint(workspace, &toolchain));
        // What the guest runs is among it; and to compile leaves no time for others.
        stages.run("build tests", tests(workspace).arg("--no-run"));
        let guest = guest.map(|()| {
            let what = "the gateway on Debian's own kernel, under qemu, beside the tests";
            Beside::start(scope, "vm", what, |say| vm::stage(workspace, say))
        });
        stages.run("tests", &mut tests(workspace));
        match guest {
            Ok(guest) => stages.join(guest),
            Err(error) => stages.skip("vm", &format!("{error:#}")),
        }
        stages.join(deny);
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
