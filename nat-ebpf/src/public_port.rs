//! The public port of an inside endpoint.
//!
//! Endpoint-independent mapping (RFC 4787 REQ-1): an inside endpoint has one public port on a public
//! address, for every destination. So the record of an answer depends on the inside endpoint alone,
//! and two CPUs that make the same flow cannot differ.
//!
//! Allocator, mapping and owner are one word in an array that the port is the index of:
//!
//! ```text
//!   ports   203.0.113.1  udp  ... | 5000: 10.0.1.2:5000 | 5001: nobody | 5002: 10.0.1.9:5000 | ...
//! ```
//!
//! An endpoint has its own port where the pool has it and it is free, else the first free one (with
//! `parity` the first one that is odd or even as its own, if there is any) on a walk
//! from a place that is its own by lot: some ports in a row, which are one cache line, then a leap, so
//! that it leaves the runs of ports that hosts have kept. So it is found again by looking at the same
//! few words, whose number its stripe remembers; the lock of the stripe makes one endpoint come one at
//! a time.

use crate::tables::{Tables, Turn};
use nat_common::{
    flow::UDP,
    port::{Endpoint, Owner, Pool, Port, PortOwner},
    reason::Reason,
};

/// Ports that are tried before a new flow is refused, one of which the wrap at the end of the pool may
/// cost: a pool of 128 ports is used to the last one.
pub const PROBES: u32 = 129;

/// Ports in a row before the walk leaps: a cache line of owners.
const ROW: u32 = 8;

/// How far the walk leaps: a small pool is walked through to its last port.
#[inline(always)]
const fn leap(size: u32) -> u32 {
    if size < PROBES { 1 } else { LEAP % size }
}

/// A prime.
const LEAP: u32 = 1031;

/// The public port of `inside` on the public address with this number, claimed now if it has none.
///
/// # Errors
/// [`Reason::PortsExhausted`]; [`Reason::HostLimit`] when the host has as many as it may have; and
/// [`Reason::FlowBusy`] when another CPU has the endpoint in hand.
#[inline(always)]
pub fn of<T: Tables>(
    tables: &mut T,
    inside: Endpoint,
    public: [u8; 4],
    number: u32,
) -> Result<Port, Reason> {
    let pool = tables.pool().ok_or(Reason::PortsExhausted)?;
    let own = pool.contains(inside.port());
    let first = tables.lot(&inside, 0).checked_rem(pool.len()).ok_or(Reason::PortsExhausted)?;
    let stripe = tables.lock_mappings(&inside).ok_or(Reason::FlowBusy)?;
    let reach = tables.mapping_reach(stripe);
    let mut walk = Walk {
        place: Place { inside, public, number },
        steps: Steps::from(first),
        wants: OWN,
        found: Port::NONE,
    };
    find(tables, &mut walk, own, reach);
    if walk.found == Port::NONE {
        if let Err(reason) = tables.open_port(inside.address()) {
            tables.unlock_mappings(stripe);
            return Err(reason);
        }
        claim(tables, &mut walk, own, first);
        if walk.found == Port::NONE {
            tables.close_port(inside.address());
        } else if walk.steps.turn > reach {
            tables.set_mapping_reach(stripe, walk.steps.turn);
        }
    }
    tables.unlock_mappings(stripe);
    if walk.found == Port::NONE { Err(Reason::PortsExhausted) } else { Ok(walk.found) }
}

/// The port that the endpoint has already: its own, or one within reach.
#[inline(always)]
fn find<T: Tables>(tables: &mut T, walk: &mut Walk, own: bool, reach: u32) {
    let inside = walk.place.inside.port();
    if own && walk.place.is_mapped(tables, inside) {
        walk.found = inside;
    } else if reach != 0 {
        tables.repeat(reach, walk);
    }
}

/// A port that is its from here on: its own, if that is free, else the first one on the walk.
#[inline(always)]
fn claim<T: Tables>(tables: &mut T, walk: &mut Walk, own: bool, first: u32) {
    let inside = walk.place.inside;
    walk.again(first, ANY);
    if own && walk.place.claim(tables, inside.port()) {
        walk.found = inside.port();
        return;
    }
    if inside.protocol() == UDP && tables.keeps_parity() {
        walk.again(first, LIKE);
        tables.repeat(PROBES, walk);
    }
    if walk.found == Port::NONE {
        walk.again(first, ANY);
        tables.repeat(PROBES, walk);
    }
}

/// Who is to be mapped, and on which public address.
#[derive(Clone, Copy)]
struct Place {
    inside: Endpoint,
    public: [u8; 4],
    number: u32,
}

impl Place {
    #[inline(always)]
    fn owner(&self) -> PortOwner {
        PortOwner::new(Owner::Masquerade, self.inside.address(), self.inside.port())
    }

    /// Whether `port` is the endpoint's already.
    #[inline(always)]
    fn is_mapped<T: Tables>(&self, tables: &mut T, port: Port) -> bool {
        let public = Endpoint::new(self.inside.protocol(), self.public, port);
        let word = tables.port_word(self.number, &public);
        // What the sweep has marked is about to be released, unless it is used before.
        word == self.owner()
            || word == self.owner().idle(true)
                && tables.swap_port(self.number, &public, word, self.owner())
    }

    /// Takes `port` for the endpoint, if nobody has it.
    #[inline(always)]
    fn claim<T: Tables>(&self, tables: &mut T, port: Port) -> bool {
        let public = Endpoint::new(self.inside.protocol(), self.public, port);
        tables.port_word(self.number, &public).is_none()
            && tables.swap_port(self.number, &public, PortOwner::NONE, self.owner())
    }
}

/// Steps along the pool, from a place in it.
#[derive(Clone, Copy)]
pub struct Steps {
    index: u32,
    turn: u32,
}

impl Steps {
    /// From the port with this index on.
    #[inline(always)]
    pub const fn from(index: u32) -> Self {
        Self { index, turn: 0 }
    }

    /// The next port; `None` past the end, and then again from the beginning.
    #[inline(always)]
    pub fn next(&mut self, pool: &Pool) -> Option<Port> {
        self.turn += 1;
        let port = pool.port(self.index);
        if port.is_none() {
            self.index = self.index.wrapping_sub(pool.len());
        } else {
            self.index += if self.turn.is_multiple_of(ROW) { leap(pool.len()) } else { 1 };
        }
        port
    }
}

/// A walk along the pool, one port a turn.
struct Walk {
    place: Place,
    steps: Steps,
    wants: u32,
    found: Port,
}

/// What a walk wants: the port that the endpoint has already,
const OWN: u32 = 0;
/// a free one, which it claims,
const ANY: u32 = 1;
/// or such a one with the parity of the inside port.
const LIKE: u32 = 2;

impl Walk {
    /// From the first place on, for something else.
    #[inline(always)]
    fn again(&mut self, first: u32, wants: u32) {
        (self.steps, self.wants) = (Steps::from(first), wants);
    }
}

impl<T: Tables> Turn<T> for Walk {
    #[inline(always)]
    fn turn(&mut self, tables: &mut T) -> bool {
        let Some(pool) = tables.pool() else { return false };
        let Some(port) = self.steps.next(&pool) else { return true };
        let differs = (port.number() ^ self.place.inside.port().number()) & 1 != 0;
        let taken = match self.wants {
            OWN => self.place.is_mapped(tables, port),
            LIKE if differs => false,
            _ => self.place.claim(tables, port),
        };
        if taken {
            self.found = port;
        }
        !taken
    }
}
