//! A control connection whose two ends are both in the hands of the test: what one end writes, in
//! which segments, and what the other end reads, byte for byte.
//!
//! Invariant: every read and every connection attempt ends by itself, after a time that the caller
//! gives.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt};

use crate::{
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    netns::Namespace,
    process, wait,
};

/// Between two segments that are to stay two, whatever the sender's stack would make of them.
pub const PAUSE: Duration = Duration::from_millis(20);

/// One end of the control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Who opened it.
    Client,
    /// Who answered.
    Server,
}

impl End {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nagle {
    /// A small segment waits while an earlier one is not acknowledged (RFC 1122, 4.2.3.4).
    On,
    /// Each write leaves at once.
    Off,
}

/// A control connection through the lab's gateway.
#[derive(Debug)]
pub struct Dialogue<'lab> {
    lab: &'lab Lab,
    inside: End,
    client: TcpStream,
    server: TcpStream,
    /// What was read of each end beyond the last line, client first.
    rest: [Vec<u8>; 2],
}

impl<'lab> Dialogue<'lab> {
    /// Opens one: with the client inside to the host outside, with the server inside to the
    /// gateway's public address, from which port 21 leads in.
    pub fn open(lab: &'lab Lab, inside: End) -> Result<Self> {
        let (from, at, listening, to) = match inside {
            End::Client => (&lab.inside, &lab.outside, OUTSIDE, OUTSIDE),
            End::Server => (&lab.outside, &lab.inside, INSIDE, WAN),
        };
        let listener = listen(at, SocketAddrV4::new(listening, 21))?;
        let (client, server) = pair(from, SocketAddrV4::new(to, 21), &listener, PATIENCE)?;
        Ok(Self { lab, inside, client, server, rest: [Vec::new(), Vec::new()] })
    }

    /// Another one between the same ends.
    pub fn beside(&self) -> Result<Self> {
        Self::open(self.lab, self.inside)
    }

    /// Does something of which the end outside acknowledges nothing until the end inside has sent it again.
    pub fn unacknowledged(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        // Three times what a sender waits at least (RFC 6298; Linux has 200 ms).
        const AGAIN: Duration = Duration::from_millis(600);
        let rules = "add table ip quiet\n\
                     add chain ip quiet out { type filter hook output priority 0; }\n\
                     add rule ip quiet out tcp dport 21 tcp flags & (syn | fin | rst | psh) == 0 drop\n";
        process::must(self.lab.outside.command("nft").arg(rules)).context("acknowledge nothing")?;
        work(self)?;
        thread::sleep(AGAIN);
        let words = ["delete", "table", "ip", "quiet"];
        process::must(self.lab.outside.command("nft").args(words)).context("acknowledge").map(drop)
    }

    /// Greets and logs in, as every FTP session does.
    pub fn log_in(&mut self) -> Result<()> {
        for (end, line) in [
            (End::Server, "220 here\r\n"),
            (End::Client, "USER anonymous\r\n"),
            (End::Server, "230 welcome\r\n"),
        ] {
            self.write(end, line.as_bytes())?;
            let seen = self.line(end.other(), PATIENCE)?;
            ensure!(seen == line.as_bytes(), "{line:?} came as {seen:?}");
        }
        Ok(())
    }

    /// How the writes of an end leave from now on.
    pub fn nagle(&self, end: End, nagle: Nagle) -> Result<()> {
        self.stream(end).set_nodelay(nagle == Nagle::Off).context("set TCP_NODELAY")
    }

    /// Bytes of a full segment of an end.
    pub fn full_segment(&self, end: End) -> Result<usize> {
        let bytes = getsockopt(self.stream(end), sockopt::TcpMaxSeg).context("ask for the MSS")?;
        usize::try_from(bytes).context("an MSS below 0")
    }

    /// Writes bytes at once.
    pub fn write(&mut self, end: End, bytes: &[u8]) -> Result<()> {
        let mut stream = self.stream(end);
        stream.write_all(bytes).with_context(|| format!("write at the {end:?}"))
    }

