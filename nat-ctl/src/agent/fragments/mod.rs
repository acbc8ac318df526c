//! Fragments that came before their first one, and packets that have to be cut.
//!
//! The data plane translates fragments by itself, once it knows what their first one leads to. Until then
//! they wait here, for a moment; the map is asked for each of them some hundred times a second, and only
//! while there is one. What is too long for its way out comes translated, and leaves in pieces.
//!
//! Invariant: what a flood of fragments can take is bounded, in memory ([`held`]), in the ring (the data
//! plane leaves three quarters of it alone) and in time; segments of FTP are taken from the same ring in
//! the order in which they came.

mod cut;
mod held;
mod wire;

use std::{io, time::Duration};

use nat_common::{
    flow::Zone,
    fragment::{FragmentKey, Fragmented},
    punt::{Punt, PuntHeader},
    reason::Reason,
};

use self::{
    cut::Ipv4,
    held::{Held, Waiting},
    wire::Wire,
};
use crate::plane::{Maps, clock, maps::optional};

/// Between two looks whether a first fragment has come.
pub const LOOK: Duration = Duration::from_millis(10);

/// What of a map and of the wire is needed here.
pub struct Fragments {
    held: Held,
    wire: Wire,
}

impl Fragments {
    /// None yet.
    ///
    /// # Errors
    /// Where no raw socket can be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { held: Held::default(), wire: Wire::open()? })
    }

    /// Whether any wait.
    pub fn wait(&self) -> bool {
        !self.held.is_empty()
    }

    /// A packet that the data plane has handed over.
    pub fn on_punt(&mut self, maps: &mut Maps, header: &PuntHeader, packet: &[u8]) {
        match header.kind() {
            Punt::Fragment(zone) => self.on_fragment(maps, zone, header.is_copy(), packet),
            Punt::Long(mtu) => {
                let way = (header.ifindex(), Some(usize::from(mtu)));
                self.send(maps, packet.to_vec(), way);
            }
            Punt::Segment | Punt::Six(_) | Punt::Refused => {}
        }
    }

    fn on_fragment(&mut self, maps: &mut Maps, zone: Zone, is_copy: bool, packet: &[u8]) {
        let waiting = Waiting { packet: packet.to_vec(), is_copy };
        let Some(ip) = Ipv4::of(packet) else { return drop(maps, Reason::BadHeader, &waiting) };
        let key = FragmentKey::new(zone, ip.protocol(), ip.src(), ip.dst(), ip.identification());
        let now = clock::moment();
        // It may have come between the look of the data plane and this one.
        if let Some(known) = look(maps, &key, now) {
            return self.pass(maps, waiting, &known);
        }
        for refused in self.held.hold(key, waiting, now) {
            drop(maps, Reason::FragmentsFull, &refused);
        }
    }

    /// Sends what need not wait any more, and drops what has waited for too long.
    pub fn look(&mut self, maps: &mut Maps) {
        let now = clock::moment();
        for key in self.held.keys() {
            let Some(known) = look(maps, &key, now) else { continue };
            for waiting in self.held.take(&key) {
                self.pass(maps, waiting, &known);
            }
        }
        for late in self.held.take_late(now) {
            drop(maps, Reason::FragmentAlone, &late);
        }
    }

    fn pass(&mut self, maps: &mut Maps, waiting: Waiting, known: &Fragmented) {
        if known.ifindex() == 0 {
            return drop(maps, Reason::NoRoute, &waiting);
        }
        match cut::translate(waiting.packet, known) {
            Ok(packet) => self.send(maps, packet, (known.ifindex(), known.mtu())),
            Err(reason) => count(maps, reason),
        }
    }

    fn send(&mut self, maps: &mut Maps, packet: Vec<u8>, (ifindex, mtu): (u32, Option<usize>)) {
        let sent = cut::pieces(packet, mtu)
            .map(|pieces| pieces.iter().try_for_each(|piece| self.wire.send(piece, ifindex)));
        match sent {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!("send a fragment: {error}");
                count(maps, Reason::FragmentSend);
            }
            None => count(maps, Reason::BadHeader),
        }
    }
}

fn look(maps: &Maps, key: &FragmentKey, now: Duration) -> Option<Fragmented> {
    // The data plane's clock is a little late, and so is what it says of a lifetime.
    let now = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let found = optional(maps.fragments.get(key, 0)).unwrap_or_else(|error| {
        tracing::warn!("read the map fragments: {error}");
        None
    });
    found.filter(|known| known.is_alive(now))
}

/// A copy is none that is missing anywhere.
fn drop(maps: &mut Maps, reason: Reason, waiting: &Waiting) {
    if !waiting.is_copy {
        count(maps, reason);
    }
}

fn count(maps: &mut Maps, reason: Reason) {
    if let Err(error) = maps.count_agent_drop(reason) {
        super::report::failed(&error);
    }
}
