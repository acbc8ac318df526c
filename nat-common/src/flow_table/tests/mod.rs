//! What the table promises, each in a file of its own.

mod arena;
mod hash;
mod invariants;
mod load;
mod mixes;
mod model;
mod moves;
mod races;
mod samples;
mod schedule;
mod stepped;
