//! `run` and `down`: the checks before anything is attached.
//!
//! Invariant: whatever can be seen to be wrong beforehand is refused here, so that nothing has to
//! be undone.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use clap::Args;
use nat_ctl::{
    agent,
    config::Config,
    error::{Exit, Failure},
    options::{Instance, Mode, RunOptions},
    plane::{self, here::address_of},
    rules::RuleStore,
};
use nix::{net::if_::if_nametoindex, unistd::geteuid};

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Interfaces to the outside
    #[arg(long, value_name = "IF", num_args = 1.., value_delimiter = ',')]
    wan: Vec<String>,
    /// Interfaces to the inside
    #[arg(long, value_name = "IF", num_args = 1.., value_delimiter = ',')]
    lan: Vec<String>,
    /// Configuration; flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which hook carries the packets
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// Serve metrics to Prometheus there: GET /metrics
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Leave the data plane at work when the agent ends
    #[arg(long)]
    persist: bool,
}

/// Checks, then runs the agent until it is told to end.
pub fn run(args: RunArgs, instance: Instance, verbose: u8) -> Result<(), Failure> {
    let RunArgs { wan, lan, config: file, mode, metrics, persist } = args;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    let or_else = |named: Vec<String>, configured: &[String]| match named.is_empty() {
        true => configured.to_vec(),
        false => named,
    };
    let wan = or_else(wan, &config.gateway.wan);
    let lan = or_else(lan, &config.gateway.lan);
    check_names(&wan, &lan)?;
    need_root("run the gateway")?;
    check_existence(wan.iter().chain(&lan))?;
    let path = RuleStore::path_for(file.as_deref(), &instance);
    let rules = RuleStore::open(path, &config.rules(), &config.prefix, &address_of)?;
    let mode = mode.unwrap_or(config.gateway.mode);
    let options = RunOptions {
        instance,
        wan,
        lan,
        mode,
        config,
        config_file: file,
        rules,
        persist,
        metrics,
        verbose,
    };
    agent::run(options).map_err(Failure::from)
}

/// Removes what an agent that is gone has left.
pub fn down(instance: &Instance) -> Result<(), Failure> {
    need_root("remove the gateway")?;
    plane::down(instance).map(drop).map_err(Failure::from)
}

fn check_names(wan: &[String], lan: &[String]) -> Result<(), Failure> {
    let usage =
        |why: String| Err(Failure::new(Exit::Usage, format_args!("run the gateway: {why}")));
    for (side, names) in [("wan", wan), ("lan", lan)] {
        if names.is_empty() {
            return usage(format!(
                "no {side} interface is named: add --{side} IF, or '{side}' under [gateway] of \
                 the configuration"
            ));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return usage(format!("interface '{twice}' is named twice as {side}"));
        }
    }
    Ok(())
}

fn need_root(what: &str) -> Result<(), Failure> {
    if geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format_args!("{what}: permission is missing: run it as root")))
}

fn check_existence<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    match names.find(|name| if_nametoindex(name.as_str()).is_err()) {
        None => Ok(()),
        Some(name) => Err(Failure::new(
            Exit::NotFound,
            format_args!(
                "run the gateway on '{name}': there is no such interface: 'ip link' shows those of \
                 this network namespace"
            ),
        )),
    }
}
