//! FTP in numbers as a program of its own, for `cargo xtask scale`.
#![forbid(unsafe_code)]

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nat_tests::{requirements, scale};

/// Many sessions, transfers and rewrites through the gateway, in a lab of network namespaces.
#[derive(Parser)]
struct Arguments {
    /// The agent
    #[arg(long, value_name = "FILE", default_value = "target/release/nat-ctl")]
    binary: PathBuf,
    /// Be the server outside
    #[arg(long, hide = true)]
    serve: bool,
    /// Only loads whose line contains this text
    filter: Option<String>,
}

fn main() -> ExitCode {
    match perform(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all loads were borne.
fn perform(arguments: &Arguments) -> Result<bool> {
    if arguments.serve {
        return scale::serve().map(|()| true);
    }
    let missing = requirements::missing();
    ensure!(missing.is_empty(), "the lab needs {}", missing.join(", "));
    let program = env::current_exe().context("find the own program")?;
    scale::run(&arguments.binary, &program, arguments.filter.as_deref().unwrap_or_default())
}
