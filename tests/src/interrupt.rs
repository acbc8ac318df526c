//! Ctrl-C and SIGTERM as a flag, so that a run ends through its destructors and leaves nothing.
//!
//! Invariant: nothing is cleaned up in a signal handler; it only sets the flag that every wait reads.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on Ctrl-C and SIGTERM set a flag instead of ending the process; a second one ends it.
pub fn catch() -> Result<()> {
    let flag = FLAG.get_or_init(Default::default);
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first registered action sees the flag before the second sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag)))
            .context("install a handler for Ctrl-C")?;
    }
    Ok(())
}

/// Whether the user asked to stop.
#[must_use]
pub fn seen() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once the user asked to stop.
pub fn check() -> Result<()> {
    if seen() {
        bail!("interrupted");
    }
    Ok(())
}
