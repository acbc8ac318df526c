//! What the tests of the packet path have in common; each of them uses a part of it.
#![allow(dead_code)]

pub mod frame;
pub mod gateway;
pub mod generate;
pub mod six;
pub mod sums;
