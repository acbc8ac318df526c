//! The data plane and the wire, as the bridge writes to them.
//!
//! Invariant: what is claimed here belongs to an announcement before it is made; what is no longer
//! needed is left to the sweep, which alone knows whether a flow still uses it.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use aya::maps::MapError;
use nat_common::{
    expectation::{Expectation, ExpectationKey},
    journal::Journal,
    port::{Endpoint, Owner, PortOwner},
    reason::Reason,
    rule::EncryptedKey,
    sequence::Corrections,
    session::{Session, SessionId, Side},
    tcp::State,
    watch::{self, Watch},
};
use socket2::{Domain, Socket, Type};
use zerocopy::FromZeros as _;

use super::{
    claim::{self, Ports},
    control::octets,
    kernel::Kernel,
    report,
    send::{RawSender, SendError, ends},
};
use crate::{
    alg,
    plane::{
        Maps, Plane, PlaneError, maps,
        owners::{Home, Owners},
        route::{self, Way},
    },
};

/// The data plane at work, and the socket back to the wire.
pub struct World {
    /// Maps and programs.
    pub plane: Plane,
    /// The socket.
    pub sender: RawSender,
    /// Where a record is put together.
    journal: Box<Journal>,
}

impl World {
    /// A data plane, and a socket in its namespace.
    pub fn new(plane: Plane, sender: RawSender) -> Self {
        Self { plane, sender, journal: Box::new(Journal::new_zeroed()) }
    }

    fn maps(&mut self) -> &mut Maps {
        self.plane.maps_mut()
    }

    /// Keeps the state of the session with that number.
    pub(super) fn record(&mut self, number: u32, state: &[u8]) -> Result<(), PlaneError> {
        let what = "keep the state of an FTP session";
        if !self.journal.set(state) {
            return Err(PlaneError::Refused {
                what: what.to_owned(),
                why: format!("it has {} bytes, which is more than its record holds", state.len()),
            });
        }
        let record: &Journal = &self.journal;
        let kept = self.plane.maps_mut().journal.insert(number, record, 0);
        kept.map_err(refused(what))
    }

    /// The uplink of a packet that leaves, if there is a way by it: as the data plane has it.
    fn uplink(&self, packet: &[u8]) -> Option<u32> {
        let [public, remote] = ends(packet)?;
        let index = self.plane.uplink(public)?;
        if self.plane.leads_inside(remote) {
            return None;
        }
        match route::by_uplink(remote, public, index) {
            Way::Forward { .. } => Some(index),
            Way::Local | Way::None => None,
        }
    }
}

impl Kernel for World {
    fn session(&mut self, id: SessionId) -> Result<Option<Session>, PlaneError> {
        let Some(place) = id.index() else { return Ok(None) };
        Ok(self.maps().sessions.get(place))
    }

    fn is_closed(&mut self, record: &Session) -> Result<bool, PlaneError> {
        let maps = self.maps();
        let state = |key| maps.flow(key).map(|flow| flow.state());
        Ok(match (state(record.original()), state(record.reply())) {
            (Some(original), Some(reply)) => {
                let (original, reply) = original.seen_with(reply);
                matches!(State::of(original, reply), State::TimeWait | State::Closed)
            }
            (_, None) | (None, _) => true,
        })
    }

    fn expect(&mut self, key: &ExpectationKey, value: &Expectation) -> Result<(), PlaneError> {
        let what = "write an expectation";
        self.maps().expectations.insert(key, value, 0).map_err(refused(what))?;
        if let Some(public) = key.public() {
            // The sweep may have released a port that was claimed long before it is announced.
            let owner = PortOwner::new(Owner::Expectation, value.address(), value.port());
            self.maps().ports.claim(&public, &owner).map_err(refused(what))?;
        }
        Ok(())
    }

    fn unexpect(&mut self, key: &ExpectationKey) -> Result<(), PlaneError> {
        let removed = maps::remove(&mut self.maps().expectations, key);
        removed.map(drop).map_err(refused("take an expectation back"))
    }

    fn correct(&mut self, id: SessionId, sides: &[Corrections; 2]) -> Result<(), PlaneError> {
        let Some(place) = id.index() else { return Ok(()) };
        let sessions = &self.maps().sessions;
        if let Some(record) = sessions.get(place) {
            sessions.correct(place, &record, sides);
        }
        Ok(())
    }

    fn watch(&mut self, id: SessionId, side: Side, watch: Watch) -> Result<(), PlaneError> {
        let what = "say what is wanted of an FTP session";
        let Some(place) = id.index().map(|session| watch::index(session, side)) else {
            return Ok(());
        };
        let watches = &mut self.maps().watches;
        watches.set(place, watch.closed(), 0).map_err(refused(what))?;
        watches.set(place, watch, 0).map_err(refused(what))
    }

