//! The names and the version of what is pinned under `/sys/fs/bpf/nat-ctl/NAME/`.

use crate::flow_table::near_homes;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the layout of all maps. It changes with any type of this crate that lives in a map;
/// an agent refuses to take over maps of another version. Kept in the map `layout`.
pub const VERSION: u32 = 14;

/// What the place of a flow in the map `flows` follows from: one record in the map `geometry`, and a
/// read-only global of the same value in every program.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Geometry {
    /// Drawn by lot at a fresh start, so that nobody outside can choose where flows lie.
    pub seeds: [u64; 2],
    /// Places that a key may have for its home; the map has some more behind the last one.
    pub homes: u32,
    /// Those of them that may be the first: [`near_homes`].
    pub near_homes: u32,
}

const _: () = assert!(size_of::<Geometry>() == 24);

impl Geometry {
    /// Of a table with this many homes.
    pub const fn new(seeds: [u64; 2], homes: u32) -> Self {
        Self { seeds, homes, near_homes: near_homes(homes) }
    }

    /// The same in a table with another number of homes.
    pub const fn with_homes(self, homes: u32) -> Self {
        Self::new(self.seeds, homes)
    }
}

/// Places that one run of the program `flows_move` looks at.
pub const MOVES: u32 = 256;

/// A place in the map `stages`, for the TC program of that name; and in the map `xdp_stages`, for the
/// XDP program, where that stage has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Ingress of an inside interface.
    Inside = 0,
    /// Ingress of a way out.
    Outside = 1,
    /// Packets from inside without a flow.
    InsideNew = 2,
    /// Packets from outside without a flow.
    OutsideNew = 3,
    /// Packets from inside of control connections.
    InsideControl = 4,
    /// Packets from outside of control connections.
    OutsideControl = 5,
    /// ICMP errors from inside.
    InsideError = 6,
    /// ICMP errors from outside.
    OutsideError = 7,
    /// Packets from outside that cannot go on, which their sender is to be told.
    OutsideRefused = 8,
    /// ICMP errors that the gateway itself sends, at the egress of a way out.
    EgressError = 9,
    /// Packets from inside that are for the gateway.
    InsideLocal = 10,
    /// Packets from inside that are not as most are.
    InsideRare = 11,
    /// Packets from outside that are not as most are.
    OutsideRare = 12,
    /// TCP connections that open from inside, whose MSS may not fit the path.
    InsideSyn = 13,
    /// The same from outside.
    OutsideSyn = 14,
    /// Fragments from inside.
    InsideFragment = 15,
    /// Fragments from outside.
    OutsideFragment = 16,
    /// Packets from inside that cannot go on, unless they are cut.
    InsideRefused = 17,
    /// IPv6 from inside.
    InsideSix = 18,
    /// IPv6 from outside.
    OutsideSix = 19,
    /// IPv6 from inside where prefixes are translated.
    InsidePrefix = 20,
    /// The same from outside.
    OutsidePrefix = 21,
    /// The same at the egress of a way out.
    EgressPrefix = 22,
    /// Egress of a way out.
    Egress = 23,
    /// TCP connections over IPv6 that open, whose MSS may not fit the path.
    SixSyn = 24,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Inside,
        Self::Outside,
        Self::InsideNew,
        Self::OutsideNew,
        Self::InsideControl,
        Self::OutsideControl,
        Self::InsideError,
        Self::OutsideError,
        Self::OutsideRefused,
        Self::EgressError,
        Self::InsideLocal,
        Self::InsideRare,
        Self::OutsideRare,
        Self::InsideSyn,
        Self::OutsideSyn,
        Self::InsideFragment,
        Self::OutsideFragment,
        Self::InsideRefused,
        Self::InsideSix,
        Self::OutsideSix,
        Self::InsidePrefix,
        Self::OutsidePrefix,
        Self::EgressPrefix,
        Self::Egress,
        Self::SixSyn,
    ];

    /// Name of the XDP program.
    pub const fn xdp_program(self) -> Option<&'static str> {
        match self {
            Self::Inside => Some("xdp_inside"),
            Self::InsideNew => Some("xdp_inside_new"),
            Self::InsideRare => Some("xdp_inside_rare"),
            Self::OutsideRare => Some("xdp_outside_rare"),
            // Whether a socket waits for a packet only TC can ask for sure, control connections go by
            // one hook, and the others are rare.
            Self::Outside
            | Self::OutsideNew
            | Self::InsideControl
            | Self::OutsideControl
            | Self::InsideError
            | Self::OutsideError
            | Self::OutsideRefused
            | Self::EgressError
            | Self::InsideLocal
            | Self::InsideSyn
            | Self::OutsideSyn
            | Self::InsideFragment
            | Self::OutsideFragment
            | Self::InsideRefused
            | Self::InsideSix
            | Self::OutsideSix
            | Self::InsidePrefix
            | Self::OutsidePrefix
            | Self::EgressPrefix
            | Self::Egress
            | Self::SixSyn => None,
        }
    }

    /// Name of the TC program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Inside => "tc_inside",
            Self::Outside => "tc_outside",
            Self::InsideNew => "tc_inside_new",
            Self::OutsideNew => "tc_outside_new",
            Self::InsideControl => "tc_inside_control",
            Self::OutsideControl => "tc_outside_control",
            Self::InsideError => "tc_inside_error",
            Self::OutsideError => "tc_outside_error",
            Self::OutsideRefused => "tc_outside_refused",
            Self::EgressError => "tc_outside_egress_error",
            Self::InsideLocal => "tc_inside_local",
            Self::InsideRare => "tc_inside_rare",
            Self::OutsideRare => "tc_outside_rare",
            Self::InsideSyn => "tc_inside_syn",
            Self::OutsideSyn => "tc_outside_syn",
            Self::InsideFragment => "tc_inside_fragment",
            Self::OutsideFragment => "tc_outside_fragment",
            Self::InsideRefused => "tc_inside_refused",
            Self::InsideSix => "tc_inside_six",
            Self::OutsideSix => "tc_outside_six",
            Self::InsidePrefix => "tc_inside_prefix",
            Self::OutsidePrefix => "tc_outside_prefix",
            Self::EgressPrefix => "tc_outside_egress_prefix",
            Self::Egress => "tc_outside_egress",
            Self::SixSyn => "tc_six_syn",
        }
    }
}

