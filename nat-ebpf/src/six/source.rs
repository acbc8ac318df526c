//! Whether the addresses of a packet that begins a flow are where they belong (RFC 6092 section 3.1,
//! RFC 2827 section 3): its source is on the side that it comes from, by the kernel's routing.
//!
//! ```text
//!   from inside:   an answer would come back to a LAN ---------------> it may
//!                  elsewhere, to the gateway itself, nowhere --------> dropped
//!   from outside:  an answer would go out by a way that is no LAN ---> it may
//!                  to a LAN, to the gateway itself, nowhere ---------> dropped
//! ```
//!
//! Packets of flows are not asked again: their ends are those of the first one.

use super::{
    headers::Headers6,
    tables::{Course, Packet6, Tables6},
};
use nat_common::{flow::Zone, interface::Role, reason::Reason};

/// Holds the source of a packet from `zone`, which leaves by the interface `way`, against the routes. An
/// answer is one that arrives there.
///
/// # Errors
/// [`Reason::ForeignSource`] from inside, [`Reason::NotAllowed`] from outside.
#[inline(always)]
pub(super) fn belongs<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &T,
    zone: Zone,
    headers: &Headers6,
    way: u32,
) -> Result<(), Reason> {
    let leads = match packet.course(way, &headers.dst, &headers.src) {
        Course::To(ifindex) => {
            Some(tables.interface(ifindex).is_some_and(|interface| interface.is(Role::Lan)))
        }
        Course::Own | Course::Nowhere => None,
    };
    match (zone, leads) {
        (Zone::Inside, Some(true)) => Ok(()),
        (Zone::Inside, Some(false) | None) => Err(Reason::ForeignSource),
        (Zone::Outside, Some(false)) if !is_public(tables, headers) => Ok(()),
        (Zone::Outside, Some(_) | None) => Err(Reason::NotAllowed),
    }
}

/// Whether it says to come from what the outside knows inside hosts by.
#[inline(always)]
fn is_public<T: Tables6>(tables: &T, headers: &Headers6) -> bool {
    tables.settings().prefixes != 0 && tables.is_public6(&headers.src)
}
