//! What the programs of the bench share with it.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use nat_common::bench::{Order, Tally, Way};

/// What to send: at 0 what `generate` is told, and the sink looks at; at 1 what `generate_back` is.
#[btf_map(name = "orders")]
pub static ORDERS: Array<Order, 2> = Array::new();
/// How many packets were made: the place in a sequence, or the state of a random one.
#[btf_map(name = "position")]
pub static POSITION: PerCpuArray<u64, 1> = PerCpuArray::new();
/// When the next packet is due, where they are paced.
#[btf_map(name = "due")]
pub static DUE: PerCpuArray<u64, 1> = PerCpuArray::new();
/// What has arrived.
#[btf_map(name = "tallies")]
pub static TALLIES: PerCpuArray<Tally, 1> = PerCpuArray::new();
/// By flow: its public port, `OPENED`, `ANSWERED`. Sized at load.
#[btf_map(name = "seen")]
pub static SEEN: Array<u32, 1> = Array::new();
/// Flows in the order in which a population with favourites asks for them.
#[btf_map(name = "popular")]
pub static POPULAR: Array<u32, POPULAR_ENTRIES> = Array::new();
/// Where programs that were given the way send packets.
#[btf_map(name = "ways")]
pub static WAYS: Array<Way, 1> = Array::new();
/// Lines of memory for flows: one for each of them, as long as a line of the processor's caches. Sized at
/// load.
#[btf_map(name = "lines")]
pub static LINES: Array<[u64; 8], 1> = Array::new();
/// The program that is measured.
#[btf_map(name = "callee")]
pub static CALLEE: ProgramArray<1> = ProgramArray::new();
/// The same for TC.
#[btf_map(name = "callee_tc")]
pub static CALLEE_TC: ProgramArray<1> = ProgramArray::new();

/// Entries of [`POPULAR`]: a power of two.
pub const POPULAR_ENTRIES: usize = 1 << 20;
