//! ncftpget.

use std::process::Command;

use anyhow::{Result, bail};

use super::{DataMode, Direction, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "ncftpget";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    if request.direction == Direction::Upload || request.rate.is_some() {
        bail!("ncftpget is only asked for whole files");
    }
    let mode = match request.mode {
        DataMode::Pasv => "-F",
        DataMode::Port => "-E",
        DataMode::Epsv | DataMode::Eprt => bail!("ncftpget has no {}", request.mode),
    };
    let script = format!(
        "{PROGRAM} -d stderr -t 4 -r 0 -u anonymous -p lab@example.net {mode} -P {} -c {} {} > {}",
        request.port,
        request.server,
        paths.remote,
        paths.local.display(),
    );
    let mut command = namespace.command("sh");
    command.args(["-c", &script]);
    Ok(command)
}
