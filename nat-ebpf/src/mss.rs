//! The MSS that the two ends of a TCP connection announce (RFC 9293 section 3.7.1), lowered to what the
//! path takes.
//!
//! An end that hears no "fragmentation needed" would send segments for ever that the gateway cannot
//! forward: on many networks these errors are filtered. So each SYN and SYN-ACK announces no more than
//! fits both the way on and the way back, since what it says is about packets that come back by it.
//!
//! ```text
//!   host, 1460 --SYN--> LAN 1500 | gateway | WAN 1400 --SYN, 1360--> remote
//! ```
//!
//! Nearly all fit, and are finished by whichever hook has them: an MSS that fits every interface of the
//! gateway fits both ways. (So a route that is narrower than all of them, by an `mtu` of its own, is seen
//! only by those that have to be looked at for another reason.) The others go on in TC, which asks the
//! kernel for both ways.

use crate::{
    headers::{Headers, TCP_FIXED},
    packet::{Journey, NextHop, OptionsEdit, Packet, Route},
    path::Outcome,
    rewrite::{self, Numbers},
    tables::{Shifted, Tables},
};
use nat_common::{checksum::Delta, flow::Flow, reason::Reason, settings::Settings, tcp_options};

/// Length of the option.
pub(crate) const OPTION: usize = 4;

/// Whether the MSS of a SYN may be too large for its path; it is read where it is the first option.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn may_exceed<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
) -> Result<bool, Reason> {
    let settings = tables.settings();
    if settings.mss_most == 0 || headers.tcp.length < TCP_FIXED + OPTION {
        return Ok(false);
    }
    Ok(match tcp_options::first_mss(packet.read(headers.transport + TCP_FIXED)?) {
        Some(mss) => mss > settings.mss_most || mss > settings.mss_fits,
        None => true,
    })
}

/// The largest MSS that a SYN of `flow` may announce.
#[inline(always)]
pub fn most<P: Packet, T: Tables>(packet: &P, tables: &T, headers: &Headers, flow: &Flow) -> u16 {
    let settings = tables.settings();
    if settings.mss_most == 0 {
        return u16::MAX;
    }
    let journey = Journey::new(headers.src, flow.rewrite().dst());
    let on = fitting(packet.route(headers, &journey.behind(flow.rewrite().src())), &settings);
    let journey = Journey::new(headers.dst, headers.src);
    let back = fitting(packet.route(headers, &journey.behind(headers.dst)), &settings);
    least(least(on, back), settings.mss_most)
}

/// What fits a route; where the kernel does not say, what fits every interface.
#[inline(always)]
const fn fitting(route: Route, settings: &Settings) -> u16 {
    match route {
        Route::Forward(_, mtu) if mtu != 0 => Settings::mss_of(mtu),
        Route::Forward(..) | Route::Local | Route::TooBig | Route::Unreachable => settings.mss_fits,
    }
}

/// Passes a SYN of `flow` on, which is no control connection, with an MSS that fits.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn pass<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    headers: &Headers,
    flow: &Flow,
    hop: NextHop,
) -> Result<Outcome, Reason> {
    let (at, options) = (headers.transport + TCP_FIXED, headers.tcp.length - TCP_FIXED);
    let mut delta = Delta::NONE;
    if options > 0 {
        let most = most(packet, tables, headers, flow);
        delta = packet.edit_options(at, options, Lower { tables: &*tables, most })?;
    }
    let kept =
        Shifted { sequence: headers.tcp.sequence, acknowledgement: headers.tcp.acknowledgement };
    rewrite::apply(packet, headers, flow, Numbers::Shifted(kept, delta))?;
    Ok(Outcome::Forward(hop))
}

/// The edit of its options.
pub(crate) struct Lower<'a, T> {
    pub(crate) tables: &'a T,
    pub(crate) most: u16,
}

impl<T: Tables> OptionsEdit for Lower<'_, T> {
    #[inline(always)]
    fn edit(&mut self, area: &mut [u8; tcp_options::BUFFER], length: usize) {
        self.tables.lower_mss(area, length, self.most);
    }
}

#[inline(always)]
const fn least(a: u16, b: u16) -> u16 {
    if a < b { a } else { b }
}
