//! Pure-FTPd: configured by its command line alone. Anonymous sessions need a user `ftp` to exist.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::unistd::User;

use super::{Announce, Settings};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "pure-ftpd";

pub(super) fn is_installed() -> bool {
    super::find(PROGRAM).is_some()
}

/// Puts one file in the place of another for a program alone: files, then the program and its words.
const WITH_USERS: &str = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    let mut command = if matches!(User::from_name("ftp"), Ok(Some(_))) {
        super::program(namespace, PROGRAM)?
    } else {
        let users = fs::read_to_string("/etc/passwd").context("read the users")?;
        let own = format!("{users}ftp:x:65533:65534::{}:/bin/false\n", root.display());
        let users = super::write_config(folder, "passwd", &own)?;
        let program = super::find(PROGRAM).context("find pure-ftpd: install it")?;
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-c", WITH_USERS]).arg(users).arg(program);
        command
    };
    command
        .args(["--anonymousonly", "--ipv4only", "--dontresolve", "--maxclientsnumber", "20"])
        .args(["--bind", &format!("0.0.0.0,{}", settings.port)])
        .env("FTP_ANON_DIR", root);
    if let Announce::Stated(address) = settings.announce {
        command.args(["--forcepassiveip", &address.to_string()]);
    }
    Ok(command)
}
