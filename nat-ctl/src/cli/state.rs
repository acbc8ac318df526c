//! What is going on: flows, expectations, sessions, status and drops.
//!
//! Invariant: reading changes nothing, and needs no agent where the pinned maps tell it all.

use nat_common::reason::Reason;
use nat_ctl::{
    api::{ApiError, Client, Request, Response},
    error::{Exit, Failure},
    options::Instance,
    output::{FlowFilter, Printer, StateSource, unexpected},
    plane::inspect::Inspector,
};

use nix::unistd::geteuid;

use super::written;

/// `flows list`
pub fn flows(instance: &Instance, filter: &FlowFilter, printer: &Printer) -> Result<(), Failure> {
    let mut source = source(instance)?;
    printer.flows(|each| source.flows(filter, each))?.map_err(written)
}

/// `flows count`
pub fn count_flows(
    instance: &Instance,
    filter: &FlowFilter,
    printer: &Printer,
) -> Result<(), Failure> {
    let count = source(instance)?.count_flows(filter)?;
    printer.count(count).map_err(written)
}

/// `flows delete`
pub fn delete_flows(
    instance: &Instance,
    filter: FlowFilter,
    printer: &Printer,
) -> Result<(), Failure> {
    match agent(instance)?.call(&Request::DeleteFlows { filter })? {
        Response::Count(count) => printer.count(count).map_err(written),
        other => Err(unexpected(&other)),
    }
}

/// `expectations list`
pub fn expectations(instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    printer.expectations(&source(instance)?.expectations()?).map_err(written)
}

/// `hosts list`
pub fn hosts(instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    printer.hosts(&source(instance)?.hosts()?).map_err(written)
}

/// `status`
pub fn status(instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    printer.status(&agent(instance)?.status()?).map_err(written)
}

/// `metrics`: those of the data plane alone where no agent is there to tell its own.
pub fn metrics(instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    let view = match agent(instance) {
        Ok(mut agent) => match agent.call(&Request::Metrics)? {
            Response::Metrics(view) => *view,
            other => return Err(unexpected(&other)),
        },
        Err(failure) if geteuid().is_root() && instance.pins().exists() => {
            Inspector::open(instance).map_err(|_| failure)?.metrics(0)?
        }
        Err(failure) => return Err(failure),
    };
    printer.metrics(&view).map_err(written)
}

/// `drops`
pub fn drops(instance: &Instance, printer: &Printer) -> Result<(), Failure> {
    printer.drops(&source(instance)?.drops()?).map_err(written)
}

/// `drops explain`; the count is added where there is a gateway to ask.
pub fn explain(instance: &Instance, name: &str, printer: &Printer) -> Result<(), Failure> {
    let reason = Reason::by_name(name).ok_or_else(|| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let known = known.join(", ");
        Failure::new(
            Exit::NotFound,
            format_args!("explain '{name}': no packet is dropped for that; reasons are: {known}"),
        )
    })?;
    let drops = source(instance).and_then(|mut source| source.drops()).ok();
    let packets = drops.and_then(|drops| drops.0.get(reason.name()).copied());
    printer.reason(reason, packets).map_err(written)
}

/// The agent, which has to run.
pub fn agent(instance: &Instance) -> Result<Client, Failure> {
    Client::connect(&instance.socket()).map_err(|error| match error {
        ApiError::NotRunning(_) => Failure::not_running(instance),
        error => error.into(),
    })
}

/// The pinned maps for root, who then doesn't hold up the agent and needs none; the agent for the
/// others.
pub(super) fn source(instance: &Instance) -> Result<Box<dyn StateSource>, Failure> {
    if geteuid().is_root() && instance.pins().exists() {
        return Ok(Box::new(Inspector::open(instance)?));
    }
    Ok(Box::new(agent(instance)?))
}
