//! Perl's Net::FTP.

use std::process::{Command, Stdio};

use anyhow::Result;

use super::{Paths, Request};
use crate::netns::Namespace;

const PROGRAM: &str = "perl";

/// Command line: address, port, 1 where it is passive, remote name, local file.
const SCRIPT: &str = "\
use Net::FTP;
my ($address, $port, $passive, $remote, $local) = @ARGV;
my $ftp = Net::FTP->new($address, Port => $port, Passive => $passive, Debug => 1, Timeout => 4)
    or die \"no connection: $@\";
$ftp->login('anonymous', 'lab@example.net') or die $ftp->message;
$ftp->binary or die $ftp->message;
$ftp->get($remote, $local) or die $ftp->message;
$ftp->quit;
";

/// Whether there is a Perl with the module, which the smallest one of Debian has not.
pub(super) fn is_installed() -> bool {
    let mut perl = Command::new(PROGRAM);
    perl.args(["-MNet::FTP", "-e", "1"]).stdin(Stdio::null());
    perl.output().is_ok_and(|output| output.status.success())
}

pub(super) fn command(
    namespace: &Namespace,
    request: &Request,
    paths: &Paths<'_>,
) -> Result<Command> {
    let passive = if request.is_passive()? { "1" } else { "0" };
    let mut command = namespace.command(PROGRAM);
    command.args(["-e", SCRIPT, &request.server.to_string(), &request.port.to_string(), passive]);
    command.arg(paths.remote).arg(paths.local);
    Ok(command)
}
