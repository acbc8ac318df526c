//! Pure-FTPd: configured by its command line alone. Anonymous sessions need a user `ftp` to exist.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::unistd::User;

use super::{Announce, Settings};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "pure-ftpd";

pub(super) fn is_installed() -> bool {
    super::find(PROGRAM).is_some()
}

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    let mut command = if matches!(User::from_name("ftp"), Ok(Some(_))) {
        super::program(namespace, PROGRAM)?
    } else {
        let program = super::find(PROGRAM).context("find pure-ftpd: install it")?;
        let mut command = super::with_user_ftp(namespace, root, folder)?;
        command.arg(program);
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
