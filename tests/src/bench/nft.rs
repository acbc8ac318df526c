//! The kernel's masquerade with a stateful filter, as it stands on most gateways.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use super::{contender::Sizes, topology::Topology};
use crate::process;

const TABLE: &str = "bench";
/// Both are one for the whole machine.
const MAXIMUM: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Rules at work, and a connection table that is large enough.
#[derive(Debug)]
pub struct Nft {
    namespace: String,
    before: [(&'static str, String); 2],
}

impl Nft {
    /// Loads the rules and raises the limits.
    pub(super) fn start(topology: &Topology, sizes: Sizes<'_>) -> Result<Self> {
        let file = topology.file("bench.nft");
        fs::write(&file, ruleset(topology, sizes.ftp))
            .with_context(|| format!("write {}", file.display()))?;
        process::must(topology.gateway.command("nft").arg("-f").arg(&file))?;
        let rules = Self {
            namespace: topology.gateway.name().to_owned(),
            before: [(MAXIMUM, read(MAXIMUM)?), (BUCKETS, read(BUCKETS)?)],
        };
        // Room as the kernel itself gives it by default: a bucket a connection.
        raise(MAXIMUM, sizes.flows.saturating_mul(2))?;
        raise(BUCKETS, sizes.flows)?;
        // Flows have to outlive the whole measure, as ours do.
        for timeout in ["udp_timeout", "udp_timeout_stream"] {
            topology.gateway.sysctl(&format!("net.netfilter.nf_conntrack_{timeout}"), "3600")?;
        }
        Ok(rules)
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        let _ = process::run(
            Command::new("nsenter")
                .arg(format!("--net=/run/netns/{}", self.namespace))
                .args(["--", "nft", "delete", "table", "ip", TABLE]),
            Duration::from_secs(20),
        );
        for (file, value) in &self.before {
            let _ = fs::write(file, value);
        }
    }
}

fn ruleset(topology: &Topology, ftp: bool) -> String {
    let (lan, wan) = (&topology.devices.lan, &topology.devices.wan);
    let helper = if ftp {
        "ct helper ftp { type \"ftp\" protocol tcp; }\n\
         chain helper { type filter hook prerouting priority filter;\n\
         tcp dport 21 ct helper set \"ftp\"\n}\n"
    } else {
        ""
    };
    format!(
        "table ip {TABLE} {{\n{helper}\
         chain outbound {{ type nat hook postrouting priority srcnat;\n\
         oifname {wan} masquerade\n}}\n\
         chain forward {{ type filter hook forward priority filter; policy drop;\n\
         ct state established,related accept\niifname {lan} accept\n}}\n}}\n"
    )
}

fn read(file: &str) -> Result<String> {
    Ok(fs::read_to_string(file).with_context(|| format!("read {file}"))?.trim().to_owned())
}

/// Raises a limit, never lowers it: another gateway on this machine may live by it.
fn raise(file: &str, value: u32) -> Result<()> {
    let now: u64 = read(file)?.parse().with_context(|| format!("{file} holds no number"))?;
    if now < u64::from(value) {
        fs::write(file, value.to_string()).with_context(|| format!("write {file}"))?;
    }
    Ok(())
}
