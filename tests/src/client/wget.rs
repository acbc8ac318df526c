//! GNU wget.

use std::process::Command;

use anyhow::{Result, bail};

use super::{DataMode, Direction, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "wget";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    if request.direction == Direction::Upload || request.rate.is_some() {
        bail!("wget is only asked for whole files");
    }
    let mut command = namespace.command(PROGRAM);
    command.args(["--no-config", "--tries=1", "--timeout=4", "--no-glob", "--verbose"]);
    match request.mode {
        DataMode::Pasv => {}
        DataMode::Port => {
            command.arg("--no-passive-ftp");
        }
        DataMode::Epsv | DataMode::Eprt => bail!("wget has no {} for IPv4", request.mode),
    }
    command.arg("--output-document").arg(paths.local);
    command.arg(format!("ftp://{}:{}/{}", request.server, request.port, paths.remote));
    Ok(command)
}
