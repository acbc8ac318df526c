//! The commands' end of the socket.
//!
//! Invariant: a call ends within [`PATIENCE`], whatever the agent does.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ApiError, Request, Response,
    frame::LONGEST_RESPONSE,
    message::{decode, encode},
};

/// How long the agent may take: it answers between two events of its loop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to an agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the agent that listens there.
    ///
    /// # Errors
    /// [`ApiError::NotRunning`] where nobody listens.
    pub fn connect(path: &Path) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                ApiError::NotRunning(path.to_owned())
            }
            _ => socket_error("connect to the agent at", path, source),
        })?;
        let patience = Some(PATIENCE);
        stream
            .set_read_timeout(patience)
            .and_then(|()| stream.set_write_timeout(patience))
            .map_err(|source| socket_error("connect to the agent at", path, source))?;
        Ok(Self { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ApiError::Refused`] where the agent says no, else what is wrong with the connection.
    pub fn call(&mut self, request: &Request) -> Result<Response, ApiError> {
        let line = encode(request).map_err(ApiError::Message)?;
        let io = |source: io::Error| match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ApiError::Message(format!(
                "no answer at {} within {} s: is it stopped?",
                self.path.display(),
                PATIENCE.as_secs()
            )),
            _ => socket_error("talk to the agent at", &self.path, source),
        };
        self.stream.get_mut().write_all(&line).map_err(io)?;
        let mut answer = vec![];
        let mut bounded = (&mut self.stream).take(LONGEST_RESPONSE);
        bounded.read_until(b'\n', &mut answer).map_err(io)?;
        if answer.last() != Some(&b'\n') {
            return Err(ApiError::Message("it hung up before the end of its answer".to_owned()));
        }
        match decode(&answer).map_err(ApiError::Message)? {
            Response::Error { exit, message } => Err(ApiError::Refused { exit, message }),
            response => Ok(response),
        }
    }
}

fn socket_error(what: &'static str, path: &Path, source: io::Error) -> ApiError {
    ApiError::Socket { what, path: path.to_owned(), source }
}
