//! What comes from the distribution: programs that the build, the lab and the checks call.
//!
//! Invariant: what is there is not asked for again. Whether a package is needed is seen from the
//! file that it would bring, so on other distributions the same table says what is missing.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::command;

/// What a package is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Compiling the eBPF object and the agent.
    Build,
    /// Client, gateway and server namespaces, and real transfers between them.
    Lab,
    /// Everything `cargo xtask test` does beside the lab.
    Checks,
}

/// How to see that a package's content is there, from whatever source.
#[derive(Clone, Copy)]
pub enum Witness {
    /// A program on the PATH or among the system's programs.
    Program(&'static str),
    /// A file or folder.
    File(&'static str),
}

/// A package of Debian and what it is wanted for.
#[derive(Clone, Copy)]
pub struct Package {
    name: &'static str,
    witness: Witness,
    need: Need,
}

/// Debian's compiler for eBPF, installed only where no other one is found (see `toolchain`).
pub const COMPILER: [Package; 3] = [
    package("rustc-web", Witness::File("/usr/bin/rustc"), Need::Build),
    package("cargo-web", Witness::File("/usr/bin/cargo"), Need::Build),
    package("rust-web-src", Witness::File("/usr/lib/rustlib/src/rust/library/core"), Need::Build),
];

/// Linter that belongs to [`COMPILER`].
pub const LINTER: Package =
    package("rust-web-clippy", Witness::File("/usr/bin/cargo-clippy"), Need::Checks);

/// Everything else.
const TABLE: [Package; 13] = [
    package("gcc", Witness::Program("cc"), Need::Build),
    package("iproute2", Witness::Program("ip"), Need::Lab),
    package("nftables", Witness::Program("nft"), Need::Lab),
    package("ethtool", Witness::Program("ethtool"), Need::Lab),
    package("tcpdump", Witness::Program("tcpdump"), Need::Lab),
    package("conntrack", Witness::Program("conntrack"), Need::Lab),
    package("bpftool", Witness::Program("bpftool"), Need::Lab),
    package("curl", Witness::Program("curl"), Need::Lab),
    package("lftp", Witness::Program("lftp"), Need::Lab),
    package("openssl", Witness::Program("openssl"), Need::Lab),
    package("python3", Witness::File("/usr/bin/python3"), Need::Lab),
    package(
        "python3-pyftpdlib",
        Witness::File("/usr/lib/python3/dist-packages/pyftpdlib"),
        Need::Lab,
    ),
    package("vsftpd", Witness::Program("vsftpd"), Need::Lab),
];

const fn package(name: &'static str, witness: Witness, need: Need) -> Package {
    Package { name, witness, need }
}

impl Package {
    /// Whether its content is there.
    pub fn is_present(&self) -> bool {
        match self.witness {
            Witness::Program(program) => command::find(program).is_some(),
            Witness::File(file) => Path::new(file).exists(),
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.witness {
            Witness::Program(program) if program != self.name => {
                write!(f, "{program} (Debian: {})", self.name)
            }
            _ => f.write_str(self.name),
        }
    }
}

/// Packages of the table that are wanted and absent.
pub fn missing(needs: &[Need]) -> Vec<Package> {
    let is_wanted = |package: &Package| needs.contains(&package.need) && !package.is_present();
    TABLE.into_iter().filter(is_wanted).collect()
}

/// Whether this distribution has Debian's package manager.
pub fn has_apt() -> bool {
    command::find("apt-get").is_some()
}

/// Installs packages with apt-get; without it, says what is missing.
pub fn install(packages: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !has_apt() {
        bail!("missing on this machine: {list}; install them with its package manager");
    }
    crate::privilege::require_root("installing packages", "which apt-get asks for")
        .with_context(|| format!("missing: {list}"))?;
    eprintln!("xtask: installing {list}");
    command::run(&mut apt_get(&["update"])).context("cannot refresh the list of packages")?;
    // An FTP server of the user's conflicts with ours: rather fail than remove it.
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends", "--no-remove"]);
    install.args(missing.iter().map(|package| package.name));
    command::run(&mut install).with_context(|| format!("cannot install {list}"))
}

/// apt-get without questions, waiting for another one to end.
fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["--quiet", "--option", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
