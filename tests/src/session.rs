//! An FTP client by hand, for what real clients don't do: pause, kill something, go on.
//!
//! Invariant: every read and every connection attempt ends by itself after [`PATIENCE`].

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{netns::Namespace, wait};

/// How a reply begins that a transfer follows: 125 or 150 (RFC 959 section 5.4).
pub const PRELIMINARY: &str = "1";

/// No step of a session may take longer.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A control connection, logged in.
#[derive(Debug)]
pub struct Session<'lab> {
    namespace: &'lab Namespace,
    control: BufReader<TcpStream>,
}

impl<'lab> Session<'lab> {
    /// Connects from `namespace` and logs in.
    pub fn open(namespace: &'lab Namespace, server: Ipv4Addr) -> Result<Self> {
        let control = connect(namespace, SocketAddrV4::new(server, 21))?;
        control.set_nodelay(true).context("turn Nagle off")?;
        let mut session = Self { namespace, control: BufReader::new(control) };
        session.expect("220")?;
        // Some servers want no password of anonymous users.
        if session.command("USER anonymous", "")?.starts_with("331") {
            session.command("PASS lab@example.net", "230")?;
        }
        session.command("TYPE I", "200")?;
        Ok(session)
    }

    /// Sends a line and wants a reply that begins like this; any reply, where that is nothing.
    pub fn command(&mut self, line: &str, wanted: &str) -> Result<String> {
        self.send(line)?;
        self.expect(wanted).with_context(|| format!("after `{line}`"))
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.control
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .with_context(|| format!("send `{line}`"))
    }

    /// Reads a reply, of many lines perhaps, that begins like this; gives back its last line.
    pub fn expect(&mut self, wanted: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            let length = self.control.read_line(&mut line).context("read a reply")?;
            ensure!(length > 0, "the control connection ended, wanted {wanted}");
            // RFC 959, 4.2: the last line of a reply has a blank after its code.
            let is_last = line.as_bytes().get(3) == Some(&b' ')
                && line.as_bytes().first().is_some_and(u8::is_ascii_digit);
            if is_last {
                ensure!(line.starts_with(wanted), "wanted {wanted}, got `{}`", line.trim_end());
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// PASV, and the connection to where the reply says.
    pub fn passive(&mut self) -> Result<TcpStream> {
        let reply = self.command("PASV", "227")?;
        connect(self.namespace, address_in(&reply)?)
    }

    /// PORT with a fresh port of one's own.
    pub fn active(&mut self) -> Result<TcpListener> {
        let listener = self
            .namespace
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
            .context("listen for the data connection")?;
        let port = listener.local_addr().context("ask for one's own port")?.port();
        let SocketAddr::V4(own) =
            self.control.get_ref().local_addr().context("ask for one's own address")?
        else {
            bail!("not an IPv4 control connection")
        };
        let [a, b, c, d] = own.ip().octets();
        self.command(&format!("PORT {a},{b},{c},{d},{},{}", port >> 8, port & 0xff), "200")?;
        Ok(listener)
    }

    /// Downloads a file over an active data connection; gives back its SHA-256.
    pub fn fetch_active(&mut self, file: &str) -> Result<String> {
        let listener = self.active()?;
        self.command(&format!("RETR {file}"), PRELIMINARY)?;
        self.finish(accept(&listener)?)
    }

    /// Downloads a file over a passive data connection; gives back its SHA-256.
    pub fn fetch_passive(&mut self, file: &str) -> Result<String> {
        let data = self.passive()?;
        self.command(&format!("RETR {file}"), PRELIMINARY)?;
        self.finish(data)
    }

    /// Downloads a file over an active and then over a passive data connection; both have this SHA-256.
    pub fn fetch_both_ways(&mut self, file: &str, expected: &str) -> Result<()> {
        for digest in [self.fetch_active(file)?, self.fetch_passive(file)?] {
            ensure!(digest == expected, "{file} came as {digest}, it is {expected}");
        }
        Ok(())
    }

    /// Reads a data connection to its end and the 226 after it; gives back the SHA-256.
    pub fn finish(&mut self, data: TcpStream) -> Result<String> {
        self.finish_after(Vec::new(), data)
    }

    /// The same, where the first bytes have been read already.
    pub fn finish_after(&mut self, mut bytes: Vec<u8>, mut data: TcpStream) -> Result<String> {
        data.read_to_end(&mut bytes)
            .with_context(|| format!("read the data connection, {} bytes so far", bytes.len()))?;
        self.expect("226")?;
        Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Logs in from a namespace, and [fetches](Session::fetch_both_ways) a file.
pub fn fetch_both_ways(
    client: &Namespace,
    server: Ipv4Addr,
    file: &str,
    expected: &str,
) -> Result<()> {
    Session::open(client, server)
        .and_then(|mut session| session.fetch_both_ways(file, expected))
        .with_context(|| format!("files of {server}"))
}

/// Connects from a namespace.
pub fn connect(namespace: &Namespace, to: SocketAddrV4) -> Result<TcpStream> {
    let stream = namespace
        .enter(|| TcpStream::connect_timeout(&to.into(), PATIENCE))?
        .with_context(|| format!("connect to {to} from {}", namespace.name()))?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit reads")?;
    stream.set_write_timeout(Some(PATIENCE)).context("limit writes")?;
    Ok(stream)
}

/// Both ends of a connection from `client` to a listener of `server` that is reached at `at`: the
/// client's end, then the server's.
pub fn pair(client: &Namespace, server: &Namespace, at: Ipv4Addr) -> Result<[TcpStream; 2]> {
    let listener = server
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
        .with_context(|| format!("listen in {}", server.name()))?;
    let port = listener.local_addr().context("ask a listener for its port")?.port();
    let near = connect(client, SocketAddrV4::new(at, port))?;
    Ok([near, accept(&listener)?])
}

/// Writes these bytes at one end of a connection, and wants them at the other.
pub fn say(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) -> Result<()> {
    from.write_all(text).context("write to a connection")?;
    let seen = read_part(to, text.len())?;
    ensure!(seen == text, "{:?} arrived as {:?}", text.escape_ascii(), seen.escape_ascii());
    Ok(())
}

/// Waits for the connection that a listener was made for.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true).context("make a listener non-blocking")?;
    let stream = wait::until(PATIENCE, "a data connection", || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("accept a data connection"),
    })?;
    stream.set_nonblocking(false).context("make a connection blocking")?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit reads")?;
    Ok(stream)
}

/// Reads exactly this much.
pub fn read_part(stream: &mut TcpStream, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).with_context(|| format!("read {length} bytes of a file"))?;
    Ok(bytes)
}

pub(crate) fn address_in(reply: &str) -> Result<SocketAddrV4> {
    let numbers = reply
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(inner, _)| inner.split(',').map(str::parse::<u8>).collect::<Result<Vec<_>, _>>());
    match numbers {
        Some(Ok(numbers)) => match numbers[..] {
            [a, b, c, d, high, low] => {
                Ok(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
            }
            _ => bail!("not six numbers in `{reply}`"),
        },
        _ => bail!("no address in `{reply}`"),
    }
}
