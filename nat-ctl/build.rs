//! Finds the eBPF object that the agent carries, and hands its path to `include_bytes!` as
//! `NAT_EBPF_OBJECT`.
//!
//! The object has another target, compiler and linker than the agent, so it is built beforehand, by
//! `cargo xtask build`; a build script that started another cargo would hide its messages and wait
//! for its locks.

use std::{env, path::PathBuf, process::ExitCode};

const VARIABLE: &str = "NAT_EBPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = env::var_os(VARIABLE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/nat-ebpf.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => {
            println!("cargo::rustc-env={VARIABLE}={}", object.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "cargo::error=no eBPF object at {}: {error}; run `cargo xtask build`",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}
