//! An FTP client that does one thing after the other and nothing beside: no wait, no thread, no
//! checksum in what is timed.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use super::super::PATIENCE;
use crate::session::PRELIMINARY;
use crate::session::address_in;

/// Who opens the data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The client: PASV.
    Passive,
    /// The server: PORT.
    Active,
}

/// A control connection, logged in. Lives in the namespace of the thread that opened it, and is used
/// by a thread there.
#[derive(Debug)]
pub(super) struct Client {
    control: BufReader<TcpStream>,
    own: Ipv4Addr,
    room: Vec<u8>,
}

impl Client {
    /// Connects and logs in.
    pub(super) fn open(server: Ipv4Addr) -> Result<Self> {
        let control = connect(SocketAddrV4::new(server, 21))?;
        control.set_nodelay(true).context("turn Nagle off")?;
        let SocketAddr::V4(own) = control.local_addr().context("ask for one's own address")? else {
            bail!("not an IPv4 control connection")
        };
        let room = vec![0; 256 << 10];
        let mut client = Self { control: BufReader::new(control), own: *own.ip(), room };
        client.reply("220")?;
        // Some servers want no password of anonymous users.
        client.send("USER anonymous")?;
        if client.reply("")?.starts_with("331") {
            client.command("PASS bench@example.net", "230")?;
        }
        client.command("TYPE I", "200")?;
        Ok(client)
    }

    /// Fetches a file, and gives back its length.
    pub(super) fn fetch(&mut self, way: Way, file: &str) -> Result<u64> {
        let retrieve = format!("RETR {file}");
        let mut data = match way {
            Way::Passive => {
                let reply = self.command("PASV", "227")?;
                let data = connect(address_in(&reply)?)?;
                self.command(&retrieve, PRELIMINARY)?;
                data
            }
            Way::Active => {
                let listener = self.announce()?;
                self.command(&retrieve, PRELIMINARY)?;
                listener.accept().context("accept the data connection")?.0
            }
        };
        let mut length = 0;
        loop {
            match data.read(&mut self.room).context("read the data connection")? {
                0 => break,
                part => length += part as u64,
            }
        }
        drop(data);
        self.reply("226")?;
        Ok(length)
    }

    /// PORT with a fresh port of one's own.
    fn announce(&mut self) -> Result<TcpListener> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .context("listen for a data connection")?;
        let patience = TimeVal::new(PATIENCE.as_secs().try_into().context("a long time")?, 0);
        // It holds for what is accepted, too.
        setsockopt(&listener, sockopt::ReceiveTimeout, &patience).context("limit waiting")?;
        let port = listener.local_addr().context("ask for one's own port")?.port();
        let [a, b, c, d] = self.own.octets();
        self.command(&format!("PORT {a},{b},{c},{d},{},{}", port >> 8, port & 0xff), "200")?;
        Ok(listener)
    }

    fn command(&mut self, line: &str, wanted: &str) -> Result<String> {
        self.send(line)?;
        self.reply(wanted).with_context(|| format!("after `{line}`"))
    }

    fn send(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\r\n");
        self.control.get_mut().write_all(bytes.as_bytes()).with_context(|| format!("send `{line}`"))
    }

    /// The last line of a reply that begins like this.
    fn reply(&mut self, wanted: &str) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.control.read_line(&mut line).context("read a reply")?;
            ensure!(length > 0, "the control connection ended, wanted {wanted}");
            // RFC 959, 4.2: the last line of a reply has a blank after its code.
            if line.as_bytes().get(3) == Some(&b' ') && line.as_bytes()[0].is_ascii_digit() {
                ensure!(line.starts_with(wanted), "wanted {wanted}, got `{}`", line.trim_end());
                return Ok(line);
            }
        }
    }
}

fn connect(to: SocketAddrV4) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.into(), PATIENCE)
        .with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit reads")?;
    stream.set_write_timeout(Some(PATIENCE)).context("limit writes")?;
    Ok(stream)
}
