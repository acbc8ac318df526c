//! What the table promises, each in a file of its own.

mod hash;
mod invariants;
mod load;
mod model;
mod samples;
