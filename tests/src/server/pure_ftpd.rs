//! Pure-FTPd: configured by its command line alone. Anonymous sessions need a user `ftp` to exist.

use std::{path::Path, process::Command};

use anyhow::Result;
use nix::unistd::User;

use super::{Announce, Settings};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "pure-ftpd";

pub(super) fn is_installed() -> bool {
    super::find(PROGRAM).is_some() && matches!(User::from_name("ftp"), Ok(Some(_)))
}

pub(super) fn command(namespace: &Namespace, settings: &Settings, root: &Path) -> Result<Command> {
    let mut command = super::program(namespace, PROGRAM)?;
    command
        .args(["--anonymousonly", "--ipv4only", "--dontresolve", "--maxclientsnumber", "20"])
        .args(["--bind", &format!("0.0.0.0,{}", settings.port)])
        .env("FTP_ANON_DIR", root);
    if let Announce::Stated(address) = settings.announce {
        command.args(["--forcepassiveip", &address.to_string()]);
    }
    Ok(command)
}
