//! Root, asked for before minutes are spent on a build that could not be used.
//!
//! Invariant: a missing permission ends with exit status 6, the same as in `nat-ctl`.

use std::{fmt, process::ExitCode};

use nix::unistd::Uid;

/// Exit status of a missing permission.
const REFUSED: u8 = 6;

/// A task that only root can do was started by someone else.
#[derive(Debug)]
pub struct NotRoot {
    task: &'static str,
    reason: &'static str,
}

impl fmt::Display for NotRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, reason } = self;
        write!(f, "{task} needs root, {reason}: start it again with sudo or as root")
    }
}

impl std::error::Error for NotRoot {}

/// Fails with [`NotRoot`] unless the effective user is root.
pub fn require_root(task: &'static str, reason: &'static str) -> Result<(), NotRoot> {
    if Uid::effective().is_root() { Ok(()) } else { Err(NotRoot { task, reason }) }
}

/// Status to leave with for an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<NotRoot>() { ExitCode::from(REFUSED) } else { ExitCode::FAILURE }
}
