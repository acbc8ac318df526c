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
//! A unique local address passes a WAN only where it is translated, unless the settings say otherwise
//! (RFC 6092, REC-7).
//!
//! Packets of flows are not asked again: their ends are those of the first one.

use super::{
    headers::Headers6,
    tables::{Course, Packet6, Tables6},
};
use nat_common::{
    flow::Zone,
    interface::Role,
    reason::Reason,
    six::{Address6, is_unique_local},
};

/// Holds the source of a packet from `zone`, which leaves by the interface `way`, against the routes. An
/// answer is one that arrives there.
///
/// # Errors
/// [`Reason::ForeignSource`] from inside, [`Reason::NotAllowed`] from outside, and
/// [`Reason::UniqueLocal`].
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
        (Zone::Inside, Some(true)) => {}
        (Zone::Inside, Some(false) | None) => return Err(Reason::ForeignSource),
        (Zone::Outside, Some(false)) if !is_public(tables, headers) => {}
        (Zone::Outside, Some(_) | None) => return Err(Reason::NotAllowed),
    }
    let is_local = match zone {
        Zone::Inside => is_local(tables, way, &headers.src, &headers.dst),
        Zone::Outside => is_local(tables, packet.ifindex(), &headers.dst, &headers.src),
    };
    if is_local { Err(Reason::UniqueLocal) } else { Ok(()) }
}

/// Whether a unique local address would pass the way out `wan` as it is.
#[inline(always)]
fn is_local<T: Tables6>(tables: &T, wan: u32, inside: &Address6, outside: &Address6) -> bool {
    let settings = tables.settings();
    if settings.unique_local6 != 0 {
        return false;
    }
    let is_translated = || settings.prefixes != 0 && tables.is_translated6(wan, inside);
    is_unique_local(outside) || is_unique_local(inside) && !is_translated()
}

/// Whether it says to come from what the outside knows inside hosts by.
#[inline(always)]
fn is_public<T: Tables6>(tables: &T, headers: &Headers6) -> bool {
    tables.settings().prefixes != 0 && tables.is_public6(&headers.src)
}
