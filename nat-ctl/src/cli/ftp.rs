//! `ftp` and `trace`: sessions, transfers, refusals, and what happens in them.
//!
//! Invariant: who watches asks in short intervals and is told what it has missed; the agent waits for
//! nobody.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    ops::ControlFlow::{Break, Continue},
    time::Duration,
};

use clap::Args;
use nat_ctl::{
    api::{Client, Request, Response},
    error::Failure,
    options::Instance,
    output::{FtpEventView, FtpEventsView, Printer, unexpected},
    plane::clock,
};

use super::{FtpCommand, interrupt::until_interrupted, state::agent, written};

/// Between two questions: short for a person, and less than the agent does by itself.
const INTERVAL: Duration = Duration::from_millis(100);

/// Flags of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Only of sessions with this address at either end
    #[arg(long, value_name = "ADDR")]
    host: Option<Ipv4Addr>,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
}

/// `ftp ...`
pub fn ftp(command: &FtpCommand, instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let mut agent = agent(instance)?;
    match command {
        FtpCommand::Sessions => match agent.call(&Request::FtpSessions)? {
            Response::FtpSessions(sessions) => printer.ftp_sessions(&sessions).map_err(written),
            other => Err(unexpected(&other)),
        },
        FtpCommand::Transfers => match agent.call(&Request::FtpTransfers)? {
            Response::FtpTransfers(transfers) => printer.ftp_transfers(&transfers).map_err(written),
            other => Err(unexpected(&other)),
        },
        FtpCommand::Refusals { count } => match (agent.call(&Request::FtpRefusals)?, count) {
            (Response::FtpRefusals(found), true) => {
                printer.ftp_refusal_counts(&found).map_err(written)
            }
            (Response::FtpRefusals(found), false) => printer.ftp_refusals(&found).map_err(written),
            (other, _) => Err(unexpected(&other)),
        },
        FtpCommand::Watch => watch(&mut agent, printer, None, |_| true),
    }
}

/// `trace`
pub fn trace(args: &TraceArgs, instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let end = clock::moment().saturating_add(args.time);
    watch(&mut agent(instance)?, printer, Some(end), |event| {
        event.is_change() && args.host.is_none_or(|host| event.is_of(host))
    })
}

/// Prints the events that are wanted until `end`, or for ever; until nobody reads them.
fn watch(
    agent: &mut Client,
    printer: &Printer,
    end: Option<Duration>,
    wanted: impl Fn(&FtpEventView) -> bool,
) -> Result<(), Failure> {
    let mut after = events(agent, None)?.next;
    until_interrupted(INTERVAL, || {
        let FtpEventsView { events, missed, next } = events(agent, Some(after))?;
        after = next;
        if missed > 0 {
            let _ =
                writeln!(io::stderr(), "nat-ctl: {missed} events came too fast and are missing");
        }
        for event in events.iter().filter(|event| wanted(event)) {
            match printer.ftp_event(event) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Break(())),
                printed => printed.map_err(written)?,
            }
        }
        let is_over = end.is_some_and(|end| clock::moment() >= end);
        Ok(if is_over { Break(()) } else { Continue(()) })
    })
}

fn events(agent: &mut Client, after: Option<u64>) -> Result<FtpEventsView, Failure> {
    match agent.call(&Request::FtpEvents { after })? {
        Response::FtpEvents(events) => Ok(events),
        other => Err(unexpected(&other)),
    }
}
