//! `cargo xtask fuzz`: bounded runs of libFuzzer on the targets in `tests/fuzz`.
//!
//! The fuzzer is built with coverage by the host's own compiler: the pass that counts is part of every
//! rustc, and nothing here needs a sanitizer, as what is fuzzed has no unsafe code. What it finds on
//! the way stays in `target/fuzz`; with `--keep` inputs that reach new code join the committed corpus, which
//! `cargo test` replays.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{command, ebpf, packages::Need, setup, workspace::Workspace};

/// Folder of the committed corpus; a folder in it is a target.
const CORPUS: &str = "tests/fuzz/corpus";

/// Longest input of the corpus.
const MOST_BYTES: &str = "-max_len=2000";

/// What counts where code goes, and compares, for libFuzzer: as cargo-fuzz has it.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";

/// What to fuzz.
#[derive(Args)]
pub struct Options {
    /// Only this target: a folder in tests/fuzz/corpus
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Adds the inputs that have reached new code to the committed corpus
    #[arg(long)]
    keep: bool,
}

/// Sets up and builds, then fuzzes one target after the other; false when something was found.
pub fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<bool> {
    let targets = targets(workspace, options.target.as_deref())?;
    setup::run(workspace, &[Need::Build, Need::Fuzzer])?;
    // The agent's library includes it.
    ebpf::build(workspace)?;
    let fuzzer = build(workspace)?;
    let mut all_hold = true;
    for target in &targets {
        all_hold &= fuzz(workspace, &fuzzer, target, options)?;
    }
    Ok(all_hold)
}

/// The targets by their folders, or the one that is named.
fn targets(workspace: &Workspace, named: Option<&str>) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root().join(CORPUS);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {CORPUS}"))?;
    let mut all: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    all.sort();
    match named {
        None => Ok(all),
        Some(name) if all.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no target `{name}`, only {}", all.join(", ")),
    }
}

/// Builds the fuzzer in a folder of its own, so that nothing else is built anew. With a target named, the
/// flags are not those of build scripts.
fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let triple = host()?;
    let folder = workspace.root().join("target/fuzz");
    let mut cargo = command::cargo();
    cargo
        .args(["build", "--release", "--package", "nat-tests", "--example", "nat-fuzz"])
        .args(["--features", "fuzz", "--target", &triple, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE)
        .current_dir(workspace.root());
    command::run(&mut cargo)?;
    Ok(folder.join(triple).join("release/examples/nat-fuzz"))
}

/// The name of this machine to cargo.
fn host() -> anyhow::Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV"))?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}

/// Runs a target on what the corpus and earlier runs have; whether every input held.
fn fuzz(
    workspace: &Workspace,
    fuzzer: &Path,
    target: &str,
    options: &Options,
) -> anyhow::Result<bool> {
    let seconds = options.seconds;
    let corpus = workspace.root().join(CORPUS).join(target);
    let kept = workspace.root().join("target/fuzz/corpus").join(target);
    let findings = workspace.root().join("target/fuzz/findings").join(target);
    for folder in [&kept, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let start = || {
        let mut command = Command::new(fuzzer);
        command.env("NAT_FUZZ_TARGET", target).arg(MOST_BYTES).current_dir(workspace.root());
        command
    };
    let before = count(&corpus)?;
    println!("fuzz {target}: {seconds} s from {before} inputs of the corpus");
    let mut run = start();
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args(["-timeout=10", "-print_final_stats=1", "-verbosity=1"])
        .args([&kept, &corpus]);
    let dictionary = corpus.parent().map(|folder| folder.with_file_name("dictionary"));
    if let Some(dictionary) = dictionary.filter(|file| file.is_file()) {
        run.arg(format!("-dict={}", dictionary.display()));
    }
    let holds = run.status().with_context(|| format!("cannot start {}", fuzzer.display()))?;
    if !holds.success() {
        println!(
            "fuzz {target}: FOUND something, see above; the input is in {}. Once it is mended, it \
             belongs into {CORPUS}/{target}",
            findings.display()
        );
        return Ok(false);
    }
    println!("fuzz {target}: every input held");
    if !options.keep {
        return Ok(true);
    }
    // New code alone counts: how often it is run fills folders and shows little.
    let mut merge = start();
    merge.args(["-merge=1", "-use_counters=0"]).args([&corpus, &kept]).stderr(Stdio::null());
    command::run(&mut merge)?;
    println!("fuzz {target}: {} joined the corpus", count(&corpus)? - before);
    Ok(true)
}

fn count(folder: &Path) -> anyhow::Result<usize> {
    let entries = fs::read_dir(folder);
    Ok(entries.with_context(|| format!("cannot read {}", folder.display()))?.count())
}