    /// The next line that an end reads, with its line end.
    pub fn line(&mut self, end: End, limit: Duration) -> Result<Vec<u8>> {
        let start = Instant::now();
        let place = end as usize;
        loop {
            if let Some(at) = self.rest[place].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest[place].split_off(at + 1);
                return Ok(std::mem::replace(&mut self.rest[place], rest));
            }
            let left = limit.saturating_sub(start.elapsed());
            ensure!(!left.is_zero(), "no line within {limit:?}, only {:?}", self.heard(end));
            let mut stream = self.stream(end);
            stream.set_read_timeout(Some(left)).context("limit a read")?;
            let mut part = [0; 4096];
            match stream.read(&mut part) {
                Ok(0) => bail!("the connection ended after {:?}", self.heard(end)),
                Ok(length) => self.rest[place].extend(&part[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("read the control connection"),
            }
        }
    }

    /// Lines that an end reads, up to one that `wanted` picks.
    pub fn lines_to(
        &mut self,
        end: End,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let start = Instant::now();
        let mut lines = Vec::new();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            let line = self.line(end, left).with_context(|| format!("after {lines:?}"))?;
            lines.push(String::from_utf8_lossy(&line).into_owned());
            if lines.last().is_some_and(|line| wanted(line)) {
                return Ok(lines);
            }
        }
    }

    /// A listener for a data connection at an end, on a port that was free.
    pub fn listen(&self, end: End) -> Result<TcpListener> {
        self.listen_on(end, 0)
    }

    /// The same on this very port.
    pub fn listen_on(&self, end: End, port: u16) -> Result<TcpListener> {
        listen(self.namespace(end), SocketAddrV4::new(self.address(end), port))
    }

    /// Both ends close the control connection, and see that the other one has.
    pub fn close(&self, limit: Duration) -> Result<()> {
        for (one, mut other) in [(&self.client, &self.server), (&self.server, &self.client)] {
            one.shutdown(Shutdown::Write).context("close the control connection")?;
            other.set_read_timeout(Some(limit)).context("limit a read")?;
            other.read_to_end(&mut Vec::new()).context("read to the end")?;
        }
        // What a gateway does after the last segment.
        thread::sleep(PAUSE);
        Ok(())
    }

    /// Dials `to` from an end, and gives back whether `listener` at the other end has answered and
    /// bytes go both ways.
    pub fn data(
        &self,
        end: End,
        to: SocketAddrV4,
        listener: &TcpListener,
        limit: Duration,
    ) -> Result<()> {
        let (one, other) = pair(self.namespace(end), to, listener, limit)?;
        for (mut from, mut at, word) in [(&one, &other, b"there"), (&other, &one, b"again")] {
            from.write_all(word).context("write to the data connection")?;
            let mut heard = [0; 5];
            at.read_exact(&mut heard).context("read the data connection")?;
            ensure!(heard == *word, "{word:?} came as {heard:?}");
        }
        Ok(())
    }

    /// The address of an end as it knows itself.
    #[must_use]
    pub fn address(&self, end: End) -> Ipv4Addr {
        if end == self.inside { INSIDE } else { OUTSIDE }
    }

    /// What of an end has not become a line yet.
    fn heard(&self, end: End) -> String {
        String::from_utf8_lossy(&self.rest[end as usize]).into_owned()
    }

    fn namespace(&self, end: End) -> &'lab Namespace {
        if end == self.inside { &self.lab.inside } else { &self.lab.outside }
    }

    fn stream(&self, end: End) -> &TcpStream {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }
}

/// The port that a listener was given.
pub fn port(listener: &TcpListener) -> Result<u16> {
    Ok(listener.local_addr().context("ask for one's own port")?.port())
}

/// Lines that do nothing and have so many bytes: few enough to be remembered until they are answered.
pub fn padding(bytes: usize) -> String {
    const LONGEST: usize = 500;
    let lines = bytes.div_ceil(LONGEST);
    let line = |number: usize| {
        let length = bytes * (number + 1) / lines - bytes * number / lines;
        format!("NOOP {}\r\n", "x".repeat(length.saturating_sub(7)))
    };
    (0..lines).map(line).collect()
}

