//! The oracle: nft masquerade, dnat and the connection tracking helper for FTP.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::Rule;
use crate::{
    lab::{LAN_DEVICE, WAN_DEVICE},
    netns::Namespace,
    process,
};

/// Linux's own NAT.
#[derive(Debug)]
pub struct Linux<'lab> {
    namespace: &'lab Namespace,
    rules: Vec<Rule>,
    left: bool,
}

impl<'lab> Linux<'lab> {
    pub(super) fn start_in(namespace: &'lab Namespace) -> Result<Self> {
        let gateway = Self { namespace, rules: Vec::new(), left: false };
        gateway.load()?;
        gateway.namespace.sysctl("net.ipv4.ip_forward", "1")?;
        Ok(gateway)
    }

    pub(super) fn add(&mut self, rule: &Rule) -> Result<()> {
        self.rules.push(rule.clone());
        self.load()
    }

    pub(super) fn remove(&mut self, rule: &Rule) -> Result<()> {
        self.rules.retain(|known| known != rule);
        self.load()
    }

    pub(super) fn diagnosis(&self) -> String {
        process::must(self.namespace.command("nft").args(["list", "ruleset"])).unwrap_or_default()
    }

    pub(super) fn stop(self) -> Result<()> {
        // Dropping does all there is to do.
        Ok(())
    }

    pub(super) fn leave(mut self) {
        self.left = true;
    }

    fn load(&self) -> Result<()> {
        feed(self.namespace.command("nft").args(["-f", "-"]), &ruleset(&self.rules)?)
    }
}

impl Drop for Linux<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let script = "echo 0 > /proc/sys/net/ipv4/ip_forward; nft delete table ip lab";
        let _ = self.namespace.command("sh").args(["-c", script]).output();
    }
}

/// The whole ruleset; the first two lines make loading it a replacement in one step.
fn ruleset(rules: &[Rule]) -> Result<String> {
    let (mut inbound, mut outbound) = (String::new(), String::new());
    for rule in rules {
        match rule {
            Rule::ForwardFtp { public, to, .. } => {
                writeln!(inbound, "ip daddr {public} tcp dport 21 dnat to {to}")?;
            }
            Rule::OneToOne { public, to, .. } => {
                writeln!(inbound, "ip daddr {public} tcp dport 21 dnat to {to}")?;
                writeln!(outbound, "oifname {WAN_DEVICE} ip saddr {to} snat to {public}")?;
            }
        }
    }
    Ok(format!(
        "table ip lab\ndelete table ip lab\ntable ip lab {{\n\
         ct helper ftp {{ type \"ftp\" protocol tcp; }}\n\
         chain helper {{ type filter hook prerouting priority filter;\n\
         tcp dport 21 ct helper set \"ftp\"\n}}\n\
         chain inbound {{ type nat hook prerouting priority dstnat;\n{inbound}}}\n\
         chain outbound {{ type nat hook postrouting priority srcnat;\n{outbound}\
         oifname {WAN_DEVICE} masquerade\n\
         iifname {LAN_DEVICE} oifname {LAN_DEVICE} ct status dnat masquerade\n}}\n\
         chain forward {{ type filter hook forward priority filter; policy drop;\n\
         ct state established,related accept\niifname {LAN_DEVICE} accept\n\
         ct status dnat accept\n}}\n}}\n"
    ))
}

fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start nft")?;
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().context("wait for nft")?;
    if !output.status.success() {
        bail!("nft refused the rules: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written.transpose().context("write to nft").map(drop)
}
