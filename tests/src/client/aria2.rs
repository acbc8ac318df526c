//! aria2.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "aria2c";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let passive = request.is_passive()?;
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
