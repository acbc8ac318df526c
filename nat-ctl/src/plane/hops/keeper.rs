//! What the agent does to next hops, without I/O: messages of the kernel in, words of the map out.
//!
//! Invariant: after each call the places that were seen say what the kernel has said last; and each
//! change that can lead packets elsewhere has voided the epoch. A link address of a neighbour is no
//! such change: it stands in the place.

use std::{collections::BTreeMap, time::Duration};

use super::{epoch::Epoch, message::Message, places::Places, rounds::Rounds};
use crate::plane::neighbours::{Change, Device, Key, LinkAddress, Neighbour, Neighbours};

/// Time between two epochs that only make room: flows at work take their hops again in between.
const MAKE_ROOM: Duration = Duration::from_secs(5);
/// Neighbours that the kernel is asked to check in one beat; each costs the link a question.
const CHECKS: usize = 512;

/// The next hops, and what they follow.
#[derive(Debug)]
pub struct Keeper {
    epoch: Epoch,
    places: Places,
    devices: BTreeMap<u32, Device>,
    neighbours: Neighbours,
    rounds: Rounds,
    made_room: Option<Duration>,
}

impl Keeper {
    /// For these places, behind the epoch that a predecessor has left (0: none).
    pub fn new(places: Places, left: u32) -> Self {
        Self {
            epoch: Epoch::after(left),
            places,
            devices: BTreeMap::new(),
            neighbours: Neighbours::default(),
            rounds: Rounds::default(),
            made_room: None,
        }
    }

    /// What packets see of the places.
    #[cfg(test)]
    pub(super) fn memory(&self) -> &crate::plane::mapped::Mapped {
        self.places.memory()
    }

    /// The epoch that the data plane has to be told.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The MTU of an interface.
    pub fn mtu(&self, index: u32) -> Option<u32> {
        self.devices.get(&index).map(|device| device.mtu)
    }

    /// The link address of an interface, where it has one that is Ethernet's.
    pub fn link_address(&self, index: u32) -> Option<LinkAddress> {
        self.devices.get(&index).and_then(|device| device.link)
    }

    /// Whether a station on the link of an interface is known to have an address.
    pub fn has_neighbour(&self, index: u32, address: [u8; 4]) -> bool {
        self.neighbours.valid(&Key { ifindex: index, address }).is_some()
    }

    /// Routing has changed.
    pub fn void(&mut self) {
        self.epoch.void();
    }

    /// Begins anew with complete lists; what was said in between may be lost.
    pub fn replace(
        &mut self,
        devices: BTreeMap<u32, Device>,
        neighbours: BTreeMap<Key, Neighbour>,
        now: Duration,
    ) {
        self.devices = devices;
        self.neighbours.replace(neighbours);
        self.look(now);
        self.write_devices(0, u32::MAX);
        self.epoch.void();
    }

    /// Follows a message.
    pub fn follow(&mut self, message: &Message, now: Duration) {
        match *message {
            Message::Device(index, device) => {
                let before = self.devices.insert(index, device);
                if before == Some(device) {
                    return;
                }
                self.write_devices(index, index);
                // One that has just come leads nowhere before addresses and routes follow.
                if before.is_some() {
                    self.epoch.void();
                }
            }
            Message::DeviceGone(index) => {
                if self.devices.remove(&index).is_some() {
                    self.neighbours.forget_device(index);
                    self.write_devices(index, index);
                    // IPv4 routes of a device go without a message of their own.
                    self.epoch.void();
                }
            }
            Message::Neighbour(key, neighbour) => {
                let change = self.neighbours.note(key, neighbour);
                self.follow_neighbour(&key, change, now);
            }
            Message::NeighbourGone(key) => {
                let change = self.neighbours.forget(key);
                self.follow_neighbour(&key, change, now);
            }
            Message::Done | Message::Answer(_) => {}
        }
    }

    fn follow_neighbour(&mut self, key: &Key, change: Change, now: Duration) {
        match (change, self.places.has(key)) {
            (Change::Nothing, _) | (Change::Gone | Change::Failed, false) => {}
            (Change::Found | Change::Gone, true) => self.write(key),
            (Change::Failed, true) => {
                self.write(key);
                // Where a route has several routers, another one takes over (fib_good_nh and
                // fib_detect_death in net/ipv4/fib_semantics.c).
                self.epoch.void();
            }
            // A packet has made the kernel look for it, and has taken a place for it before.
            (Change::Found, false) => self.rounds.hurry(now),
        }
    }

    /// When [`Keeper::work`] has something to do by itself.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        [self.epoch.due(now), self.rounds.due()].into_iter().flatten().min()
    }

    /// Does what is due. Whether the epoch has moved on: the data plane is to be told.
    pub fn work(&mut self, now: Duration) -> bool {
        if self.rounds.due().is_some_and(|due| due <= now) {
            self.look(now);
        }
        let moved = self.epoch.advance(now);
        if moved {
            self.rounds.hurry(now);
        }
        moved
    }

    /// Once a second: looks for hops that nothing has told of, frees places, makes room. Whether the
    /// epoch has moved on.
    pub fn beat(&mut self, now: Duration) -> bool {
        self.look(now);
        for key in self.places.retire(now, &self.epoch) {
            self.write(&key);
        }
        let rested = self.made_room.is_none_or(|made| made + MAKE_ROOM <= now);
        if self.places.is_crowded() && rested {
            self.made_room = Some(now);
            self.epoch.void();
        }
        self.work(now)
    }

    /// Neighbours of hops that the kernel should check: XDP uses them, and the kernel does not see
    /// it.
    pub fn take_stale(&mut self, now: Duration) -> Vec<Key> {
        let places = &self.places;
        self.neighbours.take_stale(now, CHECKS, |key| places.has(key))
    }

    fn look(&mut self, now: Duration) {
        let found = self.places.look(now);
        self.rounds.looked(now, !found.is_empty());
        for key in &found {
            self.write(key);
        }
    }

    fn write_devices(&self, from: u32, to: u32) {
        for key in self.places.keys(from..=to) {
            self.write(&key);
        }
    }

    fn write(&self, key: &Key) {
        self.places.write(key, self.neighbours.valid(key), self.devices.get(&key.ifindex));
    }
}

#[cfg(test)]
mod tests;
