//! The names and the version of what is pinned under `/sys/fs/bpf/nat-ctl/NAME/`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the layout of all maps. It changes with any type of this crate that lives in a map;
/// an agent refuses to take over maps of another version. Kept in the map `layout`.
pub const VERSION: u32 = 2;

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
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Geometry>() == 24);

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

/// A heartbeat of the agent older than this (seconds) counts as no agent: XDP leaves everything to
/// TC, whose next hops the kernel keeps true, and payload of control connections waits.
pub const HEARTBEAT_STALE: u32 = 4;
