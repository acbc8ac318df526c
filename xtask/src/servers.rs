//! FTP servers for the lab, unpacked into the tools folder.
//!
//! Debian's packages of them exclude each other, and installing one would start it on port 21 at
//! once and at each boot. A machine that is a gateway must not get an FTP server by running tests,
//! nor lose the one that it has. So a package is only downloaded and unpacked; of what it depends
//! on, the libraries are installed.
//!
//! Invariant: no server of ours is known to the system; the lab finds them by the PATH, on which
//! [`offer`] puts their folder last, so that an installed one comes first.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{apt::Apt, command, unpack::Downloads, workspace::Workspace};

/// A server: Debian's package, and the program in it.
struct Server {
    package: &'static str,
    program: &'static str,
}

const SERVERS: [Server; 4] = [
    Server { package: "vsftpd", program: "vsftpd" },
    Server { package: "proftpd-core", program: "proftpd" },
    Server { package: "pure-ftpd", program: "pure-ftpd" },
    Server { package: "inetutils-ftpd", program: "ftpd" },
];

/// Puts the unpacked servers on the PATH of this process and its children.
pub fn offer(workspace: &Workspace) -> anyhow::Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([folder(workspace).join("usr/sbin")]);
    let path = env::join_paths(folders).context("cannot put the lab's servers on the PATH")?;
    // SAFETY: called by main before any other thread exists, so nobody reads the environment.
    unsafe { env::set_var("PATH", path) };
    Ok(())
}

/// Unpacks the servers that this machine lacks. Without apt-get one is enough to go on.
pub fn ensure(workspace: &Workspace, apt: &mut Apt) -> anyhow::Result<()> {
    let is_absent = |server: &&Server| command::find(server.program).is_none();
    let absent: Vec<_> = SERVERS.iter().filter(is_absent).collect();
    if !Apt::is_here() {
        if absent.len() == SERVERS.len() {
            bail!("missing on this machine: an FTP server; install vsftpd, proftpd or pure-ftpd");
        }
        return Ok(());
    }
    absent.into_iter().try_for_each(|server| unpack(&folder(workspace), server, apt))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("servers")
}

/// Downloads one server, installs its libraries, and unpacks it: in this order, as the program being
/// there is what says that all is done.
fn unpack(folder: &Path, server: &Server, apt: &mut Apt) -> anyhow::Result<()> {
    let downloads = Downloads::of(apt, &[server.package], folder)?;
    apt.satisfy(&libraries(&downloads.depends()?), server.package)?;
    downloads.unpack(folder)
}

/// Libraries among dependencies; the rest (debconf, an inetd, init scripts) is for an installed
/// server only.
fn libraries(depends: &str) -> String {
    let dependencies = depends.trim().split(", ");
    dependencies.filter(|name| name.starts_with("lib")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn only_libraries_are_taken_from_dependencies() {
        let depends =
            "debconf (>= 0.5) | debconf-2.0, libc6 (>= 2.34), libwrap0 (>= 7.6-4~), adduser\n";
        assert_eq!(libraries(depends), "libc6 (>= 2.34), libwrap0 (>= 7.6-4~)");
    }
}