/// What a line announces: the six numbers of a PORT or a 227, the delimited fields of an EPRT or a
/// 229, whose address is `peer`.
pub fn announced(line: &str, peer: Ipv4Addr) -> Result<SocketAddrV4> {
    let line = line.trim_end();
    let numbers = |text: &str| -> Vec<u16> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
    };
    if let Some((_, rest)) = line.split_once("(|||") {
        let port = rest.split('|').next().and_then(|port| port.parse().ok());
        return Ok(SocketAddrV4::new(peer, port.with_context(|| format!("no port in `{line}`"))?));
    }
    let argument = match line.get(..4) {
        Some("227 ") => line.rsplit_once('(').map_or("", |(_, rest)| rest),
        _ => line.split_once(' ').map_or("", |(_, rest)| rest),
    };
    match numbers(argument)[..] {
        // EPRT: the family, and one number for the port.
        [1, a, b, c, d, port] if argument.contains('|') => address([a, b, c, d], port),
        [a, b, c, d, high, low] if high < 256 && low < 256 => {
            address([a, b, c, d], high << 8 | low)
        }
        _ => bail!("no address in `{line}`"),
    }
}

fn address(octets: [u16; 4], port: u16) -> Result<SocketAddrV4> {
    let mut bytes = [0; 4];
    for (byte, octet) in bytes.iter_mut().zip(octets) {
        *byte = u8::try_from(octet).with_context(|| format!("an octet of {octet}"))?;
    }
    Ok(SocketAddrV4::new(bytes.into(), port))
}

const PATIENCE: Duration = Duration::from_secs(10);

fn listen(namespace: &Namespace, at: SocketAddrV4) -> Result<TcpListener> {
    // A child of another thread may hold a copy of the last one for an instant, until its exec.
    let listener = wait::until(PATIENCE, "a free TCP port", || {
        match namespace.enter(|| TcpListener::bind(at))? {
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some).with_context(|| format!("listen on {at}")),
        }
    })?;
    listener.set_nonblocking(true).context("make a listener non-blocking")?;
    Ok(listener)
}

/// A connection from a namespace to `to`, and its other end at `listener`.
fn pair(
    from: &Namespace,
    to: SocketAddrV4,
    listener: &TcpListener,
    limit: Duration,
) -> Result<(TcpStream, TcpStream)> {
    let dialled = from
        .enter(|| TcpStream::connect_timeout(&SocketAddr::V4(to), limit))?
        .with_context(|| format!("connect to {to} from {}", from.name()))?;
    let own = dialled.local_addr().context("ask for one's own port")?.port();
    let accepted = wait::until(limit, "a connection to accept", || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accept a connection"),
    })
    .with_context(|| format!("from port {own}"))?;
    accepted.set_nonblocking(false).context("make a connection blocking")?;
    for stream in [&dialled, &accepted] {
        stream.set_read_timeout(Some(limit)).context("limit reads")?;
    }
    Ok((dialled, accepted))
}

/// Writes `parts` one after the other, with a pause between them that makes each a segment of its
/// own where Nagle's algorithm does not hold it back.
pub fn write_apart(dialogue: &mut Dialogue<'_>, end: End, parts: &[&[u8]]) -> Result<()> {
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            thread::sleep(PAUSE);
        }
        dialogue.write(end, part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_all_four_lines() {
        let wanted = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 20_001);
        for line in [
            "PORT 203,0,113,1,78,33\r\n",
            "EPRT |1|203.0.113.1|20001|\r\n",
            "227 Entering Passive Mode (203,0,113,1,78,33).\r\n",
            "229 Extended Passive Mode OK (|||20001|)\r\n",
        ] {
            assert_eq!(announced(line, *wanted.ip()).expect(line), wanted);
        }
        assert!(announced("PORT 203,0,113,1,78\r\n", *wanted.ip()).is_err());
        assert!(announced("227 Logout.\r\n", *wanted.ip()).is_err());
    }
}
