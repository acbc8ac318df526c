//! What has happened in FTP sessions lately: events, transfers, refusals.
//!
//! Invariant: bounded, whatever sessions do; nothing that the data plane or the engine does depends on
//! it. Lines come here as the engine has masked them.
//!
//! ```text
//!   Said (what the engine and the bridge tell) --> Events      ftp watch, trace: the last 4,096
//!                                              --> Refusals    ftp refusals: the last 100, and counts
//!                                              --> Transfers   ftp transfers: those under way, and the
//!                                                              last 1,000; bytes from the flow table
//! ```

mod events;
mod refusals;
mod transfers;

use std::time::Duration;

use self::{events::Events, refusals::Refusals, transfers::Transfers};
use super::report::Said;
use crate::{
    alg::{self, Event},
    output::{FtpEventKind, FtpEventsView, FtpRefusalsView, FtpTransferView},
    plane::DataLine,
};

/// The memory of an agent.
#[derive(Debug, Default)]
pub struct History {
    events: Events,
    refusals: Refusals,
    transfers: Transfers,
}

impl History {
    /// Something was said of a session at `now` (of the monotonic clock).
    pub fn note(&mut self, flow: &alg::ControlFlow, said: &Said, now: Duration) {
        if let Said::Event(Event::Refused { side, reason, line }) = said {
            self.refusals.add(flow, *side, *reason, line, now);
        }
        if let Some((kind, line, after)) = event(said) {
            self.events.add(flow, kind, line, after, now);
        }
        match said {
            Said::Expected(expectation) => self.transfers.expected(flow, expectation),
            Said::Event(Event::TransferAsked { command, file }) => {
                self.transfers.asked(flow, command, file.clone(), now);
            }
            Said::Event(Event::TransferBegun) => {
                let begun = self.transfers.begun(flow, now);
                self.events.add(flow, FtpEventKind::TransferBegins, begun, None, now);
            }
            Said::Event(Event::TransferEnded { code }) => {
                let ended = self.transfers.ended(flow, *code, now);
                self.events.add(flow, FtpEventKind::TransferEnds, ended, None, now);
            }
            Said::Over => {
                for cut in self.transfers.over(flow, now) {
                    self.events.add(flow, FtpEventKind::TransferEnds, Some(cut), None, now);
                }
            }
            Said::Event(_) | Said::Ended(_) | Said::Resumed | Said::Begun => {}
        }
    }

    /// The events behind number `after`; without one none, but where to go on.
    pub fn events(&self, after: Option<u64>) -> FtpEventsView {
        self.events.after(after)
    }

    /// The refusals.
    pub fn refusals(&self, now: Duration) -> FtpRefusalsView {
        self.refusals.view(now)
    }

    /// The transfers, oldest first.
    pub fn transfers(&self, now: Duration) -> Vec<FtpTransferView> {
        self.transfers.views(now)
    }

    /// The transfer of a session that is under way, or its last one.
    pub fn last_transfer(&self, session: u32, now: Duration) -> Option<FtpTransferView> {
        self.transfers.last(session, now)
    }

    /// Takes what a pass over the flow table has met; the transfers that are complete with it.
    pub fn measure(&mut self, lines: &[DataLine], now: Duration) -> Vec<FtpTransferView> {
        self.transfers.measure(lines, now)
    }

    /// Once a second: the transfers that are complete though no pass has met their flows.
    pub fn give_up(&mut self, now: Duration) -> Vec<FtpTransferView> {
        self.transfers.give_up(now)
    }
}

/// What an event is called, and the lines that belong to it.
fn event(said: &Said) -> Option<(FtpEventKind, Option<String>, Option<String>)> {
    let with = |kind, line: &String| Some((kind, Some(line.clone()), None));
    match said {
        Said::Begun => Some((FtpEventKind::SessionBegins, None, None)),
        Said::Over => Some((FtpEventKind::SessionEnds, None, None)),
        Said::Event(Event::Command { line, .. }) => with(FtpEventKind::Command, line),
        Said::Event(Event::Rewritten { before, after, .. }) => {
            Some((FtpEventKind::Rewritten, Some(before.clone()), Some(after.clone())))
        }
        Said::Event(Event::Refused { reason, line, .. }) => {
            Some((FtpEventKind::Refused, Some(line.clone()), Some(reason.name().to_owned())))
        }
        Said::Event(Event::LeakPrevented { line, .. }) => with(FtpEventKind::LeakPrevented, line),
        Said::Ended(end) => Some((FtpEventKind::Unread, Some(end.text().to_owned()), None)),
        Said::Resumed => Some((FtpEventKind::ReadAgain, None, None)),
        // Told of with what the transfers make of it.
        Said::Event(
            Event::TransferAsked { .. } | Event::TransferBegun | Event::TransferEnded { .. },
        )
        | Said::Expected(_) => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::output::FtpResult;
    use std::net::SocketAddr;

    /// A session of a client inside.
    pub fn flow(session: u32) -> alg::ControlFlow {
        let at = |address: [u8; 4], port| SocketAddr::new(address.into(), port);
        alg::ControlFlow {
            session,
            inside: alg::Side::Client,
            client: at([10, 0, 1, 2], 40000),
            server: at([198, 51, 100, 7], 21),
            public: at([203, 0, 113, 1], 50000),
            client_public: None,
        }
    }

    #[test]
    fn a_session_is_told_from_its_beginning_to_its_end() {
        let mut history = History::default();
        let now = Duration::from_secs(5);
        let asked = Event::TransferAsked { command: "RETR", file: Some("x".to_owned()) };
        let line = "RETR x".to_owned();
        for said in [
            Said::Begun,
            Said::Event(Event::Command { name: Some("RETR"), line }),
            Said::Event(asked),
            Said::Event(Event::TransferBegun),
            Said::Event(Event::TransferEnded { code: 226 }),
            Said::Over,
        ] {
            history.note(&flow(7), &said, now);
        }
        let view = history.events(Some(0));
        let told: Vec<_> = view.events.iter().map(|it| (it.event, it.line.as_deref())).collect();
        assert_eq!(
            told,
            [
                (FtpEventKind::SessionBegins, None),
                (FtpEventKind::Command, Some("RETR x")),
                (FtpEventKind::TransferBegins, Some("RETR x")),
                (FtpEventKind::TransferEnds, Some("RETR x: complete")),
                (FtpEventKind::SessionEnds, None),
            ]
        );
        assert_eq!(history.last_transfer(7, now).map(|it| it.result), Some(FtpResult::Complete));
    }
}
