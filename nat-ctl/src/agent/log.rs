//! What the agent says on stderr.
//!
//! Invariant: one line an event; arguments of PASS and ACCT never get here, the engine masks them.

use std::io;

use tracing::level_filters::LevelFilter;

/// Starts logging: what happens to FTP sessions always, with `-v` what the agent does, with `-vv`
/// every segment.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Fails where a program that uses this library logs already; then that goes on.
    let _set = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        .try_init();
}
