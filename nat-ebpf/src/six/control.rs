//! FTP over IPv6: segments of control connections go to the agent, which sends them on as they came, and
//! what they have announced is let in.
//!
//! What is encrypted is followed from record to record, as for IPv4.
//!
//! As for IPv4, payload is handed over, and with it FIN and RST, which must not overtake it; empty
//! acknowledgements pass. A number is shifted where a line was rewritten, which it is behind a translated
//! prefix alone: the agent does that, and all segments of such a connection go by it.

use super::{
    Passage,
    headers::{Fragmentation, Headers6},
    tables::{Packet6, Tables6},
};
use crate::{
    control::{Followed, follow},
    headers::{ETHERNET, Transport},
};
use nat_common::{
    counter::Counter,
    flow::{TCP, Zone},
    punt::PuntHeader,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
    six::{Expectation6Key, Flow6, Flow6Key, Watch6Key},
    tcp::wire,
};

/// What a new flow is to FTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// Nothing.
    None,
    /// A control connection.
    Control,
    /// A connection that this session has announced.
    Related(SessionId),
}

impl Kin {
    /// The flow as one of that kind.
    #[inline(always)]
    pub(super) const fn mark(self, flow: Flow6) -> Flow6 {
        match self {
            Self::None => flow,
            Self::Control => flow.control(),
            Self::Related(session) => flow.related(session),
        }
    }
}

/// Passes a packet of a control connection on, or hands it to the agent.
///
/// # Errors
/// The reason to drop it; its sender repeats it.
#[inline(always)]
pub(super) fn pass<P: Packet6, T: Tables6>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
    headers: &Headers6,
    key: &Flow6Key,
    now: u32,
) -> Result<Passage, Reason> {
    let ends = headers.flags & (wire::FIN | wire::RST) != 0;
    let has_payload = headers.payload() > 0;
    let is_read = has_payload || ends;
    if !is_read && tables.settings().prefixes == 0 {
        return Ok(Passage::Known);
    }
    let known = tables.control6(key);
    let is_shifted = known.is_some_and(|control| control.is_shifted());
    let is_watched = known.is_some_and(|control| control.is_watched());
    let is_unread = known.is_some_and(|control| control.is_unread()) || is_watched && !has_payload;
    if !is_shifted && (!is_read || is_unread) {
        return Ok(Passage::Known);
    }
    // A line in fragments nobody reads.
    if headers.fragmentation != Fragmentation::Whole {
        return Err(Reason::Fragment);
    }
    if !is_shifted && is_watched && !is_wanted(packet, tables, zone, headers, key) {
        return Ok(Passage::Known);
    }
    if !tables.settings().agent_alive(now) {
        let waits = has_payload || is_shifted;
        return if waits { Err(Reason::AlgNoAgent) } else { Ok(Passage::Known) };
    }
    let header = PuntHeader::six(zone, headers.length, packet.ifindex());
    packet.punt(header, ETHERNET)?;
    Ok(Passage::Punted)
}

/// Whether the agent has to see a segment of an encrypted connection; else the next record is known now.
#[inline(always)]
fn is_wanted<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &mut T,
    zone: Zone,
    headers: &Headers6,
    key: &Flow6Key,
) -> bool {
    let side = Watch6Key::new(*key, zone);
    let payload = headers.transport + headers.tcp_length as usize;
    let (sequence, length) = (headers.sequence, headers.payload());
    match follow(packet, &tables.watch6(&side), payload, sequence, length) {
        Followed::Agent => true,
        Followed::Within => false,
        Followed::Ahead(boundary) => {
            tables.move_boundary6(&side, boundary);
            false
        }
    }
}

/// What a packet from inside begins that begins a flow.
///
/// # Errors
/// Why it begins nothing.
#[inline(always)]
pub(super) fn begun<T: Tables6>(
    tables: &mut T,
    headers: &Headers6,
    now: u32,
) -> Result<(RuleId, Kin), Reason> {
    if let Some(expected) = expected(tables, headers, Zone::Inside, now) {
        return Ok(expected);
    }
    let is_control =
        headers.kind == Transport::Tcp && tables.settings().is_control_port(headers.dport);
    Ok((RuleId::NONE, control(headers, is_control)?))
}

/// A control connection, or none.
///
/// # Errors
/// [`Reason::AlgMalformed`] for one whose SYN has payload (RFC 7413): it comes again without.
#[inline(always)]
pub(super) fn control(headers: &Headers6, is_control: bool) -> Result<Kin, Reason> {
    match is_control {
        false => Ok(Kin::None),
        true if headers.payload() > 0 => Err(Reason::AlgMalformed),
        true => Ok(Kin::Control),
    }
}

/// The rule and the session of a packet that opens an announced connection.
#[inline(always)]
pub(super) fn expected<T: Tables6>(
    tables: &mut T,
    headers: &Headers6,
    zone: Zone,
    now: u32,
) -> Option<(RuleId, Kin)> {
    if headers.kind != Transport::Tcp {
        return None;
    }
    let key = Expectation6Key::new(zone, TCP, headers.src, headers.dst, headers.dport);
    let expectation = tables.take_expectation6(&key)?;
    if now >= expectation.expires() {
        return None;
    }
    tables.count(Counter::Expected);
    Some((expectation.rule(), Kin::Related(expectation.session())))
}
