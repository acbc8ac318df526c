//! Real FTP clients.
//!
//! Invariant: a transfer counts only when the client used the command it was told to use, took the
//! address that it was given (clients like to mend a private one by themselves), and the file
//! arrived with its checksum.

use std::{
    fmt::{self, Display},
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    netns::Namespace,
    payload::{Payload, file_digest},
    process::{self, Process},
    server::{FILE, Server, UPLOADS, find},
};

mod aria2;
mod bsd;
mod curl;
mod ftplib;
mod lftp;
mod ncftp;
mod net_ftp;
mod wget;

/// A curl in `namespace` that takes its time over a file of `server`, over TLS; it logs to `log`.
pub fn slow_over_tls(namespace: &Namespace, server: Ipv4Addr, log: &Path) -> Result<Process> {
    let mut curl = namespace.command("curl");
    curl.args(["--disable", "--silent", "--insecure", "--ssl-reqd", "--limit-rate", "200K"]);
    curl.args(["--output", "/dev/null", "--user", "anonymous:x"]);
    curl.arg(format!("ftp://{server}/{FILE}"));
    Process::spawn(&mut curl, "curl", log)
}

/// The clients that the lab knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// curl: PASV, EPSV, PORT and EPRT.
    Curl,
    /// lftp: PASV, EPSV and PORT.
    Lftp,
    /// Python's ftplib: PASV and PORT.
    Ftplib,
    /// tnftp: PASV, EPSV, PORT and EPRT.
    Tnftp,
    /// inetutils-ftp: PASV, EPSV, PORT and EPRT.
    Inetutils,
    /// ncftpget: PASV and PORT.
    Ncftp,
    /// wget: PASV and PORT.
    Wget,
    /// Perl's Net::FTP: PASV and PORT.
    NetFtp,
    /// aria2: PASV and PORT.
    Aria2,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Curl,
        Self::Lftp,
        Self::Ftplib,
        Self::Tnftp,
        Self::Inetutils,
        Self::Ncftp,
        Self::Wget,
        Self::NetFtp,
        Self::Aria2,
    ];

    /// Whether it has the command, with IPv4.
    #[must_use]
    pub const fn has(self, mode: DataMode) -> bool {
        match self {
            Self::Curl | Self::Tnftp | Self::Inetutils => true,
            Self::Lftp => !matches!(mode, DataMode::Eprt),
            Self::Ftplib | Self::Ncftp | Self::Wget | Self::NetFtp | Self::Aria2 => {
                matches!(mode, DataMode::Pasv | DataMode::Port)
            }
        }
    }
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Curl => "curl",
            Self::Lftp => "lftp",
            Self::Ftplib => "ftplib",
            Self::Tnftp => "tnftp",
            Self::Inetutils => "inetutils",
            Self::Ncftp => "ncftp",
            Self::Wget => "wget",
            Self::NetFtp => "Net::FTP",
            Self::Aria2 => "aria2",
        })
    }
}

/// The command that opens a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    /// Passive, RFC 959.
    Pasv,
    /// Passive, RFC 2428.
    Epsv,
    /// Active, RFC 959.
    Port,
    /// Active, RFC 2428.
    Eprt,
}

impl Display for DataMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pasv => "PASV",
            Self::Epsv => "EPSV",
            Self::Port => "PORT",
            Self::Eprt => "EPRT",
        })
    }
}

/// Which way the file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    Download,
    /// To the server.
    Upload,
}

impl Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Download => "get",
            Self::Upload => "put",
        })
    }
}

/// One transfer to be made.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// By which client.
    pub client: Kind,
    /// By which command.
    pub mode: DataMode,
    /// Which way.
    pub direction: Direction,
    /// The server's address as the client knows it.
    pub server: Ipv4Addr,
    /// The control port.
    pub port: u16,
    /// The client is stopped past this.
    pub limit: Duration,
    /// Bytes a second at most, where a transfer has to last.
    pub rate: Option<u32>,
}

impl Request {
    /// A download from port 21 with ten seconds for it.
    #[must_use]
    pub const fn new(client: Kind, mode: DataMode, server: Ipv4Addr) -> Self {
        let limit = Duration::from_secs(10);
        Self { client, mode, direction: Direction::Download, server, port: 21, limit, rate: None }
    }

    /// Refuses what clients that are only asked to get whole files are not asked for.
    fn only_gets(&self) -> Result<()> {
        ensure!(
            self.direction == Direction::Download && self.rate.is_none(),
            "{} is only asked for whole files",
            self.client
        );
        Ok(())
    }

