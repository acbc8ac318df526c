//! Measures that count packets.

pub mod cost;
