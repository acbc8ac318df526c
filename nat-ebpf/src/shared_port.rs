//! A public port that several inside endpoints share.
//!
//! When the pool has no port for an endpoint, or the answers to its own port from that remote end are
//! another's, the flow takes a port that others have too: the remote end tells them apart (address- and
//! port-dependent mapping, RFC 4787 section 4.1). So the record of the answer is what claims it
//! ([`crate::pair`]); what is looked up here is a hint that spares the attempt.
//!
//! ```text
//!   ports    203.0.113.1 udp 5000: 10.0.1.2:5000
//!   answers  198.51.100.1:53 -> 203.0.113.1:5000   for 10.0.1.2:5000
//!            192.0.2.7:53    -> 203.0.113.1:5000   for 10.0.1.9:4321
//! ```
//!
//! Ports of forwards, expectations and the gateway itself are never shared. The walk is that of
//! [`crate::public_port`], so that an endpoint has one shared port for as many remote ends as it can;
//! where mapping is address- and port-dependent by choice, all ports are got here, and the walk begins
//! at a place that follows from the remote end too.

use crate::{
    public_port::{PROBES, Steps},
    tables::{Slot, Tables, Turn},
};
use nat_common::{
    flow::{FlowKey, Rewrite},
    port::{Endpoint, Owner, Port, PortOwner},
    reason::Reason,
};

/// A port on the public address with this number for packets with `key`, whose answers are nobody
/// else's.
///
/// # Errors
/// [`Reason::PortsExhausted`].
#[inline(always)]
pub fn of<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    public: [u8; 4],
    number: u32,
) -> Result<Port, Reason> {
    let first = start(tables, key).ok_or(Reason::PortsExhausted)?;
    walk(tables, key, public, number, first).ok_or(Reason::PortsExhausted)
}

/// The place in the pool from which the walk goes; `None` where the pool is empty.
#[inline(always)]
pub fn start<T: Tables>(tables: &T, key: &FlowKey) -> Option<u32> {
    let settings = tables.settings();
    let remote = if settings.maps_by_remote_end() { key.destination().word() } else { 0 };
    tables.lot(&key.source(), remote).checked_rem(settings.pool.len())
}

/// The walk from there: apart from where it starts, for the stack is short.
#[inline(always)]
pub fn walk<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    public: [u8; 4],
    number: u32,
    first: u32,
) -> Option<Port> {
    // Addresses have small numbers: `PORT_ADDRESSES`.
    let (steps, number) = (Steps::from(first), number as u16);
    let mut walk = Walk { key: *key, public, steps, number, found: Port::NONE };
    tables.repeat(PROBES, &mut walk);
    if walk.found == Port::NONE { None } else { Some(walk.found) }
}

/// Small: the stack is short, and a lookup of a flow goes on from here.
struct Walk {
    key: FlowKey,
    public: [u8; 4],
    steps: Steps,
    number: u16,
    found: Port,
}

impl Walk {
    /// Whether the port has an owner who shares it; it has one for longer than this packet takes.
    #[inline(always)]
    fn is_held<T: Tables>(&self, tables: &mut T, port: Port) -> bool {
        let public = Endpoint::new(self.key.protocol(), self.public, port);
        let word = tables.port_word(self.number.into(), &public);
        let kept = match word.owner() {
            Some(Owner::Masquerade | Owner::Shared) if !word.is_idle() => return true,
            // What the sweep has marked is about to be released, unless it is used before.
            Some(Owner::Masquerade | Owner::Shared) => word.idle(false),
            None if word.is_none() => PortOwner::SHARED,
            Some(Owner::Forward | Owner::Expectation | Owner::Gateway) | None => return false,
        };
        tables.swap_port(self.number.into(), &public, word, kept)
    }

    /// Whether answers to the port are this flow's, or nobody's.
    #[inline(always)]
    fn is_free<T: Tables>(&self, tables: &T, port: Port) -> bool {
        let answer = self.key.answer(&Rewrite::source(&self.key, self.public, port));
        match tables.flow_in_place(&answer).and_then(|slot| slot.load()) {
            Some(other) => *other.rewrite() == Rewrite::answer(&self.key),
            None => true,
        }
    }
}

impl<T: Tables> Turn<T> for Walk {
    #[inline(always)]
    fn turn(&mut self, tables: &mut T) -> bool {
        let Some(pool) = tables.pool() else { return false };
        let Some(port) = self.steps.next(&pool) else { return true };
        if self.is_free(tables, port) && self.is_held(tables, port) {
            self.found = port;
        }
        self.found == Port::NONE
    }
}
