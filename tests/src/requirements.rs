//! What a lab needs of the machine, said before anything is tried.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{client, server};

/// Programs without which no lab works, and the Debian package of each.
const PROGRAMS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("lftp", "lftp"),
];

/// What is missing for a lab, one phrase each; nothing when all is there.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root (namespaces and eBPF need it)".to_owned());
    }
    for (program, package) in PROGRAMS {
        if server::find(program).is_none() {
            missing.push(format!("{program} (package {package})"));
        }
    }
    if !client::is_installed(client::Kind::Curl) {
        missing.push("curl with FTP".to_owned());
    }
    let servers = server::Kind::ALL.into_iter().filter(|kind| kind.is_installed()).count();
    if servers == 0 {
        missing
            .push("an FTP server (package vsftpd, python3-pyftpdlib, proftpd or pure-ftpd)".into());
    }
    missing
}

/// For tests: whether to go on; says on the terminal what is missing otherwise.
#[must_use]
pub fn met(test: &str) -> bool {
    let missing = missing();
    if missing.is_empty() {
        return true;
    }
    say_skipped(test, &missing.join(", "));
    false
}

/// Our binary: `NAT_CTL` in the environment, else `release/nat-ctl` in the target folder that this
/// very program was built into.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NAT_CTL") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    let target = own.ancestors().find(|folder| folder.join("release/nat-ctl").is_file());
    target.unwrap_or(Path::new("target")).join("release/nat-ctl")
}

/// For tests of our gateway: the binary, or what is missing said on the terminal.
#[must_use]
pub fn met_with_binary(test: &str) -> Option<PathBuf> {
    if !met(test) {
        return None;
    }
    let binary = binary();
    if binary.is_file() {
        return Some(binary);
    }
    say_skipped(test, &format!("{} (cargo xtask build)", binary.display()));
    None
}

/// The same for a test that calls further programs.
#[must_use]
pub fn met_with_tools(test: &str, tools: &[&str]) -> Option<PathBuf> {
    let binary = met_with_binary(test)?;
    let missing: Vec<_> = tools.iter().copied().filter(|it| server::find(it).is_none()).collect();
    if !missing.is_empty() {
        say_skipped(test, &missing.join(", "));
        return None;
    }
    Some(binary)
}

/// Not `eprintln!`: the test harness swallows that of a test that passes, and a skip must be seen.
fn say_skipped(test: &str, missing: &str) {
    // With the terminal gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: missing {missing}");
}
