//! The main job as a program of its own, for `cargo xtask run`: a tree whose lab doesn't compile
//! must still be able to build and to set itself up.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use nat_tests::matrix::{self, Options};

/// Real FTP transfers through the gateway, in a lab of network namespaces.
#[derive(Parser)]
struct Arguments {
    /// The agent
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// Leave the lab up
    #[arg(long)]
    keep: bool,
    /// Every server and client that is installed, and Linux beside
    #[arg(long, conflicts_with = "keep")]
    large: bool,
    /// Only cases whose line contains this text
    filter: Option<String>,
}

fn main() -> ExitCode {
    let Arguments { binary, keep, large, filter } = Arguments::parse();
    let passed = match large {
        true => matrix::large::run(&binary, filter.as_deref().unwrap_or_default()),
        false => matrix::main_job(&Options { keep, binary, filter }),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
