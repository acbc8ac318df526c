//! The state of a gateway for people and scripts, from its pinned maps, with or without an agent.
//!
//! Invariant: reads only, but for the flows that it is told to delete. It opens its own handles, so
//! that a long table is read on any thread.

mod delete;
mod six;
mod status;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    ops::ControlFlow,
    path::PathBuf,
};

use aya::maps::MapError;
use nat_common::{
    flow::{Direction, FlowKey, Origin},
    host,
    lifetime::Timeouts,
    reason::Reason,
    session::SessionId,
};

use super::clock::{self, Now};
use super::dump;
use super::error::{PlaneError, Result};
use super::host_memory::{HostMemory, Listed};
use super::maps::Maps;
use super::pair::{Pair, Record};
use super::pins::{self, Pinned};
use super::state::State;
use crate::error::Failure;
use crate::options::Instance;
use crate::output::{
    DropsView, Each, End, ExpectationView, ExplainView, FlowFilter, FlowLine, FlowView, HostView,
    Question, StateSource,
};
use crate::rules::{Alg, FlowProtocol, Protocol};

/// Reads one instance.
#[derive(Debug)]
pub struct Inspector {
    instance: Instance,
    maps: Maps,
    state: State,
    timeouts: Timeouts,
}

impl Inspector {
    /// Opens the maps of an instance.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where it has none.
    pub fn open(instance: &Instance) -> Result<Self> {
        let none = || {
            PlaneError::NotFound(format!(
                "read instance '{instance}': it has no data plane: start it with `nat-ctl run`, or \
                 name another one with --instance"
            ))
        };
        if pins::look(instance)? != Pinned::Whole {
            return Err(none());
        }
        let maps = Maps::open(&instance.pins())?;
        let state = State::read(instance)?.ok_or_else(none)?;
        let timeouts = state.timeouts.into();
        Ok(Self { instance: instance.clone(), maps, state, timeouts })
    }

    pub(super) fn maps(&self) -> &Maps {
        &self.maps
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.instance.pins()
    }

    /// Names of the rules by their number in maps.
    pub(super) fn rule_names(&self) -> &BTreeMap<u32, String> {
        &self.state.rules
    }

