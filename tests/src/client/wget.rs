//! GNU wget.

use std::process::Command;

use anyhow::Result;

use super::{Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "wget";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let mut command = namespace.command(PROGRAM);
    command.args(["--no-config", "--tries=1", "--timeout=4", "--no-glob", "--verbose"]);
    if !request.is_passive()? {
        command.arg("--no-passive-ftp");
    }
    command.arg("--output-document").arg(paths.local);
    command.arg(format!("ftp://{}:{}/{}", request.server, request.port, paths.remote));
    Ok(command)
}
