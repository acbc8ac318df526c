//! The data plane and the wire, as the bridge of IPv6 writes to them.

use nat_common::{
    flow::Zone,
    reason::Reason,
    session::SessionId,
    six::{Control6, Expectation6, Expectation6Key, Flow6, Flow6Key, Watch6Key},
    watch::Watch,
};

use super::Kernel;
use crate::{
    agent::{
        kernel,
        send::SendError,
        world::{World, refused},
    },
    plane::{PlaneError, Prefixes, maps},
};

impl Kernel for World {
    fn flow(&mut self, key: &Flow6Key) -> Result<Option<Flow6>, PlaneError> {
        self.plane.maps_mut().flows6.find(key)
    }

    fn control(&mut self, key: &Flow6Key) -> Result<Option<Control6>, PlaneError> {
        let found = maps::optional(self.plane.maps_mut().controls6.get(key, 0));
        found.map_err(refused("read what is kept of an FTP session over IPv6"))
    }

    fn controls(&mut self) -> Result<Vec<(Flow6Key, Control6)>, PlaneError> {
        let all: Result<Vec<_>, _> = self.plane.maps_mut().controls6.iter().collect();
        all.map_err(refused("read what is kept of FTP sessions over IPv6"))
    }

    fn keep(&mut self, key: &Flow6Key, control: &Control6) -> Result<(), PlaneError> {
        let kept = self.plane.maps_mut().controls6.insert(key, control, 0);
        kept.map_err(refused("keep what is known of an FTP session over IPv6"))
    }

    fn watch(&mut self, key: &Flow6Key, zone: Zone, watch: Watch) -> Result<(), PlaneError> {
        let what = "say what is wanted of an FTP session over IPv6";
        let (side, watches) = (Watch6Key::new(*key, zone), &mut self.plane.maps_mut().watches6);
        watches.insert(side, watch.closed(), 0).map_err(refused(what))?;
        watches.insert(side, watch, 0).map_err(refused(what))
    }

    fn watched(&mut self, key: &Flow6Key, zone: Zone) -> Result<Option<Watch>, PlaneError> {
        let found = self.plane.maps_mut().watches6.get(&Watch6Key::new(*key, zone), 0);
        maps::optional(found).map_err(refused("read what is wanted of an FTP session over IPv6"))
    }

    fn prefixes(&self) -> &Prefixes {
        self.plane.prefixes()
    }

    fn remember(&mut self, session: SessionId, state: &[u8]) -> Result<(), PlaneError> {
        self.record(session.number(), state)
    }

    fn recall(&mut self, session: SessionId) -> Result<Option<Vec<u8>>, PlaneError> {
        let found = maps::optional(self.plane.maps_mut().journal.get(&session.number(), 0));
        let found = found.map_err(refused("read the state of an FTP session over IPv6"))?;
        Ok(found.and_then(|record| record.bytes().map(<[u8]>::to_vec)))
    }

    fn forget(&mut self, session: SessionId) -> Result<(), PlaneError> {
        let gone = maps::remove(&mut self.plane.maps_mut().journal, &session.number());
        gone.map(drop).map_err(refused("forget the state of an FTP session over IPv6"))
    }

    fn expect(&mut self, key: &Expectation6Key, value: &Expectation6) -> Result<(), PlaneError> {
        let written = self.plane.maps_mut().expectations6.insert(key, value, 0);
        written.map_err(refused("write an expectation of IPv6"))
    }

    fn unexpect(&mut self, key: &Expectation6Key) -> Result<(), PlaneError> {
        let removed = maps::remove(&mut self.plane.maps_mut().expectations6, key);
        removed.map(drop).map_err(refused("take an expectation of IPv6 back"))
    }

    fn close(&mut self, key: &Flow6Key) -> Result<(), PlaneError> {
        self.plane.maps_mut().flows6.reset(key)
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        self.sender.send6(packet)
    }

    fn count(&mut self, reason: Reason) {
        kernel::Kernel::count(self, reason);
    }
}