    /// Hands over the flows that match, as they are read: those of IPv4, then those of IPv6.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn each_flow(&self, filter: &FlowFilter, each: Each<'_>) -> Result<()> {
        let (now, names) = (clock::now(), Names::of(self));
        let wanted = dump::flows(&self.maps.flows, |pair| {
            self.with_line(pair, now, &names, |line| {
                if filter.matches(line) { each(line) } else { ControlFlow::Continue(()) }
            })
        });
        // Nobody may want more than the first ones.
        if wanted.is_break() {
            return Ok(());
        }
        self.each_flow6(filter, now, &names, |_, line| each(line))
    }

    /// The flows that match.
    ///
    /// # Errors
    /// See [`Inspector::each_flow`].
    pub fn flows(&self, filter: &FlowFilter) -> Result<Vec<FlowView>> {
        let mut views = vec![];
        self.each_flow(filter, &mut |line| {
            views.push(FlowView::from(line));
            ControlFlow::Continue(())
        })?;
        Ok(views)
    }

    /// The expectations that nobody has used yet.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn expectations(&self) -> Result<Vec<ExpectationView>> {
        let now = clock::now();
        let mut views = vec![];
        for entry in self.maps.expectations.iter() {
            let (key, found) = entry.map_err(refused("expectations"))?;
            let Some(protocol) = Protocol::from_number(key.protocol()) else { continue };
            let expires = found.expires().saturating_sub(now.seconds());
            if expires == 0 {
                continue;
            }
            // An outbound one keeps its destination; what it names is its public source.
            let inbound = found.port().number() != 0;
            let to = if inbound { found.address() } else { key.dst() };
            let to_port = if inbound { found.port() } else { key.dport() };
            views.push(ExpectationView {
                protocol,
                src: IpAddr::from(key.src()),
                dst: IpAddr::from(key.dst()),
                dport: key.dport().number(),
                to: IpAddr::from(to),
                to_port: to_port.number(),
                expires_s: expires.into(),
                session: found.session().number().into(),
            });
        }
        views.extend(self.expectations6()?);
        Ok(views)
    }

    /// Inside hosts by their addresses and the flows that each has opened, most flows first.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn hosts(&self) -> Result<Vec<HostView>> {
        let settings = self.maps.settings.get(&0, 0).map_err(refused("settings"))?;
        let [limit, ports_limit] = [settings.flows_per_host, settings.ports_per_host]
            .map(|limit| (limit != 0).then_some(limit));
        let listed = HostMemory::open(&self.pins())?;
        let mut views: Vec<_> = listed
            .listed()
            .map(|Listed { who, flows, ports, refused }| {
                let host = Ipv4Addr::from(host::address(who)).into();
                HostView { host, flows, limit, ports: Some(ports), ports_limit, refused }
            })
            .collect();
        // Nothing that leaves by IPv6 has a public port.
        views.extend(self.hosts6()?.into_iter().map(|(host, Listed { flows, refused, .. })| {
            let (host, ports, ports_limit) = (host.into(), None, None);
            HostView { host, flows, limit, ports, ports_limit, refused }
        }));
        views.sort_by_key(|view| (Reverse(view.flows), view.host));
        Ok(views)
    }

    /// Drops by reason.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn drops_view(&self) -> Result<DropsView> {
        let counts = Reason::ALL
            .iter()
            .map(|reason| self.maps.dropped(*reason))
            .collect::<Result<Vec<u64>>>()?;
        Ok(DropsView::new(|reason| counts.get(reason as usize).copied().unwrap_or(0)))
    }

    /// A flow as output has it.
    fn with_line(
        &self,
        pair: &Pair,
        now: Now,
        names: &Names<'_>,
        each: impl FnOnce(&FlowLine<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // Of an orphaned answer the original is what it leads back to.
        let flow = pair.first.flow();
        let (original, reply) = match (flow.direction(), pair.answer) {
            (Direction::Original, answer) => (Ok(pair.first), answer.ok_or(pair.first.answer())),
            (Direction::Reply, _) => (Err(pair.first.answer()), Ok(pair.first)),
        };
        let rule = names.rule(flow.origin());
        let unknown = if rule.is_some_and(|(_, name)| name.is_none()) {
            rule.map(|(number, _)| format!("#{number}"))
        } else {
            None
        };
        each(&FlowLine {
            protocol: FlowProtocol::from_number(pair.first.key().protocol()),
            state: pair.state(),
            original: end(original),
            reply: end(reply),
            age_s: now.since(pair.first.created()).into(),
            idle_s: pair.idle(now).into(),
            expires_s: pair.expires(now, &self.timeouts).into(),
            alg: flow.control_session().is_some().then_some(Alg::Ftp),
            // The number of a rule that is gone while its flows go on.
            rule: rule.and_then(|(_, name)| name).or(unknown.as_deref()),
            related_to: flow.related_session().map(|session| session.number().into()),
        })
    }

    /// The number of the rule of a session that is open; 0 for none.
    fn session_rule(&self, id: SessionId) -> u32 {
        let found = id.index().and_then(|place| self.maps.sessions.get(place));
        found.map_or(0, |session| session.rule().number())
    }
}

/// Names of the rules that flows came by.
struct Names<'a> {
    inspector: &'a Inspector,
}

impl<'a> Names<'a> {
    fn of(inspector: &'a Inspector) -> Self {
        Self { inspector }
    }

    /// The number of a rule, and its name where it has one.
    fn rule(&self, origin: Origin) -> Option<(u32, Option<&'a str>)> {
        let number = match origin {
            Origin::Rule(rule) => rule.number(),
            Origin::Control(session) | Origin::Related(session) => {
                self.inspector.session_rule(session)
            }
        };
        (number != 0).then(|| (number, self.name(number)))
    }

    /// The name of the rule with this number, where there is one.
    fn name(&self, number: u32) -> Option<&'a str> {
        self.inspector.state.rules.get(&number).map(String::as_str)
    }
}

/// A record, or the key of one that is missing.
fn end(of: Result<Record, FlowKey>) -> End {
    let (key, packets, bytes) = match of {
        Ok(record) => (record.key(), record.packets(), record.bytes()),
        Err(key) => (key, 0, 0),
    };
    End {
        src: IpAddr::from(key.src()),
        sport: key.sport().number(),
        dst: IpAddr::from(key.dst()),
        dport: key.dport().number(),
        packets,
        bytes,
    }
}

fn refused(table: &'static str) -> impl FnOnce(MapError) -> PlaneError {
    PlaneError::refused(format!("read the {table}"))
}

impl StateSource for Inspector {
    fn flows(&mut self, filter: &FlowFilter, each: Each<'_>) -> Result<(), Failure> {
        Ok(self.each_flow(filter, each)?)
    }

    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Failure> {
        Ok(Inspector::expectations(self)?)
    }

    fn hosts(&mut self) -> Result<Vec<HostView>, Failure> {
        Ok(Self::hosts(self)?)
    }

    fn drops(&mut self) -> Result<DropsView, Failure> {
        Ok(self.drops_view()?)
    }

    fn explain(&mut self, question: &Question) -> Result<ExplainView, Failure> {
        Ok(Inspector::explain(self, question)?)
    }
}
