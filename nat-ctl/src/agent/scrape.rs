//! `run --metrics ADDR:PORT`: answers `GET /metrics`, and nothing else.
//!
//! HTTP as far as a scraper needs it (RFC 9112): one request a connection, which is closed after the
//! answer.
//!
//! Invariant: whatever a client sends, it can hold no more than [`MOST_CLIENTS`] connections, each for
//! [`PATIENCE`] and with [`LONGEST`] bytes; the event loop is asked as by any client of the API.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api::{Asker, Request, Response},
    output::METRICS_TYPE,
};

/// Scrapers that are served at a time.
const MOST_CLIENTS: usize = 8;
/// Time for a request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request, its headers included.
const LONGEST: usize = 8 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Opens the socket: before the data plane starts, so that the port is known to be the gateway's own.
///
/// # Errors
/// Where somebody has the port, or the address is none of this machine.
pub fn listen(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    // A predecessor's connections that are about to be gone are in nobody's way.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket that is served. Dropping it ends that.
#[derive(Debug)]
pub struct Scrape(JoinHandle<()>);

impl Scrape {
    /// Serves a socket of [`listen`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where the runtime can't take the socket.
    pub fn start(socket: Socket, asker: Asker) -> io::Result<Self> {
        let listener = TcpListener::from_std(socket.into())?;
        Ok(Self(tokio::spawn(accept(listener, asker))))
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, asker: Asker) {
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asker = asker.clone();
                tokio::spawn(async move {
                    // One that is too slow is hung up on.
                    let _ = timeout(PATIENCE, serve(stream, asker)).await;
                    drop(place);
                });
            }
            // Out of file descriptors: leave the client in the queue until another has gone.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, asker: Asker) -> io::Result<()> {
    let mut request = vec![];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 || request.len() + read > LONGEST {
            return Ok(());
        }
        request.extend(part.iter().take(read));
    }
    let answer = match asked(&request) {
        Asked::Metrics => match asker.ask(Request::Metrics).await {
            Response::Metrics(view) => answer("200 OK", METRICS_TYPE, &view.text()),
            Response::Error { message, .. } => plain("503 Service Unavailable", &message),
            _ => plain("500 Internal Server Error", "the agent answered another question"),
        },
        Asked::Elsewhere => plain("404 Not Found", "there is nothing but /metrics"),
        Asked::Otherwise => plain("405 Method Not Allowed", "there is nothing but GET"),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    /// Another path.
    Elsewhere,
    /// Another method, or what is no request.
    Otherwise,
}

fn asked(request: &[u8]) -> Asked {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    if words.next() != Some(b"GET") {
        return Asked::Otherwise;
    }
    let target = words.next().unwrap_or_default();
    match target.split(|byte| *byte == b'?').next() {
        Some(b"/metrics") => Asked::Metrics,
        Some(_) | None => Asked::Elsewhere,
    }
}

fn plain(status: &str, text: &str) -> String {
    answer(status, "text/plain; charset=utf-8", &format!("{text}\n"))
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         \r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_first_line() {
        for (request, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Asked::Metrics),
            ("GET /metrics?name[]=a HTTP/1.0\r\n\r\n", Asked::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Asked::Elsewhere),
            ("GET /metrics/../etc HTTP/1.1\r\n\r\n", Asked::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::Otherwise),
            ("\r\n\r\n", Asked::Otherwise),
            ("GET\r\n\r\n", Asked::Elsewhere),
        ] {
            assert_eq!(asked(request.as_bytes()), wanted, "{request}");
        }
    }
}
