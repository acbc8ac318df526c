//! An array of the data plane as memory: read and written without a system call.
//!
//! Invariant: whoever holds a [`Mapped`] holds the whole map, for as long as it lives; every access
//! is one atomic load, store or exchange of an aligned word, since packets write to the same memory.
//!
//! ```text
//!   map (BPF_F_MMAPABLE)   entry 0         entry 1         entry 2
//!   words                  0 1 2 .. s-1    s s+1 .. 2s-1   2s ..        s: words of an entry
//! ```
#![allow(unsafe_code, reason = "memory that is shared with the kernel")]

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::AsFd,
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{MapData, MapError};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::{PlaneError, Result};

const WORD: usize = size_of::<AtomicU64>();

/// A BPF_F_MMAPABLE array map, mapped to be read and written.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<c_void>,
    length: NonZeroUsize,
    entries: u32,
    /// Words of an entry: the kernel lays elements 8 bytes apart (array_map_alloc in
    /// kernel/bpf/arraymap.c).
    stride: usize,
}

// SAFETY: the memory belongs to no thread; it stays mapped until the drop of the one owner, and is
// reached through shared references to atomics alone.
unsafe impl Send for Mapped {}
// SAFETY: see above: all that can be had of a shared `Mapped` are references to atomics.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the array that is pinned as `name` in `pins`.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where there is none, [`PlaneError::Refused`] where it can't be
    /// mapped.
    pub fn open(pins: &Path, name: &str) -> Result<Self> {
        let path = pins.join(name);
        let what = format!("map the memory of {}", path.display());
        let map = MapData::from_pin(&path).map_err(|error| {
            if super::maps::is(&error, nix::libc::ENOENT) {
                return PlaneError::NotFound(format!(
                    "{what}: there is no data plane: start it with `nat-ctl run`"
                ));
            }
            PlaneError::refused::<MapError>(&what)(error)
        })?;
        let info = map.info().map_err(PlaneError::refused(&what))?;
        Self::of(map.fd(), info.max_entries(), info.value_size()).map_err(PlaneError::refused(what))
    }

    /// Maps an array of `entries` values of `value_size` bytes by its descriptor, which may be
    /// closed afterwards.
    fn of(fd: impl AsFd, entries: u32, value_size: u32) -> nix::Result<Self> {
        let (stride, length) = layout(entries, value_size).ok_or(nix::Error::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so that no mapping of ours is replaced.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start, length, entries, stride })
    }

    /// Memory of its own in the same form, for tests.
    #[cfg(test)]
    pub(crate) fn anonymous(entries: u32, value_size: u32) -> Self {
        let (stride, length) = layout(entries, value_size).expect("a size");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so that no mapping of ours is replaced.
        let start =
            unsafe { nix::sys::mman::mmap_anonymous(None, length, access, MapFlags::MAP_SHARED) };
        Self { start: start.expect("memory"), length, entries, stride }
    }

    /// Number of entries.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// All words, those of entry 0 first.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `of` has mapped `length` bytes, whole words, at a page, which `drop` alone gives
        // back; every bit pattern is a number, and nobody writes but atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length.get() / WORD) }
    }

    /// The words of an entry; `None` past the end.
    pub fn entry(&self, index: u32) -> Option<&[AtomicU64]> {
        let first = (index as usize).checked_mul(self.stride)?;
        self.words().get(first..first.checked_add(self.stride)?)
    }

    /// A word of an entry; `None` past the end of either.
    pub fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        self.entry(index)?.get(word)
    }

    /// What a word of an entry holds, if there is such a word.
    pub fn load(&self, index: u32, word: usize) -> Option<u64> {
        self.word(index, word).map(|word| word.load(Ordering::Acquire))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: `of` has mapped exactly this, and no reference into it outlives `self`. What munmap
        // says of a mapping that is there is nothing that could be acted on.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// Words of an entry and bytes of all; `None` for no bytes, or more than there can be.
fn layout(entries: u32, value_size: u32) -> Option<(usize, NonZeroUsize)> {
    let stride = (value_size as usize).div_ceil(WORD);
    let length = stride.checked_mul(WORD)?.checked_mul(entries as usize)?;
    Some((stride, NonZeroUsize::new(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_whole_words_apart_and_end_where_the_map_ends() {
        let mapped = Mapped::anonymous(3, 12);
        assert_eq!((mapped.entries(), mapped.words().len()), (3, 6));
        mapped.word(2, 1).unwrap().store(7, Ordering::Release);
        assert_eq!(mapped.words()[5].load(Ordering::Acquire), 7);
        assert_eq!((mapped.load(2, 1), mapped.load(1, 1)), (Some(7), Some(0)));
        assert!(mapped.word(2, 2).is_none() && mapped.word(3, 0).is_none());
        assert!(mapped.entry(u32::MAX).is_none());
    }

    #[test]
    fn an_array_without_bytes_is_not_mapped() {
        assert_eq!((layout(0, 8), layout(8, 0)), (None, None));
        assert_eq!(layout(2, 64), NonZeroUsize::new(128).map(|length| (8, length)));
    }
}
