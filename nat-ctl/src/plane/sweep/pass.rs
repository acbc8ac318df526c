//! One pass over the tables, in steps: reads the records, asks [`super::decide`], writes the answers.
//!
//! Invariant: nothing is released on the word of a pass that has not seen the whole table of flows;
//! while there is nothing to sweep, a step costs a few system calls.

use std::{collections::BTreeSet, path::Path};

use aya::maps::MapError;
use nat_common::{
    contact::Contact,
    counter::Counter,
    lifetime::Timeouts,
    port::{Endpoint, Owner, PortOwner},
    session::{Session, SessionId, Side},
    watch::{self, Watch},
};
use std::sync::atomic::Ordering;

use super::{
    Report,
    contacts::Contacts,
    decide::{self, Verdict},
    lines::{Met, Walk},
    marks::Marks,
    tally::Tally,
};
use crate::plane::{
    addresses,
    clock::Now,
    error::{PlaneError, Result},
    flow_memory,
    host_memory::HostMemory,
    maps::{self, Maps},
    owners, ports, six,
    sockets::Sockets,
};

/// Passes, or steps of a rest, between two looks at the gateway's own sockets.
const SOCKETS: u32 = 8;

/// Passes between two looks at all places for sessions: one that was claimed for a flow that was
/// then refused is not met otherwise.
const PLACES: u32 = 8;

/// Flows by inside host, of both families.
pub struct Tallies {
    four: Tally,
    six: Tally,
    /// What hosts of IPv6 are known by.
    seeds: [u64; 2],
}

impl Tallies {
    /// Of the hosts that are pinned in `pins`.
    ///
    /// # Errors
    /// As [`HostMemory::open`].
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            four: Tally::new(HostMemory::open(pins)?),
            six: Tally::new(HostMemory::open6(pins)?),
            seeds: flow_memory::geometry(pins)?.seeds,
        })
    }
}

/// The maps, and what has to be known from pass to pass.
pub struct Pass {
    maps: Maps,
    timeouts: Timeouts,
    walk: Walk,
    marks: Marks,
    tallies: Tallies,
    /// Whether the flows of IPv6 were so many in the last pass that room is scarce.
    six_is_scarce: bool,
    number: u32,
    /// Places of sessions that were in use at the end of the last pass.
    sessions: BTreeSet<u32>,
    /// Flows that the data plane had made when a pass began that left nothing to sweep.
    rest_at: Option<u64>,
    /// The same for the pass that is on.
    begun_at: u64,
}

impl Pass {
    /// Before the first pass.
    pub fn new(maps: Maps, tallies: Tallies, timeouts: Timeouts) -> Self {
        Self {
            maps,
            timeouts,
            walk: Walk::default(),
            marks: Marks::new(),
            tallies,
            six_is_scarce: false,
            number: 0,
            sessions: BTreeSet::new(),
            rest_at: None,
            begun_at: 0,
        }
    }

    /// One step; gives a report with the last one of a pass.
    pub fn step(&mut self, now: Now) -> Result<Option<Report>> {
        if self.walk.begins() {
            self.begun_at = self.maps.counted(Counter::Flows)?;
            if self.rest_at == Some(self.begun_at) {
                self.number = self.number.wrapping_add(1);
                if let Some(sockets) = self.sockets()? {
                    self.ports(Some(&sockets)).map_err(refused("ports"))?;
                }
                return Ok(None);
            }
            self.begin().map_err(refused("ports"))?;
            self.tallies.four.begin(now);
            self.tallies.six.begin(now);
            let settings = self.maps.settings.get(&0, 0).map_err(refused("settings"))?;
            let contacts = Contacts::begin(settings.filters_by_address(), now);
            self.walk.begin(contacts, self.six_is_scarce);
        }
        let Self { maps, marks, tallies, walk, timeouts, .. } = self;
        match walk.slice(&maps.flows, marks, &mut tallies.four, timeouts, now) {
            Some(met) => self.finish(met, now).map(Some),
            None => Ok(None),
        }
    }

    fn begin(&mut self) -> Result<(), MapError> {
        let numbered = self.maps.ports.numbered()?;
        let mut others = vec![];
        for (public, owner) in self.maps.ports.others()? {
            if numbered.iter().any(|(address, _)| *address == public.address()) {
                // The address has got a number since: its ports are looked for elsewhere.
                self.maps.ports.claim(&public, &owner)?;
                self.maps.ports.forget_other(&public)?;
            } else if matches!(owner.owner(), Some(Owner::Masquerade | Owner::Expectation)) {
                others.push(public);
            }
        }
        self.marks.begin(numbered, others.into_iter());
        Ok(())
    }

    fn finish(&mut self, met: Met, now: Now) -> Result<Report> {
        let (expectations, unused) = self.expectations(now).map_err(refused("expectations"))?;
        let sockets = self.sockets()?;
        let held = self.ports(sockets.as_ref()).map_err(refused("ports"))?;
        // Behind the ports: who has one keeps its place.
        self.tallies.four.settle();
        let ended = self.sessions(&met, now).map_err(refused("sessions"))?;
        let contacts = self.contacts(&met.contacts).map_err(refused("contacts"))?;
        let Tallies { six: tally, seeds, .. } = &mut self.tallies;
        let six = self.maps.flows6.sweep(&self.timeouts, tally, *seeds, now)?;
        tally.settle();
        self.six_is_scarce = decide::is_scarce(six.left, self.maps.flows6.room());
        let announced = six::sweep(&mut self.maps, now)?;
        let nothing = met.lines == 0
            && six.left == 0
            && announced.left == 0
            && !expectations
            && !held
            && !contacts
            && self.sessions.is_empty();
        self.rest_at = nothing.then_some(self.begun_at);
        self.number = self.number.wrapping_add(1);
        let Met { lines, expired, hurried, mut data, .. } = met;
        data.extend(six.data);
        let unused = unused + announced.unused;
        let (flows, expired) = (lines.div_ceil(2) + six.left, expired + six.expired);
        let hurried = hurried + six.hurried;
        Ok(Report { flows, expired, hurried, unused, ended, data })
    }

