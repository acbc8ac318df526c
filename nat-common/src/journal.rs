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
    /// Records `text` in the place of what was there; false when it is longer than [`JOURNAL_BYTES`], and
    /// nothing is recorded then. In place, since a record is large to be handed on.
    #[must_use]
    pub fn set(&mut self, text: &[u8]) -> bool {
        let before = self.bytes().map_or(JOURNAL_BYTES, <[u8]>::len);
        let Some(place) = self.bytes.get_mut(..text.len()) else { return false };
        place.copy_from_slice(text);
        // What is longer than this one is another session's.
        self.bytes.get_mut(text.len()..before).unwrap_or_default().fill(0);
        self.length = text.len() as u32;
        true
    }

    /// What was recorded; `None` when the length cannot be true.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    #[test]
    fn nothing_of_a_longer_record_stays() {
        let mut record = Journal::new_zeroed();
        assert!(record.set(&[7; JOURNAL_BYTES]));
        assert_eq!(record.bytes(), Some(&[7; JOURNAL_BYTES][..]));
        assert!(record.set(b"short"));
        assert_eq!(record.bytes(), Some(&b"short"[..]));
        assert!(record.as_bytes()[4 + 5..].iter().all(|byte| *byte == 0));
        assert!(!record.set(&[8; JOURNAL_BYTES + 1]));
        assert_eq!(record.bytes(), Some(&b"short"[..]));
    }
}
