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
//! An endpoint has its own port where the pool has it and it is free, else the first free one from a
//! place on that is its own by lot. So it is found again by looking at the same few words, whose
//! number its stripe remembers; the lock of the stripe makes one endpoint come one at a time.

use crate::tables::{Tables, Turn};
use nat_common::{
    port::{Endpoint, Owner, Pool, Port, PortOwner},
    reason::Reason,
};

/// Ports that are tried before a new flow is refused: a pool of 128 ports is used to the last one.
pub const PROBES: u32 = 128;

/// The public port of `inside` on the public address with this number, claimed now if it has none.
///
/// # Errors
/// [`Reason::PortsExhausted`], and [`Reason::FlowBusy`] when another CPU has the endpoint in hand.
#[inline(always)]
pub fn of<T: Tables>(
    tables: &mut T,
    inside: Endpoint,
    public: [u8; 4],
    number: u32,
) -> Result<Port, Reason> {
    let stripe = tables.lock_mappings(&inside).ok_or(Reason::FlowBusy)?;
    let port = find_or_claim(tables, inside, public, number, stripe);
    tables.unlock_mappings(stripe);
    if port == Port::NONE { Err(Reason::PortsExhausted) } else { Ok(port) }
}

#[inline(always)]
fn find_or_claim<T: Tables>(
    tables: &mut T,
    inside: Endpoint,
    public: [u8; 4],
    number: u32,
    stripe: u32,
) -> Port {
    let pool = tables.settings().pool;
    let owner = PortOwner::new(Owner::Masquerade, inside.address(), inside.port());
    let protocol = inside.protocol();
    let own = pool.contains(inside.port());
    let mut search = Search {
        protocol,
        public,
        number,
        owner,
        pool,
        index: 0,
        turn: 0,
        claim: false,
        found: Port::NONE,
    };
    if own && search.look(tables, inside.port()) {
        return inside.port();
    }
    let Some(first) = tables.lot(&inside).checked_rem(pool.len()) else { return Port::NONE };
    let reach = tables.mapping_reach(stripe);
    if reach != 0 {
        search.index = first;
        tables.repeat(reach, &mut search);
        if search.found != Port::NONE {
            return search.found;
        }
    }
    search.claim = true;
    if own && search.look(tables, inside.port()) {
        return inside.port();
    }
    search.index = first;
    search.turn = 0;
    tables.repeat(PROBES, &mut search);
    if search.found != Port::NONE && search.turn > reach {
        tables.set_mapping_reach(stripe, search.turn);
    }
    search.found
}

/// A walk along the pool, one port a turn.
struct Search {
    public: [u8; 4],
    number: u32,
    protocol: u8,
    owner: PortOwner,
    pool: Pool,
    index: u32,
    turn: u32,
    /// Whether a free port is taken; else only the endpoint's own is looked for.
    claim: bool,
    found: Port,
}

impl Search {
    /// Whether `port` is the endpoint's, now.
    #[inline(always)]
    fn look<T: Tables>(&self, tables: &mut T, port: Port) -> bool {
        let public = Endpoint::new(self.protocol, self.public, port);
        let word = tables.port_word(self.number, &public);
        if self.claim {
            return word.is_none() && tables.swap_port(self.number, &public, word, self.owner);
        }
        // What the sweep has marked is about to be released, unless it is used before.
        word == self.owner
            || word == self.owner.idle(true)
                && tables.swap_port(self.number, &public, word, self.owner)
    }
}

impl<T: Tables> Turn<T> for Search {
    #[inline(always)]
    fn turn(&mut self, tables: &mut T) -> bool {
        self.turn += 1;
        let port = match self.pool.port(self.index) {
            Some(port) => port,
            None => {
                self.index = 0;
                match self.pool.port(0) {
                    Some(port) => port,
                    None => return false,
                }
            }
        };
        self.index += 1;
        if self.look(tables, port) {
            self.found = port;
            return false;
        }
        true
    }
}
