//! The path's host in user space: packets in memory, tables in hash maps.
//!
//! For tests, fuzzing and `nat-ctl explain`. It does what the hooks of the kernel do around the path, counters and all,
//! so that one may be compared with the other; nothing here decides about a packet.

mod ipv6;
mod packet;
mod state;
mod tables;

pub use nat_common::flow_table::LOCK_TRIES;
pub use packet::{Checksum, HostPacket, HostRoute, World};
pub use state::{Drops, Limits, State};
pub use tables::{HostSlot, HostTables, Memory, Operation, Schedule};

use crate::{
    fragment,
    guard::{self, Exit},
    headers, icmp_error,
    packet::NextHop,
    path::{self, Admission, Outcome},
    refusal, rewrite,
    six::{self, Passage},
    tables::Tables as _,
};
use nat_common::{counter::Counter, flow::Zone, layout, reason::Reason};

/// Turns from stage to stage, of two jumps each, that the kernel follows (MAX_TAIL_CALL_CNT is 33).
const TURNS: u32 = 16;

/// What a hook answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to whatever comes next.
    Pass,
    /// Translated, and sent to this hop.
    Forward(NextHop),
    /// The agent has it.
    Punted,
    /// Gone, for this reason.
    Drop(Reason),
}

/// What the TC programs do on an ingress hook of `zone`, one after the other.
pub fn tc_ingress(
    packet: &mut HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Verdict {
    let mut outcome = path::ingress(packet, tables, zone);
    for _turn in 0..=TURNS {
        outcome = match outcome {
            Ok(Outcome::Unknown) => match admit(packet, tables, zone) {
                Ok(Admission::Flow) => path::rare(packet, tables, zone),
                Ok(Admission::Stack | Admission::Local) => Ok(Outcome::Stack),
                Ok(Admission::Error) => icmp_error::pass(packet, tables, zone),
                Err(reason) => Err(reason),
            },
            Ok(Outcome::Rare) if headers::is_six(packet) => match six(packet, tables, zone) {
                Ok(Passage::Untouched) => Ok(Outcome::Stack),
                Ok(Passage::Known) => {
                    tables.count(Counter::Six);
                    return Verdict::Pass;
                }
                Ok(Passage::Punted) => Ok(Outcome::Punted),
                Ok(Passage::Opens) => match six::open(packet, tables) {
                    Ok(()) => {
                        tables.count(Counter::Six);
                        return Verdict::Pass;
                    }
                    Err(reason) => Err(reason),
                },
                Err(reason) => Err(reason),
            },
            Ok(Outcome::Rare) => path::rare(packet, tables, zone),
            Ok(Outcome::Control) => path::control(packet, tables, zone),
            Ok(Outcome::Opens) => path::open(packet, tables, zone),
            Ok(Outcome::Fragment) => fragment::pass(packet, tables, zone),
            Ok(Outcome::Refused) => path::refuse(packet, tables, zone),
            Ok(Outcome::Stack) => return pass(tables),
            Ok(Outcome::Forward(hop)) => {
                tables.count(Counter::Tc);
                return match hop.link.map_or(Ok(()), |link| rewrite::link(packet, link)) {
                    Ok(()) => Verdict::Forward(hop),
                    Err(reason) => drop(tables, reason),
                };
            }
            Ok(Outcome::Punted) => {
                tables.count(Counter::Punted);
                return Verdict::Punted;
            }
            Err(reason) => return drop(tables, reason),
        };
    }
    drop(tables, Reason::NoStage)
}

/// What the XDP program does on an interface of `zone`.
pub fn xdp_ingress(
    packet: &mut HostPacket<'_, false>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Verdict {
    let mut outcome = path::ingress(packet, tables, zone);
    for _turn in 0..=TURNS {
        return match outcome {
            Ok(Outcome::Rare) => {
                outcome = path::rare(packet, tables, zone);
                continue;
            }
            Ok(Outcome::Forward(hop)) => match hop.link.map(|link| rewrite::link(packet, link)) {
                Some(Ok(())) => {
                    tables.count(Counter::Xdp);
                    Verdict::Forward(hop)
                }
                Some(Err(_)) | None => drop(tables, Reason::WriteFailed),
            },
            Ok(Outcome::Unknown) if zone == Zone::Inside => {
                match path::admit(packet, tables, zone) {
                    Ok(Admission::Flow) => {
                        outcome = path::rare(packet, tables, zone);
                        continue;
                    }
                    Ok(Admission::Stack | Admission::Local | Admission::Error) => Verdict::Pass,
                    Err(reason) if refusal::is_told(tables, reason, 0) => Verdict::Pass,
                    Err(reason) => drop(tables, reason),
                }
            }
            Ok(
                Outcome::Stack
                | Outcome::Punted
                | Outcome::Unknown
                | Outcome::Control
                | Outcome::Opens
                | Outcome::Fragment
                | Outcome::Refused,
            ) => Verdict::Pass,
            Err(reason) => drop(tables, reason),
        };
    }
    Verdict::Pass
}

/// What the TC program does on the egress hook of a way out, with a packet that came in by the
/// interface `from` (0: the gateway sends it) and has the mark `mark`.
pub fn outside_egress(
    packet: &mut HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    from: u32,
    mark: u32,
) -> Verdict {
    if mark == layout::MARK {
        return Verdict::Pass;
    }
    if headers::is_six(packet) {
        if tables.settings().prefixes == 0 {
            return Verdict::Pass;
        }
        return match six::leave(packet, tables) {
            Ok(()) => Verdict::Pass,
            Err(reason) => drop(tables, reason),
        };
    }
    let verdict = match mark {
        layout::AGENT_MARK => guard::agent(packet, tables),
        _ => guard::egress(packet, tables, from),
    };
    let verdict = match verdict {
        Ok(Exit::Open) => Ok(()),
        Ok(Exit::Error) => icmp_error::leave(packet, tables),
        Err(reason) => Err(reason),
    };
    match verdict {
        Ok(()) => Verdict::Pass,
        Err(reason) => drop(tables, reason),
    }
}

fn six(
    packet: &mut HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Result<Passage, Reason> {
    if tables.settings().prefixes != 0 {
        six::arrive(packet, tables, zone)?;
    }
    let passage = six::pass(packet, tables, zone);
    if zone == Zone::Inside {
        refusal::tell(packet, tables, passage);
    }
    passage
}

fn admit(
    packet: &mut HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Result<Admission, Reason> {
    let mut admission = path::admit(packet, tables, zone);
    if admission == Ok(Admission::Local) {
        admission = path::turn(packet, tables);
    }
    if zone == Zone::Inside {
        refusal::tell(packet, tables, admission);
    }
    admission
}

fn pass(tables: &mut HostTables<'_>) -> Verdict {
    tables.count(Counter::Stack);
    Verdict::Pass
}

fn drop(tables: &mut HostTables<'_>, reason: Reason) -> Verdict {
    tables.count_drop(reason);
    Verdict::Drop(reason)
}
