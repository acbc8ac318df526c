//! What is attached to the gateway's interfaces, by whomever.
//!
//! Invariant: every kind of hook is asked for by a tool that sees it: `ip` shows XDP, `tc` shows
//! filters, and tcx, which neither knows, is asked of the kernel (Debian 12's bpftool is too old).

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc::TcError};
use nix::errno::Errno;

use crate::{
    lab::{LAN_DEVICE, WAN_DEVICE},
    netns::Namespace,
    process,
};

const LIMIT: Duration = Duration::from_secs(10);

/// BPF programs on the interfaces of a namespace, one sentence each.
pub fn attached(namespace: &Namespace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for line in namespace.ip("-o -d link show")?.lines() {
        if line.contains("prog/xdp") || line.contains(" xdp") {
            found.push(format!("XDP: {line}"));
        }
    }
    for device in [WAN_DEVICE, LAN_DEVICE] {
        for hook in ["ingress", "egress"] {
            let mut command = namespace.command("tc");
            command.args(["filter", "show", "dev", device, hook]);
            // Without a clsact qdisc tc complains, and there is no filter either.
            let filters = process::run(&mut command, LIMIT)?.stdout;
            found.extend(filters.lines().map(|line| format!("tc {device} {hook}: {line}")));
        }
    }
    found.extend(namespace.enter(tcx)??);
    Ok(found)
}

/// tcx programs of the namespace that the calling thread is in; none on kernels before 6.6.
fn tcx() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for device in [WAN_DEVICE, LAN_DEVICE] {
        for (hook, name) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
            match SchedClassifier::query_tcx(device, hook) {
                Ok((_, programs)) => found.extend(programs.iter().map(|program| {
                    format!("tcx {device} {name}: {}", program.name_as_str().unwrap_or("?"))
                })),
                Err(ProgramError::SyscallError(error)) if !knows_tcx(&error.io_error) => {}
                Err(ProgramError::TcError(TcError::IoError(error)))
                    if error.raw_os_error() == Some(Errno::ENODEV as i32) => {}
                Err(error) => return Err(error).with_context(|| format!("ask {device} for tcx")),
            }
        }
    }
    Ok(found)
}

fn knows_tcx(error: &std::io::Error) -> bool {
    error.raw_os_error() != Some(Errno::EINVAL as i32)
}
