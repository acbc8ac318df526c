//! inetutils-ftpd: a descendant of BSD's, one process a session behind an inetd. It cannot be told which
//! address to state.
//!
//! As a daemon of its own it would outlive its guard, so a small inetd of ours starts it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Announce, Settings};
use crate::netns::Namespace;

/// Debian names the program so, and another one `in.ftpd`.
pub(super) const PROGRAM: &str = "ftpd";

/// Command line: port, program, its words.
const INETD: &str = "\
import os, signal, socket, sys
port, program = int(sys.argv[1]), sys.argv[2:]
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(('0.0.0.0', port))
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in range(3):
            os.dup2(connection.fileno(), end)
        os.execv(program[0], program)
    connection.close()
";

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    ensure!(settings.announce == Announce::Own, "inetutils-ftpd states its own address alone");
    let program = super::find(PROGRAM).context("find ftpd: install inetutils-ftpd")?;
    let inetd = super::write_config(folder, "inetd.py", INETD)?;
    let mut command = super::with_user_ftp(namespace, root, folder)?;
    command.arg("python3").arg(inetd).arg(settings.port.to_string());
    command.arg(program).args(["--ipv4", "--anonymous-only"]);
    Ok(command)
}
