//! The TC hooks of interfaces whose packets have no Ethernet header: TUN, WireGuard, PPP, tunnels.
//!
//! A packet gets a header of zeros with its protocol, and is then as any other: on the way in the kernel
//! takes the header off again with what it knows to be one, on the way out `bpf_redirect` to the same
//! interface does (`__bpf_redirect_no_mac` of net/core/filter.c).

use super::{Maps, stages, tc};
use crate::{
    headers::{self, ETHERNET, ETHERTYPE},
    tables::Tables,
};
use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    helpers::generated::{bpf_redirect, bpf_skb_change_head, bpf_skb_store_bytes},
    programs::TcContext,
};
use nat_common::{flow::Zone, layout, reason::Reason};

/// Protocols as the kernel says them of a packet.
const IPV4: u32 = u16::from_ne_bytes(headers::IPV4) as u32;
const IPV6: u32 = u16::from_ne_bytes(headers::IPV6) as u32;

/// By what a packet leaves a WAN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kernel goes on with it.
    Plain = 0,
    /// It has a header here that has to come off.
    Bare = 1,
}

impl Way {
    /// Its word of the control buffer of a packet, which is the programs' own.
    const WORD: usize = 4;

    /// Notes it for a later stage.
    #[inline(always)]
    pub fn note(self, context: &TcContext) {
        // SAFETY: the program's context.
        unsafe { (*context.skb.skb).cb[Self::WORD] = self as u32 };
    }

    /// What an earlier stage has noted.
    #[inline(always)]
    pub fn noted(context: &TcContext) -> Self {
        // SAFETY: the program's context.
        match unsafe { (*context.skb.skb).cb[Self::WORD] } {
            0 => Self::Plain,
            _ => Self::Bare,
        }
    }

    /// Lets the packet out.
    #[inline(always)]
    pub fn leave(self, context: &TcContext) -> i32 {
        match self {
            Self::Plain => TC_ACT_UNSPEC,
            // SAFETY: the program's context, and integers. It comes by again, with the mark.
            Self::Bare => unsafe {
                (*context.skb.skb).mark = layout::MARK;
                bpf_redirect((*context.skb.skb).ifindex, 0) as i32
            },
        }
    }
}

/// The program on an ingress hook of `zone`.
#[inline(always)]
pub fn ingress(context: TcContext, zone: Zone) -> i32 {
    match give_header(&context) {
        Ok(()) => stages::go(&context, stages::first(zone)),
        Err(reason) => tc::dropped(reason),
    }
}

/// The program on the egress hook of a way out.
#[inline(always)]
pub fn outside_egress(context: TcContext) -> i32 {
    // SAFETY: the program's context.
    let (mark, protocol) = unsafe { ((*context.skb.skb).mark, (*context.skb.skb).protocol) };
    let is_judged = match protocol {
        IPV4 => true,
        IPV6 => Maps.settings().prefixes != 0,
        _ => false,
    };
    if mark == layout::MARK || !is_judged {
        return TC_ACT_UNSPEC;
    }
    match give_header(&context) {
        Ok(()) => tc::guarded(context, Way::Bare),
        Err(reason) => tc::dropped(reason),
    }
}

/// Puts a header before the packet.
#[inline(always)]
fn give_header(context: &TcContext) -> Result<(), Reason> {
    let skb = context.skb.skb;
    // SAFETY: the program's context; the helper reads two bytes.
    unsafe {
        let protocol = (*skb).protocol as u16;
        let from = (&raw const protocol).cast();
        if bpf_skb_change_head(skb, ETHERNET as u32, 0) == 0
            && bpf_skb_store_bytes(skb, ETHERTYPE as u32, from, size_of::<u16>() as u32, 0) == 0
        {
            Ok(())
        } else {
            Err(Reason::WriteFailed)
        }
    }
}
