//! `top`: the flows, hosts or rules that move most, again and again.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use nat_ctl::{
    error::Failure,
    options::Instance,
    output::{By, FlowFilter, FlowView, Printer, Reader, Top},
    plane::clock,
};

use super::{interrupt::until_interrupted, state::source, watch::pause, written};

#[derive(Debug, Args)]
pub struct TopArgs {
    /// What a row stands for
    #[arg(long, value_enum, value_name = "WHAT", default_value = "flow")]
    by: By,
    /// Most rows
    #[arg(long, value_name = "COUNT", default_value = "20")]
    rows: usize,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = pause)]
    every: Duration,
    /// Print once, after the second look
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    filter: FlowFilter,
}

/// Prints what moves until Ctrl-C.
pub fn top(args: &TopArgs, instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let mut top = Top::default();
    let mut last = clock::moment();
    until_interrupted(args.every, || {
        let mut now = vec![];
        source(instance)?.flows(&args.filter, &mut |line| {
            now.push(FlowView::from(line));
            ControlFlow::Continue(())
        })?;
        let moment = clock::moment();
        let elapsed = moment.saturating_sub(last);
        last = moment;
        let Some(movers) = top.look(now, args.by, elapsed) else {
            return Ok(ControlFlow::Continue(()));
        };
        let reader = printer.movers(&movers, args.rows).map_err(written)?;
        Ok(match reader {
            Reader::There if !args.once => ControlFlow::Continue(()),
            Reader::There | Reader::Gone => ControlFlow::Break(()),
        })
    })
}
