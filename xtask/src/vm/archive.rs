//! The archive that the kernel unpacks into its first file system: cpio in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Invariant: a folder stands before what is in it, each one once, and every part is padded to four
//! bytes, as the kernel creates nothing by itself and looks for the next header there.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
/// Name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive in the making; names are paths without a leading slash.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    known: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, and those that it is in.
    pub fn folder(&mut self, name: &str) {
        if name.is_empty() || self.known.contains(name) {
            return;
        }
        self.parents(name);
        self.entry(name, FOLDER, &[]);
    }

    /// Adds a file that may be run.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.parents(name);
        self.entry(name, PROGRAM, content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.parents(name);
        self.entry(name, LINK, target.as_bytes());
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[]);
        self.bytes
    }

    fn parents(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.folder(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.known.insert(name.to_owned());
        self.entries += 1;
        // No part comes near 4 GB: these are programs.
        let [size, name_size] =
            [content.len(), name.len() + 1].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let (owner, group, links, time, device) = (0, 0, 1, 0, [0; 4]);
        self.bytes.extend_from_slice(b"070701");
        let fields = [self.entries, mode, owner, group, links, time, size];
        for field in fields.into_iter().chain(device).chain([name_size, 0]) {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_before_their_files_and_parts_are_aligned() {
        let mut archive = Archive::default();
        archive.file("usr/bin/ip", b"12345");
        archive.file("usr/bin/tc", b"1");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let heads: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert!(heads.iter().all(|at| at % 4 == 0));
        let name = |at: usize| text[at + 110..].split('\0').next().unwrap();
        let names: Vec<_> = heads.iter().map(|&at| name(at)).collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/ip", "usr/bin/tc", END]);
        assert_eq!(&text[heads[2] + 54..heads[2] + 62], "00000005");
    }
}
