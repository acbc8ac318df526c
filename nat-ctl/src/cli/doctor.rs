//! `doctor`: looks for what would fight with the gateway.
//!
//! Invariant: works with an agent, beside a data plane without one, and before the first start; what
//! only root may see is not looked at by others.

use std::path::{Path, PathBuf};

use clap::Args;
use nat_ctl::{
    api::{ApiError, Client, Request, Response},
    config::Config,
    doctor::{Facts, Severity, Subject, examine},
    error::{Exit, Failure},
    options::Instance,
    output::{Printer, Role, RuleView, StatusView, unexpected},
    plane::{self, here::address_of, inspect::Inspector},
    rules::{RuleKind, RuleStore},
};

use super::written;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// While no agent is running: interfaces to the outside
    #[arg(long, value_name = "IF", num_args = 1.., value_delimiter = ',')]
    wan: Vec<String>,
    /// While no agent is running: interfaces to the inside
    #[arg(long, value_name = "IF", num_args = 1.., value_delimiter = ',')]
    lan: Vec<String>,
    /// While no agent is running: the configuration that it is started with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints what was found; whether nothing is broken.
pub fn doctor(args: DoctorArgs, instance: &Instance, printer: &Printer) -> Result<bool, Failure> {
    let subject = match Client::connect(&instance.socket()) {
        Ok(agent) => at_work(agent, instance)?,
        Err(ApiError::NotRunning(_)) => at_rest(args, instance)?,
        Err(error) => return Err(error.into()),
    };
    let findings = examine(&subject, &Facts::gather(&subject));
    printer.findings(&findings).map_err(written)?;
    Ok(!findings.iter().any(|finding| finding.severity == Severity::Broken))
}

fn at_work(mut agent: Client, instance: &Instance) -> Result<Subject, Failure> {
    let mut rules = vec![];
    for kind in [RuleKind::Forward, RuleKind::OneToOne] {
        match agent.call(&Request::Rules { kind })? {
            Response::Rules(views) => rules.extend(views),
            other => return Err(unexpected(&other)),
        }
    }
    let interfaces = interfaces(&agent.status()?);
    let pool = Inspector::open(instance).and_then(|inspector| inspector.pool()).ok();
    // What it adds is there.
    let config = match agent.call(&Request::Config)? {
        Response::Config(text) => Config::of_text(Path::new("of the agent"), &text)?,
        other => return Err(unexpected(&other)),
    };
    let (addresses, prefixes) = (config.masquerade.addresses.to_vec(), config.prefix);
    Ok(Subject {
        running: true,
        interfaces,
        rules,
        adds_addresses: true,
        pool,
        addresses,
        prefixes,
    })
}

/// The data plane that an agent has left, or what the next run would have.
fn at_rest(args: DoctorArgs, instance: &Instance) -> Result<Subject, Failure> {
    let file = args.config.as_deref();
    let config = file.map_or_else(|| Ok(Config::default()), Config::load)?;
    let path = RuleStore::path_for(file, instance);
    let store = RuleStore::open(path, &config.rules(), &config.prefix, &address_of)?;
    let kinds = [RuleKind::Forward, RuleKind::OneToOne];
    let rules = kinds.into_iter().flat_map(|kind| RuleView::list(&store, kind)).collect();
    let left = Inspector::open(instance).and_then(|inspector| inspector.status(0)).ok();
    let or = |named: Vec<String>, configured: Vec<String>| {
        if named.is_empty() { configured } else { named }
    };
    let named = [
        (Role::Wan, or(args.wan, config.gateway.wan)),
        (Role::Lan, or(args.lan, config.gateway.lan)),
    ];
    let interfaces = match &left {
        Some(status) => interfaces(status),
        None => named
            .into_iter()
            .flat_map(|(role, names)| names.into_iter().map(move |name| (name, role)))
            .collect(),
    };
    if interfaces.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format_args!(
                "look at instance '{instance}': it is not running, so the interfaces have to be \
                 named: --wan IF --lan IF, or --config FILE"
            ),
        ));
    }
    let pool = plane::pool(&config.masquerade.ports).ok();
    let adds_addresses = config.gateway.add_addresses;
    let addresses = config.masquerade.addresses.to_vec();
    let (running, prefixes) = (left.is_some(), config.prefix);
    Ok(Subject { running, interfaces, rules, adds_addresses, pool, addresses, prefixes })
}

fn interfaces(status: &StatusView) -> Vec<(String, Role)> {
    status.interfaces.iter().map(|interface| (interface.name.clone(), interface.role)).collect()
}
