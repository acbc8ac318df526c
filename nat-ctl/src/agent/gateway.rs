//! The agent's state, and what clients of the API may do to it.
//!
//! Invariant: a rule is in the set, in the maps and in its file, or in none of them.

use std::{net::Ipv4Addr, path::PathBuf};

use nat_common::rule::RuleId;

use super::{
    answer::{Answer, Job},
    bridge::Bridge,
    fragments::Fragments,
    ftp_view,
    overload::Overload,
    reconfigure::Trial,
    six,
    world::World,
};
use crate::{
    alg,
    api::{Request, Response},
    config::{self, Config, ForeignAddress},
    error::{Exit, Failure},
    options::Instance,
    output::{FlowFilter, FtpSessionView, RuleView},
    plane::clock,
    rules::{Origin, Rule, RuleKind, RuleStore},
};

/// Everything that the event loop works on.
pub struct Agent {
    /// Which gateway of the machine this is.
    pub instance: Instance,
    /// The file that SIGHUP reads again.
    pub config_file: Option<PathBuf>,
    /// The configuration in force.
    pub config: Config,
    /// The rules in force.
    pub rules: RuleStore,
    /// Data plane and wire.
    pub world: World,
    /// Control connections.
    pub bridge: Bridge,
    /// Those over IPv6.
    pub six: six::Bridge,
    /// Whether new flows are refused.
    pub overload: Overload,
    /// A configuration that waits to be confirmed.
    pub trial: Option<Trial>,
    /// Fragments that wait, and packets that are cut.
    pub fragments: Fragments,
}

impl Agent {
    /// Does what a client asks, as far as it needs the agent; what only has to be read is left to
    /// another thread.
    pub fn answer(&mut self, request: &Request) -> Answer {
        let job = match request {
            Request::Rules { kind } => return Answer::Ready(Response::Rules(self.rules(*kind))),
            Request::AddRule { rule, runtime } => {
                return Answer::Ready(self.add(rule, *runtime).map(|()| Response::Done).into());
            }
            Request::RemoveRule { kind, name, kill_flows } => {
                match (self.remove(*kind, name), kill_flows) {
                    (Ok(number), true) => Job::EndRule(flows_of_gone(number)),
                    (Ok(_), false) => return Answer::Ready(Response::Done),
                    (Err(failure), _) => return Answer::Ready(Err(failure).into()),
                }
            }
            Request::Status => Job::Status {
                ftp_sessions: self.open_sessions(),
                overload: self.overload.states(clock::now().seconds()),
            },
            Request::Metrics => Job::Metrics { ftp_sessions: self.open_sessions() },
            Request::Config => {
                return Answer::Ready(self.config_text().map(Response::Config).into());
            }
            Request::PlanConfig { file } => match self.plan(file) {
                Ok(plan) => Job::Plan(plan),
                Err(failure) => return Answer::Ready(Err(failure).into()),
            },
            Request::ApplyConfig { file, confirm } => {
                let applied = self.apply(file, *confirm, clock::now().seconds());
                return Answer::Ready(applied.map(|()| Response::Done).into());
            }
            Request::ConfirmConfig => {
                return Answer::Ready(self.confirm().map(|()| Response::Done).into());
            }
            Request::RollbackConfig => {
                let back = self.roll_back(clock::now().seconds());
                return Answer::Ready(back.map(|()| Response::Done).into());
            }
            Request::Flows { filter } => Job::Flows(filter.clone()),
            Request::DeleteFlows { filter } => Job::DeleteFlows(filter.clone()),
            Request::Expectations => Job::Expectations,
            Request::Hosts => Job::Hosts,
            Request::Drops => Job::Drops,
            Request::Explain { question } => Job::Explain(question.clone()),
            Request::FtpSessions => Job::FtpSessions(self.ftp_sessions()),
            Request::FtpTransfers => {
                let transfers = self.bridge.history().transfers(clock::moment());
                return Answer::Ready(Response::FtpTransfers(transfers));
            }
            Request::FtpRefusals => {
                let refusals = self.bridge.history().refusals(clock::moment());
                return Answer::Ready(Response::FtpRefusals(refusals));
            }
            Request::FtpEvents { after } => {
                return Answer::Ready(Response::FtpEvents(self.bridge.history().events(*after)));
            }
        };
        Answer::Read(self.instance.clone(), job)
    }

    fn rules(&self, kind: RuleKind) -> Vec<RuleView> {
        RuleView::list(&self.rules, kind)
    }

