//! The MSS that the ends of a TCP connection over IPv6 announce, lowered to what the path takes: what
//! [`crate::mss`] is for IPv4. A stage of its own edits it, for either side: what a SYN says is about
//! packets that come back by its way, and fits both.

use super::{
    headers::Headers6,
    tables::{Packet6, Tables6},
};
use crate::{
    headers::{TCP_CHECKSUM, TCP_FIXED, Transport},
    mss::{Lower, OPTION},
};
use nat_common::{checksum::Delta, reason::Reason, settings::Settings, tcp, tcp_options};

/// By how much the header of IPv6 is longer than that of IPv4.
const LONGER: u16 = 20;

/// Whether a packet of a flow announces an MSS that may be too large for its path.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub(super) fn may_exceed<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &T,
    headers: &Headers6,
) -> Result<bool, Reason> {
    let settings = tables.settings();
    let has_options = headers.tcp_length as usize >= TCP_FIXED + OPTION;
    let is_syn = headers.kind == Transport::Tcp && tcp::is_syn(headers.flags);
    if !is_syn || !has_options || settings.mss_most == 0 {
        return Ok(false);
    }
    Ok(match tcp_options::first_mss(packet.load(headers.transport + TCP_FIXED)?) {
        Some(mss) => mss > settings.mss_most || mss > fits(&settings),
        None => true,
    })
}

/// Lets a SYN announce an MSS that fits.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn open<P: Packet6, T: Tables6>(packet: &mut P, tables: &mut T) -> Result<(), Reason> {
    let Some(headers) = Headers6::read(packet)? else { return Ok(()) };
    let settings = tables.settings();
    let fitting = |mtu| if mtu == 0 { fits(&settings) } else { of(mtu) };
    let on = fitting(packet.route_mtu(&headers.src, &headers.dst));
    let back = fitting(packet.route_mtu(&headers.dst, &headers.src));
    let most = on.min(back).min(settings.mss_most);
    let (at, length) = (headers.transport + TCP_FIXED, headers.tcp_length as usize - TCP_FIXED);
    let delta = packet.edit_options(at, length, Lower { tables: &*tables, most })?;
    if delta == Delta::NONE {
        return Ok(());
    }
    packet.mend(headers.transport + TCP_CHECKSUM, delta)
}

/// What fits every interface of the gateway.
#[inline(always)]
const fn fits(settings: &Settings) -> u16 {
    settings.mss_fits.saturating_sub(LONGER)
}

/// What fits packets of so many bytes (RFC 6691 section 2).
#[inline(always)]
const fn of(mtu: u32) -> u16 {
    Settings::mss_of(mtu).saturating_sub(LONGER)
}