/// Where bpffs is expected, and mounted if it isn't.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Mark of packets that the data plane has translated: the guard on the way out lets them pass. A
/// mark does not leave the network namespace.
pub const MARK: u32 = 0x4e41_5401;

/// Mark of segments that the agent has translated. The kernel routes them, so the guard makes sure
/// that they are for the outside.
pub const AGENT_MARK: u32 = 0x4e41_5402;

/// Control connections that can be inspected at a time: entries of the `sessions` map.
pub const SESSIONS: u32 = 16384;

/// Entries of the map `prefixes`, of which each pair of prefixes has three.
pub const PREFIXES: u32 = 768;

/// Bytes of the ring buffer `punts`.
pub const RING: u32 = 1 << 20;

/// So many bytes of copies wait in the ring for something to wake the agent: some hundred, which it
/// reads in less than a millisecond.
pub const RING_WAKES: u32 = 1 << 14;

/// So much of the ring may be taken for a copy: the rest is left to what has to wait for the agent.
pub const RING_COPIES: u32 = RING / 2;

/// So much of the ring may be taken for fragments that wait for their first one, and for packets that are
/// to be cut: however many come, FTP has the rest.
pub const RING_FRAGMENTS: u32 = RING / 4;

/// A heartbeat of the agent older than this (seconds) counts as no agent: XDP leaves everything to
/// TC, whose next hops the kernel keeps true, and payload of control connections waits.
pub const HEARTBEAT_STALE: u32 = 4;