    fn add(&mut self, rule: &Rule, runtime: bool) -> Result<(), Failure> {
        let origin = if runtime { Origin::Runtime } else { Origin::Command };
        self.refuse_shared(rule)?;
        let resolve = |name: &str| self.world.plane.address_of(name);
        self.rules.add(rule.clone(), origin, &resolve)?;
        self.put_in_force().inspect_err(|_| {
            // The maps are those of before, or are written again with the next change.
            if let Err(error) = self.rules.remove(rule.kind(), rule.name().as_str()) {
                tracing::error!("take rule '{}' back: {error}", rule.name());
            }
        })?;
        tracing::info!("{} '{}' added", rule.kind(), rule.name());
        Ok(())
    }

    /// The address that all hosts are hidden behind cannot be one host's own: it would take ports
    /// that masquerade and the gateway itself have claimed.
    fn refuse_shared(&self, rule: &Rule) -> Result<(), Failure> {
        let Rule::OneToOne(host) = rule else { return Ok(()) };
        let Some(why) = self.world.plane.shares(host.public()) else { return Ok(()) };
        Err(Failure::new(
            Exit::Conflict,
            format_args!(
                "one-to-one '{}': {} is {why}: use 'forward add', or another public address",
                host.name(),
                host.public()
            ),
        ))
    }

    /// Gives back the number that its flows have.
    fn remove(&mut self, kind: RuleKind, name: &str) -> Result<u32, Failure> {
        let numbers = self.rules.rules().clone();
        let rule = self.rules.remove(kind, name)?;
        self.put_in_force()?;
        tracing::info!("{kind} '{name}' removed");
        Ok(numbers.number(rule.name()))
    }

    pub(super) fn put_in_force(&mut self) -> Result<(), Failure> {
        for waiting in self.world.plane.apply(self.rules.rules())? {
            tracing::warn!(
                "public port {}:{} is in use by a connection or a socket: the forward works, and \
                 gets the port to itself when it is released",
                Ipv4Addr::from(waiting.address()),
                waiting.port().number()
            );
        }
        self.hold_sessions();
        Ok(())
    }

    /// Tells who reads control connections which rules say something of strict mode.
    pub(super) fn hold_sessions(&mut self) {
        let rules = self.rules.rules();
        let said = |rule: &Rule| {
            let strict = match rule {
                Rule::Forward(forward) => forward.strict(),
                Rule::OneToOne(host) => host.strict(),
            };
            Some((RuleId::new(rules.number(rule.name())), strict?))
        };
        let held = rules.iter().filter_map(said).collect();
        self.bridge.hold(&held);
        self.six.hold(&held);
    }

    fn open_sessions(&self) -> u64 {
        (self.bridge.open().count() + self.six.open().count()) as u64
    }

    fn ftp_sessions(&mut self) -> Vec<FtpSessionView> {
        let (rules, now) = (self.rules.rules(), clock::now());
        let (moment, bridge) = (clock::moment(), &self.bridge);
        let four = bridge.open().map(|(session, about)| (session, about.rule, about.created));
        let mut views: Vec<FtpSessionView> = four
            .chain(self.six.open())
            .map(|(session, rule, created)| {
                let rule = rules.find_id(rule.number()).map(|rule| rule.name().to_string());
                let last = bridge.last_transfer(session.flow().session, moment);
                ftp_view::view(session, now.since(created), rule, last.as_ref())
            })
            .collect();
        views.sort_unstable_by_key(|view| view.id);
        views
    }
}

/// What the engine is asked for.
pub fn policy(config: &Config) -> alg::Policy {
    let Config { ftp: configured, limits, .. } = config;
    let foreign = match configured.foreign_address {
        ForeignAddress::Refuse => alg::ForeignAddress::Refuse,
        ForeignAddress::Pass => alg::ForeignAddress::Pass,
    };
    let rules = alg::Strict { denied: configured.denied_commands.clone() };
    let quota = alg::Quota {
        per_session: limits.pinholes_per_session.get().into(),
        per_client: limits.pinholes_per_client.get(),
        per_second: limits.pinholes_per_second.get(),
    };
    let data_addresses = configured.data_addresses.clone();
    let strict = configured.strict.then(|| rules.clone());
    alg::Policy { foreign, data_addresses, quota, strict, by_rule: rules }
}

/// Seconds that an expectation waits.
pub fn expectation_seconds(timeouts: &config::Timeouts) -> u32 {
    u32::try_from(timeouts.expectation.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// Flows of a rule that is gone are named by its number.
fn flows_of_gone(number: u32) -> FlowFilter {
    FlowFilter::of_rule(&format!("#{number}"))
}
