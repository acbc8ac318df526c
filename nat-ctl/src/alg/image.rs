//! The state of a session as bytes, for a pinned map that outlives the agent.
//!
//! Invariant: a successor that is given the bytes goes on as the predecessor would have. The bound
//! on every list in a session keeps the bytes below [`JOURNAL_BYTES`].

use nat_common::journal::JOURNAL_BYTES;
use thiserror::Error;

use super::session::Session;

/// Changes with any field of a session.
const VERSION: u8 = 6;

/// Why bytes are no session, or a session no bytes.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Another version of the agent wrote them.
    #[error("the record of an FTP session has version {0}, this agent writes {VERSION}")]
    Version(u8),
    /// They are cut short, or changed.
    #[error("the record of an FTP session cannot be read: {0}")]
    Encoding(#[from] postcard::Error),
    /// Their parts contradict each other.
    #[error("the record of an FTP session contradicts itself")]
    Unsound,
    /// The bounds of the engine's lists no longer fit the record.
    #[error("an FTP session takes {0} bytes, its record holds {JOURNAL_BYTES}")]
    TooLarge(usize),
}

/// A session as bytes.
pub fn encode(session: &Session) -> Result<Vec<u8>, ImageError> {
    let bytes = postcard::to_extend(session, vec![VERSION])?;
    if bytes.len() > JOURNAL_BYTES {
        return Err(ImageError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// A session out of bytes.
pub fn decode(bytes: &[u8]) -> Result<Session, ImageError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let session: Session = postcard::from_bytes(rest)?;
            if session.is_sound() { Ok(session) } else { Err(ImageError::Unsound) }
        }
        Some((version, _)) => Err(ImageError::Version(*version)),
        None => Err(ImageError::Encoding(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

/// Corrections by their edits, which rebuild the rest.
pub mod corrections {
    use nat_common::sequence::Corrections;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    type Listed = (i32, Vec<(u32, u16, u16)>);

    /// Writes the base and the edits.
    pub fn serialize<S: Serializer>(value: &Corrections, to: S) -> Result<S::Ok, S::Error> {
        let edits = value.edits().iter();
        let edits = edits.map(|edit| (edit.start(), edit.old_len(), edit.new_len())).collect();
        let listed: Listed = (value.base(), edits);
        listed.serialize(to)
    }

    /// Lists the edits again, by the same checks.
    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Corrections, D::Error> {
        let (base, edits) = Listed::deserialize(from)?;
        let mut corrections = Corrections::with_base(base);
        for (start, old_len, new_len) in edits {
            corrections.push(start, old_len, new_len).map_err(D::Error::custom)?;
        }
        Ok(corrections)
    }
}
