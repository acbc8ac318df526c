//! `config ...`: checks a file, says what it would change, puts it in force.
//!
//! Invariant: a file with a mistake is refused before the agent is asked.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use nat_ctl::{
    api::{Request, Response},
    config::Config,
    error::{Exit, Failure},
    options::Instance,
    output::{PlanView, Printer, unexpected},
};

use super::{state::agent, written};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file without using it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print what is in force, as a file: with rules of the command line, and defaults written out
    Show,
    /// Print what a file would change, and how many flows came in by the rules that change
    Plan {
        /// The file
        file: PathBuf,
    },
    /// Put a file in force; it takes the place of the one that the agent was started with
    Apply {
        /// The file
        file: PathBuf,
        /// Go back by itself unless 'config confirm' comes within so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        confirm: Option<u32>,
    },
    /// Keep what 'config apply --confirm' has put in force
    Confirm,
    /// Go back to what was in force before the last apply
    Rollback,
}

/// Does it.
pub fn config(
    command: ConfigCommand,
    instance: &Instance,
    printer: &Printer,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => {
            Config::load(&file)?;
            printer.note(&format!("{} is sound", file.display())).map_err(written)
        }
        ConfigCommand::Show => match agent(instance)?.call(&Request::Config)? {
            Response::Config(text) => printer.config(&text).map_err(written),
            other => Err(unexpected(&other)),
        },
        ConfigCommand::Plan { file } => {
            printer.plan(&plan(checked(&file)?, instance)?).map_err(written)
        }
        ConfigCommand::Apply { file, confirm } => {
            let file = checked(&file)?;
            let view = plan(file.clone(), instance)?;
            done(&Request::ApplyConfig { file, confirm }, instance)?;
            printer.plan(&view).map_err(written)?;
            match confirm {
                Some(seconds) => printer
                    .note(&format!("in force for {seconds} s: 'nat-ctl config confirm' keeps it")),
                None => printer.note("in force"),
            }
            .map_err(written)
        }
        ConfigCommand::Confirm => done(&Request::ConfirmConfig, instance),
        ConfigCommand::Rollback => done(&Request::RollbackConfig, instance),
    }
}

/// The whole path of a file without a mistake: the agent may be in another folder.
fn checked(file: &Path) -> Result<PathBuf, Failure> {
    Config::load(file)?;
    file.canonicalize().map_err(|error| {
        Failure::new(
            Exit::Error,
            format_args!("find the configuration {}: {error}", file.display()),
        )
    })
}

fn plan(file: PathBuf, instance: &Instance) -> Result<PlanView, Failure> {
    match agent(instance)?.call(&Request::PlanConfig { file })? {
        Response::Plan(view) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

fn done(request: &Request, instance: &Instance) -> Result<(), Failure> {
    match agent(instance)?.call(request)? {
        Response::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}
