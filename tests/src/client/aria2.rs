//! aria2.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{DataMode, Direction, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "aria2c";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    if request.direction == Direction::Upload || request.rate.is_some() {
        bail!("aria2 is only asked for whole files");
    }
    let passive = match request.mode {
        DataMode::Pasv => "true",
        DataMode::Port => "false",
        DataMode::Epsv | DataMode::Eprt => bail!("aria2 has no {} for IPv4", request.mode),
    };
    let (folder, name) =
        paths.local.parent().zip(paths.local.file_name()).context("a file in a folder")?;
    let mut command = namespace.command(PROGRAM);
    command.args(["--no-conf", "--log=-", "--log-level=info", "--console-log-level=error"]);
    command.args(["--connect-timeout=4", "--timeout=4", "--max-tries=1", "--split=1"]);
    command.args(["--ftp-user=anonymous", "--ftp-passwd=lab@example.net"]);
    command.arg(format!("--ftp-pasv={passive}")).arg("--dir").arg(folder).arg("--out").arg(name);
    command.arg(format!("ftp://{}:{}/{}", request.server, request.port, paths.remote));
    Ok(command)
}
