//! The programs in the kernel against the path on the host: the same packets by `BPF_PROG_TEST_RUN`
//! and in memory give the same verdicts, bytes, tables, counters and drops; and what the verifier
//! makes of them.
//!
//! Needs root and the object (`cargo xtask build --ebpf-only`); without them the tests say what is
//! missing and pass.
#![allow(missing_docs, clippy::unwrap_used)]

mod both;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod counted;
mod instructions;
mod lab;
mod object;
mod same;
mod six;
mod stack;
mod verifier;
