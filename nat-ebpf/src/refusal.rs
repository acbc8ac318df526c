//! What a host inside hears when its new flow is refused for want of room: that it is prohibited (RFC 5508
//! REQ-8; RFC 4443 section 3.1). The packet is dropped and counted in any case; the agent sends the message.
//!
//! However many are refused, the ring and the agent have a few of them a second
//! (RFC 1812 section 4.3.2.8).

use crate::{headers::ETHERNET, packet::Packet, tables::Tables};
use nat_common::{punt::PuntHeader, reason::Reason};

/// Refusals that are told of in a second, on each CPU.
pub const TOLD: u32 = 100;
/// Bytes of the packet that are quoted at most: any header, and more than RFC 792 asks for.
const QUOTE: usize = 128;

/// Whether the sender of a packet that is dropped for this reason may be told now; `takes` is 1 for who
/// tells it, and 0 for who asks.
#[inline(always)]
pub fn is_told<T: Tables>(tables: &mut T, reason: Reason, takes: u32) -> bool {
    if !matches!(reason, Reason::TableFull | Reason::PortsExhausted | Reason::HostLimit) {
        return false;
    }
    let now = tables.now();
    tables.settings().agent_alive(now) && tables.may_tell(now, takes)
}

/// Counts a flow that an inside host is about to open.
///
/// # Errors
/// As [`Tables::open_host`].
#[inline(always)]
pub fn open_host<P: Packet, T: Tables>(tables: &mut T, host: [u8; 4]) -> Result<(), Reason> {
    let opened = tables.open_host(host);
    if opened.is_err() {
        count::<P, T>(tables, host, opened);
    }
    opened
}

/// Takes that back where the flow was not made.
#[inline(always)]
pub fn close_host<P: Packet, T: Tables, A>(
    tables: &mut T,
    host: [u8; 4],
    made: Result<A, Reason>,
) -> Result<A, Reason> {
    if let Err(reason) = made {
        tables.close_host(host);
        count::<P, T>(tables, host, Err(reason));
    }
    made
}

/// A refusal for the limits of the host counts once: where TC goes on with the packet, to tell its sender,
/// TC counts it.
#[inline(always)]
fn count<P: Packet, T: Tables>(tables: &mut T, host: [u8; 4], opened: Result<(), Reason>) {
    if opened == Err(Reason::HostLimit) && (P::COMPLETE || !is_told(tables, Reason::HostLimit, 0)) {
        tables.refuse_host(host);
    }
}

/// What became of a packet from inside that may begin a flow: where it is refused for want of room the agent,
/// which tells its sender, gets its beginning.
#[inline(always)]
pub fn tell<P: Packet, T: Tables, A>(packet: &mut P, tables: &mut T, became: Result<A, Reason>) {
    let Err(reason) = became else { return };
    if !is_told(tables, reason, 1) {
        return;
    }
    let rest = packet.length() - ETHERNET;
    let length = if rest < QUOTE { rest } else { QUOTE };
    let header = PuntHeader::refused(length as u32, packet.ifindex());
    // Where the ring has no room, silence has to do.
    let _ = packet.punt(header, ETHERNET);
}
