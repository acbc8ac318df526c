//! The public port of an inside endpoint.
//!
//! Endpoint-independent mapping (RFC 4787 REQ-1): an inside endpoint has one public port on a public
//! address, for every destination. So the record of an answer depends on the inside endpoint alone,
//! and two CPUs that make the same flow cannot differ.
//!
//! ```text
//!   mappings  (10.0.1.2:5000, on 203.0.113.1) ----> 41000
//!   ports     203.0.113.1:41000 -----------------> owner 10.0.1.2:5000
//! ```
//!
//! The port is claimed first, then the mapping. Who loses the mapping to another CPU gives back the
//! port that nobody else knew of, and takes the winner's.

use crate::tables::{Refused, Tables, Turn};
use nat_common::{
    port::{Endpoint, Mapping, MappingKey, Owner, Port, PortOwner},
    reason::Reason,
};

/// Probes before a new flow is refused, one of which the wrap at the end of a small pool may cost: a
/// pool of 128 ports is used to the last one.
pub const PROBES: u32 = 129;

/// The public port of `inside` on `public`, claimed now if it has none.
///
/// # Errors
/// [`Reason::PortsExhausted`] and [`Reason::TableFull`].
#[inline(always)]
pub fn of<T: Tables>(
    tables: &mut T,
    inside: Endpoint,
    public: [u8; 4],
    now: u32,
) -> Result<Port, Reason> {
    let key = MappingKey::new(inside, public);
    if let Some(mapping) = tables.mapping(&key) {
        return Ok(mapping.port());
    }
    let port = claim(tables, inside, public, now)?;
    match tables.insert_mapping(&key, &Mapping::new(port)) {
        Ok(()) => Ok(port),
        Err(refused) => {
            tables.release_port(&Endpoint::new(inside.protocol(), public, port));
            match refused {
                Refused::Exists => {
                    tables.mapping(&key).map(|mapping| mapping.port()).ok_or(Reason::PortsExhausted)
                }
                Refused::Full => Err(Reason::TableFull),
            }
        }
    }
}

/// Claims a port: the inside one where the pool has it free (RFC 4787 section 4.2.1), else the next
/// free one from a random place on.
#[inline(always)]
fn claim<T: Tables>(
    tables: &mut T,
    inside: Endpoint,
    public: [u8; 4],
    now: u32,
) -> Result<Port, Reason> {
    let pool = tables.settings().pool;
    let owner = PortOwner::new(Owner::Masquerade, inside.address(), inside.port(), now);
    let protocol = inside.protocol();
    if pool.contains(inside.port())
        && tables.claim_port(&Endpoint::new(protocol, public, inside.port()), &owner).is_ok()
    {
        return Ok(inside.port());
    }
    let index = tables.random().checked_rem(pool.len()).ok_or(Reason::PortsExhausted)?;
    let (size, stride) = (pool.len(), stride(pool.len()));
    let mut search =
        Search { public, protocol, owner, index, size, stride, found: Port::NONE, full: 0 };
    tables.repeat(PROBES, &mut search);
    if search.found != Port::NONE {
        Ok(search.found)
    } else if search.full != 0 {
        Err(Reason::TableFull)
    } else {
        Err(Reason::PortsExhausted)
    }
}

/// How far apart ports are tried: a small pool is walked through to its last port; in a large one the
/// steps leave the runs of ports that hosts have kept. A prime that does not divide the size comes
/// by every port.
#[inline(always)]
fn stride(size: u32) -> u32 {
    const PRIMES: [u32; 2] = [1031, 1033];
    if size < PROBES {
        1
    } else if !size.is_multiple_of(PRIMES[0]) {
        PRIMES[0] % size
    } else {
        PRIMES[1] % size
    }
}

/// The search for a free port, one port a turn.
struct Search {
    public: [u8; 4],
    protocol: u8,
    owner: PortOwner,
    index: u32,
    size: u32,
    stride: u32,
    found: Port,
    full: u32,
}

impl<T: Tables> Turn<T> for Search {
    #[inline(always)]
    fn turn(&mut self, tables: &mut T) -> bool {
        let Some(port) = tables.settings().pool.port(self.index) else {
            self.index = self.index.wrapping_sub(self.size);
            return true;
        };
        self.index += self.stride;
        match tables.claim_port(&Endpoint::new(self.protocol, self.public, port), &self.owner) {
            Ok(()) => {
                self.found = port;
                false
            }
            Err(Refused::Exists) => true,
            Err(Refused::Full) => {
                self.full = 1;
                false
            }
        }
    }
}
