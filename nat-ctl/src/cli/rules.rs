//! `forward` and `one-to-one`.
//!
//! Invariant: rules change through the agent where one is running, else in the state file under a
//! lock; both ways refuse the same rules with the same words.

use std::{
    fs::{File, TryLockError},
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use nat_ctl::{
    api::{ApiError, Client, Request, Response},
    config::Config,
    error::{Exit, Failure},
    options::Instance,
    output::{Printer, RuleView, unexpected},
    plane::here::address_of,
    rules::{
        Alg, Cidr, EditLock, ForwardDraft, Inbound, InsideEndpoint, OneToOneDraft, Origin,
        PortRange, Protocols, PublicEndpoint, Rule, RuleKind, RuleName, RuleStore, Service,
        StoreError, Uplink, parse_host,
    },
};

use super::written;

/// How often an agent that does not listen yet is tried, and the time in between: 10 s together,
/// which the verifier of a slow machine may take.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub enum ForwardCommand {
    /// Add a forward
    Add(AddForward),
    #[command(flatten)]
    Other(RuleCommand),
}

#[derive(Debug, Subcommand)]
pub enum OneToOneCommand {
    /// Add a one-to-one address
    Add(AddOneToOne),
    #[command(flatten)]
    Other(RuleCommand),
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Print the rules
    List(Place),
    /// Print one rule
    Show {
        /// Name of the rule
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a rule; connections that it has let in go on
    Remove {
        /// Name of the rule
        name: String,
        /// End its connections too
        #[arg(long)]
        kill_flows: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub struct Place {
    /// While no agent is running: the configuration that it is started with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AddForward {
    /// What the forward is called
    #[arg(long)]
    name: RuleName,
    /// A known service, in place of protocol and ports
    #[arg(long, value_enum, conflicts_with_all = ["protocol", "alg"])]
    service: Option<Service>,
    /// tcp, udp or tcp+udp
    #[arg(long, value_name = "PROTO", required_unless_present = "service")]
    protocol: Option<Protocols>,
    /// Where it is reached: 203.0.113.10:80, eth0:8000-8010; without a port: all of the protocol
    #[arg(long, value_name = "ADDR|IF[:PORTS]")]
    public: PublicEndpoint,
    /// The host inside: 192.168.1.10:80; a range maps one to one; without a port: the same port
    #[arg(long, value_name = "ADDR[:PORTS]")]
    to: InsideEndpoint,
    /// Who may use it; everybody where nothing is said
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow: Vec<Cidr>,
    /// ftp or none; ftp on public port 21 where nothing is said
    #[arg(long)]
    alg: Option<Alg>,
    /// Strict mode of FTP, true or false, whatever ftp.strict says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    strict: Option<bool>,
    /// Passive ports of the server, for FTP over TLS: open only to who holds an encrypted session
    #[arg(long, value_name = "PORTS")]
    passive_range: Option<PortRange>,
    /// The WAN that its packets leave by; that of the public address where nothing is said
    #[arg(long, value_name = "IF")]
    uplink: Option<Uplink>,
    /// A note for people
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    keep: Keep,
}

#[derive(Debug, Args)]
pub struct AddOneToOne {
    /// What the rule is called
    #[arg(long)]
    name: RuleName,
    /// The address outside
    #[arg(long, value_name = "ADDR", value_parser = parse_host)]
    public: Ipv4Addr,
    /// The host inside
    #[arg(long, value_name = "ADDR", value_parser = parse_host)]
    to: Ipv4Addr,
    /// What may come in: any, icmp, tcp:20-21, tcp:25@198.51.100.0/24; nothing without it
    #[arg(long, value_name = "PROTO[:PORTS][@CIDR,...]")]
    inbound: Vec<Inbound>,
    /// ftp or none; ftp where nothing is said
    #[arg(long)]
    alg: Option<Alg>,
    /// Strict mode of FTP, true or false, whatever ftp.strict says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    strict: Option<bool>,
    /// The WAN that its packets leave by; that of the public address where nothing is said
    #[arg(long, value_name = "IF")]
    uplink: Option<Uplink>,
    /// A note for people
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    keep: Keep,
}

#[derive(Debug, Args)]
struct Keep {
    /// Forget it when the agent ends
    #[arg(long, conflicts_with = "config")]
    runtime: bool,
    #[command(flatten)]
    place: Place,
}

/// `forward ...`
pub fn forward(
    command: ForwardCommand,
    instance: &Instance,
    printer: &Printer,
) -> Result<(), Failure> {
    match command {
        ForwardCommand::Other(command) => other(RuleKind::Forward, command, instance, printer),
        ForwardCommand::Add(add) => {
            let AddForward {
                name,
                service,
                protocol,
                public,
                to,
                allow,
                alg,
                strict,
                passive_range,
                uplink,
                comment,
                keep,
            } = add;
            let draft = ForwardDraft {
                name,
                service,
                protocol,
                public,
                public_port: None,
                to,
                local_port: None,
                allow,
                alg,
                strict,
                passive_range,
                uplink,
                comment,
            };
            put(Rule::Forward(draft.finish()?), keep, instance)
        }
    }
}

/// `one-to-one ...`
pub fn one_to_one(
    command: OneToOneCommand,
    instance: &Instance,
    printer: &Printer,
) -> Result<(), Failure> {
    match command {
        OneToOneCommand::Other(command) => other(RuleKind::OneToOne, command, instance, printer),
        OneToOneCommand::Add(add) => {
            let AddOneToOne { name, public, to, inbound, alg, strict, uplink, comment, keep } = add;
            let draft = OneToOneDraft { name, public, to, inbound, alg, strict, uplink, comment };
            put(Rule::OneToOne(draft.finish()?), keep, instance)
        }
    }
}

fn put(rule: Rule, keep: Keep, instance: &Instance) -> Result<(), Failure> {
    let Keep { runtime, place } = keep;
    match agent(instance)? {
        Some(mut agent) => done(agent.call(&Request::AddRule { rule, runtime })?),
        None if runtime => Err(Failure::not_running(instance)),
        None => {
            let name = rule.name().clone();
            let path = place.path(instance);
            let _lock = EditLock::acquire(&path)?;
            let mut store = place.store(instance)?;
            store.add(rule, Origin::Command, &address_of)?;
            note(instance, &format!("rule '{name}' is kept in {}", path.display()));
            Ok(())
        }
    }
}

fn other(
    kind: RuleKind,
    command: RuleCommand,
    instance: &Instance,
    printer: &Printer,
) -> Result<(), Failure> {
    match command {
        RuleCommand::List(place) => {
            printer.rules(kind, &views(kind, &place, instance)?).map_err(written)
        }
        RuleCommand::Show { name, place } => {
            let views = views(kind, &place, instance)?;
            let view = views.iter().find(|view| view.name() == name);
            let view = view.ok_or(StoreError::NotFound { kind, name })?;
            printer.rule(view).map_err(written)
        }
        RuleCommand::Remove { name, kill_flows, place } => {
            remove(kind, name, kill_flows, &place, instance)
        }
    }
}

fn remove(
    kind: RuleKind,
    name: String,
    kill_flows: bool,
    place: &Place,
    instance: &Instance,
) -> Result<(), Failure> {
    match agent(instance)? {
        Some(mut agent) => done(agent.call(&Request::RemoveRule { kind, name, kill_flows })?),
        None if kill_flows => Err(Failure::not_running(instance)),
        None => {
            let path = place.path(instance);
            let _lock = EditLock::acquire(&path)?;
            place.store(instance)?.remove(kind, &name)?;
            note(instance, &format!("rule '{name}' is removed from {}", path.display()));
            Ok(())
        }
    }
}

fn views(kind: RuleKind, place: &Place, instance: &Instance) -> Result<Vec<RuleView>, Failure> {
    match agent(instance)? {
        Some(mut agent) => match agent.call(&Request::Rules { kind })? {
            Response::Rules(views) => Ok(views),
            other => Err(unexpected(&other)),
        },
        None => {
            let store = place.store(instance)?;
            Ok(RuleView::list(&store, kind))
        }
    }
}

impl Place {
    fn path(&self, instance: &Instance) -> PathBuf {
        RuleStore::path_for(self.config.as_deref(), instance)
    }

    fn store(&self, instance: &Instance) -> Result<RuleStore, Failure> {
        let config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        Ok(RuleStore::open(self.path(instance), &config.rules(), &config.prefix, &address_of)?)
    }
}

/// The agent, where one is running. One that is about to listen is waited for: it has read its
/// rules already, and would not see what is written to the file now.
fn agent(instance: &Instance) -> Result<Option<Client>, Failure> {
    for _ in 0..ATTEMPTS {
        match Client::connect(&instance.socket()) {
            Ok(client) => return Ok(Some(client)),
            Err(ApiError::NotRunning(_)) if !is_locked(instance) => return Ok(None),
            Err(ApiError::NotRunning(_)) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(
        Exit::NotRunning,
        format_args!("instance '{instance}' is starting or ending: try again in a moment"),
    ))
}

/// Whether an agent exists that may not be listening.
fn is_locked(instance: &Instance) -> bool {
    let held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    File::open(instance.lock()).is_ok_and(held)
}

fn done(response: Response) -> Result<(), Failure> {
    match response {
        Response::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Tells people that the change waits for the next run.
fn note(instance: &Instance, what: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = writeln!(
        std::io::stderr(),
        "note: {what}; instance '{instance}' is not running and will follow at its next start"
    );
}
