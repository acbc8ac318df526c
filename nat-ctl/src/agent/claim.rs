//! Which public port an announced data connection gets.
//!
//! Invariant: a port is owned by one step that fails where it has an owner; nothing is looked up
//! first to be claimed later. The ports that are tried are a function of the request, so
//! that an announcement that is made again finds the port that it was given.
//!
//! ```text
//!   inside port (where it may be used) -> probes through the pool, from a place that depends on
//!   host and port
//! ```

use nat_common::{
    flow::TCP,
    port::{Endpoint, Owner, Pool, Port, PortOwner},
};

use super::control::octets;
use crate::{alg::PortRequest, plane::PlaneError};

/// Ports that are tried before the pool counts as full. With 7 of 8 ports taken, all of them are
/// taken for one request in 5,000.
const PROBES: u32 = 64;

/// The owners of the ports of one public address.
pub trait Ports {
    /// Who owns a public endpoint.
    ///
    /// # Errors
    /// Where the table can't be read.
    fn owner(&mut self, public: &Endpoint) -> Result<Option<PortOwner>, PlaneError>;

    /// Makes `owner` own it; `false` where somebody does already.
    ///
    /// # Errors
    /// Where the table can't be written or is full.
    fn claim(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<bool, PlaneError>;

    /// Whether the address is one of the gateway itself, whose own sockets take ports outside of
    /// the pool.
    fn is_own(&self) -> bool;

    /// Whether a socket of the gateway has a port of that address.
    fn is_open(&self, public: &Endpoint) -> bool;
}

/// Claims a port for a request; `None` where all that
/// were tried are taken.
///
/// # Errors
/// Where the table can't be read or written.
pub fn claim(
    ports: &mut impl Ports,
    pool: &Pool,
    request: &PortRequest,
) -> Result<Option<u16>, PlaneError> {
    let inside = octets(request.inside);
    let wanted = request.port.map(Port::new);
    // A request without a port is a new one each time: nothing tells it from the one before.
    if let Some(wanted) = wanted {
        for port in candidates(ports, pool, request)? {
            let owner = ports.owner(&public(request, port))?;
            if owner.is_some_and(|owner| is_held(&owner, inside, wanted)) {
                return Ok(Some(port.number()));
            }
        }
    }
    let owner = PortOwner::new(Owner::Expectation, inside, wanted.unwrap_or(Port::NONE));
    for port in candidates(ports, pool, request)? {
        if ports.claim(&public(request, port), &owner)? {
            return Ok(Some(port.number()));
        }
    }
    Ok(None)
}

/// Whether an owner already leads to that inside endpoint. Masquerade of it does not: it lives as
/// long as its own flows.
fn is_held(owner: &PortOwner, inside: [u8; 4], port: Port) -> bool {
    matches!(owner.owner(), Some(Owner::Expectation | Owner::Forward)) && owner.is(inside, port)
}

fn public(request: &PortRequest, port: Port) -> Endpoint {
    Endpoint::new(TCP, octets(request.public), port)
}

/// The ports to try, in order.
fn candidates(
    ports: &mut impl Ports,
    pool: &Pool,
    request: &PortRequest,
) -> Result<Vec<Port>, PlaneError> {
    // Behind an address that the gateway has not, no socket of the gateway is in the way. Where the
    // line states the public address a port outside of the pool is kept too, if no socket has it now:
    // should one take it later, only what the same remote end sends to it could be mistaken.
    let is_free = |port| request.stated && !ports.is_open(&public(request, port));
    let kept = match request.port.map(Port::new).filter(|port| !port.is_system()) {
        Some(port) if pool.contains(port) || !ports.is_own() || is_free(port) => Some(port),
        _ => forwarded(ports, request)?,
    };
    let (seed, size) = (seed(request), pool.len());
    let probes = (0..PROBES.min(size)).filter_map(|probe| {
        // An odd step through a span that is no multiple of it meets no port twice for long.
        pool.port(seed.wrapping_add(probe.wrapping_mul(0x9e37_79b1)) % size)
    });
    Ok(kept.into_iter().chain(probes.filter(|port| !port.is_system())).collect())
}

/// The inside port, where a forward already leads from it to that very host and port.
fn forwarded(ports: &mut impl Ports, request: &PortRequest) -> Result<Option<Port>, PlaneError> {
    let Some(port) = request.port.map(Port::new).filter(|port| !port.is_system()) else {
        return Ok(None);
    };
    let owner = ports.owner(&public(request, port))?;
    Ok(owner.filter(|owner| is_held(owner, octets(request.inside), port)).map(|_| port))
}

/// FNV-1a of what makes the request (draft-eastlake-fnv): spreads hosts and ports over the pool.
fn seed(request: &PortRequest) -> u32 {
    let port = request.port.map_or(request.session, u32::from);
    let bytes = [octets(request.inside), octets(request.public), port.to_be_bytes()];
    bytes
        .as_flattened()
        .iter()
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::port::PortRange;
    use std::{collections::HashMap, net::Ipv4Addr};

    const OWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const ALIAS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    /// A port that a socket of the gateway has.
    const OPEN: u16 = 50_022;
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

    struct Table<'a> {
        owners: &'a mut HashMap<Endpoint, PortOwner>,
        is_own: bool,
    }

