//! A copy of the object that counts the instructions it executes: each run of instructions that are
//! executed together or not at all notes that it was.
//!
//! So the kernel itself counts, whatever helpers, jumps and loops a packet comes to; and as the copy
//! goes where the object goes, everything that is tested of the object can be tested of the copy.
//!
//! ```text
//!   r1 = *(u32 *)(r6 + 76)         r1 = *(u32 *)(r6 + 76)
//!                           --->   r2 = &executed[5]           a register that nobody reads
//!   r2 = 5                         lock *(u64 *)(r2 + 0) += r2   before it is written
//!   if r1 > r2 goto +7             r2 = 5
//!                                  if r1 > r2 goto +10
//! ```
//!
//! Where many registers are in use, one may be free, but hardly two: so what is added to a word is its
//! own address, and a word that is seven times its address was added to seven times. There is a word
//! for each size of a run.

pub mod code;
pub mod elf;
mod insert;

use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    ffi::c_void,
    io,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// What a run of a program came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// A load of 64 bits is one. What the kernel puts in their place, and the helpers' own, is not
    /// in here: it differs by kernel.
    pub instructions: u64,
    /// Calls of helpers.
    pub calls: u64,
}

/// The map that a counted copy adds to: a page of words. The first one has its own address.
pub struct Executions {
    fd: OwnedFd,
    page: NonNull<c_void>,
    /// What one addition to each of the others stands for.
    sizes: Vec<Executed>,
}

impl Executions {
    const PAGE: NonZero<usize> = NonZero::new(4096).unwrap();
    const WORDS: usize = Self::PAGE.get() / 8;
    /// How often a packet may come to runs of one size.
    const MOST: u64 = 1 << 16;

    pub fn new() -> Self {
        // Of include/uapi/linux/bpf.h.
        const BPF_MAP_CREATE: libc::c_long = 0;
        const BPF_MAP_TYPE_ARRAY: u32 = 2;
        const BPF_F_MMAPABLE: u32 = 1 << 10;
        // The attributes of the command: type, bytes of key and value, entries, flags.
        let attributes = [BPF_MAP_TYPE_ARRAY, 4, Self::PAGE.get() as u32, 1, BPF_F_MMAPABLE];
        // SAFETY: the kernel reads so many bytes of the attributes.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_CREATE,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        assert!(fd >= 0, "a map: {}", io::Error::last_os_error());
        // SAFETY: the new descriptor is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel puts it; released when this is dropped.
        let page =
            unsafe { mmap(None, Self::PAGE, protection, MapFlags::MAP_SHARED, fd.as_fd(), 0) };
        Self { fd, page: page.expect("the map is made to be mapped"), sizes: Vec::new() }
    }

    /// A copy of `object` that adds to this map.
    pub fn instrument(&mut self, object: &[u8]) -> Vec<u8> {
        let map = self.fd.as_raw_fd();
        elf::rewrite(object, |code, starts| {
            insert::counts(code, starts, map, &mut |size| self.word_of(size))
        })
    }

    fn word_of(&mut self, size: Executed) -> usize {
        let known = self.sizes.iter().position(|known| *known == size);
        let index = known.unwrap_or_else(|| {
            self.sizes.push(size);
            self.sizes.len() - 1
        });
        assert!(index + 1 < Self::WORDS, "more sizes than words");
        index + 1
    }

    /// What was executed since the last time.
    pub fn take(&self) -> Executed {
        let mut executed = Executed { instructions: 0, calls: 0 };
        // SAFETY: the words of the mapping; everybody changes them atomically.
        let words = unsafe { self.page.cast::<[AtomicU64; Self::WORDS]>().as_ref() };
        let base = words[0].load(Ordering::SeqCst);
        for (index, size) in self.sizes.iter().enumerate() {
            let sum = words[index + 1].swap(0, Ordering::SeqCst);
            let address = base + (index as u64 + 1) * 8;
            let times = (0..Self::MOST).find(|times| times.wrapping_mul(address) == sum);
            let times = times.expect("a multiple of the address");
            executed.instructions += times * size.instructions;
            executed.calls += times * size.calls;
        }
        executed
    }
}

impl Drop for Executions {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of that length.
        unsafe { munmap(self.page, Self::PAGE.get()) }.expect("a mapping");
    }
}
