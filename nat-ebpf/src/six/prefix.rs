//! Prefixes that are translated (NPTv6, RFC 6296): what leaves by a WAN has the public prefix, what
//! comes in the inside one.
//!
//! ```text
//!   outside -> inside, as it arrives   dst public -> inside     of an error also the quoted source
//!   inside -> outside, at the way out  src inside -> public     of an error also the quoted destination
//!   inside -> public address, as it arrives                     all of these: it turns back
//! ```
//!
//! Between the two there are inside addresses alone: the path, the agent, the kernel's routes, and what
//! the kernel has to tell a sender need no translation. No sum changes, so no checksum does, and every
//! fragment is translated by itself. Where no prefix is configured nobody comes here.

use super::{
    error::HEADER,
    headers::{Chain, DST, FIXED, Fixed, Fragmentation, PARAMETER_PROBLEM, SRC, UNREACHABLE},
    tables::{Course, Packet6, Tables6},
};
use crate::headers::ETHERNET;
use nat_common::{
    flow::Zone,
    reason::Reason,
    six::{ICMPV6, PrefixKey, stays},
};

/// Where no packet is quoted: a frame begins there. (Of an `Option` the compiler would copy a place that
/// was never written, which the verifier refuses.)
const NO_QUOTE: usize = 0;

/// A packet arrives from `zone`, before it is judged: its destination is the inside one from here on, and
/// where it turns back its source the public one.
///
/// # Errors
/// [`Reason::PrefixOnes`] for an address that has no other, and [`Reason::IcmpUnrelated`] for an error
/// about a packet that its receiver has not sent.
#[inline(always)]
pub fn arrive<P: Packet6, T: Tables6>(
    packet: &mut P,
    tables: &T,
    zone: Zone,
) -> Result<(), Reason> {
    let fixed = Fixed::read(packet, ETHERNET)?;
    if packet.is_foreign() || stays(&fixed.src) {
        return Ok(());
    }
    let mut inside = PrefixKey::public(fixed.dst);
    let found = tables.translate(&mut inside);
    // An address of the gateway's own may lie below a public prefix, and stands for none inside.
    if found == Ok(None) || packet.course(packet.ifindex(), &fixed.src, &fixed.dst) == Course::Own {
        return Ok(());
    }
    let wan = found?.unwrap_or_default();
    let mut source = PrefixKey::leaving(wan, fixed.src);
    let turns = zone == Zone::Inside && tables.translate(&mut source)?.is_some();
    let quote = quote(packet, fixed.next);
    if quote != NO_QUOTE {
        let sender = packet.load(quote + SRC);
        if sender.is_ok_and(|sender| sender != fixed.dst) {
            return Err(Reason::IcmpUnrelated);
        }
        if zone == Zone::Inside {
            publish(packet, tables, wan, quote)?;
        }
        if sender.is_ok() {
            packet.store(quote + SRC, inside.address())?;
        }
    }
    if turns {
        packet.store(ETHERNET + SRC, source.address())?;
    }
    packet.store(ETHERNET + DST, inside.address())
}

/// A packet leaves by a WAN: whoever has sent it, nothing of it has an inside address from here on.
///
/// # Errors
/// [`Reason::Untranslated`] for an inside address that has no public one here, and
/// [`Reason::PrefixOnes`].
#[inline(always)]
pub fn leave<P: Packet6, T: Tables6>(packet: &mut P, tables: &T) -> Result<(), Reason> {
    if packet.is_foreign() {
        return Ok(());
    }
    let fixed = Fixed::read(packet, ETHERNET)?;
    let wan = packet.ifindex();
    let mut source = PrefixKey::leaving(wan, fixed.src);
    let is_inside = tables.translate(&mut source)?.is_some();
    if !is_inside && tables.translate(&mut PrefixKey::inside(fixed.src))?.is_some() {
        return Err(Reason::Untranslated);
    }
    let quote = quote(packet, fixed.next);
    if quote != NO_QUOTE {
        publish(packet, tables, wan, quote)?;
    }
    if is_inside { packet.store(ETHERNET + SRC, source.address()) } else { Ok(()) }
}

/// Puts the public address in the place of the inside one that was the destination of what is quoted. What
/// has none has got nothing from outside.
#[inline(always)]
fn publish<P: Packet6, T: Tables6>(
    packet: &mut P,
    tables: &T,
    wan: u32,
    quote: usize,
) -> Result<(), Reason> {
    let Ok(receiver) = packet.load(quote + DST) else { return Ok(()) };
    let mut receiver = PrefixKey::leaving(wan, receiver);
    match tables.translate(&mut receiver)? {
        Some(_) => packet.store(quote + DST, receiver.address()),
        None => Ok(()),
    }
}

/// Where an ICMP error quotes a packet; [`NO_QUOTE`] for any other packet, and for headers that nobody can
/// follow, which the gateway itself may send.
#[inline(always)]
fn quote<P: Packet6>(packet: &P, next: u8) -> usize {
    let Ok(chain) = Chain::follow(packet, next, ETHERNET + FIXED) else { return NO_QUOTE };
    if chain.protocol != ICMPV6 || matches!(chain.fragmentation, Fragmentation::Later(_)) {
        return NO_QUOTE;
    }
    match packet.load(chain.end) {
        Ok([UNREACHABLE..=PARAMETER_PROBLEM]) => chain.end + HEADER,
        Ok(_) | Err(_) => NO_QUOTE,
    }
}
