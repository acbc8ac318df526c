//! The same script of packets through ours, in both modes, and through Linux nf_nat: what comes out is the
//! same, or the difference is in the table of docs/rfc.md, "Beside Linux nf_nat", with both outcomes
//! word for word.
//!
//! Linux is a router as one sets it up with care: masquerade, the same forwards, what is invalid is dropped
//! (else it leaves untranslated), and what nobody has asked for does not reach the router itself. Reverse
//! paths are looked at (`rp_filter`) on both.

mod cast;
mod fragments;
mod headers;
mod icmp;
mod segments;
mod stage;
mod tcp;
mod told;
mod udp;

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use nat_tests::{
    gateway::{Gateway, Kind, Mode},
    lab::{Lab, WAN, WAN_DEVICE},
    process, requirements,
};

use cast::{NAMES, NAMES_PORT, NARROW, NARROW_SERVER, SERVER, WEB, WEB_PORT};
use stage::Step;

const PAPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rfc.md");
const TITLE: &str = "## Beside Linux nf_nat";

const SCRIPT: &[&[Step]] = &[
    udp::STEPS,
    tcp::STEPS,
    tcp::STRAYS,
    segments::STEPS,
    icmp::STEPS,
    icmp::ERRORS,
    fragments::STEPS,
    fragments::ORDERS,
    headers::STEPS,
    headers::OPTIONS,
    headers::SOURCES,
];

/// The forwards: protocol, public end, server.
fn forwards() -> [(&'static str, String, String); 3] {
    [
        ("tcp", WEB, SERVER, WEB_PORT),
        ("udp", NAMES, SERVER, NAMES_PORT),
        ("udp", NARROW, NARROW_SERVER, NAMES_PORT),
    ]
    .map(|(protocol, public, to, port)| (protocol, public.to_string(), format!("{to}:{port}")))
}

fn set_up(gateway: &Gateway<'_>, lab: &Lab) -> Result<()> {
    if let Gateway::NatCtl(ours) = gateway {
        for (number, (protocol, public, to)) in forwards().iter().enumerate() {
            let name = format!("forward-{number}");
            let words = ["forward", "add", "--name", &name, "--protocol", protocol];
            let ends = ["--public", public, "--to", to];
            ours.call(&[&words[..], &ends].concat())?.checked("add a forward")?;
        }
        return Ok(());
    }
    let rules = forwards().map(|(protocol, public, to)| {
        let port = public.rsplit(':').next().unwrap_or_default();
        format!("ip daddr {WAN} {protocol} dport {port} dnat to {to}\n")
    });
    let table = format!(
        "table ip beside {{\n\
         chain inbound {{ type nat hook prerouting priority dstnat - 1;\n{}}}\n\
         chain invalid {{ type filter hook forward priority filter - 1;\n\
         ct state invalid drop\n}}\n\
         chain own {{ type filter hook input priority filter;\n\
         iifname != {WAN_DEVICE} accept\nct state invalid drop\n\
         ct state established,related accept\nmeta l4proto icmp accept\ndrop\n}}\n}}",
        rules.concat()
    );
    process::must(lab.gateway.command("nft").arg(table)).map(drop)
}

/// What comes out of a gateway, step by step.
fn outcomes(kind: Kind, steps: &[Step], wanted: &[&str], binary: &std::path::Path) -> Vec<String> {
    let lab = stage::lab().expect("a lab");
    let gateway = Gateway::start(&lab, kind, binary).expect("a gateway");
    set_up(&gateway, &lab).expect("forwards");
    let told = stage::play(steps, wanted, &lab)
        .unwrap_or_else(|error| panic!("{kind}: {error:#}\n{}", gateway.diagnosis()));
    gateway.stop().expect("an end");
    told
}

/// The rows of the table: by step what ours does, and what Linux does.
fn listed() -> BTreeMap<String, [String; 2]> {
    let text = fs::read_to_string(PAPER).expect("docs/rfc.md");
    let table = text.split(TITLE).nth(1).expect("the table beside Linux");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [step, ours, linux, why] = cells[..] else { panic!("not four cells: {row}") };
            assert!(!why.is_empty(), "no reason: {row}");
            (step.to_owned(), [ours.to_owned(), linux.to_owned()])
        })
        .collect()
}

#[test]
fn a_script_of_packets_comes_out_as_through_linux_or_the_difference_is_listed() {
    let Some(binary) = requirements::met_with_binary("packets beside Linux") else { return };
    let steps = SCRIPT.concat();
    let listed = listed();
    let ours: Vec<_> = steps.iter().map(|step| step.ours).collect();
    let linux: Vec<_> = steps
        .iter()
        .map(|step| listed.get(step.name).map_or(step.ours, |[_, linux]| linux.as_str()))
        .collect();
    let mut wrong = Vec::new();
    for (kind, wanted) in
        [(Kind::NatCtl(Mode::Tc), &ours), (Kind::NatCtl(Mode::Xdp), &ours), (Kind::Linux, &linux)]
    {
        let told = outcomes(kind, &steps, wanted, &binary);
        for ((step, told), wanted) in steps.iter().zip(told).zip(wanted) {
            if told != *wanted {
                wrong.push(format!("{}: {kind}: {told}\n    not: {wanted}", step.name));
            }
        }
    }
    for (name, [stated, linux]) in &listed {
        match steps.iter().find(|step| step.name == name) {
            None => wrong.push(format!("{name}: no such step is in the script")),
            Some(step) if step.ours != stated => {
                wrong.push(format!("{name}: ours in docs/rfc.md is not that of the script"));
            }
            Some(step) if step.ours == linux => {
                wrong.push(format!("{name}: is in docs/rfc.md, and there is no difference"));
            }
            Some(_) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of docs/rfc.md or the script:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
