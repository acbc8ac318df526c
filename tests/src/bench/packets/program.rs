//! The whole program by test run: of an open flow chosen at random, and of a flow that it makes. Beside
//! it what no program can do without, and the making of a flow alone.
//!
//! A program of the bench writes a packet of another flow in each repetition and then calls the one
//! that is measured. What that costs by itself is measured as well, and subtracted.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, SchedClassifier, TcAttachType, loaded_programs};
use nat_common::bench::{Order, mode};

use super::probe::Probe;
use crate::{
    bench::{
        field::{Field, Side, go_real_time, pin},
        kit::Hook,
        names,
        population::short,
        sample::Sample,
        topology::GATEWAY_CORE,
    },
    gateway::Mode,
    process,
};

/// `XDP_REDIRECT` of include/uapi/linux/bpf.h, `TC_ACT_REDIRECT` of include/uapi/linux/pkt_cls.h.
const XDP_REDIRECT: u32 = 4;
const TC_REDIRECT: u32 = 7;
/// Packets of a run.
const REPEAT: u32 = 1_000_000;

/// Time of the program at the hook of `mode`, on the flows that are open; in XDP also that of programs
/// which redirect and do nothing else (`redirect`), or only read a line of as large a table (`index`).
pub(super) fn cost(
    field: &mut Field<'_>,
    mode: Mode,
    rounds: u32,
    object: &Path,
) -> Result<Vec<Sample>> {
    let order = field.order(Side::Inside, mode::UNIFORM, field.flows());
    let hook = match mode {
        Mode::Xdp => Hook::Xdp,
        Mode::Tc => Hook::Tc,
    };
    let device = field.topology.devices.lan.clone();
    let name = field.contender.name().to_owned();
    let attached = field.topology.gateway.enter(|| attached(hook, &device))??;
    let mut callees = vec![(name, attached)];
    if mode == Mode::Xdp {
        let probe = probe(field, object)?;
        for name in ["redirect", "index"] {
            callees.push((name.to_owned(), probe.program(name)?));
        }
    }
    let case = format!("{} uniform", short(field.flows()));
    let mut samples = Vec::new();
    for round in 0..rounds {
        for (name, callee) in &callees {
            let value = time(field, hook, callee, order, 0, REPEAT)?;
            samples.push(sample(names::PROGRAM_COST, &case, name, round, value));
        }
    }
    Ok(samples)
}

/// Time of the TC program for the first packet of a new flow, with as many flows as there are. Each
/// round makes some of those that the tables still have room for.
pub(super) fn first_packet(field: &mut Field<'_>, room: u32, rounds: u32) -> Result<Vec<Sample>> {
    let open = field.flows();
    // A pass over the numbers of the flows that are not open, each of them once.
    let order = field.order(Side::Inside, mode::OPEN, room);
    let some = (room - open) / rounds;
    let case = short(open);
    let device = field.topology.devices.lan.clone();
    let name = field.contender.name().to_owned();
    let attached = field.topology.gateway.enter(|| attached(Hook::Tc, &device))??;
    let mut samples = Vec::new();
    for round in 0..rounds {
        let from = u64::from(open + round * some);
        let value = time(field, Hook::Tc, &attached, order, from, some)?;
        samples.push(sample(names::FIRST_PACKET, &case, &name, round, value));
    }
    Ok(samples)
}

/// Time to make a flow, with as many flows as there are: its public port is claimed, both directions
/// are inserted; and of `claim`, which only goes to the three places that this cannot do without. The
/// rounds share `room`.
pub(super) fn insert(
    field: &mut Field<'_>,
    room: u32,
    rounds: u32,
    object: &Path,
) -> Result<Vec<Sample>> {
    let mut probe = probe(field, object)?;
    let case = short(field.flows());
    let name = field.contender.name().to_owned();
    let some = room / rounds;
    let mut samples = Vec::new();
    for round in 0..rounds {
        let values = field.topology.gateway.enter(|| -> Result<_> {
            pin(GATEWAY_CORE)?;
            go_real_time()?;
            probe.insert(round * some, some)
        })??;
        for (name, value) in [name.as_str(), "claim"].into_iter().zip(values) {
            samples.push(sample(names::INSERT_COST, &case, name, round, value));
        }
    }
    Ok(samples)
}

fn probe(field: &Field<'_>, object: &Path) -> Result<Probe> {
    let pins = field.running.agent().context("only ours has maps")?.pins();
    field.topology.gateway.enter(|| Probe::load(object, &pins))?
}

/// Nanoseconds of the program on `repeat` packets from a place in the sequence on.
fn time(
    field: &mut Field<'_>,
    hook: Hook,
    callee: &ProgramFd,
    order: Order,
    from: u64,
    repeat: u32,
) -> Result<f64> {
    let ifindex = field.lan_ifindex()?;
    let (topology, kit) = (field.topology, &mut field.kit);
    let ((whole, answer), (making, _)) = topology.gateway.enter(|| -> Result<_> {
        pin(GATEWAY_CORE)?;
        go_real_time()?;
        let mut run = |callee| {
            kit.order_from(order, from)?;
            kit.time(hook, callee, ifindex, repeat)
        };
        // Before and after, and the one that was disturbed less: a floor is a few nanoseconds.
        let ((before, answer), whole) = (run(None)?, run(Some(callee))?);
        let after = run(None)?.0;
        Ok((whole, (before.min(after), answer)))
    })??;
    let redirect = match hook {
        Hook::Xdp => XDP_REDIRECT,
        Hook::Tc => TC_REDIRECT,
    };
    ensure!(answer == redirect, "the program answered {answer}, it was to redirect");
    // A floor of a few nanoseconds may drown in what the machine does meanwhile.
    Ok((whole - making).max(0.0))
}

/// The program on a device of the namespace of this thread.
fn attached(hook: Hook, device: &str) -> Result<ProgramFd> {
    let program = match hook {
        Hook::Tc => {
            let (_, programs) = SchedClassifier::query_tcx(device, TcAttachType::Ingress)
                .with_context(|| format!("ask {device} for its TC programs"))?;
            programs.into_iter().next()
        }
        Hook::Xdp => {
            let mut show = Command::new("ip");
            let shown = process::must(show.args(["-o", "-d", "link", "show", "dev", device]))?;
            let mut words = shown.split_whitespace().skip_while(|word| *word != "prog/xdp");
            let id = words.nth(2).and_then(|id| id.parse::<u32>().ok());
            loaded_programs().flatten().find(|program| Some(program.id()) == id)
        }
    };
    program.with_context(|| format!("{device} has no program"))?.fd().context("open a program")
}

fn sample(measure: &'static str, case: &str, contender: &str, round: u32, value: f64) -> Sample {
    let [case, contender] = [case, contender].map(str::to_owned);
    Sample { measure, case, contender, round, value, unit: "ns" }
}
