//! The pool of public ports, and those of it that the gateway itself listens on.
//!
//! Invariant: a port that has an owner is never written to.

use std::fs;

use aya::maps::MapError;
use nat_common::port::{Owner, POOL_RANGES, Pool, PortOwner, PortRange};

use super::error::{PlaneError, Result};
use super::maps::Maps;
use super::sockets::Sockets;
use crate::config;

/// Lowest port of the automatic pool: below are the system ports (RFC 6335 section 6).
const LOWEST: u16 = 1024;
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The pool that the configuration asks for.
///
/// # Errors
/// Where it has more ranges than the data plane takes, or leaves nothing.
pub fn pool(asked: &config::Pool) -> Result<Pool> {
    let ranges = match asked {
        config::Pool::Auto => {
            let text =
                fs::read_to_string(EPHEMERAL).map_err(PlaneError::file("read", EPHEMERAL))?;
            without(&text)
        }
        config::Pool::Ranges(ranges) => {
            ranges.iter().filter_map(|range| PortRange::new(range.first(), range.last())).collect()
        }
    };
    build(&ranges)
}

fn build(ranges: &[PortRange]) -> Result<Pool> {
    let refuse =
        |why: String| PlaneError::Refused { what: "set up masquerade.ports".to_owned(), why };
    let mut places = [PortRange::default(); POOL_RANGES];
    if ranges.len() > places.len() {
        return Err(refuse(format!(
            "{} ranges, and {POOL_RANGES} is the most: join some",
            ranges.len()
        )));
    }
    for (place, range) in places.iter_mut().zip(ranges) {
        *place = *range;
    }
    let pool = Pool::new(places);
    if pool.is_empty() {
        return Err(refuse(format!(
            "no port is left beside the host's own ({EPHEMERAL}): name ranges, or make that smaller"
        )));
    }
    Ok(pool)
}

/// Everything from [`LOWEST`] on but the host's ephemeral range, which `text` holds.
fn without(text: &str) -> Vec<PortRange> {
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    let (first, last) = match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        _ => return PortRange::new(LOWEST, u16::MAX).into_iter().collect(),
    };
    let below = first.checked_sub(1).and_then(|end| PortRange::new(LOWEST, end));
    let above = last.checked_add(1).and_then(|start| PortRange::new(start.max(LOWEST), u16::MAX));
    below.into_iter().chain(above).collect()
}

/// Claims the ports of the pool that the gateway's own sockets listen on, on each of its public
/// addresses. A port that has an owner already stays with it.
///
/// # Errors
/// Where the kernel refuses.
pub fn claim_own(
    maps: &mut Maps,
    pool: &Pool,
    sockets: &Sockets,
    outside: &[[u8; 4]],
) -> Result<(), MapError> {
    for endpoint in sockets.listening(outside) {
        if pool.contains(endpoint.port()) {
            let owner = PortOwner::new(Owner::Gateway, [0; 4], endpoint.port());
            maps.ports.claim(&endpoint, &owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn the_automatic_pool_leaves_the_ephemeral_range_alone() {
        assert_eq!(without("32768\t60999\n"), [range(1024, 32767), range(61000, 65535)]);
        assert_eq!(without("1024 65535"), []);
        assert_eq!(without("1024 60000"), [range(60001, 65535)]);
        assert_eq!(without("1000 1010"), [range(1024, 65535)]);
        assert!(build(&without("1024 65535")).is_err());
    }
}