    impl Ports for Table<'_> {
        fn owner(&mut self, public: &Endpoint) -> Result<Option<PortOwner>, PlaneError> {
            Ok(self.owners.get(public).copied())
        }

        fn claim(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<bool, PlaneError> {
            let new = !self.owners.contains_key(public);
            self.owners.entry(*public).or_insert(*owner);
            Ok(new)
        }

        fn is_own(&self) -> bool {
            self.is_own
        }

        fn is_open(&self, public: &Endpoint) -> bool {
            public.port().number() == OPEN
        }
    }

    fn pool(first: u16, last: u16) -> Pool {
        let mut ranges = [PortRange::default(); 4];
        ranges[0] = PortRange::new(first, last).unwrap();
        Pool::new(ranges)
    }

    fn request(public: Ipv4Addr, port: Option<u16>) -> PortRequest {
        let (public, inside) = (public.into(), HOST.into());
        PortRequest { session: 1, public, inside, port, stated: false }
    }

    fn claim(
        ports: &mut HashMap<Endpoint, PortOwner>,
        pool: &Pool,
        request: &PortRequest,
    ) -> Option<u16> {
        let mut table = Table { owners: ports, is_own: request.public == OWN };
        super::claim(&mut table, pool, request).unwrap()
    }

    #[test]
    fn the_inside_port_is_kept_where_the_pool_has_it() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20999);
        assert_eq!(claim(&mut ports, &pool, &request(OWN, Some(20500))), Some(20500));
        let other = claim(&mut ports, &pool, &request(OWN, Some(40000))).unwrap();
        assert!((20000..=20999).contains(&other));
        assert_eq!(claim(&mut ports, &pool, &request(ALIAS, Some(40000))), Some(40000));
    }

    #[test]
    fn a_line_that_states_the_public_address_keeps_its_port_unless_a_socket_has_it() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20999);
        let stated = |port| PortRequest { stated: true, ..request(OWN, Some(port)) };
        for _ in 0..2 {
            assert_eq!(claim(&mut ports, &pool, &stated(40000)), Some(40000));
        }
        let other = claim(&mut ports, &pool, &stated(OPEN)).unwrap();
        assert!((20000..=20999).contains(&other));
        let endpoint = Endpoint::new(TCP, OWN.octets(), Port::new(40001));
        ports.insert(endpoint, PortOwner::new(Owner::Gateway, [0; 4], Port::NONE));
        let other = claim(&mut ports, &pool, &stated(40001)).unwrap();
        assert!((20000..=20999).contains(&other));
    }

    #[test]
    fn the_same_endpoint_gets_the_same_port_again() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20999);
        for port in [20500, 40000, 1025] {
            let first = claim(&mut ports, &pool, &request(OWN, Some(port))).unwrap();
            assert_eq!(claim(&mut ports, &pool, &request(OWN, Some(port))), Some(first));
        }
        assert_eq!(ports.len(), 3);
    }

    #[test]
    fn a_port_of_another_is_never_given() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20001);
        for (port, kind) in [(20000, Owner::Masquerade), (20001, Owner::Gateway)] {
            let endpoint = Endpoint::new(TCP, OWN.octets(), Port::new(port));
            // Even where it is masquerade of that very endpoint.
            ports.insert(endpoint, PortOwner::new(kind, HOST.octets(), Port::new(port)));
        }
        assert_eq!(claim(&mut ports, &pool, &request(OWN, Some(20000))), None);
        assert_eq!(claim(&mut ports, &pool, &request(OWN, None)), None);
    }

    #[test]
    fn a_forward_to_that_very_endpoint_is_a_claim() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20999);
        let endpoint = |port| Endpoint::new(TCP, OWN.octets(), Port::new(port));
        let host = |port| PortOwner::new(Owner::Forward, HOST.octets(), Port::new(port));
        ports.insert(endpoint(50000), host(50000));
        ports.insert(
            endpoint(50001),
            PortOwner::new(Owner::Forward, [10, 0, 1, 9], Port::new(50001)),
        );
        assert_eq!(claim(&mut ports, &pool, &request(OWN, Some(50000))), Some(50000));
        let other = claim(&mut ports, &pool, &request(OWN, Some(50001))).unwrap();
        assert!((20000..=20999).contains(&other));
    }

    #[test]
    fn requests_without_a_port_get_different_ones() {
        let mut ports = HashMap::new();
        let pool = pool(20000, 20003);
        let mut seen: Vec<_> =
            (0..3).filter_map(|_| claim(&mut ports, &pool, &request(OWN, None))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ports.len());
        assert!(ports.len() >= 2);
    }

    #[test]
    fn no_system_port_is_given() {
        let mut ports = HashMap::new();
        let pool = pool(1000, 1023);
        assert_eq!(claim(&mut ports, &pool, &request(ALIAS, Some(21))), None);
    }
}
