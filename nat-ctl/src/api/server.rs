//! The agent's end of the socket.
//!
//! Invariant: clients run beside the agent's event loop and meet it only through a bounded queue:
//! a slow or hostile client costs its own task, and the gateway is changed by the loop alone.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::unistd::{Gid, Group, chown};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    ApiError, Request, Response,
    frame::{LONGEST_REQUEST, MOST_CLIENTS},
    message::{decode, encode},
};
use crate::error::Exit;

/// Members of this group may read.
const GROUP: &str = "nat-ctl";

/// What the agent does for clients, one request at a time.
pub trait Gateway {
    /// Does what the request asks; permission has been checked.
    fn handle(&mut self, request: Request) -> Response;
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Call {
    request: Request,
    answer: oneshot::Sender<Response>,
}

impl Call {
    /// What is asked: it decides who answers.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Lets the gateway answer.
    pub fn answer(self, gateway: &mut impl Gateway) {
        // A client that has gone meanwhile has no use for the answer.
        let _ = self.answer.send(gateway.handle(self.request));
    }
}

/// Asks as a client does, from within the agent: for those that only read.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Call>);

impl Asker {
    /// The answer to a request that changes nothing.
    pub async fn ask(&self, request: Request) -> Response {
        if request.changes() {
            return refuse(
                Exit::Refused,
                "what changes the gateway goes over its socket".to_owned(),
            );
        }
        put(request, &self.0).await
    }
}

/// The socket with its clients. Dropping it hangs up and removes the socket.
#[derive(Debug)]
pub struct Server {
    calls: mpsc::Receiver<Call>,
    asker: Asker,
    accept: JoinHandle<()>,
    path: PathBuf,
}

impl Server {
    /// Listens, in place of a dead agent where it left a socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ApiError::Running`] where an agent listens there already.
    pub fn bind(path: &Path) -> Result<Self, ApiError> {
        let fail = |source| ApiError::Socket { what: "listen at", path: path.to_owned(), source };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ApiError::Running(path.to_owned()));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
        if let Some(gid) = readers() {
            chown(path, None, Some(gid)).map_err(|errno| fail(errno.into()))?;
        }
        let (sender, calls) = mpsc::channel(MOST_CLIENTS);
        let asker = Asker(sender.clone());
        let accept = tokio::spawn(accept(listener, sender));
        Ok(Self { calls, asker, accept, path: path.to_owned() })
    }

    /// For those within the agent that ask what clients ask.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// The next request; pends for ever while there is none. Safe to use in `select!`.
    pub async fn next(&mut self) -> Call {
        match self.calls.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
        // Gone already is as good as removed.
        let _ = fs::remove_file(&self.path);
    }
}

fn readers() -> Option<Gid> {
    Group::from_name(GROUP).ok().flatten().map(|group| group.gid)
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    serve(stream, calls).await;
                    drop(place);
                });
            }
            // Out of file descriptors: leave the client in the queue until another has gone.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

/// One client, until it hangs up or sends what can't be a request.
async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>) {
    // The socket's mode lets only root and the group in; of these, root alone may write.
    let writer = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    let (reader, mut output) = stream.into_split();
    let mut input = BufReader::new(reader);
    loop {
        let mut line = vec![];
        let mut bounded = (&mut input).take(LONGEST_REQUEST);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let whole = line.last() == Some(&b'\n');
        let response = if whole {
            answer(&line, writer, &calls).await
        } else {
            refuse(
                Exit::Usage,
                format!("a request ends with a line break within {LONGEST_REQUEST} bytes"),
            )
        };
        let Ok(bytes) = encode(&response) else { return };
        if output.write_all(&bytes).await.is_err() || !whole {
            return;
        }
    }
}

async fn answer(line: &[u8], writer: bool, calls: &mpsc::Sender<Call>) -> Response {
    let request: Request = match decode(line) {
        Ok(request) => request,
        Err(why) => return refuse(Exit::Usage, format!("request: {why}")),
    };
    if request.changes() && !writer {
        return refuse(Exit::Refused, "changing the gateway needs root: use sudo".to_owned());
    }
    put(request, calls).await
}

/// Puts a request into the queue and waits for its answer.
async fn put(request: Request, calls: &mpsc::Sender<Call>) -> Response {
    let (answer, wait) = oneshot::channel();
    let gone = || refuse(Exit::NotRunning, "the agent is about to end".to_owned());
    if calls.send(Call { request, answer }).await.is_err() {
        return gone();
    }
    wait.await.unwrap_or_else(|_| gone())
}

fn refuse(exit: Exit, message: String) -> Response {
    Response::Error { exit, message }
}
