//! The bench as a program of its own, for `cargo xtask bench`.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use nat_tests::bench::{self, Options, contender::Peer};

/// What a packet costs in this gateway and in its peers.
#[derive(Parser)]
struct Arguments {
    /// Fewer cases and rounds: under three minutes in all
    #[arg(long)]
    quick: bool,
    /// A gateway to measure beside: shell commands for its namespace, which find its devices in $LAN
    /// and $WAN
    #[arg(long = "peer", value_name = "NAME=START[,STOP]")]
    peers: Vec<Peer>,
    /// Only measures whose name contains this
    #[arg(long, value_name = "MEASURE")]
    only: Vec<String>,
    /// Folder for JSON lines and plots
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// The agent
    #[arg(long, value_name = "FILE", env = "NAT_CTL", default_value = "target/release/nat-ctl")]
    binary: PathBuf,
    /// The object with the bench's own programs
    #[arg(long, value_name = "FILE", default_value = "target/bpf/nat-bench.o")]
    object: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { quick, peers, only, out, binary, object } = Arguments::parse();
    let options = Options { quick, peers, only, out, binary, object };
    match bench::run(&options) {
        Ok(errors) if errors.is_empty() => ExitCode::SUCCESS,
        Ok(errors) => {
            for error in errors {
                eprintln!("bench: {error:#}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
