//! IPv6: which packets the kernel may forward between the inside and the outside.
//!
//! Nothing has to be sent from here: a packet is dropped, or left to the kernel, which routes it, counts
//! its hops, resolves neighbours and tells senders what is wrong. What is not forwarded between the two
//! sides at all (the gateway's own packets, a link's, those between inside networks) is left alone.
//! Nothing is rewritten but prefixes, before and behind all of this ([`prefix`]), and the MSS of a SYN ([`mss`]).
//!
//! ```text
//!   IPv6 --stays on its link--> untouched
//!        --ICMP error--> [`error`]: about a flow? pass
//!        --later fragment--> its first one's flow? pass
//!        --flow--> opens or closes TCP: does it count ([`closing`])? count, pass
//!                  of an FTP control connection: [`control`]
//!        --none--> where does it go?   the gateway, another inside network: untouched
//!                   inside -> outside: may it begin one ([`source`], [`limit`])? made, pass
//!                   outside -> inside: announced, or a rule ([`opening`])? the same; else dropped
//! ```

mod closing;
mod control;
mod error;
mod headers;
mod limit;
mod mss;
mod opening;
mod prefix;
mod source;
mod tables;

use control::Kin;
pub use headers::{Fragmentation, Headers6};
pub use mss::open;
pub use prefix::{arrive, leave};
pub use tables::{Course, Line6, Packet6, Tables6};

use crate::{headers::Transport, tables::Refused};
use nat_common::{
    counter::Counter,
    flow::Zone,
    interface::Role,
    reason::Reason,
    record::Use,
    rule::RuleId,
    six::{Flow6, Flow6Key, Fragment6Key},
    tcp,
};

/// What the kernel does with a packet that is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// What it would do without the gateway.
    Untouched,
    /// It forwards it: the packet has a flow, or is about one.
    Known,
    /// Nothing: the agent has it, and sends it on.
    Punted,
    /// It opens a connection, with an MSS that may not fit: [`open`] goes on.
    Opens,
}

/// A packet of IPv6 arrives from `zone`.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn pass<P: Packet6, T: Tables6>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
) -> Result<Passage, Reason> {
    if packet.is_foreign() || tables.settings().ipv6 == 0 {
        return Ok(Passage::Untouched);
    }
    let Some(headers) = Headers6::read(packet)? else { return Ok(Passage::Untouched) };
    match (headers.fragmentation, headers.kind) {
        (Fragmentation::Later(identification), _) => {
            later(packet, tables, zone, &headers, identification)
        }
        (_, Transport::IcmpError) => error::pass(packet, tables, zone, &headers),
        (_, Transport::IcmpOther) => stray(packet, tables, zone, &headers, Reason::IcmpType),
        (fragmentation, _) => {
            let key = headers.key(zone);
            let passage = whole(packet, tables, zone, &headers, &key)?;
            if let (Fragmentation::First(identification), Passage::Known) = (fragmentation, passage)
            {
                let datagram = Fragment6Key::new(zone, headers.src, headers.dst, identification);
                tables.note_fragmented6(&datagram, &key);
            }
            match passage {
                Passage::Known
                    if fragmentation == Fragmentation::Whole
                        && mss::may_exceed(packet, tables, &headers)? =>
                {
                    Ok(Passage::Opens)
                }
                passage => Ok(passage),
            }
        }
    }
}

