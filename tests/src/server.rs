//! Real FTP servers, each a process of its own in a namespace.
//!
//! Invariant: a server that `start` gives back listens, serves the payload as `/file.bin`, and takes
//! uploads into `/upload`; it ends with its guard.

use std::{
    fmt::{self, Display},
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{netns::Namespace, payload::Payload, process::Process};

mod inetutils;
mod proftpd;
mod pure_ftpd;
mod pyftpdlib;
mod vsftpd;

/// The name under which every server offers the payload.
pub const FILE: &str = "file.bin";
/// The folder for uploads.
pub const UPLOADS: &str = "upload";

/// The servers that the lab knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// vsftpd: dials active data connections from port 20.
    Vsftpd,
    /// ProFTPD.
    Proftpd,
    /// Pure-FTPd.
    PureFtpd,
    /// pyftpdlib: dials the data connection before it answers PORT.
    Pyftpdlib,
    /// inetutils-ftpd.
    Inetutils,
}

impl Kind {
    /// All of them, the ones that go together on one Debian machine first.
    pub const ALL: [Self; 5] =
        [Self::Vsftpd, Self::Pyftpdlib, Self::Proftpd, Self::PureFtpd, Self::Inetutils];

    /// Whether this machine has it.
    #[must_use]
    pub fn is_installed(self) -> bool {
        match self {
            Self::Vsftpd => find(vsftpd::PROGRAM).is_some(),
            Self::Proftpd => find(proftpd::PROGRAM).is_some(),
            Self::PureFtpd => pure_ftpd::is_installed(),
            Self::Pyftpdlib => pyftpdlib::interpreter().is_some(),
            Self::Inetutils => find(inetutils::PROGRAM).is_some(),
        }
    }

    /// Whether it can be told which address to state.
    #[must_use]
    pub const fn states_addresses(self) -> bool {
        match self {
            Self::Vsftpd | Self::Proftpd | Self::PureFtpd | Self::Pyftpdlib => true,
            Self::Inetutils => false,
        }
    }

    /// The Debian package that brings it.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Vsftpd => "vsftpd",
            Self::Proftpd => "proftpd-core",
            Self::PureFtpd => "pure-ftpd",
            Self::Pyftpdlib => "python3-pyftpdlib",
            Self::Inetutils => "inetutils-ftpd",
        }
    }
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Vsftpd => "vsftpd",
            Self::Proftpd => "proftpd",
            Self::PureFtpd => "pure-ftpd",
            Self::Pyftpdlib => "pyftpdlib",
            Self::Inetutils => "inetutils",
        })
    }
}

/// The address in a server's 227.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// Its own, as it knows nothing of a NAT.
    Own,
    /// One that it was told: `pasv_address`, `MasqueradeAddress`.
    Stated(Ipv4Addr),
}

/// Whether a server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// It does not.
    Never,
    /// When it is asked to, by AUTH.
    Asked,
    /// From the first byte.
    Always,
}

/// How to run a server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which one.
    pub kind: Kind,
    /// Its control port.
    pub port: u16,
    /// What it says of itself.
    pub announce: Announce,
    /// Whether it speaks TLS; vsftpd and pyftpdlib can.
    pub encryption: Encryption,
    /// Ports of its passive data connections, first and last; any where nothing is said.
    pub passive: Option<[u16; 2]>,
    /// Whether it listens on IPv6 alone; vsftpd and pyftpdlib can.
    pub six: bool,
}

impl Settings {
    /// The usual: port 21, its own address.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        let (announce, encryption) = (Announce::Own, Encryption::Never);
        Self { kind, port: 21, announce, encryption, passive: None, six: false }
    }
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    process: Process,
    root: PathBuf,
}

impl Server {
    /// Starts a server whose files live in the new folder `folder`, and waits until it listens.
    pub fn start(
        namespace: &Namespace,
        settings: &Settings,
        payload: &Payload,
        folder: &Path,
    ) -> Result<Self> {
        let root = folder.join("root");
        let uploads = root.join(UPLOADS);
        fs::create_dir_all(&uploads).with_context(|| format!("create {}", uploads.display()))?;
        fs::write(root.join(FILE), &payload.bytes).context("write the payload")?;
        // vsftpd refuses a root that its anonymous user can write to.
        allow(folder, 0o755)?;
        allow(&root, 0o755)?;
        allow(&uploads, 0o777)?;

        let mut command = match settings.kind {
            Kind::Vsftpd => vsftpd::command(namespace, settings, &root, folder)?,
            Kind::Proftpd => proftpd::command(namespace, settings, &root, folder)?,
            Kind::PureFtpd => pure_ftpd::command(namespace, settings, &root, folder)?,
            Kind::Pyftpdlib => pyftpdlib::command(namespace, settings, &root, folder)?,
            Kind::Inetutils => inetutils::command(namespace, settings, &root, folder)?,
        };
        let name = settings.kind.to_string();
        let mut process = Process::spawn(&mut command, &name, &folder.join("server.log"))?;
        process
            .ready(Duration::from_secs(10), "listening", |_| namespace.listens(settings.port))?;
        Ok(Self { process, root })
    }

    /// Where an uploaded file of this name ends up.
    #[must_use]
    pub fn uploaded(&self, name: &str) -> PathBuf {
        self.root.join(UPLOADS).join(name)
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Lets it serve on after this program's end.
    pub fn leave(self) {
        self.process.leave();
    }
}

/// Looks a program up as a shell would, and where Debian keeps daemons.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn allow(file: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", file.display()))
}

/// Writes a configuration file and gives back its path.
fn write_config(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// A key and a certificate of its own for a server: both in one file.
pub fn certificate(folder: &Path) -> Result<PathBuf> {
    let [key, certificate, both] =
        ["key", "cert", "both"].map(|name| folder.join(format!("{name}.pem")));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=lab", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    crate::process::must(&mut openssl)?;
    let read = |file: &Path| fs::read(file).with_context(|| format!("read {}", file.display()));
    fs::write(&both, [read(&key)?, read(&certificate)?].concat()).context("write a certificate")?;
    Ok(both)
}

/// Puts files in the place of others for a program alone: users, where names are looked up, then the
/// program and its words.
const WITH_FILES: &str = "mount --bind \"$0\" /etc/passwd && \
     mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";

/// A command for a program, which follows with its words, that knows a user `ftp` whose home is `root`,
/// and waits for no name server.
fn with_user_ftp(namespace: &Namespace, root: &Path, folder: &Path) -> Result<Command> {
    let users = fs::read_to_string("/etc/passwd").context("read the users")?;
    let others = users.lines().filter(|line| !line.starts_with("ftp:"));
    let mut users: String = others.map(|line| format!("{line}\n")).collect();
    users.push_str(&format!("ftp:x:65533:65534::{}:/bin/sh\n", root.display()));
    let users = write_config(folder, "passwd", &users)?;
    let names = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n";
    let names = write_config(folder, "nsswitch.conf", names)?;
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", WITH_FILES]).arg(users).arg(names);
    Ok(command)
}

/// A command for a server's program.
fn program(namespace: &Namespace, name: &str) -> Result<Command> {
    let file = find(name).with_context(|| format!("find {name}: install it to run this server"))?;
    Ok(namespace.command(file))
}
