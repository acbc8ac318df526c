//! The whole program by test run: of an open flow chosen at random, and of a flow that it makes.
//!
//! A program of the bench writes a packet of another flow in each repetition and then calls the one
//! that is measured. What that costs by itself is measured as well, and subtracted.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, SchedClassifier, TcAttachType, loaded_programs};
use nat_common::bench::{Order, mode};

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

/// Time of the program at the hook of `mode`, on the flows that are open.
pub(super) fn cost(field: &mut Field<'_>, mode: Mode, rounds: u32) -> Result<Vec<Sample>> {
    let order = field.order(Side::Inside, mode::UNIFORM, field.flows());
    let hook = match mode {
        Mode::Xdp => Hook::Xdp,
        Mode::Tc => Hook::Tc,
    };
    let case = format!("{} uniform", short(field.flows()));
    let mut samples = Vec::new();
    for round in 0..rounds {
        let value = time(field, hook, order, 0, REPEAT)?;
        samples.push(sample(names::PROGRAM_COST, &case, field, round, value));
    }
    Ok(samples)
}

/// Time of the TC program for a new flow, with as many flows as there are. Each round makes some of
/// those that the tables still have room for.
pub(super) fn insert(field: &mut Field<'_>, room: u32, rounds: u32) -> Result<Vec<Sample>> {
    let open = field.flows();
    // A pass over the numbers of the flows that are not open, each of them once.
    let order = field.order(Side::Inside, mode::OPEN, room);
    let some = (room - open) / rounds;
    let case = short(open);
    let mut samples = Vec::new();
    for round in 0..rounds {
        let from = u64::from(open + round * some);
        let value = time(field, Hook::Tc, order, from, some)?;
        samples.push(sample(names::INSERT_COST, &case, field, round, value));
    }
    Ok(samples)
}

/// Nanoseconds of the program on `repeat` packets from a place in the sequence on.
fn time(field: &mut Field<'_>, hook: Hook, order: Order, from: u64, repeat: u32) -> Result<f64> {
    let ifindex = field.lan_ifindex()?;
    let device = field.topology.devices.lan.clone();
    let (topology, kit) = (field.topology, &mut field.kit);
    let ((whole, answer), (making, _)) = topology.gateway.enter(|| -> Result<_> {
        pin(GATEWAY_CORE)?;
        go_real_time()?;
        let program = attached(hook, &device)?;
        kit.order_from(order, from)?;
        let making = kit.time(hook, None, ifindex, repeat)?;
        kit.order_from(order, from)?;
        Ok((kit.time(hook, Some(&program), ifindex, repeat)?, making))
    })??;
    let redirect = match hook {
        Hook::Xdp => XDP_REDIRECT,
        Hook::Tc => TC_REDIRECT,
    };
    ensure!(answer == redirect, "the program answered {answer}, it was to redirect");
    ensure!(whole > making, "a program took {whole} ns, and {making} ns without it");
    Ok(whole - making)
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

fn sample(measure: &'static str, case: &str, field: &Field<'_>, round: u32, value: f64) -> Sample {
    let contender = field.contender.name().to_owned();
    Sample { measure, case: case.to_owned(), contender, round, value, unit: "ns" }
}
