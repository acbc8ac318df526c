//! The agent: the one event loop where the FTP engine meets the world.
//!
//! Invariant: pure parts do not know the loop, and the loop decides nothing about FTP. What a
//! segment announces is in force in the data plane before the segment leaves ([`bridge`]).
//!
//! ```text
//!                 run (event loop)
//!        .----------+-----------+-----------.
//!      punts     gateway      plane       signals
//!        |     (rules, API)
//!        v
//!      bridge <----> alg (the engine, sans I/O)
//!        |
//!        |  fragments: those before their first one, and packets that are cut
//!        |  segment, control, journal: from bytes and records to the engine's words and back
//!        v
//!      kernel (what is written, in order) = world: maps, claim (ports), send (raw socket)
//! ```

mod answer;
mod bridge;
mod claim;
mod control;
mod error;
mod fragments;
mod ftp_view;
mod gateway;
mod gone;
mod history;
mod journal;
mod kernel;
mod log;
mod notify;
mod outgoing;
mod overload;
#[cfg(test)]
mod packets;
mod prohibited;
mod punts;
mod reconfigure;
mod report;
mod reset;
mod run;
mod scrape;
mod segment;
mod send;
mod six;
mod world;

pub use error::AgentError;
pub use run::run;
