//! Rules as the data plane sees them: forwards by public endpoint, and hosts with an address of
//! their own.

use crate::port::{Endpoint, Port};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of a rule while the gateway runs; the agent knows its name.
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
#[repr(transparent)]
pub struct RuleId {
    number: u32,
}

impl RuleId {
    /// No rule: masquerade.
    pub const NONE: Self = Self { number: 0 };

    /// The highest number: a flow record has 16 bits for it.
    pub const MAX: Self = Self { number: u16::MAX as u32 };

    /// The rule with this number; 0 is none.
    pub const fn new(number: u32) -> Self {
        Self { number }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.number
    }
}

const ALG_FTP: u32 = 1;
const ENCRYPTED: u32 = 2;

/// Value of the `forwards` map. The key is the public [`Endpoint`]; port 0 stands for every port of
/// the protocol, and protocol 0 with port 0 for everything. The most exact entry wins.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Forward {
    to: [u8; 4],
    to_port: Port,
    padding: [u8; 2],
    rule: RuleId,
    filter: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Forward>() == 20);

impl Forward {
    /// A forward to `to`. Port 0 keeps the port of the packet. `filter` names the allowed remote
    /// networks in the `allowed` map; 0 allows all.
    pub const fn new(to: [u8; 4], to_port: Port, rule: RuleId, filter: u32) -> Self {
        Self { to, to_port, padding: [0; 2], rule, filter, flags: 0 }
    }

    /// The same, with FTP inspection.
    pub const fn with_ftp(mut self) -> Self {
        self.flags |= ALG_FTP;
        self
    }

    /// The same, for those alone that hold an encrypted control session through its rule: a port of a
    /// passive range.
    pub const fn for_encrypted(mut self) -> Self {
        self.flags |= ENCRYPTED;
        self
    }

    /// Inside address.
    #[inline(always)]
    pub const fn to(&self) -> [u8; 4] {
        self.to
    }

    /// Inside port, as written in the rule; 0 keeps.
    pub const fn to_port(&self) -> Port {
        self.to_port
    }

    /// Inside port for a packet to the public `port`.
    #[inline(always)]
    pub const fn port_for(&self, port: Port) -> Port {
        if self.to_port.number() == 0 { port } else { self.to_port }
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

    /// Whether its TCP flows are FTP control connections.
    #[inline(always)]
    pub const fn is_ftp(&self) -> bool {
        self.flags & ALG_FTP != 0
    }

    /// Whether it is for those alone that hold an encrypted control session.
    #[inline(always)]
    pub const fn is_for_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }
}

/// Key of the map `encrypted`: a client that holds an encrypted control session through a rule. The
/// value is the number of that session.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EncryptedKey {
    rule: RuleId,
    client: [u8; 4],
}

const _: () = assert!(size_of::<EncryptedKey>() == 8);

impl EncryptedKey {
    /// `client` through `rule`.
    #[inline(always)]
    pub const fn new(rule: RuleId, client: [u8; 4]) -> Self {
        Self { rule, client }
    }
}

/// The keys under which a forward for a packet to `endpoint` may stand, the most exact first.
#[inline(always)]
pub const fn forward_keys(endpoint: &Endpoint) -> [Endpoint; 3] {
    let address = endpoint.address();
    [
        *endpoint,
        Endpoint::new(endpoint.protocol(), address, Port::NONE),
        Endpoint::new(0, address, Port::NONE),
    ]
}

/// Value of the `one_to_one` map; the key is the inside address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OneToOne {
    public: [u8; 4],
    rule: RuleId,
}

const _: () = assert!(size_of::<OneToOne>() == 8);

impl OneToOne {
    /// The host uses `public` for all that it sends.
    pub const fn new(public: [u8; 4], rule: RuleId) -> Self {
        Self { public, rule }
    }

    /// Public address.
    #[inline(always)]
    pub const fn public(&self) -> [u8; 4] {
        self.public
    }

    /// The rule.
    #[inline(always)]
    pub const fn rule(&self) -> RuleId {
        self.rule
    }
}

/// Data of a key of the `allowed` map (a longest-prefix trie): the number of the filter, then the
/// remote address. A prefix is 32 bits for the number and those of the network. The value is 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AllowedKey {
    filter: [u8; 4],
    remote: [u8; 4],
}

const _: () = assert!(size_of::<AllowedKey>() == 8);

impl AllowedKey {
    /// Bits before the remote address.
    pub const FILTER_BITS: u32 = 32;
    /// The filter of no rule, for 0 is none: its networks are exempt from NAT.
    pub const EXEMPT: u32 = 0;
    /// The last one: its networks are inside where one interface is on both sides.
    pub const INSIDE: u32 = u32::MAX;

    /// `remote` in the filter number `filter`.
    #[inline(always)]
    pub const fn new(filter: u32, remote: [u8; 4]) -> Self {
        Self { filter: filter.to_be_bytes(), remote }
    }

    /// Number of the filter.
    pub const fn filter(&self) -> u32 {
        u32::from_be_bytes(self.filter)
    }

    /// Remote address.
    pub const fn remote(&self) -> [u8; 4] {
        self.remote
    }
}
