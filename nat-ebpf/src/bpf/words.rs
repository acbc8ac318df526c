//! Words of a packet, wherever they lie.
//!
//! The IPv4 header of an Ethernet frame stands at no multiple of four. The kernel takes such an access
//! in one instruction where the CPU does (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`); the compiler, which
//! knows only that the target may not, makes four byte loads and their shifts of it.

use core::{arch::asm, hint};

/// Bytes of a word.
const WORD: usize = 4;
/// The most words of a header that are read at a time.
const MOST: usize = 5;

/// Reads `N` words, 5 at most.
///
/// # Safety
/// So many words from `start` on are in a packet, and were compared with its end.
#[inline(always)]
pub unsafe fn load<const N: usize>(start: usize) -> [u32; N] {
    const { assert!(N <= MOST) };
    let mut words = [0; N];
    // Offsets have to be constants, so each word is a line of its own.
    // SAFETY: of the caller.
    unsafe {
        set(&mut words, 0, || load_at::<0>(start));
        set(&mut words, 1, || load_at::<{ WORD }>(start));
        set(&mut words, 2, || load_at::<{ 2 * WORD }>(start));
        set(&mut words, 3, || load_at::<{ 3 * WORD }>(start));
        set(&mut words, 4, || load_at::<{ 4 * WORD }>(start));
    }
    words
}

/// Writes `N` words, 5 at most.
///
/// # Safety
/// As [`load`]; nobody else has the packet.
#[inline(always)]
pub unsafe fn store<const N: usize>(start: usize, words: [u32; N]) {
    const { assert!(N <= MOST) };
    // SAFETY: of the caller.
    unsafe {
        if N > 0 {
            store_at::<0>(start, words[0]);
        }
        if N > 1 {
            store_at::<{ WORD }>(start, words[1]);
        }
        if N > 2 {
            store_at::<{ 2 * WORD }>(start, words[2]);
        }
        if N > 3 {
            store_at::<{ 3 * WORD }>(start, words[3]);
        }
        if N > 4 {
            store_at::<{ 4 * WORD }>(start, words[4]);
        }
    }
}

#[inline(always)]
fn set<const N: usize>(words: &mut [u32; N], at: usize, load: impl FnOnce() -> u32) {
    if let Some(word) = words.get_mut(at) {
        *word = load();
    }
}

#[inline(always)]
unsafe fn load_at<const AT: usize>(start: usize) -> u32 {
    let word: u64;
    // SAFETY: of the caller. The load fills the upper half with zeros, which the compiler would do
    // again.
    unsafe {
        asm!(
            "{word} = *(u32 *)({start} + {at})",
            word = lateout(reg) word,
            start = in(reg) start,
            at = const AT,
            options(pure, readonly, nostack),
        );
        hint::assert_unchecked(word <= u32::MAX as u64);
    }
    word as u32
}

#[inline(always)]
unsafe fn store_at<const AT: usize>(start: usize, word: u32) {
    // SAFETY: of the caller.
    unsafe {
        asm!(
            "*(u32 *)({start} + {at}) = {word}",
            start = in(reg) start,
            at = const AT,
            word = in(reg) word as u64,
            options(nostack),
        );
    }
}
