//! How a command ends: the exit status, and the one line that says why.
//!
//! Invariant: every error of a module maps to exactly one [`Exit`], next to the error itself; here
//! they only meet. A line says what was tried, on what, why it failed and what to do.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::{api::ApiError, config::ConfigError, rules::RuleError, rules::StoreError};

/// The exit statuses that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: an error that is none of the others.
    Error,
    /// 2: the command is written wrong.
    Usage,
    /// 3: what was named does not exist.
    NotFound,
    /// 4: in the way of something that exists.
    Conflict,
    /// 5: the agent is not running.
    NotRunning,
    /// 6: refused by the kernel, or permission is missing.
    Refused,
}

impl Exit {
    /// The number.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::NotRunning => 5,
            Self::Refused => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// What the system said, in words that name the way out where there is one.
pub(crate) fn reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied => "permission is missing: run it as root".to_owned(),
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// One line for the operator.
    pub message: String,
}

impl Failure {
    /// A failure with its status; line breaks in the message become blanks.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        Self { exit, message: lines.join(" ") }
    }

    /// The agent of the instance does not answer.
    pub fn not_running(instance: &crate::options::Instance) -> Self {
        if instance.pins().exists() {
            return Self::new(
                Exit::NotRunning,
                format_args!(
                    "instance '{instance}' has no agent: packets are translated, but FTP sessions \
                     wait and nothing expires: start it again with 'nat-ctl run', or end it with \
                     'nat-ctl down'"
                ),
            );
        }
        Self::new(
            Exit::NotRunning,
            format_args!(
                "instance '{instance}' is not running: start it with 'nat-ctl run', or name \
                 another one with --instance"
            ),
        )
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Self {
        Self::new(error.exit(), error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.exit(), error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(error.exit(), error)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.exit(), error)
    }
}
