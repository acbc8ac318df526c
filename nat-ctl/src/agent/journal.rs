//! The record of a session that outlives the agent: the engine's state, and whose it is.
//!
//! Invariant: a state is never given to another connection, not even one with the same addresses
//! and ports in the same place: the second of its making stands before it.

use nat_common::session::Session;

/// The record of a state.
pub fn seal(image: &[u8], record: &Session) -> Vec<u8> {
    [&record.created().to_be_bytes(), image].concat()
}

/// The state in a record; `None` when it is of another connection.
pub fn open<'a>(kept: &'a [u8], record: &Session) -> Option<&'a [u8]> {
    let (created, image) = kept.split_first_chunk()?;
    (u32::from_be_bytes(*created) == record.created()).then_some(image)
}
