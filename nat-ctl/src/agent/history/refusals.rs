//! The last lines that were refused, and how often for which reason.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    alg::{self, Refusal},
    output::{FtpRefusalView, FtpRefusalsView, FtpSide},
};

/// Refusals that are kept with their line.
const KEPT: usize = 100;

/// Refused lines.
#[derive(Debug, Default)]
pub struct Refusals {
    last: VecDeque<(Duration, FtpRefusalView)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Refusals {
    /// A line was refused.
    pub fn add(
        &mut self,
        flow: &alg::ControlFlow,
        side: alg::Side,
        reason: Refusal,
        line: &str,
        now: Duration,
    ) {
        *self.counts.entry(reason.name()).or_default() += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        let view = FtpRefusalView {
            session: flow.session.into(),
            client: flow.client.to_string(),
            server: flow.server.to_string(),
            side: match side {
                alg::Side::Client => FtpSide::Client,
                alg::Side::Server => FtpSide::Server,
            },
            reason: reason.name().to_owned(),
            text: reason.text().to_owned(),
            line: line.to_owned(),
            age_s: 0,
        };
        self.last.push_back((now, view));
    }

    /// The last ones, oldest first, and the counts; every reason is there, those at 0 too.
    pub fn view(&self, now: Duration) -> FtpRefusalsView {
        let last = self.last.iter().map(|(then, view)| FtpRefusalView {
            age_s: now.saturating_sub(*then).as_secs(),
            ..view.clone()
        });
        let count = |reason: Refusal| self.counts.get(reason.name()).copied().unwrap_or(0);
        let counts = Refusal::ALL.iter().map(|it| (it.name().to_owned(), count(*it))).collect();
        FtpRefusalsView { counts, last: last.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::history::tests::flow;

    #[test]
    fn the_last_hundred_are_kept_and_all_are_counted() {
        let mut refusals = Refusals::default();
        for number in 0..130 {
            let line = format!("PORT {number}");
            let now = Duration::from_secs(number);
            refusals.add(&flow(7), alg::Side::Client, Refusal::SystemPort, &line, now);
        }
        let view = refusals.view(Duration::from_secs(130));
        assert_eq!(view.last.len(), 100);
        assert_eq!((view.last[0].line.as_str(), view.last[0].age_s), ("PORT 30", 100));
        assert_eq!((view.counts["system-port"], view.counts["malformed"]), (130, 0));
        assert_eq!(view.counts.len(), Refusal::ALL.len());
    }
}
