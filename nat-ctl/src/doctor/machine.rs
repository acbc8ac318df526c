//! The kernel and its settings.

use aya::util::KernelVersion;
use nat_common::layout;

use super::{Facts, Finding, Severity, Subject};

/// The oldest kernel that the gateway is tested with.
const OLDEST: (u8, u8) = (6, 1);

pub(super) fn check(subject: &Subject, facts: &Facts, findings: &mut Vec<Finding>) {
    kernel(facts, findings);
    if facts.bpffs_missing {
        findings.push(Finding {
            severity: if subject.running { Severity::Broken } else { Severity::Note },
            check: "bpffs",
            about: vec![],
            found: format!("no file system of type bpf is mounted at {}", layout::BPFFS),
            why:
                "maps and programs of the gateway are pinned there, so that they outlive the agent"
                    .to_owned(),
            advice: if subject.running {
                format!("mount -t bpf bpf {}, then start the gateway again", layout::BPFFS)
            } else {
                "nothing, unless this is a container: 'nat-ctl run' mounts it".to_owned()
            },
        });
    }
    if facts.jit == Some(0) {
        findings.push(Finding {
            severity: Severity::Warning,
            check: "bpf-jit",
            about: vec![],
            found: "net.core.bpf_jit_enable is 0".to_owned(),
            why: "the programs are interpreted, which costs several times as much a packet"
                .to_owned(),
            advice: "sysctl -w net.core.bpf_jit_enable=1, then start the gateway again".to_owned(),
        });
    }
    if subject.running && facts.forwarding == Some(0) {
        findings.push(Finding {
            severity: Severity::Broken,
            check: "ip-forward",
            about: vec![],
            found: "net.ipv4.ip_forward is 0".to_owned(),
            why: "the gateway has turned it on and something has turned it off since: the kernel \
                  gives no route for packets that are to be forwarded, and new flows go nowhere"
                .to_owned(),
            advice: "sysctl -w net.ipv4.ip_forward=1, and look for what sets it to 0 (sysctl.d, a \
                     network manager)"
                .to_owned(),
        });
    }
}

fn kernel(facts: &Facts, findings: &mut Vec<Finding>) {
    let Some((version, name)) = &facts.kernel else { return };
    let (major, minor) = OLDEST;
    if *version >= KernelVersion::new(major, minor, 0) {
        return;
    }
    findings.push(Finding {
        severity: Severity::Broken,
        check: "kernel",
        about: vec![],
        found: format!("this is Linux {name}"),
        why: format!("the programs are made for {major}.{minor} and newer; older ones refuse them"),
        advice: format!("boot Linux {major}.{minor} or newer"),
    });
}
