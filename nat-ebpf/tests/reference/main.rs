//! The packet path on the host against a slow reference model, and against itself: sequences of
//! packets with time, packets at once, frames that are none.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod copies;
mod fragments;
mod gateway;
mod hairpin;
mod icmp_errors;
mod mangled;
mod model;
mod prefix;
mod races;
mod records;
mod sequences;
mod six;
mod six_closing;
