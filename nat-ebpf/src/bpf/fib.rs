//! The kernel's routing tables, by `bpf_fib_lookup`.

use super::maps;
use crate::{
    headers::Headers,
    packet::{Journey, NextHop, Route},
    six::Course,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use core::{ffi::c_void, ptr};
use nat_common::{hop::Link, six::Address6};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
// include/uapi/linux/bpf.h, enum BPF_FIB_LKUP_RET_*.
const SUCCESS: i64 = 0;
const NOT_FORWARDED: i64 = 4;
const FORWARDING_OFF: i64 = 5;
/// BPF_FIB_LOOKUP_OUTPUT: what leaves by `ifindex`, and not what arrives there.
const OUTPUT: u32 = 2;
const NO_NEIGHBOUR: i64 = 7;
const FRAGMENTATION_NEEDED: i64 = 8;

/// `struct bpf_fib_lookup` of include/uapi/linux/bpf.h, as it is used for IPv4.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FibLookup {
    family: u8,
    protocol: u8,
    sport: u16,
    dport: u16,
    /// Length of the packet for the check against the MTU; 0 leaves it to the helper, which knows
    /// super-packets.
    length: u16,
    ifindex: u32,
    tos: u32,
    src: [u8; 4],
    src_rest: [u32; 3],
    dst: [u8; 4],
    dst_rest: [u32; 3],
    vlan: u32,
    own_link: [u8; 6],
    neighbour_link: [u8; 6],
}

const _: () = assert!(size_of::<FibLookup>() == 64);

impl FibLookup {
    /// The question where a packet from `src` to `dst` goes that arrives on `ifindex`, or leaves there.
    #[inline(always)]
    fn new(headers: &Headers, length: u16, ifindex: u32, src: [u8; 4], dst: [u8; 4]) -> Self {
        Self {
            family: AF_INET,
            protocol: headers.protocol,
            sport: 0,
            dport: 0,
            length,
            ifindex,
            tos: headers.tos as u32,
            src,
            src_rest: [0; 3],
            dst,
            dst_rest: [0; 3],
            vlan: 0,
            own_link: [0; 6],
            neighbour_link: [0; 6],
        }
    }

    /// What stands in place of the length after an answer.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        self.length as u32
    }

    /// Asks the kernel where a packet of so many bytes goes that arrives on `ifindex`: by the uplink of
    /// its journey, and where no route leads there by whichever way.
    ///
    /// # Safety
    /// `context` is the context of the running XDP or TC program.
    #[inline(always)]
    pub unsafe fn ask(
        &mut self,
        context: *mut c_void,
        headers: &Headers,
        length: u16,
        ifindex: u32,
        journey: &Journey,
    ) -> Route {
        *self = Self::new(headers, length, ifindex, journey.src, journey.dst);
        let public = u32::from_ne_bytes(journey.public);
        // SAFETY: the context is the program's (of the caller), the record is this one.
        let found = unsafe { find(context, self, public) };
        self.route(found)
    }

    /// What an answer of the helper means.
    #[inline(always)]
    fn route(&self, found: i64) -> Route {
        match found {
            // The helper has put the MTU of the route in place of the length.
            SUCCESS => Route::Forward(
                NextHop {
                    ifindex: self.ifindex,
                    neighbour: self.dst,
                    link: Some(Link::new(self.neighbour_link, self.own_link)),
                },
                self.length as u32,
            ),
            // The helper has put the router, or the destination itself, in place of the destination;
            // the length is still that of the packet.
            NO_NEIGHBOUR => {
                let hop = NextHop { ifindex: self.ifindex, neighbour: self.dst, link: None };
                Route::Forward(hop, 0)
            }
            NOT_FORWARDED => Route::Local,
            FRAGMENTATION_NEEDED => Route::TooBig,
            _ => Route::Unreachable,
        }
    }
}

/// Asks the helper: for what leaves with `public` by the uplink of that, where it has one; and where no
/// route leads there, or it has none, for what arrives. A function of its own, since its stack is then
/// free again when others are called.
///
/// # Safety
/// `context` is the context of the running program, and `lookup` its record.
#[inline(never)]
unsafe fn find(context: *mut c_void, lookup: *mut FibLookup, public: u32) -> i64 {
    const SIZE: i32 = size_of::<FibLookup>() as i32;
    let uplink = maps::uplink(public.to_ne_bytes());
    // SAFETY: as the caller promises; the record is as the helper takes it, which leaves the fields
    // that are put back alone where it finds nothing.
    unsafe {
        if uplink != 0 {
            let (ifindex, src) = ((*lookup).ifindex, (*lookup).src);
            (*lookup).ifindex = uplink;
            (*lookup).src = public.to_ne_bytes();
            let found = bpf_fib_lookup(context, lookup.cast(), SIZE, OUTPUT);
            if matches!(found, SUCCESS | NO_NEIGHBOUR | FRAGMENTATION_NEEDED) {
                return found;
            }
            (*lookup).ifindex = ifindex;
            (*lookup).src = src;
        }
        bpf_fib_lookup(context, lookup.cast(), SIZE, 0)
    }
}

/// A length that every interface takes: where a packet leads, and not whether it is too long, is asked.
const SHORT: u16 = 1;

/// The same record, as it is used for IPv6.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Fib6Lookup {
    family: u8,
    protocol: u8,
    sport: u16,
    dport: u16,
    length: u16,
    ifindex: u32,
    flow_information: u32,
    src: Address6,
    dst: Address6,
    vlan: u32,
    links: [u8; 12],
}

const _: () = assert!(size_of::<Fib6Lookup>() == size_of::<FibLookup>());

impl Fib6Lookup {
    /// The question where a packet from `src` to `dst` goes that arrives on `ifindex`.
    #[inline(always)]
    pub fn new(ifindex: u32, src: Address6, dst: Address6) -> Self {
        Self {
            family: AF_INET6,
            protocol: 0,
            sport: 0,
            dport: 0,
            length: SHORT,
            ifindex,
            flow_information: 0,
            src,
            dst,
            vlan: 0,
            links: [0; 12],
        }
    }

    /// Asks the kernel.
    ///
    /// # Safety
    /// `context` is the context of the running TC program.
    #[inline(always)]
    pub unsafe fn ask(&mut self, context: *mut c_void) -> Course {
        // SAFETY: the context is the program's (of the caller), the record is as the helper takes it.
        let found = unsafe {
            bpf_fib_lookup(context, ptr::from_mut(self).cast(), size_of::<Self>() as i32, 0)
        };
        match found {
            // The helper has put the way out in place of the interface.
            SUCCESS | NO_NEIGHBOUR => Course::To(self.ifindex),
            // Its own address, a route that it does not forward by, or an interface that it does not
            // forward from.
            NOT_FORWARDED | FORWARDING_OFF => Course::Own,
            _ => Course::Nowhere,
        }
    }
}
