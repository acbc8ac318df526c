//! What is fuzzed: each target takes any bytes, and panics where an invariant of the code does not hold.
//!
//! ```text
//!   session        a dialogue as a script       the FTP engine, by its invariants
//!   image          bytes, then a script         what a successor finds of a session
//!   announcement   a line                       the parsers, beside oracles that know one form each
//!   records        a stream and its cuts        TLS records, beside a model that goes byte by byte
//!   corrections    edits of a stream            shifts of sequence numbers, beside a stream of bytes
//!   frames         frames with their hooks      the packet path on the host
//! ```

mod announcement;
mod corrections;
mod cursor;
mod frames;
mod image;
mod leak;
mod ports;
mod records;
mod script;
mod session;

/// Something to fuzz.
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "session", run: session::run },
    Target { name: "image", run: image::run },
    Target { name: "announcement", run: announcement::run },
    Target { name: "records", run: records::run },
    Target { name: "corrections", run: corrections::run },
    Target { name: "frames", run: frames::run },
];
