//! The kernel's routing tables, by `bpf_fib_lookup`.

use super::maps;
use crate::{
    headers::Headers,
    packet::{Journey, NextHop, Route},
    six::Course,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use core::{ffi::c_void, mem, ptr};
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

/// Words of the record.
const WORDS: usize = size_of::<FibLookup>() / 4;
const _: () = assert!(WORDS == 16 && mem::offset_of!(FibLookup, dst) == 32);

/// Writes a record word by word: the compiler would have zeros written by a loop over bytes, through
/// which the verifier goes in every state that a packet may come in.
///
/// # Safety
/// `record` has [`WORDS`] words.
#[inline(always)]
unsafe fn write(record: *mut u32, words: [u32; WORDS]) {
    for (at, word) in words.into_iter().enumerate() {
        // SAFETY: of the caller.
        unsafe { ptr::write_volatile(record.add(at), word) };
    }
}

/// The word in which the length is.
#[inline(always)]
fn dport_and_length(length: u16) -> u32 {
    let [a, b] = length.to_ne_bytes();
    u32::from_ne_bytes([0, 0, a, b])
}

impl FibLookup {
    /// Writes the question where a packet from `src` to `dst` goes that arrives on `ifindex`, or leaves
    /// there.
    #[inline(always)]
    fn set(&mut self, headers: &Headers, length: u16, ifindex: u32, src: [u8; 4], dst: [u8; 4]) {
        let mut words = [0; WORDS];
        words[0] = u32::from_ne_bytes([AF_INET, headers.protocol, 0, 0]);
        words[1] = dport_and_length(length);
        words[2] = ifindex;
        words[3] = headers.tos as u32;
        words[4] = u32::from_ne_bytes(src);
        words[8] = u32::from_ne_bytes(dst);
        // SAFETY: the record, by its words.
        unsafe { write(ptr::from_mut(self).cast(), words) };
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
        self.set(headers, length, ifindex, journey.src, journey.dst);
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

/// Number of the loopback interface (LOOPBACK_IFINDEX of include/net/flow.h).
const LOOPBACK: u32 = 1;

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
    /// Asks the kernel where a packet from `src` to `dst` goes that arrives on `ifindex`.
    ///
    /// # Safety
    /// `context` is the context of the running TC program.
    #[inline(always)]
    pub unsafe fn ask(
        &mut self,
        context: *mut c_void,
        ifindex: u32,
        src: &Address6,
        dst: &Address6,
    ) -> Course {
        // SAFETY: of the caller.
        match unsafe { self.find(context, ifindex, src, dst) } {
            // The helper has put the way out in place of the interface.
            SUCCESS | NO_NEIGHBOUR => Course::To(self.ifindex),
            // Its own address, or a route that it does not forward by; or it forwards nothing.
            NOT_FORWARDED | FORWARDING_OFF => Course::Own,
            _ => Course::Nowhere,
        }
    }

    /// Asks for the MTU of the route there; 0 where there is none, or its neighbour is not known.
    ///
    /// # Safety
    /// As for [`Fib6Lookup::ask`].
    #[inline(always)]
    pub unsafe fn mtu(
        &mut self,
        context: *mut c_void,
        ifindex: u32,
        src: &Address6,
        dst: &Address6,
    ) -> u32 {
        // SAFETY: of the caller.
        match unsafe { self.find(context, ifindex, src, dst) } {
            // The helper has put it in place of the length.
            SUCCESS => self.length.into(),
            _ => 0,
        }
    }

    #[inline(always)]
    unsafe fn find(
        &mut self,
        context: *mut c_void,
        ifindex: u32,
        src: &Address6,
        dst: &Address6,
    ) -> i64 {
        let mut words = [0; WORDS];
        words[0] = u32::from_ne_bytes([AF_INET6, 0, 0, 0]);
        words[1] = dport_and_length(SHORT);
        words[2] = ifindex;
        [words[4], words[5], words[6], words[7]] = zerocopy::transmute!(*src);
        [words[8], words[9], words[10], words[11]] = zerocopy::transmute!(*dst);
        // SAFETY: the record, by its words.
        unsafe { write(ptr::from_mut(self).cast(), words) };
        let ask = |record: &mut Self| {
            let size = size_of::<Self>() as i32;
            // SAFETY: the context is the program's (of the caller), the record is as the helper takes it.
            unsafe { bpf_fib_lookup(context, ptr::from_mut(record).cast(), size, 0) }
        };
        match ask(self) {
            // The kernel forwards by `forwarding` of all interfaces, and this helper by that of the one
            // that the packet comes by, which may be off to have it listen to routers.
            FORWARDING_OFF => {
                self.ifindex = LOOPBACK;
                ask(self)
            }
            found => found,
        }
    }
}
