//! The two descendants of BSD's ftp that Debian has: tnftp and inetutils-ftp. Both read commands.

use std::process::Command;

use anyhow::Result;

use super::{DataMode, Kind, Paths, Request};
use crate::netns::Namespace;

pub(super) const TNFTP: &str = "tnftp";
pub(super) const INETUTILS: &str = "inetutils-ftp";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    request.only_gets()?;
    let extended = matches!(request.mode, DataMode::Epsv | DataMode::Eprt);
    // tnftp begins with the extended commands, inetutils-ftp with the others; `epsv4` changes that.
    let (program, begins_extended) = match request.client {
        Kind::Tnftp => (TNFTP, true),
        _ => (INETUTILS, false),
    };
    let toggle = if extended == begins_extended { "" } else { "epsv4\n" };
    let mode = match request.mode {
        DataMode::Pasv | DataMode::Epsv => "-p",
        DataMode::Port | DataMode::Eprt => "-A",
    };
    let script = format!(
        "open {} {}\nuser anonymous lab@example.net\n{toggle}binary\nget {} {}\nbye\n",
        request.server,
        request.port,
        paths.remote,
        paths.local.display(),
    );
    let mut command = namespace.command("sh");
    command.args(["-c", &format!("printf '%s' \"$0\" | {program} -n -i -v -d {mode}"), &script]);
    Ok(command)
}
