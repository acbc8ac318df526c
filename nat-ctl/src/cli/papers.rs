//! `completions` and `man`: what the shell and the reader know of the commands.
//!
//! Invariant: made from the commands themselves, so that nothing can be missing.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use nat_ctl::error::{Exit, Failure};

use super::{Cli, written};

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command that the page is about: 'flows list'; nat-ctl itself where nothing is said
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    to: Option<PathBuf>,
}

/// `completions`
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "nat-ctl", &mut text);
    print(&text)
}

/// `man`
pub fn man(args: ManArgs) -> Result<(), Failure> {
    let ManArgs { command: words, to } = args;
    let mut root = Cli::command();
    if let Some(folder) = to {
        let fail = |error| {
            Failure::new(
                Exit::Error,
                format_args!("write the pages into {}: {error}", folder.display()),
            )
        };
        std::fs::create_dir_all(&folder).map_err(fail)?;
        return clap_mangen::generate_to(root, &folder).map_err(fail);
    }
    root.build();
    let mut page = &root;
    for word in &words {
        page = page.find_subcommand(word).ok_or_else(|| unknown(page, &words))?;
    }
    let mut text = vec![];
    Man::new(page.clone()).render(&mut text).map_err(written)?;
    print(&text)
}

fn unknown(parent: &Command, words: &[String]) -> Failure {
    let known: Vec<&str> = parent.get_subcommands().map(Command::get_name).collect();
    let known = known.join(", ");
    Failure::new(
        Exit::NotFound,
        format_args!("man '{}': there is no such command; there are: {known}", words.join(" ")),
    )
}

fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(written(error)),
        _ => Ok(()),
    }
}
