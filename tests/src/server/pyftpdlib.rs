//! pyftpdlib: dials the data connection before it answers PORT, so an expectation that is late shows.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

use super::{Announce, Encryption, Settings};
use crate::netns::Namespace;

/// Command line: port, root, stated address or nothing, certificate or nothing, first and last passive
/// port or nothing, where it listens.
const SCRIPT: &str = "\
import sys, warnings
warnings.simplefilter('ignore')
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
port, root, stated, certificate, first, last, address = int(sys.argv[1]), *sys.argv[2:8]
if certificate:
    from pyftpdlib.handlers import TLS_FTPHandler as FTPHandler
    FTPHandler.certfile = certificate
if first:
    FTPHandler.passive_ports = range(int(first), int(last) + 1)
authorizer = DummyAuthorizer()
authorizer.add_anonymous(root, perm='elradfmw')
FTPHandler.authorizer = authorizer
FTPHandler.masquerade_address = stated or None
FTPServer((address, port), FTPHandler).serve_forever()
";

/// The first Python that has the module: Debian's packages are seen by Debian's Python only.
pub(super) fn interpreter() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let search = || {
        ["/usr/bin/python3", "python3"].into_iter().map(PathBuf::from).find(|python| {
            let mut command = Command::new(python);
            command.args(["-W", "ignore", "-c", "import pyftpdlib.servers"]);
            command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
        })
    };
    FOUND.get_or_init(search).as_deref()
}

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    let python =
        interpreter().context("find a Python with pyftpdlib: install python3-pyftpdlib")?;
    let script = super::write_config(folder, "server.py", SCRIPT)?;
    let stated = match settings.announce {
        Announce::Own => String::new(),
        Announce::Stated(address) => address.to_string(),
    };
    let certificate = match settings.encryption {
        Encryption::Never => PathBuf::new(),
        Encryption::Asked => super::certificate(folder)?,
        Encryption::Always => bail!("pyftpdlib does not speak TLS from the first byte"),
    };
    let passive = settings.passive.map(|ports| ports.map(|port| port.to_string()));
    let mut command = namespace.command(python);
    command.arg(script).arg(settings.port.to_string()).arg(root).arg(stated).arg(certificate);
    command.args(passive.unwrap_or_default()).arg(if settings.six { "::" } else { "0.0.0.0" });
    Ok(command)
}
