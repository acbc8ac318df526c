//! Next hops, kept true while the agent lives.
//!
//! The data plane asks the kernel's routing once and keeps the answer: a place of the map `hops`, to
//! which flows refer. Here the kernel's messages become words of that map, and a new epoch where
//! routing has changed ([`nat_common::hop`] has the other half).
//!
//! ```text
//!   routes, rules, addresses, nexthops, netconf --> routing ------ "changed" ---.
//!   devices, neighbours ------------------------> surroundings -- message --> Keeper --> hops
//!   lists, at the start and after a loss -------> requests ------ lists ------^  |       epoch
//!                                                     ^--- neighbours to check --'
//! ```
//!
//! Invariant: the heartbeat is written after everything that the kernel has said so far is in the
//! maps. So an agent that was stopped for a while vouches for nothing that is out of date: the data
//! plane asks the kernel until this agent has caught up.

mod epoch;
mod keeper;
mod message;
mod places;
mod references;
mod rounds;
mod socket;

use std::{future::pending, path::Path, time::Duration};

use self::{
    keeper::Keeper,
    places::Places,
    socket::{Heard, Listener, Requests},
};
use super::{clock, error::Result, mapped::Mapped, neighbours::LinkAddress};

/// Datagrams that are taken in one go, so that a flood of them keeps nobody else waiting.
const GO: usize = 1024;
/// Goes in one beat.
const GOES: usize = 8;

/// Takes the references of other epochs than this one out of the flows that have moved to the table
/// of now: their slices may have been visited before they came.
///
/// # Errors
/// Where it can't be mapped.
pub fn forget_before(pins: &Path, epoch: u32) -> Result<()> {
    references::void_all(&Mapped::open(pins, "flows")?, epoch);
    Ok(())
}

/// The next hops of a data plane.
#[derive(Debug)]
pub struct Hops {
    keeper: Keeper,
    flows: Mapped,
    routing: Listener,
    surroundings: Listener,
    requests: Requests,
    /// Messages about devices or neighbours were lost, or have never been asked for.
    lost: bool,
    buffer: Vec<u8>,
}

impl Hops {
    /// Takes up the maps that are pinned in `pins`, behind the epoch that a predecessor has left
    /// there (0: none). Listens from here on; needs a tokio runtime.
    ///
    /// # Errors
    /// Where a map or the kernel refuses.
    pub fn open(pins: &Path, left: u32) -> Result<Self> {
        Self::of(Mapped::open(pins, "hops")?, Mapped::open(pins, "flows")?, left)
    }

    fn of(hops: Mapped, flows: Mapped, left: u32) -> Result<Self> {
        let mut this = Self {
            keeper: Keeper::new(Places::new(hops), left),
            flows,
            routing: Listener::routing()?,
            surroundings: Listener::surroundings()?,
            requests: Requests::open()?,
            lost: true,
            buffer: socket::buffer(),
        };
        this.catch_up(clock::moment())?;
        Ok(this)
    }

    /// The epoch that the data plane has to be told.
    pub fn epoch(&self) -> u32 {
        self.keeper.epoch().number()
    }

    /// The MTU of an interface, as the kernel has said last.
    pub fn mtu(&self, index: u32) -> Option<u32> {
        self.keeper.mtu(index)
    }

    /// The link address of an interface, where it has one that is Ethernet's.
    pub fn link_address(&self, index: u32) -> Option<LinkAddress> {
        self.keeper.link_address(index)
    }

    /// Whether a station on the link of an interface is known to have an address.
    pub fn has_neighbour(&self, index: u32, address: [u8; 4]) -> bool {
        self.keeper.has_neighbour(index, address)
    }

    /// Something that no message tells of leads packets elsewhere: the interfaces of the gateway.
    pub fn void(&mut self) {
        self.keeper.void();
    }

    /// Waits until there is something to do. Safe to cancel.
    pub async fn ready(&self) {
        let now = clock::moment();
        // While the epoch rests nobody hears that routes change: that is what spares the agent a full
        // table of them.
        let rest = self.keeper.epoch().rests_until(now);
        let wake = [self.keeper.due(now), rest].into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep(at.saturating_sub(now)).await,
                None => pending().await,
            }
        };
        let routing = async {
            match rest {
                Some(_) => pending().await,
                None => self.routing.ready().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = routing => {}
            () = self.surroundings.ready() => {}
        }
    }

    /// Does what there is to do. Whether the epoch has moved on: it is to be written, and then
    /// [`Hops::moved`] is to be called.
    ///
    /// # Errors
    /// Where the kernel refuses; the next call tries again.
    pub fn work(&mut self) -> Result<bool> {
        let now = clock::moment();
        self.listen(now)?;
        self.catch_up(now)?;
        Ok(self.keeper.work(now))
    }

    /// Once a second, before the heartbeat: the same, and all that nobody tells of. The kernel does not
    /// see that packets use neighbours.
    ///
    /// # Errors
    /// Where the kernel refuses; then the heartbeat must not be written.
    pub fn beat(&mut self) -> Result<bool> {
        let now = clock::moment();
        // Where messages come faster than they are read, lists say what all of them have said.
        self.lost |= !(0..GOES).any(|_| matches!(self.listen(now), Ok(false)));
        self.catch_up(now)?;
        let moved = self.keeper.beat(now);
        let neighbours = self.keeper.take_stale(now);
        self.requests.check(&neighbours)?;
        Ok(moved)
    }

    /// The data plane knows the new epoch: what is left of old ones is taken out of the flows, bit by
    /// bit.
    pub fn moved(&self) {
        references::void_slice(&self.flows, self.epoch());
    }

    /// Goes over to the table that has taken over; what moves there is looked at when all of it has
    /// ([`forget_before`]).
    ///
    /// # Errors
    /// Where it can't be mapped.
    pub fn follow_flows(&mut self, pins: &Path) -> Result<()> {
        self.flows = Mapped::open(pins, "flows")?;
        Ok(())
    }

    /// Hears both listeners; whether there may be more to hear.
    fn listen(&mut self, now: Duration) -> Result<bool> {
        if self.keeper.epoch().rests_until(now).is_none() {
            // All that was said before this is in the kernel's tables already, so one epoch does.
            for _ in 0..GO {
                if self.routing.hear(&mut self.buffer)? == Heard::Nothing {
                    break;
                }
                self.keeper.void();
            }
        }
        for _ in 0..GO {
            match self.surroundings.hear(&mut self.buffer)? {
                Heard::Nothing => return Ok(false),
                Heard::TooMuch => self.lost = true,
                Heard::Datagram(length) => {
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    for (_, message) in message::messages(datagram) {
                        self.keeper.follow(&message, now);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads everything anew where something was lost.
    fn catch_up(&mut self, now: Duration) -> Result<()> {
        if self.lost {
            let (devices, neighbours) = (self.requests.devices()?, self.requests.neighbours()?);
            self.keeper.replace(devices, neighbours, now);
            self.lost = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
