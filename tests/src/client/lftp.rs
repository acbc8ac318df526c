//! lftp, kept from mending what the gateway should have rewritten.

use std::process::Command;

use anyhow::{Result, bail};

use super::{DataMode, Direction, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "lftp";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let (passive, epsv) = match request.mode {
        DataMode::Pasv => ("yes", "no"),
        DataMode::Epsv => ("yes", "yes"),
        DataMode::Port => ("no", "no"),
        DataMode::Eprt => bail!("lftp has no EPRT for IPv4"),
    };
    let (local, remote) = (paths.local.display(), paths.remote);
    let action = match request.direction {
        Direction::Download => format!("get {remote} -o {local}"),
        Direction::Upload => format!("put {local} -o {remote}"),
    };
    let rate = request.rate.unwrap_or(0);
    let script = format!(
        "debug 5; set cmd:fail-exit yes; set ftp:passive-mode {passive}; set ftp:prefer-epsv {epsv}; \
         set ftp:fix-pasv-address no; set ftp:ssl-allow no; set net:timeout 4; set net:max-retries 1; \
         set net:persist-retries 0; set xfer:clobber yes; set net:limit-rate {rate}; \
         open -u anonymous,lab@example.net -p {} {}; {action}; bye",
        request.port, request.server,
    );
    let mut command = namespace.command(PROGRAM);
    command.args(["--norc", "-c", &script]);
    Ok(command)
}