    fn watched(&mut self, id: SessionId, side: Side) -> Result<Watch, PlaneError> {
        let Some(place) = id.index().map(|session| watch::index(session, side)) else {
            return Ok(Watch::LINES);
        };
        self.maps().watches.get(&place, 0).map_err(refused("read what is wanted of an FTP session"))
    }

    fn vouch(&mut self, id: SessionId, record: &Session, side: Side, to: Option<u32>) {
        if let Some(place) = id.index() {
            self.maps().sessions.vouch(place, record, side, to);
        }
    }

    fn open_range(
        &mut self,
        key: &EncryptedKey,
        session: Option<SessionId>,
    ) -> Result<(), PlaneError> {
        let ranges = &mut self.maps().encrypted;
        match session {
            Some(session) => {
                ranges.insert(key, session, 0).map_err(refused("open a passive range"))
            }
            None => maps::remove(ranges, key).map(drop).map_err(refused("close a passive range")),
        }
    }

    fn keep_ranges(&mut self, keys: &dyn Fn(&EncryptedKey) -> bool) -> Result<(), PlaneError> {
        let what = "close the passive ranges of sessions that are over";
        let ranges = &mut self.maps().encrypted;
        let open: Vec<EncryptedKey> =
            ranges.keys().collect::<Result<_, _>>().map_err(refused(what))?;
        for key in open.iter().filter(|key| !keys(key)) {
            maps::remove(ranges, key).map_err(refused(what))?;
        }
        Ok(())
    }

    fn remember(&mut self, id: SessionId, state: &[u8]) -> Result<(), PlaneError> {
        id.index().map_or(Ok(()), |place| self.record(place, state))
    }

    fn recall(&mut self, id: SessionId) -> Result<Option<Vec<u8>>, PlaneError> {
        let Some(place) = id.index() else { return Ok(None) };
        let found = maps::optional(self.maps().journal.get(&place, 0));
        let found = found.map_err(refused("read the state of an FTP session"))?;
        Ok(found.and_then(|record| record.bytes().map(<[u8]>::to_vec)))
    }

    fn close(&mut self, record: &Session) {
        self.maps().flows.close(record.original());
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        self.sender.send(packet, self.uplink(packet))
    }

    fn count(&mut self, reason: Reason) {
        if let Err(error) = self.maps().count_agent_drop(reason) {
            report::failed(&error);
        }
    }
}

impl alg::Gateway for World {
    fn claim(&mut self, request: &alg::PortRequest) -> Option<u16> {
        let pool = self.plane.settings().pool;
        let claimed = PublicPorts::of(self.maps(), octets(request.public))
            .and_then(|mut ports| claim::claim(&mut ports, &pool, request));
        claimed.unwrap_or_else(|error| {
            report::failed(&error);
            None
        })
    }

    fn release(&mut self, _public: SocketAddr) {
        // Another session may have announced the same inside endpoint, and so share the port: the
        // sweep releases it when nothing uses it.
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        // What IPv6 has inside is seen outside as it is.
        let IpAddr::V4(address) = address else { return false };
        let own = maps::optional(self.plane.maps().one_to_one.get(&address.octets(), 0));
        // Where the map can't be read, nothing but a line of text is at stake.
        address.is_private() || is_shared(address) || matches!(own, Ok(Some(_)))
    }
}

/// Between carriers and their customers (RFC 6598): as little to be seen outside as RFC 1918.
fn is_shared(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [100, 64..=127, _, _])
}

/// The ports of one public address, which is looked up once and not for each port that is tried.
struct PublicPorts<'a> {
    owners: &'a mut Owners,
    home: Home,
}

impl<'a> PublicPorts<'a> {
    fn of(maps: &'a mut Maps, address: [u8; 4]) -> Result<Self, PlaneError> {
        let home = maps.ports.home(address).map_err(refused("look up an address"))?;
        Ok(Self { owners: &mut maps.ports, home })
    }
}

impl Ports for PublicPorts<'_> {
    fn owner(&mut self, public: &Endpoint) -> Result<Option<PortOwner>, PlaneError> {
        self.owners.owner_at(&self.home, public).map_err(refused("look up a public port"))
    }

    fn claim(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<bool, PlaneError> {
        self.owners.claim_at(&self.home, public, owner).map_err(refused("claim a public port"))
    }

    fn is_own(&self) -> bool {
        self.home.is_own
    }

    fn is_open(&self, public: &Endpoint) -> bool {
        let place = SocketAddrV4::new(public.address().into(), public.port().number());
        // Bound and let go again, before anybody could connect: it does not listen.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None)
            .and_then(|socket| socket.bind(&place.into()));
        bound.is_err()
    }
}

pub(super) fn refused(what: impl Display) -> impl FnOnce(MapError) -> PlaneError {
    move |error| PlaneError::Refused { what: what.to_string(), why: error.to_string() }
}
