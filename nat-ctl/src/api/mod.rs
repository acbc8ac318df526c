//! The agent's socket: one JSON object a line, each with `"version": 1`, request and response in
//! turn.
//!
//! Invariant: whatever a client sends, the agent answers with an object or hangs up; a line and
//! the number of clients are bounded, and rules change only for root.
//!
//! ```text
//! nat-ctl forward add ──Client──> /run/nat-ctl/NAME.sock ──Server──> Call ──> Gateway (the agent)
//! ```

mod client;
mod frame;
mod message;
mod server;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

pub use client::Client;
pub use message::{Request, Response};
pub use server::{Asker, Call, Gateway, Server};

use crate::error::{Exit, reason};

/// The version of the objects on the socket and in every output.
pub const VERSION: u32 = 1;

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens.
    #[error("reach the agent at {0}: nobody listens: start it with 'nat-ctl run'")]
    NotRunning(PathBuf),
    /// Somebody listens already.
    #[error("listen at {0}: this instance is running already: stop it, or choose --instance")]
    Running(PathBuf),
    /// The system refuses.
    #[error("{what} {path}: {}", reason(.source))]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What came over the socket is no message.
    #[error("talk to the agent: {0}")]
    Message(String),
    /// The agent says no.
    #[error("{message}")]
    Refused {
        /// The status to exit with.
        exit: Exit,
        /// Its reason.
        message: String,
    },
}

impl ApiError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotRunning(_) => Exit::NotRunning,
            Self::Running(_) => Exit::Conflict,
            Self::Socket { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            Self::Socket { .. } | Self::Message(_) => Exit::Error,
            Self::Refused { exit, .. } => *exit,
        }
    }
}
