//! Python's ftplib, told to believe the 227.

use std::process::Command;

use anyhow::{Result, bail};

use super::{DataMode, Paths, Request};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "python3";

/// Command line: address, port, passive or active, get or put, local file, remote name.
const SCRIPT: &str = "\
import ftplib, sys
address, port, mode, action, local, remote = sys.argv[1:]
ftp = ftplib.FTP(timeout=4)
ftp.set_debuglevel(1)
ftp.trust_server_pasv_ipv4_address = True
ftp.connect(address, int(port))
ftp.login()
ftp.set_pasv(mode == 'passive')
if action == 'get':
    with open(local, 'wb') as file:
        ftp.retrbinary('RETR ' + remote, file.write)
else:
    with open(local, 'rb') as file:
        ftp.storbinary('STOR ' + remote, file)
ftp.quit()
";

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let mode = match request.mode {
        DataMode::Pasv => "passive",
        DataMode::Port => "active",
        DataMode::Epsv | DataMode::Eprt => bail!("ftplib has no {} for IPv4", request.mode),
    };
    if request.rate.is_some() {
        bail!("ftplib has no limit of its rate");
    }
    let mut command = namespace.command(PROGRAM);
    command.args(["-c", SCRIPT, &request.server.to_string(), &request.port.to_string(), mode]);
    command.arg(request.direction.to_string()).arg(paths.local).arg(paths.remote);
    Ok(command)
}