    /// Whether the transfer is passive, with a client that knows PASV and PORT alone and is only asked to
    /// get whole files.
    fn is_passive(&self) -> Result<bool> {
        self.only_gets()?;
        match self.mode {
            DataMode::Pasv => Ok(true),
            DataMode::Port => Ok(false),
            DataMode::Epsv | DataMode::Eprt => {
                bail!("{} has no {} for IPv4", self.client, self.mode)
            }
        }
    }
}

/// What a transfer brought.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Size of the file.
    pub bytes: u64,
    /// From the client's start to its end.
    pub elapsed: Duration,
}

/// The two names of the file of a transfer.
struct Paths<'a> {
    /// On the client's side.
    local: &'a Path,
    /// Below the server's root.
    remote: &'a str,
}

/// Makes a transfer from `namespace` and checks all that can be checked of it.
pub fn transfer(
    namespace: &Namespace,
    request: &Request,
    server: &Server,
    payload: &Payload,
    folder: &Path,
) -> Result<Transfer> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("transfer-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let local = folder.join(&name);
    let (remote, arrived) = match request.direction {
        Direction::Download => (FILE.to_owned(), local.clone()),
        Direction::Upload => {
            fs::write(&local, &payload.bytes).context("write the file to upload")?;
            (format!("{UPLOADS}/{name}"), server.uploaded(&name))
        }
    };
    let paths = Paths { local: &local, remote: &remote };
    let mut command = command(namespace, request, &paths)?;
    command.env("HOME", folder).env("LC_ALL", "C");
    let finished = process::run(&mut command, request.limit)?;
    let elapsed = finished.elapsed;
    let talk = format!("{}{}", finished.stdout, finished.stderr);
    // The last words are the reason; the trace before them is for a closer look.
    ensure!(
        finished.status.success(),
        "{} ended with {}: {}\n{}",
        request.client,
        finished.code(),
        talk.trim().lines().last().unwrap_or("without a word"),
        process::tail(&talk, 2000)
    );

    let wanted = sent_as(request.client, request.mode);
    ensure!(
        talk.contains(&wanted),
        "{} did not use {}: {}",
        request.client,
        request.mode,
        process::tail(&talk, 1500)
    );
    let digest = file_digest(&arrived)?;
    ensure!(digest == payload.sha256, "the file arrived as {digest}, it was {}", payload.sha256);
    let bytes = fs::metadata(&arrived).context("look at the file")?.len();
    fs::remove_file(&arrived).context("remove the file that arrived")?;
    if request.direction == Direction::Upload {
        fs::remove_file(&local).context("remove the file that was sent")?;
    }
    Ok(Transfer { bytes, elapsed })
}

/// Whether this machine has the client.
#[must_use]
pub fn is_installed(client: Kind) -> bool {
    match client {
        Kind::Curl => find(curl::PROGRAM).is_some(),
        Kind::Lftp => find(lftp::PROGRAM).is_some(),
        Kind::Ftplib => find(ftplib::PROGRAM).is_some(),
        Kind::Tnftp => find(bsd::TNFTP).is_some(),
        Kind::Inetutils => find(bsd::INETUTILS).is_some(),
        Kind::Ncftp => find(ncftp::PROGRAM).is_some(),
        Kind::Wget => find(wget::PROGRAM).is_some(),
        Kind::NetFtp => net_ftp::is_installed(),
        Kind::Aria2 => find(aria2::PROGRAM).is_some(),
    }
}

fn command(namespace: &Namespace, request: &Request, paths: &Paths<'_>) -> Result<Command> {
    match request.client {
        Kind::Curl => Ok(curl::command(namespace, request, paths)),
        Kind::Lftp => lftp::command(namespace, request, paths),
        Kind::Ftplib => ftplib::command(namespace, request, paths),
        Kind::Tnftp | Kind::Inetutils => bsd::command(namespace, request, paths),
        Kind::Ncftp => ncftp::command(namespace, request, paths),
        Kind::Wget => wget::command(namespace, request, paths),
        Kind::NetFtp => net_ftp::command(namespace, request, paths),
        Kind::Aria2 => aria2::command(namespace, request, paths),
    }
}

/// How a client shows in its trace that it sent this command.
fn sent_as(client: Kind, mode: DataMode) -> String {
    match client {
        Kind::Curl => format!("> {mode}"),
        Kind::Lftp | Kind::Tnftp | Kind::Inetutils => format!("---> {mode}"),
        Kind::Ncftp => format!("Cmd: {mode}"),
        Kind::Wget => format!("==> {mode}"),
        Kind::Ftplib => format!("*cmd* '{mode}"),
        Kind::NetFtp => format!(">>> {mode}"),
        // As it is sent.
        Kind::Aria2 => format!("\n{mode}"),
    }
}
