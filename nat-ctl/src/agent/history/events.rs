//! The last events of all sessions, with numbers by which a reader goes on.
//!
//! Invariant: a reader that is too slow is told how many it has missed; it never holds up anything.

use std::{collections::VecDeque, time::Duration};

use crate::{
    alg,
    output::{FtpEventKind, FtpEventView, FtpEventsView},
};

/// Events that are kept: at 100 transfers a second those of eight seconds.
const KEPT: usize = 4096;

/// Most events in one answer.
const AT_A_TIME: usize = 1024;

/// The last events.
#[derive(Debug, Default)]
pub struct Events {
    list: VecDeque<FtpEventView>,
    /// Number of the newest.
    last: u64,
}

impl Events {
    /// Keeps one more.
    pub fn add(
        &mut self,
        flow: &alg::ControlFlow,
        event: FtpEventKind,
        line: Option<String>,
        after: Option<String>,
        now: Duration,
    ) {
        self.last += 1;
        if self.list.len() == KEPT {
            self.list.pop_front();
        }
        let (after, reason) = match event {
            FtpEventKind::Refused => (None, after),
            _ => (after, None),
        };
        self.list.push_back(FtpEventView {
            number: self.last,
            time_s: now.as_secs_f64(),
            session: flow.session.into(),
            client: flow.client,
            server: flow.server,
            public: flow.public,
            event,
            line,
            after,
            reason,
        });
    }

    /// Those behind number `after`, oldest first.
    pub fn after(&self, after: Option<u64>) -> FtpEventsView {
        let after = after.unwrap_or(self.last).min(self.last);
        let first = self.list.front().map_or(self.last + 1, |event| event.number);
        let missed = first.saturating_sub(after + 1);
        let skipped = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let events: Vec<_> = self.list.iter().skip(skipped).take(AT_A_TIME).cloned().collect();
        let next = events.last().map_or(after, |event| event.number);
        FtpEventsView { events, missed, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::history::tests::flow;

    #[test]
    fn a_reader_goes_on_where_it_was_and_learns_what_it_has_missed() {
        let mut events = Events::default();
        let mut add = |count: usize| {
            for _ in 0..count {
                events.add(&flow(7), FtpEventKind::Command, None, None, Duration::ZERO);
            }
            events.after(None).next
        };
        let start = add(3);
        assert_eq!((start, add(2)), (3, 5));
        let view = events.after(Some(start));
        assert_eq!((view.events.len(), view.missed, view.next), (2, 0, 5));
        assert_eq!(events.after(Some(5)), FtpEventsView { events: vec![], missed: 0, next: 5 });

        for _ in 0..KEPT + 10 {
            events.add(&flow(7), FtpEventKind::Command, None, None, Duration::ZERO);
        }
        let view = events.after(Some(5));
        assert_eq!((view.events.len(), view.missed), (AT_A_TIME, 10));
        assert_eq!(view.next, 15 + AT_A_TIME as u64);
        // An agent that has begun anew counts from the start.
        assert_eq!(events.after(Some(1 << 40)).events.len(), 0);
    }
}
