//! `flows watch`, `expectations watch`, `drops --watch`: looks again and again, and tells what changed.
//!
//! Invariant: each look opens what it looks at anew, so that a gateway that ends, or that another agent
//! takes over, is seen; a closed pipe ends the watch without an error.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use nat_ctl::{
    error::Failure,
    options::Instance,
    output::{DropEvent, FlowFilter, FlowView, Printer, Reader, Watch},
};

use super::{interrupt::until_interrupted, state::source, written};

/// How often to look.
#[derive(Debug, Clone, Copy, Args)]
pub struct Every {
    /// Seconds between two looks: what comes and goes in between is not seen
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = pause)]
    every: Duration,
}

pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if !(0.05..=60.0).contains(&seconds) {
        return Err("a number of seconds from 0.05 to 60".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `flows watch`
pub fn flows(
    instance: &Instance,
    filter: &FlowFilter,
    every: Every,
    printer: &Printer,
) -> Result<(), Failure> {
    let mut watch = Watch::default();
    repeat(every, || {
        let mut now = vec![];
        source(instance)?.flows(filter, &mut |line| {
            now.push(FlowView::from(line));
            ControlFlow::Continue(())
        })?;
        printer.flow_events(&watch.look(now)).map_err(written)
    })
}

/// `expectations watch`
pub fn expectations(instance: &Instance, every: Every, printer: &Printer) -> Result<(), Failure> {
    let mut watch = Watch::default();
    repeat(every, || {
        let now = source(instance)?.expectations()?;
        printer.expectation_events(&watch.look(now)).map_err(written)
    })
}

/// `drops --watch`
pub fn drops(instance: &Instance, every: Every, printer: &Printer) -> Result<(), Failure> {
    let mut before = source(instance)?.drops()?;
    repeat(every, || {
        let now = source(instance)?.drops()?;
        let events = DropEvent::between(&before, &now);
        before = now;
        printer.drop_events(&events).map_err(written)
    })
}

fn repeat(every: Every, mut look: impl FnMut() -> Result<Reader, Failure>) -> Result<(), Failure> {
    until_interrupted(every.every, || {
        Ok(match look()? {
            Reader::There => ControlFlow::Continue(()),
            Reader::Gone => ControlFlow::Break(()),
        })
    })
}
