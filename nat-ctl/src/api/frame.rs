//! How long a line may be.
//!
//! Invariant: a peer can make the other side hold no more than this.

/// A request: a rule with many prefixes fits, a flood does not.
pub(super) const LONGEST_REQUEST: u64 = 256 * 1024;

/// A response: a million flows at some 400 bytes each.
pub(super) const LONGEST_RESPONSE: u64 = 512 * 1024 * 1024;

/// Clients that are served at a time.
pub(super) const MOST_CLIENTS: usize = 64;
