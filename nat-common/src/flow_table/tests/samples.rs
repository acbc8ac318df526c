//! Keys and flows to test with.

use crate::{
    flow::{Direction, Flow, FlowKey, Origin, Rewrite, UDP, Zone},
    hop::HopReference,
    port::Port,
    rule::RuleId,
};

/// Seeds of tables in tests.
pub const SEEDS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// The key number `number`: a few hosts with many ports, towards a few servers.
pub fn key(number: u32) -> FlowKey {
    let host = 0x0a00_0000 + number % 4093;
    let sport = 1024 + (number / 4093 % 60000) as u16;
    FlowKey::new(
        Zone::Inside,
        UDP,
        host.to_be_bytes(),
        Port::new(sport),
        [198, 51, 100, (number % 7) as u8],
        Port::new(53),
    )
}

/// A flow of that key that begins at `now`. Everything in it follows from `variant`, so that words
/// of two flows are never taken for one.
pub fn flow(key: &FlowKey, variant: u16, now: u32) -> Flow {
    let rewrite = Rewrite::source(key, [203, 0, (variant >> 8) as u8, 1], Port::new(variant));
    let origin = Origin::Rule(RuleId::new(u32::from(variant) % 1000));
    Flow::new(Direction::Original, rewrite, origin, now)
        .by(HopReference::new(variant.into(), variant.into()))
}

/// Numbers by chance, the same ones for the same seed.
pub struct Dice(u64);

impl Dice {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(1);
        (super::super::hash([self.0, self.0 >> 32], SEEDS) >> 33) as u32 % limit
    }
}
