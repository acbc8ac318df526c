//! `nat-ctl`: the command line of the NAT gateway.
//!
//! Invariant: every command ends here, with one exit status and, where it failed, one line on
//! stderr; help, and the table of what exists, are the only texts of several lines.

mod cli;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use nat_ctl::error::{Exit, Failure};

use cli::Cli;

fn main() -> ExitCode {
    match parse().and_then(Cli::run) {
        Ok(()) => Exit::Done.into(),
        Err(End::Help(text, exit)) => {
            // Help that nobody reads to its end is no error.
            let _ = match exit {
                Exit::Done => io::stdout().write_all(text.as_bytes()),
                _ => io::stderr().write_all(text.as_bytes()),
            };
            exit.into()
        }
        Err(End::Told(exit)) => exit.into(),
        Err(End::Failure(failure)) => {
            let _ = writeln!(io::stderr(), "nat-ctl: {failure}");
            failure.exit.into()
        }
    }
}

/// How a command ends, other than well.
enum End {
    /// With help, which was asked for or is missing a command.
    Help(String, Exit),
    /// With a status that says what stdout has said already.
    Told(Exit),
    /// With a reason.
    Failure(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn parse() -> Result<Cli, End> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => End::Help(styled(&error), Exit::Done),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            End::Help(styled(&error), Exit::Usage)
        }
        _ => Failure::new(Exit::Usage, one_line(&error.render().to_string())).into(),
    })
}

fn styled(error: &clap::Error) -> String {
    error.render().to_string()
}

/// clap's message without the usage and the pointer to help below it.
fn one_line(message: &str) -> String {
    let paragraphs = message.split("\n\n").filter(|text| {
        let text = text.trim_start();
        !text.starts_with("Usage:") && !text.starts_with("For more information")
    });
    let lines = paragraphs.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    format!("{} (see --help)", text.trim_start_matches("error: "))
}
