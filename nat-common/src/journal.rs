//! What the FTP engine has to remember of a session across a crash of the agent, in a pinned map
//! that the data plane never reads.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most bytes that the engine may ask to be remembered of a session.
pub const JOURNAL_BYTES: usize = 4092;

/// Value of the `journal` map; the key is the place of the session in `sessions`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Journal {
    length: u32,
    bytes: [u8; JOURNAL_BYTES],
}

const _: () = assert!(size_of::<Journal>() == 4096);

impl Journal {
    /// A record of `text`; `None` when it is longer than [`JOURNAL_BYTES`].
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; JOURNAL_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { length: text.len() as u32, bytes })
    }

    /// What was recorded; `None` when the length cannot be true.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length as usize)
    }
}