    /// Whether any contact is left.
    fn contacts(&mut self, met: &Contacts) -> Result<bool, MapError> {
        if !met.are_wanted() {
            return Ok(false);
        }
        let noted: Vec<(Contact, u32)> = self.maps.contacts.iter().collect::<Result<_, _>>()?;
        let (over, left): (Vec<_>, Vec<_>) =
            noted.into_iter().partition(|(contact, second)| met.is_over(contact, *second));
        for (contact, _) in over {
            maps::remove(&mut self.maps.contacts, &contact)?;
        }
        Ok(!left.is_empty())
    }

    /// Whether any is left, and how many were over.
    fn expectations(&mut self, now: Now) -> Result<(bool, u64), MapError> {
        let mut over = vec![];
        let mut announced = vec![];
        let mut left = false;
        for entry in self.maps.expectations.iter() {
            let (key, found) = entry?;
            if decide::is_over(&found, now) {
                over.push((key, found));
            } else {
                left = true;
                announced.extend(key.public().map(|endpoint| (endpoint, found)));
            }
        }
        for (endpoint, found) in announced {
            self.marks.add(&endpoint);
            // Announced again in the moment in which the last pass released the port.
            let owner = PortOwner::new(Owner::Expectation, found.address(), found.port());
            self.maps.ports.claim(&endpoint, &owner)?;
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
        Ok((left, unused))
    }

    /// Looks at the gateway's own sockets, when it is time to, and claims their ports.
    fn sockets(&mut self) -> Result<Option<Sockets>> {
        if !self.number.is_multiple_of(SOCKETS) {
            return Ok(None);
        }
        let sockets = Sockets::read()?;
        self.own_ports(&sockets).map_err(refused("ports"))?;
        Ok(Some(sockets))
    }

    fn own_ports(&mut self, sockets: &Sockets) -> Result<(), MapError> {
        let pool = self.maps.settings.get(&0, 0)?.pool;
        let mut outside = vec![];
        for entry in self.maps.addresses.iter() {
            let (address, code) = entry?;
            if addresses::is_outside(code) {
                outside.push(address);
            }
        }
        ports::claim_own(&mut self.maps, &pool, sockets, &outside)
    }

    /// Releases what was unused for two passes. Whether any port is left that a later pass may have
    /// to release.
    fn ports(&mut self, sockets: Option<&Sockets>) -> Result<bool, MapError> {
        // Between two looks at the sockets every one of them counts as open.
        let open = |public: &Endpoint| sockets.is_none_or(|sockets| sockets.uses(public));
        let mut held = false;
        let mut tally = self.tallies.four.ports();
        for numbered in self.marks.numbered() {
            for (public, place, word) in self.maps.ports.taken(*numbered) {
                let owner = PortOwner::from_word(word.load(Ordering::Acquire));
                let used = self.marks.has(place);
                let verdict = decide::port(&owner, used, || open(&public));
                let next = match verdict {
                    Verdict::Keep => owner,
                    Verdict::Mark => owner.idle(true),
                    Verdict::Unmark => owner.idle(false),
                    Verdict::Release => PortOwner::NONE,
                };
                // Whoever uses it in this moment is the one that is right.
                let changed = next == owner || owners::swap(word, owner, next);
                let lasting = matches!(owner.owner(), Some(Owner::Forward | Owner::Gateway));
                let released = changed && next.is_none();
                held |= !(lasting || released);
                if !released && owner.owner() == Some(Owner::Masquerade) {
                    tally.add(owner.inside());
                }
            }
        }
        tally.settle();
        for public in self.marks.unused_others() {
            if let Some(owner) = self.maps.ports.owner(&public)? {
                self.maps.ports.release(&public, &owner)?;
            }
        }
        Ok(held || self.marks.has_others())
    }

    fn sessions(&mut self, met: &Met, now: Now) -> Result<Vec<SessionId>, MapError> {
        self.sessions.extend(&met.sessions);
        if self.number.is_multiple_of(PLACES) {
            self.sessions.extend(self.maps.sessions.taken());
        }
        let mut ended = vec![];
        for place in std::mem::take(&mut self.sessions) {
            let Some(found) = self.maps.sessions.get(place) else { continue };
            let id = SessionId::new(place);
            let controls = || met.sessions.contains(&place) || self.controls(&found, id);
            if decide::has_ended(&found, controls, now) {
                maps::remove(&mut self.maps.journal, &place)?;
                for side in [Side::Originator, Side::Responder] {
                    self.maps.watches.set(watch::index(place, side), Watch::LINES, 0)?;
                }
                self.maps.sessions.free(place);
                ended.push(id);
            } else {
                self.sessions.insert(place);
            }
        }
        Ok(ended)
    }

    /// Whether a flow has this session as its control session.
    fn controls(&self, session: &Session, id: SessionId) -> bool {
        [session.original(), session.reply()].into_iter().any(|key| {
            let found = self.maps.flows.find(key);
            found.and_then(|record| record.flow().control_session()) == Some(id)
        })
    }
}

fn refused(table: &'static str) -> impl FnOnce(MapError) -> PlaneError {
    PlaneError::refused(format!("sweep the {table}"))
}
