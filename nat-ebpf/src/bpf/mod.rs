//! The path's hosts in the kernel: packets of XDP and TC, tables in BPF maps.

pub mod bare;
mod fib;
mod flows;
mod global;
pub mod grow;
mod hops;
mod hosts;
pub mod maps;
mod memory;
mod ports;
mod six;
mod skb;
pub mod stages;
mod sum;
mod tables;
pub mod tc;
mod words;
pub mod xdp;

pub use tables::Maps;

/// A value that the compiler must take as new: it then keeps the bounds checks that the verifier
/// wants to see. 64 bits wide, for the check must be on the register that is used.
#[inline(always)]
fn barrier(mut value: u64) -> u64 {
    // SAFETY: no instruction; the value passes through a register.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}
