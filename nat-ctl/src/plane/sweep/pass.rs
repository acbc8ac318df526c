//! One pass over the tables: reads the records, asks [`super::decide`], writes the answers.
//!
//! Invariant: keys are collected before anything is removed: removing under an iterator of a BPF
//! map starts it over.

use std::collections::HashSet;

use aya::maps::MapError;
use nat_common::{
    flow::{Flow, FlowKey},
    layout::SESSIONS,
    lifetime::Timeouts,
    port::{Endpoint, Mapping, MappingKey, Owner, PortOwner},
    session::{Session, SessionId},
};

use super::{
    Report, again,
    decide::{self, Uses, Verdict},
};
use crate::plane::{
    clock::Now,
    error::{PlaneError, Result},
    maps::{self, Maps},
    pair::{Pair, Record},
    ports,
    sockets::Sockets,
};

/// Passes between two looks at the gateway's own sockets, and at all places for sessions.
const SELDOM: u32 = 8;

/// The maps, and what has to be known from pass to pass.
pub struct Pass {
    maps: Maps,
    timeouts: Timeouts,
    uses: Uses,
    number: u32,
    /// Whether a session was in use at the end of the last pass.
    sessions: bool,
}

impl Pass {
    /// Before the first pass.
    pub fn new(maps: Maps, timeouts: Timeouts) -> Self {
        Self { maps, timeouts, uses: Uses::default(), number: 0, sessions: true }
    }

    /// One pass.
    pub fn run(&mut self, now: Now) -> Result<Report> {
        self.uses.begin();
        let mut report = Report::default();
        let seldom = self.number.is_multiple_of(SELDOM);
        self.number = self.number.wrapping_add(1);
        let control = self.flows(now, &mut report).map_err(refused("flows"))?;
        report.unused = self.expectations(now).map_err(refused("expectations"))?;
        let removed = self.mappings().map_err(refused("mappings"))?;
        self.ports(now, seldom, &removed)?;
        if control || self.sessions || (seldom && report.flows > 0) {
            report.ended = self.sessions(now).map_err(refused("sessions"))?;
        }
        Ok(report)
    }

    /// Flows that are over go, the others say which ports are in use. Gives back whether a control
    /// connection was met.
    fn flows(&mut self, now: Now, report: &mut Report) -> Result<bool, MapError> {
        let mut over = vec![];
        let mut control = false;
        for key in self.maps.flows.keys() {
            let Some(first) = self.record(&key?)? else { continue };
            control |= first.flow.control_session().is_some();
            let Some(pair) = self.pair(first)? else { continue };
            if pair.expires(now, &self.timeouts) == 0 {
                over.push(first.key);
            } else {
                report.flows += 1;
                self.uses.add(first.public());
            }
        }
        for key in over {
            if self.end(&key)? {
                report.expired += 1;
            } else {
                report.flows += 1;
            }
        }
        Ok(control)
    }

    /// Removes a flow that is still over when it is looked at again.
    fn end(&mut self, key: &FlowKey) -> Result<bool, MapError> {
        let Some(first) = self.record(key)? else { return Ok(false) };
        let Some(pair) = self.pair(first)? else { return Ok(false) };
        if pair.expires(again(), &self.timeouts) > 0 {
            self.uses.add(first.public());
            return Ok(false);
        }
        // The answer goes first: a packet in between then makes both anew, and not only its own.
        if let Some(answer) = pair.answer {
            maps::remove(&mut self.maps.flows, &answer.key)?;
        }
        maps::remove(&mut self.maps.flows, &first.key)?;
        Ok(true)
    }

    fn record(&self, key: &FlowKey) -> Result<Option<Record>, MapError> {
        let flow = maps::optional(self.maps.flows.get(key, 0))?;
        Ok(flow.map(|flow| Record { key: *key, flow }))
    }

    fn pair(&self, first: Record) -> Result<Option<Pair>, MapError> {
        let other: Option<Flow> = maps::optional(self.maps.flows.get(&first.answer(), 0))?;
        Ok(Pair::of(first, |_| other))
    }

    fn expectations(&mut self, now: Now) -> Result<u64, MapError> {
        let mut over = vec![];
        let mut announced = vec![];
        for entry in self.maps.expectations.iter() {
            let (key, found) = entry?;
            match (decide::expectation(&found, now), decide::announced(&key)) {
                (Verdict::Remove, _) => over.push((key, found)),
                (Verdict::Keep | Verdict::Restore, Some(endpoint)) => {
                    announced.push((endpoint, found));
                }
                (Verdict::Keep | Verdict::Restore, None) => {}
            }
        }
        for (endpoint, found) in announced {
            self.uses.add(endpoint);
            // Announced again in the moment in which the last pass released the port.
            let owner =
                PortOwner::new(Owner::Expectation, found.address(), found.port(), now.seconds());
            maps::claim(&mut self.maps.ports, &endpoint, &owner)?;
        }
        let mut unused = 0;
        for (key, found) in over {
            // Announced anew with the same key in between, it has another end.
            if maps::optional(self.maps.expectations.get(&key, 0))? == Some(found)
                && maps::remove(&mut self.maps.expectations, &key)?
            {
                unused += 1;
            }
        }
        Ok(unused)
    }

