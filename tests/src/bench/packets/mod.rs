//! Measures that count packets.

pub mod cost;
mod dump;
pub mod flood;
pub mod flows;
mod memory;
mod probe;
mod program;
pub mod start;
mod sweep;
pub mod tables;
