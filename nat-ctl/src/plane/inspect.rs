//! The state of a gateway for people and scripts, from its pinned maps, with or without an agent.
//!
//! Invariant: reads only, but for the flows that it is told to delete. It opens its own handles, so
//! that a long table is read on any thread.

use std::{collections::BTreeSet, net::Ipv4Addr};

use aya::maps::MapError;
use nat_common::{
    counter::Counter,
    flow::{Direction, FlowKey},
    lifetime::Timeouts,
    port::Owner,
    reason::Reason,
};

use super::addresses::ON_WAN;
use super::clock::{self, Now};
use super::error::{PlaneError, Result};
use super::maps::{self, Maps};
use super::pair::{Pair, Record};
use super::pins::{self, Pinned};
use super::state::State;
use crate::error::Failure;
use crate::options::Instance;
use crate::output::{
    DropsView, End, ExpectationView, FlowFilter, FlowView, InterfaceView, PacketsView, StateSource,
    StatusView, Usage,
};
use crate::rules::{Alg, Protocol};

/// Protocols that have ports or identifiers.
const PROTOCOLS: u64 = 3;

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

    /// One screen; how many FTP sessions are open only the agent can tell.
    ///
    /// # Errors
    /// Where a map can't be read; the same goes for everything here.
    pub fn status(&self, ftp_sessions: u64) -> Result<StatusView> {
        let now = clock::now();
        let settings = self.maps.settings.get(&0, 0).map_err(refused("settings"))?;
        let uptime =
            if settings.agent_alive(now.seconds()) { now.since(self.state.started) } else { 0 };
        let interfaces = self.state.interfaces.iter().map(|interface| InterfaceView {
            name: interface.name.clone(),
            role: interface.role,
            mode: interface.mode,
            reason: interface.reason.clone(),
        });
        let records = count(self.maps.flows.keys()).map_err(refused("flows"))?;
        let expectations = count(self.maps.expectations.keys()).map_err(refused("expectations"))?;
        let counted = |counter| self.maps.counted(counter);
        Ok(StatusView {
            instance: self.instance.as_str().to_owned(),
            // Forwarding is turned on last, and put back first.
            ready: self.state.forwarding.is_some(),
            uptime_s: uptime.into(),
            interfaces: interfaces.collect(),
            flows: Usage { used: records.div_ceil(2), max: self.state.flows.into() },
            ports: self.ports(u64::from(settings.pool.len()))?,
            expectations: Usage { used: expectations, max: self.room("expectations")? },
            ftp_sessions,
            drops: self.drops_view()?.total(),
            packets: PacketsView {
                xdp: counted(Counter::Xdp)?,
                tc: counted(Counter::Tc)?,
                stack: counted(Counter::Stack)?,
                punted: counted(Counter::Punted)?,
            },
        })
    }

    /// The flows that match.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn flows(&self, filter: &FlowFilter) -> Result<Vec<FlowView>> {
        let now = clock::now();
        let mut views = vec![];
        for key in self.maps.flows.keys() {
            let key = key.map_err(refused("flows"))?;
            let found = self.pair(&key).map_err(refused("flows"))?;
            let view = found.and_then(|pair| self.flow(&pair, now));
            views.extend(view.filter(|view| filter.matches(view)));
        }
        Ok(views)
    }

    /// Removes the flows that match; gives back how many. Their ports are released by the sweep.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn delete_flows(&mut self, filter: &FlowFilter) -> Result<u64> {
        let now = clock::now();
        let keys: Vec<FlowKey> =
            self.maps.flows.keys().collect::<Result<_, _>>().map_err(refused("flows"))?;
        let mut deleted = 0;
        for key in keys {
            let Some(pair) = self.pair(&key).map_err(refused("flows"))? else { continue };
            if self.flow(&pair, now).is_none_or(|view| !filter.matches(&view)) {
                continue;
            }
            let what = || PlaneError::refused::<MapError>("delete a flow");
            if maps::remove(&mut self.maps.flows, &pair.first.key).map_err(what())? {
                deleted += 1;
            }
            if let Some(answer) = pair.answer {
                maps::remove(&mut self.maps.flows, &answer.key).map_err(what())?;
            }
        }
        Ok(deleted)
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
                src: Ipv4Addr::from(key.src()),
                dst: Ipv4Addr::from(key.dst()),
                dport: key.dport().number(),
                to: Ipv4Addr::from(to),
                to_port: to_port.number(),
                expires_s: expires.into(),
                session: found.session().number().into(),
            });
        }
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

    fn pair(&self, key: &FlowKey) -> Result<Option<Pair>, MapError> {
        let Some(flow) = maps::optional(self.maps.flows.get(key, 0))? else { return Ok(None) };
        let first = Record { key: *key, flow };
        let other = maps::optional(self.maps.flows.get(&first.answer(), 0))?;
        Ok(Pair::of(first, |_| other))
    }

    fn flow(&self, pair: &Pair, now: Now) -> Option<FlowView> {
        // Of an orphaned answer the original is what it leads back to.
        let (original, reply) = match (pair.first.flow.direction(), pair.answer) {
            (Direction::Original, answer) => (Ok(pair.first), answer.ok_or(pair.first.answer())),
            (Direction::Reply, _) => (Err(pair.first.answer()), Ok(pair.first)),
        };
        let flow = pair.first.flow;
        let control = flow.control_session().is_some();
        Some(FlowView {
            protocol: Protocol::from_number(pair.first.key.protocol())?,
            state: pair.state().to_owned(),
            original: end(original),
            reply: end(reply),
            age_s: now.since(flow.created()).into(),
            idle_s: pair.idle(now).into(),
            expires_s: pair.expires(now, &self.timeouts).into(),
            alg: control.then_some(Alg::Ftp),
            rule: self.rule(flow.rule().number()),
            related_to: flow.related_session().map(|session| session.number().into()),
        })
    }

    /// The name of a rule; its number where the rule is gone and its flows go on.
    fn rule(&self, number: u32) -> Option<String> {
        let known = self.state.rules.get(&number).cloned();
        (number != 0).then(|| known.unwrap_or_else(|| format!("#{number}")))
    }

    fn ports(&self, pool: u64) -> Result<Usage> {
        let mut used = 0;
        for entry in self.maps.ports.iter() {
            let (_, owner) = entry.map_err(refused("ports"))?;
            used += u64::from(owner.owner() != Some(Owner::Forward));
        }
        let mut public = BTreeSet::new();
        for entry in self.maps.addresses.iter() {
            let (address, code) = entry.map_err(refused("addresses"))?;
            if code == ON_WAN {
                public.insert(address);
            }
        }
        Ok(Usage { used, max: pool * PROTOCOLS * (public.len() as u64).max(1) })
    }

    fn room(&self, name: &str) -> Result<u64> {
        let info = aya::maps::MapInfo::from_pin(self.instance.pins().join(name));
        Ok(info.map_err(refused("size"))?.max_entries().into())
    }
}

/// A record, or the key of one that is missing.
fn end(of: Result<Record, FlowKey>) -> End {
    let (key, packets, bytes) = match of {
        Ok(record) => (record.key, record.flow.packets, record.flow.bytes),
        Err(key) => (key, 0, 0),
    };
    End {
        src: Ipv4Addr::from(key.src()),
        sport: key.sport().number(),
        dst: Ipv4Addr::from(key.dst()),
        dport: key.dport().number(),
        packets,
        bytes,
    }
}

fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>) -> Result<u64, MapError> {
    let mut counted = 0;
    for key in keys {
        key?;
        counted += 1;
    }
    Ok(counted)
}

fn refused(table: &'static str) -> impl FnOnce(MapError) -> PlaneError {
    PlaneError::refused(format!("read the {table}"))
}

impl StateSource for Inspector {
    fn flows(&mut self, filter: &FlowFilter) -> Result<Vec<FlowView>, Failure> {
        Ok(Inspector::flows(self, filter)?)
    }

    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Failure> {
        Ok(Inspector::expectations(self)?)
    }

    fn drops(&mut self) -> Result<DropsView, Failure> {
        Ok(self.drops_view()?)
    }
}
