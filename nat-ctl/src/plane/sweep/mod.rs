//! What has come to its end is removed: flows, ports, expectations, sessions.
//!
//! Invariant: nothing that a packet in flight may rely on is removed on the word of one look. A flow
//! ends by the very state in which it was looked at; a port goes when it was unused in two passes in
//! a row, and nobody has used it up to the instant in which it goes.
//!
//! ```text
//!   agent --Now--> [thread] step: a slice of the flows (lines.rs)
//!                           with the last slice: expectations, ports, sessions (pass.rs) --Report-->
//!                           (decide.rs says what; marks.rs: which ports were seen in use;
//!                            tally.rs: whose flows;
//!                            pressure.rs: who has to make room; contacts.rs: who may send back)
//! ```
//!
//! A thread of its own reads the tables, so that a million flows do not hold up the event loop. A
//! step is a few milliseconds long, whatever is in the table; a whole table has a few steps, more
//! when it is half full, fewer when it is nearly full; and while there is nothing to sweep, no line is read.

mod contacts;
pub mod decide;
mod lines;
mod marks;
mod pass;
mod pressure;
mod tally;

use std::{path::Path, sync::mpsc, thread};

use nat_common::{lifetime::Timeouts, session::SessionId};

use super::clock::Now;
use super::error::{PlaneError, Result};
use super::maps::Maps;
pub use lines::DataLine;
use pass::{Pass, Tallies};
pub use pressure::Pressure;
pub use tally::{Opened, Tally};

/// What a pass has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Flows that are left.
    pub flows: u64,
    /// Flows that were over.
    pub expired: u64,
    /// Flows that nobody had answered, and that had to make room for others.
    pub hurried: u64,
    /// Expectations that nobody has used.
    pub unused: u64,
    /// Control connections that have ended; their records are free again.
    pub ended: Vec<SessionId>,
    /// Lines of data connections, those that were over included.
    pub data: Vec<DataLine>,
}

/// The thread.
#[derive(Debug)]
pub struct Sweeper {
    orders: mpsc::Sender<Now>,
    reports: mpsc::Receiver<Result<Option<Report>>>,
    /// The answer to an order that somebody had to wait for.
    kept: Option<Result<Option<Report>>>,
    busy: bool,
    begun: Now,
}

impl Sweeper {
    /// Starts the thread on the maps that are pinned in `pins`.
    ///
    /// # Errors
    /// Where the maps can't be opened or no thread be started.
    pub fn start(pins: &Path, timeouts: Timeouts) -> Result<Self> {
        let maps = Maps::open(pins)?;
        let tallies = Tallies::open(pins)?;
        let (orders, incoming) = mpsc::channel();
        let (outgoing, reports) = mpsc::channel();
        let run = move || {
            let mut pass = Pass::new(maps, tallies, timeouts);
            // Ends with the sweeper on the other side.
            while let Ok(now) = incoming.recv() {
                if outgoing.send(pass.step(now)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(run)
            .map_err(PlaneError::refused("start the sweep"))?;
        Ok(Self { orders, reports, kept: None, busy: false, begun: Now::at(0) })
    }

    /// The same in the place of `before`, which is [settled](Sweeper::settle).
    ///
    /// # Errors
    /// As [`Sweeper::start`].
    pub fn after(before: &mut Self, pins: &Path, timeouts: Timeouts) -> Result<Self> {
        Ok(Self { kept: before.kept.take(), begun: before.begun, ..Self::start(pins, timeouts)? })
    }

    /// Waits for the step that is on; the next one begins with the next call of [`Sweeper::step`].
    pub fn settle(&mut self) {
        if self.busy {
            self.kept = self.reports.recv().ok();
            self.busy = false;
        }
    }

    /// Begins a step when the last one has finished and a second has passed; gives the report of a
    /// pass that has come to its end. Never waits.
    ///
    /// # Errors
    /// Where the step met a refusal of the kernel; the next one goes on.
    pub fn step(&mut self, now: Now) -> Result<Option<Report>> {
        let report = self.kept.take().or_else(|| self.reports.try_recv().ok());
        self.busy &= report.is_none();
        if !self.busy && now > self.begun {
            self.begun = now;
            self.busy = self.orders.send(now).is_ok();
        }
        report.transpose().map(Option::flatten)
    }
}
