//! The TC path in stages, each a program of its own that ends with a jump to the next one: so each is
//! verified by itself, and the one that nearly every packet needs stays small.
//!
//! ```text
//!   tc_inside --not as most are--> tc_inside_rare
//!             --no flow--> tc_inside_new --made--> tc_inside_rare
//!             --of a control connection--> tc_inside_control
//!   tc_inside_rare --no flow--> tc_inside_new
//!                  --of a control connection--> tc_inside_control
//!                  --SYN whose MSS may not fit--> tc_inside_syn
//!                  --fragment--> tc_inside_fragment
//!                  --its sender is to be told, or it is to be cut--> tc_inside_refused
//!   tc_inside_new --for the gateway--> tc_inside_local --made--> tc_inside_rare
//!                 --ICMP error--> tc_inside_error
//!   tc_inside --IPv6--> tc_inside_six
//!             --IPv6, prefixes are translated--> tc_inside_prefix --> tc_inside_six
//!   tc_inside_six --SYN whose MSS may not fit--> tc_six_syn
//!   tc_outside_rare --its sender is to be told--> tc_outside_refused
//!   tc_outside_egress --ICMP error of the gateway--> tc_outside_egress_error
//!                     --IPv6, prefixes are translated--> tc_outside_egress_prefix
//!   tc_inside_bare, tc_outside_bare --with a header now--> tc_inside, tc_outside
//!   tc_outside_egress_bare --as tc_outside_egress
//!   tc_one_armed --by its addresses--> tc_inside, tc_outside
//!   tc_one_armed_egress --to the outside--> tc_outside_egress
//! ```

use super::{Maps, maps};
use crate::tables::Tables;
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action::XDP_PASS},
    programs::{TcContext, XdpContext},
};
use nat_common::{flow::Zone, layout::Stage, reason::Reason};

/// Goes on with the packet in another program.
#[inline(always)]
pub fn go(context: &TcContext, stage: Stage) -> i32 {
    // SAFETY: nothing here waits to be dropped. Returns only where the place in the map is empty.
    unsafe { maps::STAGES.tail_call(context, stage as u32) };
    Maps.count_drop(Reason::NoStage);
    TC_ACT_SHOT
}

/// Goes on with the packet in another XDP program; where there is none, TC does everything.
#[inline(always)]
pub fn go_xdp(context: &XdpContext, stage: Stage) -> u32 {
    // SAFETY: as above.
    unsafe { maps::XDP_STAGES.tail_call(context, stage as u32) };
    XDP_PASS
}

/// The program on an ingress hook.
#[inline(always)]
pub const fn first(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::Inside,
        Zone::Outside => Stage::Outside,
    }
}

/// The program for packets that are not as most are.
#[inline(always)]
pub const fn rare(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideRare,
        Zone::Outside => Stage::OutsideRare,
    }
}

/// The program for packets without one.
#[inline(always)]
pub const fn new(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideNew,
        Zone::Outside => Stage::OutsideNew,
    }
}

/// The program for packets of control connections.
#[inline(always)]
pub const fn control(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideControl,
        Zone::Outside => Stage::OutsideControl,
    }
}

/// The program for packets that open a connection.
#[inline(always)]
pub const fn syn(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideSyn,
        Zone::Outside => Stage::OutsideSyn,
    }
}

/// The program for fragments.
#[inline(always)]
pub const fn fragment(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideFragment,
        Zone::Outside => Stage::OutsideFragment,
    }
}

/// The program for packets that cannot go on.
#[inline(always)]
pub const fn refused(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideRefused,
        Zone::Outside => Stage::OutsideRefused,
    }
}

/// The program for ICMP errors.
#[inline(always)]
pub const fn error(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideError,
        Zone::Outside => Stage::OutsideError,
    }
}

/// The program for IPv6 where prefixes are translated.
#[inline(always)]
pub const fn prefix(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsidePrefix,
        Zone::Outside => Stage::OutsidePrefix,
    }
}

/// The program for IPv6.
#[inline(always)]
pub const fn six(zone: Zone) -> Stage {
    match zone {
        Zone::Inside => Stage::InsideSix,
        Zone::Outside => Stage::OutsideSix,
    }
}
