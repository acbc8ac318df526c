//! A gateway with one arm: one interface leads to inside hosts and to the outside, so that the side a
//! packet comes from follows from its addresses, and not from where it came in.
//!
//! ```text
//!   in:   source is no inside address ------------------------------------> from outside
//!         source is one: destination is an inside address, but not our own -> the kernel's
//!                        any other, our own public ones too ---------------> from inside
//!   out:  destination is an inside address --> leaves
//!         any other -------------------------> as out of a WAN ([`crate::guard`])
//! ```
//!
//! What an inside address is the configuration says (`gateway.inside`). IPv6 is the kernel's: whoever
//! is on a link can go around a gateway that has no other.

use crate::{headers, packet::Packet, tables::Tables};
use nat_common::{flow::Zone, reason::Reason, rule::AllowedKey};

/// The side that a packet comes from; `None` for one that stays inside, or is no IPv4.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn arrives<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Option<Zone>, Reason> {
    let Some(source) = headers::source(packet)? else { return Ok(None) };
    if !is_inside(tables, source) {
        return Ok(Some(Zone::Outside));
    }
    let destination = headers::destination(packet)?;
    let stays = is_inside(tables, destination) && !tables.is_own_address(destination);
    Ok(if stays { None } else { Some(Zone::Inside) })
}

/// Whether a packet leaves to the outside, and so has to be translated.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn leaves<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<bool, Reason> {
    match headers::source(packet)? {
        Some(_) => Ok(!is_inside(tables, headers::destination(packet)?)),
        None => Ok(false),
    }
}

#[inline(always)]
fn is_inside<T: Tables>(tables: &T, address: [u8; 4]) -> bool {
    tables.allowed(AllowedKey::INSIDE, address)
}
