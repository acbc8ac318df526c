//! Packets of FTP control connections.
//!
//! Payload goes to the agent, and with it everything that must not overtake payload: FIN and RST.
//! Empty acknowledgements stay in the kernel, shifted, so that an agent that stalls never stops
//! them. So does what has no lines: the records of a connection that is encrypted, followed from header
//! to header, and connections that turned out not to be FTP; and so do harmless lines, of which the
//! agent gets a copy. The SYNs lose MPTCP and some of their MSS, so that a line that grows still fits.

use crate::{
    headers::{Headers, TCP_FIXED, TcpFields},
    mss,
    packet::{NextHop, OptionsEdit, Packet},
    path::Outcome,
    rewrite::{self, Numbers},
    tables::{Shifted, Tables},
};
use nat_common::{
    counter::Counter,
    flow::{Direction, Flow},
    opaque::opaque,
    punt::PuntHeader,
    reason::Reason,
    session::{SessionId, Side},
    tcp::wire,
    tcp_options,
    watch::{self, Place, RECORD_HEADER, Watch},
};

/// By how much the MSS of a control connection is lowered: more than a line can grow. The longest
/// address text that replaces the shortest, `|1|203.0.113.100|65535|` for `|1|1.1.1.1|1024|`, is 9
/// bytes longer; a segment holds few of them, and what still does not fit is cut by the agent.
pub const MSS_HEADROOM: u16 = 40;
/// No MSS is lowered below this: half of what every host must take (RFC 9293 section 3.7.1).
pub const MSS_FLOOR: u16 = 256;
/// Records that are followed in one segment; one with more goes to the agent.
const RECORDS: u32 = 8;

/// Passes a packet of the control connection `session` on, or hands it to the agent.
///
/// # Errors
/// The reason to drop it; its sender repeats it.
#[inline(always)]
pub fn pass<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    headers: &Headers,
    flow: &Flow,
    session: SessionId,
    hop: NextHop,
    now: u32,
) -> Result<Outcome, Reason> {
    let side = match flow.direction() {
        Direction::Original => Side::Originator,
        Direction::Reply => Side::Responder,
    };
    let flags = headers.tcp.flags;
    let alive = opaque(tables.settings().agent_alive(now) as u64) != 0;
    let ends = flags & (wire::FIN | wire::RST) != 0;
    let read = headers.payload() > 0 && (ends || is_read(packet, tables, headers, session, side));
    if read && !alive {
        return Err(Reason::AlgNoAgent);
    }
    let TcpFields { sequence, acknowledgement, .. } = headers.tcp;
    let handed = alive && (read || ends);
    let mut header = PuntHeader::new(session, side, headers.length as u32, packet.ifindex());
    if handed && headers.payload() > 0 && tables.is_vouched(session, side, sequence) {
        let plain = flags & !(wire::ACK | wire::PSH) == 0;
        let harmless = plain && packet.is_harmless(headers, side);
        header = if harmless { header.copy() } else { header.at_line() };
    }
    let mut shifted = Shifted { sequence, acknowledgement };
    if !handed || header.is_copy() {
        shifted = tables.shift(session, side, sequence, acknowledgement)?;
    }
    if handed {
        if !packet.punt(header, headers.network)? {
            return Ok(Outcome::Punted);
        }
        // The copy is in the ring, so whatever follows it is read behind it.
        tables.vouch(session, side, sequence, sequence.wrapping_add(headers.payload() as u32));
        tables.count(Counter::Copied);
    }
    let options = headers.tcp.length - TCP_FIXED;
    let at = headers.transport + TCP_FIXED;
    let mut delta = nat_common::checksum::Delta::NONE;
    if options > 0 {
        delta = if flags & wire::SYN != 0 {
            let most = mss::most(packet, tables, headers, flow);
            let mut syn = Syn { tables: &*tables, most, mss: 0 };
            let delta = packet.edit_options(at, options, &mut syn)?;
            let mss = syn.mss;
            if mss != 0 {
                tables.note_mss(session, side, mss);
            }
            delta
        } else {
            packet.edit_options(at, options, Sack { tables: &*tables, session, side })?
        };
    }
    rewrite::apply(packet, headers, flow, Numbers::Shifted(shifted, delta))?;
    Ok(Outcome::Forward(hop))
}

/// Whether the agent has to see a segment with payload; else the next record is known now.
#[inline(always)]
fn is_read<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    headers: &Headers,
    session: SessionId,
    side: Side,
) -> bool {
    let (sequence, length) = (headers.tcp.sequence, headers.payload() as u32);
    let payload = headers.transport + headers.tcp.length;
    match follow(packet, &tables.watch(session, side), payload, sequence, length) {
        Followed::Agent => true,
        Followed::Within => false,
        Followed::Ahead(boundary) => {
            tables.move_boundary(session, side, boundary);
            false
        }
    }
}

/// What a segment of an encrypted connection turned out to be.
pub(crate) enum Followed {
    /// The agent has to see it.
    Agent,
    /// It lies within a record.
    Within,
    /// Records begin in it, and the next one at this number.
    Ahead(u32),
}

/// Follows the records in the `length` bytes of payload at an offset of the frame.
#[inline(always)]
pub(crate) fn follow<P: Packet>(
    packet: &P,
    watch: &Watch,
    payload: usize,
    sequence: u32,
    length: u32,
) -> Followed {
    let mut next = match watch.place(sequence, length) {
        Place::Agent => return Followed::Agent,
        Place::Unread => return Followed::Within,
        Place::Record(ahead) => ahead,
    };
    for _record in 0..RECORDS {
        // A header that is cut by the end of the segment goes to the agent, which keeps its part.
        if next + RECORD_HEADER as u32 > length {
            return Followed::Agent;
        }
        let header = packet.read_far::<RECORD_HEADER>(payload + next as usize);
        let Ok(Some(record)) = header.map(watch::record_length) else { return Followed::Agent };
        next = opaque((next + record) as u64) as u32;
        if next >= length {
            return Followed::Ahead(sequence.wrapping_add(next));
        }
    }
    Followed::Agent
}

/// The edit of a SYN; an MSS of `most` fits, `mss` is what it announces afterwards.
struct Syn<'a, T> {
    tables: &'a T,
    most: u16,
    mss: u16,
}

impl<T: Tables> OptionsEdit for &mut Syn<'_, T> {
    #[inline(always)]
    fn edit(&mut self, area: &mut [u8; tcp_options::BUFFER], length: usize) {
        self.mss = self.tables.edit_syn(area, length, self.most);
    }
}

/// The edit of any other segment.
struct Sack<'a, T> {
    tables: &'a T,
    session: SessionId,
    side: Side,
}

impl<T: Tables> OptionsEdit for Sack<'_, T> {
    #[inline(always)]
    fn edit(&mut self, area: &mut [u8; tcp_options::BUFFER], length: usize) {
        self.tables.map_sack(self.session, self.side, area, length);
    }
}
