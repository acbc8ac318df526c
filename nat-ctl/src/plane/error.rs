//! Why the data plane could not be set up, changed or read.
//!
//! Invariant: a message is one line: what was tried, on what, why, what to do; and every kind has
//! exactly one exit status.

use std::{fmt::Display, io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

use crate::error::{Exit, Failure};

/// What went wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The process may not do what it has to.
    #[error("{what}: permission denied: run it as root")]
    Permission {
        /// What was tried, on what.
        what: String,
    },
    /// Something that was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Another instance, agent or program is in the way.
    #[error("{0}")]
    Conflict(String),
    /// The kernel said no.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried, on what.
        what: String,
        /// What the kernel said, and what to do.
        why: String,
    },
    /// A file of the agent or of the system could not be read or written.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is given back by everything in this module.
pub type Result<T, E = PlaneError> = std::result::Result<T, E>;

impl PlaneError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Permission { .. } | Self::Refused { .. } => Exit::Refused,
            Self::NotFound(_) => Exit::NotFound,
            Self::Conflict(_) => Exit::Conflict,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            Self::File { .. } => Exit::Error,
        }
    }

    /// For `map_err` of a call into the kernel: `what` was tried.
    pub(super) fn refused<E: Kernel>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| {
            let what = what.to_string();
            match error.code() {
                Some(nix::libc::EPERM | nix::libc::EACCES) => Self::Permission { what },
                _ => Self::Refused { what, why: error.text() },
            }
        }
    }

    /// For `map_err` of a call on a file.
    pub(super) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

impl From<PlaneError> for Failure {
    fn from(error: PlaneError) -> Self {
        Self::new(error.exit(), error)
    }
}

/// An error of a library that wraps a code of the kernel.
pub(super) trait Kernel: std::error::Error {
    /// The errno at the end of the chain of causes.
    fn code(&self) -> Option<i32> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = self.source();
        while let Some(error) = cause {
            if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error)
            {
                return Some(code);
            }
            cause = error.source();
        }
        None
    }

    /// The whole chain in one line, without the verifier's log.
    fn text(&self) -> String {
        let mut text = first_line(&self.to_string());
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = first_line(&error.to_string());
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

impl Kernel for EbpfError {}
impl Kernel for MapError {}
impl Kernel for PinError {}
impl Kernel for ProgramError {}
impl Kernel for LinkError {}
impl Kernel for aya::maps::xdp::XdpMapError {}
impl Kernel for super::attach::AttachError {}
impl Kernel for aya::programs::tc::TcError {}
impl Kernel for io::Error {
    fn code(&self) -> Option<i32> {
        self.raw_os_error()
    }
}
impl Kernel for nix::Error {
    fn code(&self) -> Option<i32> {
        Some(*self as i32)
    }
}
impl Kernel for rtnetlink::Error {
    fn code(&self) -> Option<i32> {
        match self {
            // Netlink answers with the negative errno.
            Self::NetlinkError(message) => message.code.map(|code| -code.get()),
            _ => None,
        }
    }
}
