//! The TC hooks: what the kernel hears of each outcome of the path.

use super::{Maps, bare::Way, skb::TcPacket, stages};
use crate::{
    fragment,
    guard::{self, Exit},
    icmp_error, one_armed,
    path::{self, Admission, Outcome},
    refusal,
    six::{self, Passage},
    tables::Tables,
};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use nat_common::{
    counter::Counter,
    flow::Zone,
    layout::{self, Stage},
    reason::Reason,
};

/// The program on an ingress hook of `zone`.
#[inline(always)]
pub fn ingress(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = path::ingress(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for packets that are not as most are.
#[inline(always)]
pub fn rare(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = path::rare(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for packets of control connections.
#[inline(always)]
pub fn control(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = path::control(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for packets that open a connection.
#[inline(always)]
pub fn syn(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = path::open(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for fragments.
#[inline(always)]
pub fn fragment(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = fragment::pass(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for ICMP errors.
#[inline(always)]
pub fn error(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = icmp_error::pass(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

/// The program for packets that cannot go on.
#[inline(always)]
pub fn refused(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let outcome = path::refuse(&mut packet, &mut Maps, zone);
    finish(packet, outcome, zone)
}

#[inline(always)]
fn finish(mut packet: TcPacket, outcome: Result<Outcome, Reason>, zone: Zone) -> i32 {
    match outcome {
        Ok(Outcome::Stack) => {
            Maps.count(Counter::Stack);
            TC_ACT_UNSPEC
        }
        Ok(Outcome::Rare) if packet.is_six() => match Maps.settings().prefixes {
            0 => stages::go(packet.context(), stages::six(zone)),
            _ => stages::go(packet.context(), stages::prefix(zone)),
        },
        Ok(Outcome::Rare) => stages::go(packet.context(), stages::rare(zone)),
        Ok(Outcome::Unknown) => stages::go(packet.context(), stages::new(zone)),
        Ok(Outcome::Control) => stages::go(packet.context(), stages::control(zone)),
        Ok(Outcome::Opens) => stages::go(packet.context(), stages::syn(zone)),
        Ok(Outcome::Fragment) => stages::go(packet.context(), stages::fragment(zone)),
        Ok(Outcome::Refused) => stages::go(packet.context(), stages::refused(zone)),
        Ok(Outcome::Forward(hop)) => {
            Maps.count(Counter::Tc);
            packet.send(&hop)
        }
        Ok(Outcome::Punted) => {
            Maps.count(Counter::Punted);
            // tcx knows no STOLEN and would hand the packet to the stack (tcx_action_code), which
            // answers for a connection that is not its own.
            TC_ACT_SHOT
        }
        Err(reason) => dropped(reason),
    }
}

/// The program for IPv6 where prefixes are translated.
#[inline(always)]
pub fn prefix(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    match six::arrive(&mut packet, &Maps, zone) {
        Ok(()) => stages::go(packet.context(), stages::six(zone)),
        Err(reason) => dropped(reason),
    }
}

/// The program for IPv6.
#[inline(always)]
pub fn six(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let passage = six::pass(&mut packet, &mut Maps, zone);
    if zone == Zone::Inside {
        refusal::tell(&mut packet, &mut Maps, passage);
    }
    let counter = match passage {
        Ok(Passage::Untouched) => Counter::Stack,
        Ok(Passage::Known) => Counter::Six,
        Ok(Passage::Opens) => return stages::go(packet.context(), Stage::SixSyn),
        Ok(Passage::Punted) => {
            Maps.count(Counter::Punted);
            return TC_ACT_SHOT;
        }
        Err(reason) => return dropped(reason),
    };
    Maps.count(counter);
    TC_ACT_UNSPEC
}

/// The program for packets of IPv6 that open a connection.
#[inline(always)]
pub fn six_syn(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(context);
    match six::open(&mut packet, &mut Maps) {
        Ok(()) => {
            Maps.count(Counter::Six);
            TC_ACT_UNSPEC
        }
        Err(reason) => dropped(reason),
    }
}

/// The program for packets without a flow.
#[inline(always)]
pub fn new(context: TcContext, zone: Zone) -> i32 {
    let mut packet = TcPacket::new(context);
    let admission = path::admit(&mut packet, &mut Maps, zone);
    if zone == Zone::Inside {
        refusal::tell(&mut packet, &mut Maps, admission);
    }
    admit(&packet, admission, zone)
}

/// The program for packets from inside that are for the gateway.
#[inline(always)]
pub fn local(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(context);
    let admission = path::turn(&packet, &mut Maps);
    refusal::tell(&mut packet, &mut Maps, admission);
    admit(&packet, admission, Zone::Inside)
}

#[inline(always)]
fn admit(packet: &TcPacket, admission: Result<Admission, Reason>, zone: Zone) -> i32 {
    match admission {
        Ok(Admission::Flow) => stages::go(packet.context(), stages::rare(zone)),
        Ok(Admission::Local) => stages::go(packet.context(), Stage::InsideLocal),
        Ok(Admission::Error) => stages::go(packet.context(), stages::error(zone)),
        Ok(Admission::Stack) => {
            Maps.count(Counter::Stack);
            TC_ACT_UNSPEC
        }
        Err(reason) => dropped(reason),
    }
}

/// The program on the ingress hook of an interface that is on both sides.
#[inline(always)]
pub fn one_armed(context: TcContext) -> i32 {
    let packet = TcPacket::new(context);
    match one_armed::arrives(&packet, &Maps) {
        Ok(Some(zone)) => stages::go(packet.context(), stages::first(zone)),
        Ok(None) => {
            Maps.count(Counter::Stack);
            TC_ACT_UNSPEC
        }
        Err(reason) => dropped(reason),
    }
}

/// The program on its egress hook.
#[inline(always)]
pub fn one_armed_egress(context: TcContext) -> i32 {
    // SAFETY: the program's context.
    let mark = unsafe { (*context.skb.skb).mark };
    let packet = TcPacket::new(context);
    match one_armed::leaves(&packet, &Maps) {
        Ok(true) if mark != layout::MARK => stages::go(packet.context(), Stage::Egress),
        Ok(_) => TC_ACT_UNSPEC,
        Err(reason) => dropped(reason),
    }
}

/// The program on the egress hook of a way out.
#[inline(always)]
pub fn outside_egress(context: TcContext) -> i32 {
    // SAFETY: the program's context.
    if unsafe { (*context.skb.skb).mark } == layout::MARK {
        return TC_ACT_UNSPEC;
    }
    guarded(context, Way::Plain)
}

/// Lets a packet that the path has not translated out by `way`, or not.
#[inline(always)]
pub fn guarded(context: TcContext, way: Way) -> i32 {
    // SAFETY: the program's context.
    let (mark, from) = unsafe { ((*context.skb.skb).mark, (*context.skb.skb).ingress_ifindex) };
    let packet = TcPacket::new(context);
    if packet.is_six() {
        judged(packet.context(), mark);
        return match Maps.settings().prefixes {
            0 => way.leave(packet.context()),
            _ => {
                way.note(packet.context());
                stages::go(packet.context(), Stage::EgressPrefix)
            }
        };
    }
    let verdict = match mark {
        layout::AGENT_MARK => guard::agent(&packet, &Maps),
        _ => guard::egress(&packet, &mut Maps, from),
    };
    match verdict {
        Ok(Exit::Open) => {
            judged(packet.context(), mark);
            way.leave(packet.context())
        }
        Ok(Exit::Error) => {
            way.note(packet.context());
            stages::go(packet.context(), Stage::EgressError)
        }
        Err(reason) => dropped(reason),
    }
}

/// Notes that a segment of the agent leaves. Where the way out lies on another one (a VLAN's, one with
/// PPPoE) the segment comes by that as well, in a frame whose headers cannot be read there.
#[inline(always)]
fn judged(context: &TcContext, mark: u32) {
    if mark == layout::AGENT_MARK {
        // SAFETY: the program's context.
        unsafe { (*context.skb.skb).mark = layout::MARK };
    }
}

/// The program for IPv6 on the egress hook of a way out, where prefixes are translated.
#[inline(always)]
pub fn egress_prefix(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(context);
    match six::leave(&mut packet, &Maps) {
        Ok(()) => Way::noted(packet.context()).leave(packet.context()),
        Err(reason) => dropped(reason),
    }
}

/// The program for ICMP errors of the gateway itself, on the egress hook of a way out.
#[inline(always)]
pub fn egress_error(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(context);
    match icmp_error::leave(&mut packet, &Maps) {
        Ok(()) => Way::noted(packet.context()).leave(packet.context()),
        Err(reason) => dropped(reason),
    }
}

/// Drops a packet, and counts why.
#[inline(always)]
pub fn dropped(reason: Reason) -> i32 {
    Maps.count_drop(reason);
    TC_ACT_SHOT
}
