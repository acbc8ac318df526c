//! One session of the small client.
//!
//! Invariant: every reply and every byte of a file is compared; no step waits for longer than
//! [`PATIENCE`].

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::server::{numbers, place};
use crate::lab::{INSIDE, OUTSIDE};

const PATIENCE: Duration = Duration::from_secs(20);

/// How a PORT is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As everybody does. The gateway makes it longer, for its address is.
    Plain,
    /// With zeros in front, to the longest that there is. The gateway makes it shorter.
    Long,
}

impl Form {
    /// A whole line.
    fn line(self, at: SocketAddrV4) -> String {
        let numbers = numbers(at);
        match self {
            Self::Plain => format!("PORT {numbers}"),
            Self::Long => {
                let long: Vec<_> = numbers.split(',').map(|it| format!("{it:0>3}")).collect();
                format!("PORT {}", long.join(","))
            }
        }
    }
}

/// A session that is logged in.
#[derive(Debug)]
pub struct Client {
    control: BufReader<TcpStream>,
    /// On whose port its active transfers come.
    listener: Option<TcpListener>,
    number: u32,
    transfers: u32,
}

impl Client {
    /// Dials the host outside and logs in.
    pub async fn open(number: u32) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect((OUTSIDE, 21)))
            .await?
            .with_context(|| format!("open session {number}"))?;
        stream.set_nodelay(true).context("turn Nagle off")?;
        let control = BufReader::new(stream);
        let mut client = Self { control, listener: None, number, transfers: 0 };
        client.expect("220").await?;
        client.command("USER anonymous", "230").await?;
        Ok(client)
    }

    /// Its next active transfer comes to another port.
    pub fn leave_port(&mut self) {
        self.listener = None;
    }

    /// A line, and a reply that begins like this.
    pub async fn command(&mut self, line: &str, wanted: &str) -> Result<String> {
        self.control.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        self.expect(wanted).await.with_context(|| format!("after `{line}`"))
    }

    /// A file by a connection that the server dials.
    pub async fn active(&mut self, form: Form) -> Result<()> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => listen().await?,
        };
        let at = SocketAddrV4::new(INSIDE, listener.local_addr()?.port());
        self.command(&form.line(at), "200").await?;
        self.fetch(async || Ok(listener.accept().await?.0)).await?;
        self.listener = Some(listener);
        Ok(())
    }

    /// A file by a connection that the client dials.
    pub async fn passive(&mut self) -> Result<()> {
        let reply = self.command("PASV", "227").await?;
        let inner = reply.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let to = place(inner.with_context(|| format!("no address in `{reply}`"))?.0)?;
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
        self.fetch(async || Ok(stream)).await
    }

    async fn fetch(&mut self, data: impl AsyncFnOnce() -> Result<TcpStream>) -> Result<()> {
        self.transfers += 1;
        let name = format!("file {} of session {}", self.transfers, self.number);
        self.command(&format!("RETR {name}"), "150").await?;
        let mut seen = String::new();
        let read = async {
            let mut stream = data().await?;
            stream.read_to_string(&mut seen).await.context("read a file")
        };
        timeout(PATIENCE, read).await.context("no data connection")??;
        ensure!(seen == name, "`{name}` came as `{seen}`");
        self.expect("226").await.map(drop)
    }

    async fn expect(&mut self, wanted: &str) -> Result<String> {
        let mut line = String::new();
        timeout(PATIENCE, self.control.read_line(&mut line))
            .await
            .with_context(|| format!("no {wanted} in session {}", self.number))??;
        ensure!(line.starts_with(wanted), "wanted {wanted}, got `{}`", line.trim_end());
        Ok(line)
    }
}

async fn listen() -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("listen for data connections")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::WAN;

    #[test]
    fn a_line_is_shorter_than_its_rewrite_in_one_form_and_longer_in_the_other() {
        for port in [1024, 9999, 20_001, 65_535] {
            let outside = Form::Plain.line(SocketAddrV4::new(WAN, port)).len();
            let inside = SocketAddrV4::new(INSIDE, port);
            assert!(Form::Plain.line(inside).len() < outside);
            assert!(Form::Long.line(inside).len() > outside);
        }
    }
}
