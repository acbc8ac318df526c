//! Shared types.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
pub mod sequence;
