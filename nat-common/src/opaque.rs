//! A value that the compiler, and after it the kernel's verifier, must take as unknown.
//!
//! The verifier follows every value that a loop variable can have; where only its range matters,
//! forgetting the value makes all ways through an iteration one.
#![allow(unsafe_code)]

/// The same value, of which nothing is known.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: two instructions on one register: the bytes are swapped and swapped back, which the
        // verifier does not follow (it does follow a double negation, from 6.18 on).
        unsafe {
            core::arch::asm!("{0} = be64 {0}", "{0} = be64 {0}", inout(reg) value, options(pure, nomem, nostack));
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}
