//! curl.

use std::process::Command;

use super::{DataMode, Direction, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "curl";

pub(super) fn command(namespace: &Namespace, request: &Request, paths: &Paths<'_>) -> Command {
    let mut command = namespace.command(PROGRAM);
    command.args(["--disable", "--silent", "--show-error", "--verbose", "--connect-timeout", "4"]);
    match request.mode {
        // Without the second option curl dials the control peer, whatever the 227 says.
        DataMode::Pasv => command.args(["--disable-epsv", "--no-ftp-skip-pasv-ip"]),
        DataMode::Epsv => command.arg("--ftp-pasv"),
        DataMode::Port => command.args(["--disable-eprt", "--ftp-port", "-"]),
        DataMode::Eprt => command.args(["--ftp-port", "-"]),
    };
    match request.direction {
        Direction::Download => command.arg("--output").arg(paths.local),
        Direction::Upload => command.arg("--upload-file").arg(paths.local),
    };
    if let Some(rate) = request.rate {
        command.args(["--limit-rate", &rate.to_string()]);
    }
    command.args(["--user", "anonymous:lab@example.net"]);
    command.arg(format!("ftp://{}:{}/{}", request.server, request.port, paths.remote));
    command
}
