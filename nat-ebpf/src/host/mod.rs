//! The path's host in user space: packets in memory, tables in hash maps.
//!
//! For tests and fuzzing. It does what the hooks of the kernel do around the path, counters and all,
//! so that one may be compared with the other; nothing here decides about a packet.

mod packet;
mod tables;

pub use packet::{Checksum, HostPacket, HostRoute, World};
pub use tables::{HostSlot, HostTables, Limits, Memory, Operation, Schedule, State};

use crate::{
    guard,
    packet::{NextHop, Packet as _},
    path::{self, Admission, Outcome},
    tables::Tables as _,
};
use nat_common::{counter::Counter, flow::Zone, layout, reason::Reason};

/// Jumps from program to program that the kernel follows (MAX_TAIL_CALL_CNT), half of them back.
const JUMPS: u32 = 16;

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

/// What the TC program does on an ingress hook of `zone`.
pub fn tc_ingress(
    packet: &mut HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Verdict {
    for _jump in 0..JUMPS {
        match path::ingress(packet, tables, zone) {
            Ok(Outcome::Unknown) => match path::admit(packet, tables, zone) {
                Ok(Admission::Flow) => {}
                Ok(Admission::Stack) => return pass(tables),
                Err(reason) => return drop(tables, reason),
            },
            Ok(Outcome::Control) => {
                let outcome = path::control(packet, tables, zone);
                return finish(tables, outcome);
            }
            known => return finish(tables, known),
        }
    }
    drop(tables, Reason::NoStage)
}

fn finish(tables: &mut HostTables<'_>, outcome: Result<Outcome, Reason>) -> Verdict {
    match outcome {
        Ok(Outcome::Stack) => pass(tables),
        Ok(Outcome::Unknown | Outcome::Control) => drop(tables, Reason::FlowBusy),
        Ok(Outcome::Forward(hop)) => {
            tables.count(Counter::Tc);
            Verdict::Forward(hop)
        }
        Ok(Outcome::Punted) => {
            tables.count(Counter::Punted);
            Verdict::Punted
        }
        Err(reason) => drop(tables, reason),
    }
}

/// What the XDP program does on an interface of `zone`.
pub fn xdp_ingress(
    packet: &mut HostPacket<'_, false>,
    tables: &mut HostTables<'_>,
    zone: Zone,
) -> Verdict {
    for _jump in 0..JUMPS {
        return match path::ingress(packet, tables, zone) {
            Ok(Outcome::Forward(hop)) => {
                let written = hop.link.map(|[[a, b, c, d, e, f], [g, h, i, j, k, l]]| {
                    packet.write(0, [a, b, c, d, e, f, g, h, i, j, k, l])
                });
                match written {
                    Some(Ok(())) => {
                        tables.count(Counter::Xdp);
                        Verdict::Forward(hop)
                    }
                    Some(Err(_)) | None => drop(tables, Reason::WriteFailed),
                }
            }
            Ok(Outcome::Unknown) if zone == Zone::Inside => {
                match path::admit(packet, tables, zone) {
                    Ok(Admission::Flow) => continue,
                    Ok(Admission::Stack) => Verdict::Pass,
                    Err(reason) => drop(tables, reason),
                }
            }
            Ok(Outcome::Stack | Outcome::Punted | Outcome::Unknown | Outcome::Control) => {
                Verdict::Pass
            }
            Err(reason) => drop(tables, reason),
        };
    }
    Verdict::Pass
}

/// What the TC program does on the egress hook of a way out, with a packet that came in by the
/// interface `from` (0: the gateway sends it) and has the mark `mark`.
pub fn outside_egress(
    packet: &HostPacket<'_, true>,
    tables: &mut HostTables<'_>,
    from: u32,
    mark: u32,
) -> Verdict {
    if mark == layout::MARK {
        return Verdict::Pass;
    }
    let verdict = match mark {
        layout::AGENT_MARK => guard::agent(packet, tables),
        _ => guard::egress(packet, tables, from),
    };
    match verdict {
        Ok(()) => Verdict::Pass,
        Err(reason) => drop(tables, reason),
    }
}

fn pass(tables: &mut HostTables<'_>) -> Verdict {
    tables.count(Counter::Stack);
    Verdict::Pass
}

fn drop(tables: &mut HostTables<'_>, reason: Reason) -> Verdict {
    tables.count_drop(reason);
    Verdict::Drop(reason)
}