/// A packet whose ports are known.
#[inline(always)]
fn whole<P: Packet6, T: Tables6>(
    packet: &mut P,
    tables: &mut T,
    zone: Zone,
    headers: &Headers6,
    key: &Flow6Key,
) -> Result<Passage, Reason> {
    let now = tables.now();
    let by = closing::used(packet, headers, now);
    let is_tcp = headers.kind == Transport::Tcp;
    let (mut ended, mut is_counted) = (false, false);
    if let Some(line) = tables.flow6(key) {
        // As for IPv4, a connection that has ended may be opened anew, which is judged like the first.
        ended = is_tcp && tcp::opens(headers.flags) && tcp::ends(line.seen());
        if !ended {
            closing::note(&line, zone, headers, by)?;
            return match line.is_control() {
                true => control::pass(packet, tables, zone, headers, key, now),
                false => Ok(Passage::Known),
            };
        }
        is_counted = line.begun() == Zone::Inside;
    }
    let way = match side(packet, tables, zone, headers) {
        Side::Same => return Ok(Passage::Untouched),
        Side::Across(way) => way,
        Side::Stray => return Err(Reason::Unsolicited),
    };
    let mut begun = (RuleId::NONE, Kin::None);
    match zone {
        Zone::Inside => headers.begins_flow()?,
        Zone::Outside => begun = opening::of(tables, headers, now)?,
    }
    source::belongs(packet, tables, zone, headers, way)?;
    if zone == Zone::Inside {
        begun = limit::begun(tables, headers, is_counted, now)?;
    }
    let (rule, kin) = begun;
    if kin == Kin::Control {
        tables.forget_control6(key);
    }
    let flow = kin.mark(Flow6::new(zone, rule, by));
    let made =
        if ended { tables.replace_flow6(key, &flow) } else { tables.insert_flow6(key, &flow) };
    if zone == Zone::Inside && made.is_err() && !is_counted {
        tables.close_host6(&headers.src);
    }
    match made {
        Ok(()) => {}
        // Another CPU was first, with a packet of the same flow.
        Err(Refused::Exists) => match tables.flow6(key) {
            Some(line) => line.note(zone, by),
            None => return Err(Reason::FlowBusy),
        },
        Err(Refused::Full) => return Err(Reason::TableFull),
        Err(Refused::Busy) => return Err(Reason::FlowBusy),
    }
    tables.count(Counter::Flows);
    Ok(Passage::Known)
}

/// A fragment without ports: it goes where its first one went, which came before it. (Linux and the
/// others send them in their order; one that was overtaken is repeated by whoever wants an answer.)
#[inline(always)]
fn later<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &mut T,
    zone: Zone,
    headers: &Headers6,
    identification: [u8; 4],
) -> Result<Passage, Reason> {
    let datagram = Fragment6Key::new(zone, headers.src, headers.dst, identification);
    if let Some(key) = tables.fragmented6(&datagram)
        && let Some(line) = tables.flow6(&key)
    {
        let (now, receiving) = (tables.now(), line.receiving(zone));
        line.note(zone, Use { now, bytes: headers.length, seen: 0, receiving });
        return Ok(Passage::Known);
    }
    stray(packet, tables, zone, headers, Reason::FragmentAlone)
}

/// A packet of no flow that cannot begin one either: dropped for `reason`, unless it is none of ours.
#[inline(always)]
fn stray<P: Packet6, T: Tables6>(
    packet: &P,
    tables: &T,
    zone: Zone,
    headers: &Headers6,
    reason: Reason,
) -> Result<Passage, Reason> {
    match side(packet, tables, zone, headers) {
        Side::Same => Ok(Passage::Untouched),
        Side::Across(_) | Side::Stray => Err(reason),
    }
}

/// Where a packet leaves, as seen from where it came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Not by the other side: it is for the gateway, or the kernel does with it what it did before the
    /// gateway came.
    Same,
    /// To the other side, by the interface with this number.
    Across(u32),
    /// From outside to where nothing of it may go.
    Stray,
}

#[inline(always)]
fn side<P: Packet6, T: Tables6>(packet: &P, tables: &T, zone: Zone, headers: &Headers6) -> Side {
    match packet.course(packet.ifindex(), &headers.src, &headers.dst) {
        Course::Own => Side::Same,
        Course::Nowhere => match zone {
            // The kernel tells it so.
            Zone::Inside => Side::Same,
            Zone::Outside => Side::Stray,
        },
        Course::To(ifindex) => {
            let other = match zone {
                Zone::Inside => Role::Wan,
                Zone::Outside => Role::Lan,
            };
            match tables.interface(ifindex).is_some_and(|interface| interface.is(other)) {
                true => Side::Across(ifindex),
                // Back to the outside, or to an interface that is not ours: as before the gateway came.
                false if zone == Zone::Outside && tables.settings().routes_others6 == 0 => {
                    Side::Stray
                }
                false => Side::Same,
            }
        }
    }
}
