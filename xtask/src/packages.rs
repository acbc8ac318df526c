//! What comes from the distribution: programs that the build, the lab and the checks call.
//!
//! Invariant: what is there is not asked for again. Whether a package is needed is seen from the
//! file that it would bring, so on other distributions the same table says what is missing.

use std::{fmt, path::Path, process::Command};

use crate::{apt::Apt, command};

/// What a package is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Compiling the eBPF object and the agent.
    Build,
    /// Client, gateway and server namespaces, and real transfers between them.
    Lab,
    /// Clients of the large matrix beside those of the lab.
    Clients,
    /// Everything `cargo xtask test` does beside the lab, but [`Need::Licences`].
    Checks,
    /// cargo-deny, which is built while everything else is checked.
    Licences,
    /// Compiling libFuzzer, which is C++.
    Fuzzer,
    /// A machine that qemu emulates; its packages are unpacked, not installed, see `vm`.
    Guest,
}

/// How to see that a package's content is there, from whatever source.
#[derive(Clone, Copy)]
pub enum Witness {
    /// A program on the PATH or among the system's programs.
    Program(&'static str),
    /// A file or folder.
    File(&'static str),
    /// A module of Python.
    Module(&'static str),
    /// A module of Perl, which has few in its smallest package.
    PerlModule(&'static str),
}

/// A package of Debian and what it is wanted for.
#[derive(Clone, Copy)]
pub struct Package {
    name: &'static str,
    witness: Witness,
    need: Need,
}

/// Debian's compiler for eBPF, with the source of `core`: installed where no other compiler can be
/// used, whether or not there is something else in its place (see `toolchain`).
pub const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Linter that belongs to [`COMPILER`].
pub const LINTER: Package =
    package("rust-web-clippy", Witness::File("/usr/bin/cargo-clippy"), Need::Checks);

/// Everything else. FTP servers are not installed but unpacked, see `servers`.
const TABLE: [Package; 24] = [
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
    package("python3-pyftpdlib", Witness::Module("pyftpdlib"), Need::Lab),
    package("tnftp", Witness::Program("tnftp"), Need::Clients),
    package("inetutils-ftp", Witness::Program("inetutils-ftp"), Need::Clients),
    package("ncftp", Witness::Program("ncftpget"), Need::Clients),
    package("wget", Witness::Program("wget"), Need::Clients),
    package("perl", Witness::PerlModule("Net::FTP"), Need::Clients),
    package("aria2", Witness::Program("aria2c"), Need::Clients),
    package("traceroute", Witness::Program("traceroute"), Need::Checks),
    package("iputils-ping", Witness::Program("ping"), Need::Checks),
    package("stun-client", Witness::Program("stun"), Need::Checks),
    // Its script of init starts nothing before START_DAEMON is set in /etc/default/stun.
    package("stun-server", Witness::Program("stund"), Need::Checks),
    package("g++", Witness::Program("c++"), Need::Fuzzer),
    package("rustfmt-web", Witness::Program("cargo-fmt"), Need::Checks),
];

const fn package(name: &'static str, witness: Witness, need: Need) -> Package {
    Package { name, witness, need }
}

impl Package {
    /// Whether its content is there.
    fn is_present(&self) -> bool {
        match self.witness {
            Witness::Program(program) => command::find(program).is_some(),
            Witness::File(file) => Path::new(file).exists(),
            Witness::Module(module) => has_module(module),
            Witness::PerlModule(module) => has_perl_module(module),
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

/// Packages of the table for these needs.
pub fn wanted(needs: &[Need]) -> Vec<Package> {
    TABLE.into_iter().filter(|package| needs.contains(&package.need)).collect()
}

/// Installs those of the packages that are absent.
pub fn install(apt: &mut Apt, packages: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    apt.install(&names, &list)
}

/// Whether Perl has a module.
fn has_perl_module(module: &str) -> bool {
    let mut question = Command::new("perl");
    question.args([&format!("-M{module}"), "-e", "1"]);
    command::output(&mut question).is_ok()
}

/// Whether the system's Python, or another one on the PATH, has a module: looked for in the folders
/// of Debian's packages first, as asking a Python takes a tenth of a second.
fn has_module(module: &str) -> bool {
    let asks = |python: &str| {
        let mut question = Command::new(python);
        question.args(["-W", "ignore", "-c", &format!("import {module}")]);
        command::output(&mut question).is_ok()
    };
    let folder = Path::new("/usr/lib/python3/dist-packages").join(module);
    folder.is_dir() || asks("/usr/bin/python3") || asks("python3")
}
