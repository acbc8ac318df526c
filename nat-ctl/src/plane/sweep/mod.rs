//! What has come to its end is removed: flows, mappings, ports, expectations, sessions.
//!
//! Invariant: nothing that a packet in flight may rely on is removed on the word of one look. A
//! mapping or a port goes when it was unused in two passes in a row, the mapping first and the port
//! a pass later; a flow is looked at again right before it is removed.
//!
//! ```text
//!   agent --Now--> [thread] pass: flows -> mappings -> ports -> expectations -> sessions --Report-->
//!                           (decide.rs says what, pass.rs does it)
//! ```
//!
//! A thread of its own reads the tables, so that a million flows do not hold up the event loop; a
//! pass is followed by a rest of four times its length.

pub mod decide;
mod pass;

use std::{path::Path, sync::mpsc, thread};

use nat_common::{lifetime::Timeouts, session::SessionId};

use super::clock::{self, Now};
use super::error::{PlaneError, Result};
use super::maps::Maps;
use pass::Pass;

/// What a pass has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Flows that are left.
    pub flows: u64,
    /// Flows that were over.
    pub expired: u64,
    /// Expectations that nobody has used.
    pub unused: u64,
    /// Control connections that have ended; their records are free again.
    pub ended: Vec<SessionId>,
}

/// The thread.
#[derive(Debug)]
pub struct Sweeper {
    orders: mpsc::Sender<Now>,
    reports: mpsc::Receiver<Result<Report>>,
    busy: bool,
    rest_until: Now,
    begun: Now,
}

impl Sweeper {
    /// Starts the thread on the maps that are pinned in `pins`.
    ///
    /// # Errors
    /// Where the maps can't be opened or no thread be started.
    pub fn start(pins: &Path, timeouts: Timeouts) -> Result<Self> {
        let maps = Maps::open(pins)?;
        let (orders, incoming) = mpsc::channel();
        let (outgoing, reports) = mpsc::channel();
        let run = move || {
            let mut pass = Pass::new(maps, timeouts);
            // Ends with the sweeper on the other side.
            while let Ok(now) = incoming.recv() {
                if outgoing.send(pass.run(now)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(run)
            .map_err(PlaneError::refused("start the sweep"))?;
        let now = Now::at(0);
        Ok(Self { orders, reports, busy: false, rest_until: now, begun: now })
    }

    /// Begins a pass when it is time for one; gives the report of one that has finished. Never
    /// waits.
    ///
    /// # Errors
    /// Where the pass met a refusal of the kernel; the next one tries again.
    pub fn step(&mut self, now: Now) -> Result<Option<Report>> {
        let report = self.reports.try_recv().ok();
        if report.is_some() {
            self.busy = false;
            let length = now.since(self.begun.seconds());
            self.rest_until = Now::at(now.seconds().saturating_add(rest(length)));
        }
        if !self.busy && now >= self.rest_until && now > self.begun {
            self.begun = now;
            self.busy = self.orders.send(now).is_ok();
        }
        report.transpose()
    }
}

/// Seconds of rest after a pass that took so long: at most a fifth of a CPU is spent. Less than a
/// second counts as nothing: the caller comes by once a second.
const fn rest(length: u32) -> u32 {
    length.saturating_sub(1).saturating_mul(4)
}

/// The moment at which a record is looked at again, inside a pass that may take seconds.
fn again() -> Now {
    clock::now()
}
