//! The packet path of the NAT gateway.
//!
//! Written once, generic over the [`packet::Packet`] it works on and the [`tables::Tables`] it looks
//! things up in. Hosted by XDP and TC programs (module `bpf`, compiled for the BPF target only) and
//! by tests in user space (module `host`). Start reading at [`path`].
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", allow(internal_features))]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(not(target_arch = "bpf"), forbid(unsafe_code))]

pub mod arrival;
#[cfg(target_arch = "bpf")]
pub mod bpf;
pub mod closing;
pub mod control;
pub mod cut;
pub mod fragment;
pub mod guard;
pub mod hairpin;
pub mod headers;
#[cfg(not(target_arch = "bpf"))]
pub mod host;
pub mod icmp_error;
pub mod inbound;
pub mod mss;
pub mod one_armed;
pub mod outbound;
pub mod packet;
pub mod pair;
pub mod path;
pub mod public_port;
pub mod quote;
pub mod refusal;
pub mod rewrite;
pub mod shared_port;
pub mod six;
pub mod tables;
