//! Types shared between the packet path in the kernel and the agent, and pure NAT logic.
//!
//! Everything here is plain data or a pure function: no clock, no sockets, no allocation. The types
//! that live in BPF maps are `#[repr(C)]` with explicit padding and a size that is asserted, so the
//! kernel and every later version of the agent agree on them; [`layout::VERSION`] changes with them.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![deny(unsafe_code)]

pub mod bench;
pub mod checksum;
pub mod clock;
pub mod contact;
pub mod counter;
pub mod expectation;
pub mod flow;
pub mod flow_table;
pub mod fragment;
pub mod harmless;
pub mod hop;
pub mod host;
pub mod interface;
pub mod journal;
pub mod layout;
pub mod lifetime;
pub mod opaque;
#[cfg(feature = "user")]
mod pod;
pub mod port;
pub mod punt;
pub mod reason;
pub mod record;
pub mod rule;
pub mod sequence;
pub mod session;
pub mod settings;
pub mod six;
pub mod tcp;
pub mod tcp_options;
pub mod tcp_window;
pub mod vouched;
pub mod watch;
