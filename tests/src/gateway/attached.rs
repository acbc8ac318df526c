//! What is attached to the gateway's interfaces, by whomever.
//!
//! Invariant: three tools are asked, as each is blind to something: `ip` to TC, `tc` to tcx,
//! `bpftool` to what this kernel doesn't list.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

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
    let text = process::must(namespace.command("bpftool").args(["--json", "net"]))?;
    let nets: Value = serde_json::from_str(&text).context("read bpftool net")?;
    for section in nets.as_array().into_iter().flatten() {
        for hook in ["xdp", "tc"] {
            for program in section.get(hook).and_then(Value::as_array).into_iter().flatten() {
                found.push(format!("bpftool net {hook}: {program}"));
            }
        }
    }
    Ok(found)
}
