//! Why the agent could not start, or had to end.

use std::io;

use crate::{
    api::ApiError,
    error::{Exit, Failure},
    plane::PlaneError,
};

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data plane.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The socket for commands.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something else of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried, on what.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl AgentError {
    /// For `map_err` of a call into the system.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Plane(error) => error.exit(),
            Self::Api(error) => error.exit(),
            Self::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            Self::System { .. } => Exit::Error,
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::new(error.exit(), error)
    }
}
