//! The fuzzer: `cargo xtask fuzz` builds it with coverage, and names the target in `NAT_FUZZ_TARGET`.
#![no_main]
#![allow(missing_docs, clippy::unwrap_used)]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("NAT_FUZZ_TARGET").unwrap_or_default();
    let target = targets::TARGETS.into_iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("NAT_FUZZ_TARGET={name:?} is no target")).run
});

fuzz_target!(|data: &[u8]| RUN(data));
