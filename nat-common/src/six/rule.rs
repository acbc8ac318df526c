//! Rules for IPv6: who may dial what inside. Maps `forwards6` and `allowed6`.

use super::Address6;
use crate::{port::Port, rule::RuleId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What is dialled: key of the map `forwards6`. Port 0 stands for every port of the protocol, and
/// protocol 0 with port 0 for everything.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Endpoint6 {
    address: Address6,
    port: Port,
    protocol: u8,
    padding: u8,
}

const _: () = assert!(size_of::<Endpoint6>() == 20);

impl Endpoint6 {
    /// A port of a protocol at an address.
    #[inline(always)]
    pub const fn new(protocol: u8, address: Address6, port: Port) -> Self {
        Self { address, port, protocol, padding: 0 }
    }
}

/// Value of the map `forwards6`: an opening for who may dial.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Opening {
    rule: RuleId,
    filter: u32,
    control: u32,
}

const _: () = assert!(size_of::<Opening>() == 12);

impl Opening {
    /// By `rule`, for the networks of `filter` in the map `allowed6`; 0 allows all.
    pub const fn new(rule: RuleId, filter: u32) -> Self {
        Self { rule, filter, control: 0 }
    }

    /// The same for FTP control connections.
    pub const fn control(self) -> Self {
        Self { control: 1, ..self }
    }

    /// Whether its connections are FTP control connections.
    #[inline(always)]
    pub const fn is_control(&self) -> bool {
        self.control != 0
    }

    /// The rule.
    #[inline(always)]
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Number of the filter; 0 allows all.
    #[inline(always)]
    pub const fn filter(&self) -> u32 {
        self.filter
    }
}

/// The keys under which an opening for a packet to that end may stand, the most exact first.
#[inline(always)]
pub const fn opening_keys(protocol: u8, address: Address6, port: Port) -> [Endpoint6; 3] {
    [
        Endpoint6::new(protocol, address, port),
        Endpoint6::new(protocol, address, Port::NONE),
        Endpoint6::new(0, address, Port::NONE),
    ]
}

/// Data of a key of the `allowed6` map (a longest-prefix trie): the number of the filter, then the
/// remote address. A prefix is 32 bits for the number and those of the network. The value is 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Allowed6Key {
    filter: [u8; 4],
    remote: Address6,
}

const _: () = assert!(size_of::<Allowed6Key>() == 20);

impl Allowed6Key {
    /// Bits before the remote address.
    pub const FILTER_BITS: u32 = 32;

    /// `remote` in the filter number `filter`.
    #[inline(always)]
    pub const fn new(filter: u32, remote: Address6) -> Self {
        Self { filter: filter.to_be_bytes(), remote }
    }

    /// Number of the filter.
    pub const fn filter(&self) -> u32 {
        u32::from_be_bytes(self.filter)
    }

    /// Remote address.
    pub const fn remote(&self) -> Address6 {
        self.remote
    }
}