    /// Gives back the ports whose mapping went in this pass: theirs is not the time yet.
    fn mappings(&mut self) -> Result<HashSet<Endpoint>, MapError> {
        let mut over = vec![];
        for entry in self.maps.mappings.iter() {
            let (key, mapping) = entry?;
            let endpoint = Endpoint::new(key.inside().protocol(), key.public(), mapping.port());
            if self.uses.mapping(&endpoint) == Verdict::Remove {
                over.push((key, endpoint));
            }
        }
        for (key, _) in &over {
            maps::remove(&mut self.maps.mappings, key)?;
        }
        Ok(over.into_iter().map(|(_, endpoint)| endpoint).collect())
    }

    fn ports(&mut self, now: Now, seldom: bool, removed: &HashSet<Endpoint>) -> Result<()> {
        let sockets = if seldom { Some(Sockets::read()?) } else { None };
        self.own_ports(now, sockets.as_ref()).map_err(refused("ports"))?;
        let mut answers = vec![];
        for entry in self.maps.ports.iter() {
            let (endpoint, owner) = entry.map_err(refused("ports"))?;
            if removed.contains(&endpoint) {
                continue;
            }
            let mapped = self.mapped(&endpoint, &owner).map_err(refused("ports"))?;
            // Between two looks at the sockets every one of them counts as open.
            let socket = || sockets.as_ref().is_none_or(|sockets| sockets.uses(&endpoint));
            match self.uses.port(&endpoint, &owner, || mapped, socket, now) {
                Verdict::Keep => {}
                verdict => answers.push((verdict, endpoint, owner)),
            }
        }
        for (verdict, endpoint, owner) in answers {
            self.answer(verdict, &endpoint, &owner).map_err(refused("ports"))?;
        }
        Ok(())
    }

    fn answer(
        &mut self,
        verdict: Verdict,
        endpoint: &Endpoint,
        owner: &PortOwner,
    ) -> Result<(), MapError> {
        match verdict {
            Verdict::Keep => {}
            Verdict::Remove => {
                maps::remove(&mut self.maps.ports, endpoint)?;
            }
            Verdict::Restore => {
                let (key, value) = mapping(endpoint, owner);
                maps::claim(&mut self.maps.mappings, &key, &value)?;
            }
        }
        Ok(())
    }

    /// Whether the mapping of a masqueraded endpoint leads to this very port.
    fn mapped(&self, endpoint: &Endpoint, owner: &PortOwner) -> Result<bool, MapError> {
        if owner.owner() != Some(Owner::Masquerade) {
            return Ok(false);
        }
        let (key, value) = mapping(endpoint, owner);
        Ok(maps::optional(self.maps.mappings.get(&key, 0))? == Some(value))
    }

    fn own_ports(&mut self, now: Now, sockets: Option<&Sockets>) -> Result<(), MapError> {
        let Some(sockets) = sockets else { return Ok(()) };
        let pool = self.maps.settings.get(&0, 0)?.pool;
        let mut outside = vec![];
        for entry in self.maps.addresses.iter() {
            let (address, code) = entry?;
            if code == crate::plane::addresses::ON_WAN {
                outside.push(address);
            }
        }
        ports::claim_own(&mut self.maps, &pool, sockets, &outside, now)
    }

    fn sessions(&mut self, now: Now) -> Result<Vec<SessionId>, MapError> {
        let mut ended = vec![];
        self.sessions = false;
        for place in 0..SESSIONS {
            let found = self.maps.sessions.get(&place, 0)?;
            if found.claimed == 0 {
                continue;
            }
            let id = SessionId::new(place);
            let controls = self.controls(&found, id)?;
            match decide::session(&found, || controls, now) {
                Verdict::Remove => {
                    maps::remove(&mut self.maps.journal, &place)?;
                    self.maps.sessions.set(place, Session::default(), 0)?;
                    ended.push(id);
                }
                Verdict::Keep | Verdict::Restore => self.sessions = true,
            }
        }
        Ok(ended)
    }

    /// Whether a flow has this session as its control session.
    fn controls(&self, session: &Session, id: SessionId) -> Result<bool, MapError> {
        for key in [session.original(), session.reply()] {
            let flow = maps::optional(self.maps.flows.get(key, 0))?;
            if flow.and_then(|flow| flow.control_session()) == Some(id) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The mapping that goes with the owner of a public endpoint.
fn mapping(endpoint: &Endpoint, owner: &PortOwner) -> (MappingKey, Mapping) {
    let inside = Endpoint::new(endpoint.protocol(), owner.inside(), owner.inside_port());
    (MappingKey::new(inside, endpoint.address()), Mapping::new(endpoint.port()))
}

fn refused(table: &'static str) -> impl FnOnce(MapError) -> PlaneError {
    PlaneError::refused(format!("sweep the {table}"))
}
