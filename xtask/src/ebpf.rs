//! The eBPF objects: `target/bpf/nat-ebpf.o`, and the bench's own, `target/bpf/nat-bench.o` and
//! `target/bpf/nat-probe.o`.
//!
//! Only the package `nat-ebpf` is built, with a target folder of its own, so that work elsewhere in
//! the tree neither breaks nor repeats it. The stable compiler is told to accept `-Z build-std`
//! (`RUSTC_BOOTSTRAP`), which a nightly does anyhow.
//!
//! Invariant: the object's file is touched only when its bytes changed; all that includes it is
//! rebuilt exactly then.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::Context;

use crate::{command, linker, toolchain, toolchain::Toolchain, workspace::Workspace};

/// The one BPF target: little-endian, as all machines that this gateway is built for.
const TARGET: &str = "bpfel-unknown-none";

/// Profile in the workspace's `Cargo.toml`. Another `opt-level` makes programs that the verifier
/// refuses.
const PROFILE: &str = "bpf";

/// Builds the object and puts it at [`Workspace::bpf_object`].
pub fn build(workspace: &Workspace) -> anyhow::Result<()> {
    build_program(workspace, "nat-ebpf", &workspace.bpf_object())
}

/// Builds the bench's own programs and puts them at [`Workspace::bench_object`], and beside it those
/// that work on a gateway's maps.
pub fn build_bench(workspace: &Workspace) -> anyhow::Result<()> {
    build_program(workspace, "nat-bench-ebpf", &workspace.bench_object())?;
    build_program(workspace, "nat-probe-ebpf", &workspace.probe_object())
}

fn build_program(workspace: &Workspace, name: &str, object: &Path) -> anyhow::Result<()> {
    let toolchain = toolchain::find()?;
    let mut build = Command::new(&toolchain.cargo);
    configure(&mut build, workspace, &toolchain, "build");
    build.args(["--bin", name]);
    command::run(&mut build)?;
    publish(workspace, name, object)
}

/// Clippy on the same package for the same target. The toolchain's own `cargo-clippy` is called by
/// its path, as `cargo clippy` would take the one that rustup has put into cargo's folder, and a
/// linter can't read what a compiler of another release has built.
pub fn lint(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    let mut lint = Command::new(toolchain.cargo.with_file_name("cargo-clippy"));
    configure(&mut lint, workspace, toolchain, "clippy");
    lint.env("CARGO", &toolchain.cargo).args(["--", "-D", "warnings"]);
    lint
}

/// Sets everything that a cargo command on `nat-ebpf` needs for the BPF target.
fn configure(cargo: &mut Command, workspace: &Workspace, toolchain: &Toolchain, task: &str) {
    command::isolate(cargo);
    cargo
        .args([task, "--package", "nat-ebpf", "--profile", PROFILE])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(workspace.bpf_target())
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace))
        .current_dir(workspace.root());
}

/// Without debug information and `--btf` the object has no BTF, and maps could not be opened.
fn flags(workspace: &Workspace) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker::path(workspace));
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Ctarget-cpu=v2");
    flags
}

/// Copies the linked object to its stable path, if it differs from what is there.
fn publish(workspace: &Workspace, name: &str, object: &Path) -> anyhow::Result<()> {
    let built = workspace.bpf_target().join(TARGET).join(PROFILE).join(name);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    // Written beside and renamed, so that a build running meanwhile includes no half file.
    let beside = object.with_extension("o.new");
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, object))
        .with_context(|| format!("cannot write {}", object.display()))
}
