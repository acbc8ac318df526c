//! Sums over a whole segment, chunk by chunk, through a scratch area: neither hook lets the helper that
//! sums up look at packets of any length.

use super::{barrier, maps};
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes};
use core::{ffi::c_void, ptr};
use nat_common::checksum::Sum;

/// Bytes that `bpf_csum_diff` takes at a time (its scratch is MAX_BPF_STACK up to kernel 6.11).
pub const CHUNK: u32 = 512;

/// The longest message that [`is_right`] sums up, in bytes: more than Ethernet's 1,500.
pub const MESSAGE: u32 = 3 * CHUNK;

/// Adds the `length` bytes of a segment to `sum`, of which there are so many chunks at most.
/// `load(at, to, length)` copies bytes of it, of which the first one is number `at`, and gives 0 unless it
/// cannot. `None` where it could not.
#[inline(always)]
pub fn of<const CHUNKS: u32>(
    length: u32,
    sum: Sum,
    load: impl Fn(u32, *mut c_void, u32) -> i64,
) -> Option<Sum> {
    let scratch = maps::SUM_SCRATCH.get_ptr_mut(0)?.cast::<u8>();
    let mut sum = sum.raw();
    for chunk in 0..CHUNKS {
        let done = chunk * CHUNK;
        if done >= length {
            break;
        }
        let rest = if length - done > CHUNK { CHUNK } else { length - done };
        let last = barrier(rest as u64 - 1);
        if last > CHUNK as u64 - 1 {
            return None;
        }
        let part = (last + 1) as u32;
        if load(done, scratch.cast(), part) != 0 {
            return None;
        }
        // SAFETY: the scratch takes a chunk and four bytes more, and is this CPU's own.
        unsafe {
            // Whole words are summed up: zeros behind an odd end.
            ptr::write_unaligned(scratch.add(part as usize).cast::<u32>(), 0);
            let words = (part + 3) & !3;
            sum = bpf_csum_diff(ptr::null_mut(), 0, scratch.cast(), words, sum) as u32;
        }
    }
    Some(Sum::from_raw(sum))
}

/// Whether the `length` bytes at `from`, [`MESSAGE`] at most, have a right sum; 1 or 0. A function of its
/// own, since its stack is then free again when others are called.
///
/// # Safety
/// `context` is the context of the running TC program.
#[inline(never)]
pub unsafe fn is_right(context: *mut c_void, from: u32, length: u32) -> u32 {
    let whole = of::<{ MESSAGE / CHUNK }>(length, Sum::ZERO, |at, to, part| {
        // SAFETY: the context is the program's (of the caller); the area has room for a chunk.
        unsafe { bpf_skb_load_bytes(context, from + at, to, part) as i64 }
    });
    whole.is_some_and(|sum| sum.folded() == u16::MAX).into()
}
