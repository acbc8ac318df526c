//! ncftpget.

use std::process::Command;

use anyhow::Result;

use super::{Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "ncftpget";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let mode = if request.is_passive()? { "-F" } else { "-E" };
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
