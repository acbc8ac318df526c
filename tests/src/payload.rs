//! The file that travels, and its checksum.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Size of the file of the main job: 10 MB.
pub const TEN_MEGABYTES: usize = 10_000_000;

/// What a transfer has to bring over unharmed.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The content.
    pub bytes: Vec<u8>,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

impl Payload {
    /// Bytes that no repetition of a segment can stand in for: xorshift64 (Marsaglia, 2003).
    #[must_use]
    pub fn new(size: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(size);
        let sha256 = digest(&bytes);
        Self { bytes, sha256 }
    }
}

/// SHA-256 of a file, in hexadecimal.
pub fn file_digest(file: &Path) -> Result<String> {
    Ok(digest(&fs::read(file).with_context(|| format!("read {}", file.display()))?))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
