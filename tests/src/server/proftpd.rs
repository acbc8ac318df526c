//! ProFTPD: `MasqueradeAddress`, and active connections from any port.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Announce, Settings, UPLOADS};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "proftpd";

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    let (root, folder_text) = (root.display(), folder.display());
    let mut text = format!(
        "ServerName lab\nServerType standalone\nDefaultServer on\nPort {port}\nUseIPv6 off\n\
         UseReverseDNS off\nWtmpLog off\nTransferLog none\n\
         SystemLog {folder_text}/system.log\nPidFile {folder_text}/pid\n\
         ScoreboardFile {folder_text}/scoreboard\nDelayEngine off\n\
         User nobody\nGroup nogroup\nAuthOrder mod_auth_unix.c\nRequireValidShell off\n\
         AllowForeignAddress off\nAllowOverwrite on\n",
        port = settings.port,
    );
    if let Announce::Stated(address) = settings.announce {
        writeln!(text, "MasqueradeAddress {address}").context("format")?;
    }
    write!(
        text,
        "<Anonymous {root}>\nUser nobody\nGroup nogroup\nUserAlias anonymous nobody\n\
         RequireValidShell off\n<Directory {UPLOADS}>\n<Limit STOR>\nAllowAll\n</Limit>\n\
         </Directory>\n</Anonymous>\n",
    )
    .context("format")?;
    let config = super::write_config(folder, "proftpd.conf", &text)?;
    let mut command = super::program(namespace, PROGRAM)?;
    command.arg("-n").arg("-c").arg(config);
    Ok(command)
}
