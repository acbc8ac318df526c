//! Transfers: those that are asked for or under way, and the last ones that have ended.
//!
//! Invariant: each transfer is in one list; a list is full before it grows past its bound. The bytes of
//! a transfer are those of the flow that was announced last before it, in the direction of the file.
//!
//! ```text
//!   asked --125, 150--> begun --2yz-5yz, end of session--> ended --flow table--> settled
//!     `------------------4yz, 5yz: refused------------------^
//! ```

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use nat_common::flow::Direction;

use crate::{
    alg::{self, Translation},
    output::{FtpDirection, FtpMode, FtpResult, FtpTransferView},
    plane::DataLine,
};

/// Transfers of a session that wait for their reply, as the engine keeps of commands.
const WAITING: usize = alg::dialogue::WAITING;

/// Transfers that have ended and are kept.
const KEPT: usize = 1000;

/// Between the reply and the look at the flow: what the server has sent is past the gateway then, or
/// its control connection is faster than its data.
const REST: Duration = Duration::from_millis(200);

/// A data connection may be dialled before the transfer is asked for, as passive ones are: at most so
/// many seconds, the time that an expectation waits by default.
const EARLY: u64 = 30;

/// Commands that carry a file to the server.
const UPLOADS: [&str; 3] = ["STOR", "STOU", "APPE"];

/// After so long a transfer is complete whether its flow was met or not: a pass takes five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// All transfers that are known.
#[derive(Debug, Default)]
pub struct Transfers {
    sessions: HashMap<u32, Waiting>,
    ended: VecDeque<Transfer>,
    last: u64,
    /// When the lines of the last pass were there: the next pass reads what is later.
    passed: Duration,
}

/// What a session has asked for.
#[derive(Debug, Default)]
struct Waiting {
    /// Announced, and not yet a transfer's.
    announced: Option<Announced>,
    list: VecDeque<Transfer>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    to: SocketAddr,
    mode: FtpMode,
}

#[derive(Clone, Debug)]
struct Transfer {
    number: u64,
    flow: alg::ControlFlow,
    command: &'static str,
    file: Option<String>,
    announced: Option<Announced>,
    asked: Duration,
    begun: Option<Duration>,
    ended: Option<Duration>,
    result: FtpResult,
    reply: Option<u16>,
    bytes: u64,
    /// When the flow had that.
    measured: Option<Duration>,
    settled: bool,
}

impl Transfers {
    /// A data connection is announced: for the next transfer, or one that was asked for before.
    pub fn expected(&mut self, flow: &alg::ControlFlow, expectation: &alg::Expectation) {
        let dials = match expectation.translation {
            Translation::Inbound(_) => flow.inside.other(),
            Translation::Outbound(_) => flow.inside,
            Translation::Turned { dials, .. } => dials,
        };
        let mode = match dials {
            alg::Side::Client => FtpMode::Passive,
            alg::Side::Server => FtpMode::Active,
        };
        let announced = Announced { to: expectation.key.to, mode };
        let waiting = self.sessions.entry(flow.session).or_default();
        match waiting.list.iter_mut().find(|transfer| transfer.announced.is_none()) {
            Some(transfer) => transfer.announced = Some(announced),
            None => waiting.announced = Some(announced),
        }
    }

    /// A transfer is asked for.
    pub fn asked(
        &mut self,
        flow: &alg::ControlFlow,
        command: &'static str,
        file: Option<String>,
        now: Duration,
    ) {
        self.last += 1;
        let waiting = self.sessions.entry(flow.session).or_default();
        if waiting.list.len() == WAITING {
            return;
        }
        waiting.list.push_back(Transfer {
            number: self.last,
            flow: *flow,
            command,
            file,
            announced: waiting.announced.take(),
            asked: now,
            begun: None,
            ended: None,
            result: FtpResult::Asked,
            reply: None,
            bytes: 0,
            measured: None,
            settled: false,
        });
    }

    /// The oldest that was asked for begins; which that is.
    pub fn begun(&mut self, flow: &alg::ControlFlow, now: Duration) -> Option<String> {
        let transfer = self.sessions.get_mut(&flow.session)?.list.front_mut()?;
        (transfer.begun, transfer.result) = (Some(now), FtpResult::Running);
        Some(transfer.name())
    }

    /// The oldest that was asked for ends; which that is, and how.
    pub fn ended(&mut self, flow: &alg::ControlFlow, code: u16, now: Duration) -> Option<String> {
        let waiting = self.sessions.get_mut(&flow.session)?;
        let mut transfer = waiting.list.pop_front()?;
        if transfer.begun.is_none() && code >= 400 {
            // Its data connection was not dialled yet: the next transfer may use it.
            waiting.announced = waiting.announced.or(transfer.announced);
            transfer.settled = true;
        }
        let result = match (transfer.begun, code) {
            (_, ..400) => FtpResult::Complete,
            (Some(_), 426) => FtpResult::Aborted,
            (Some(_), _) => FtpResult::Failed,
            (None, _) => FtpResult::Refused,
        };
        Some(self.keep(transfer, result, Some(code), now))
    }

    /// The session is over, and with it what it has asked for; which transfers that were.
    pub fn over(&mut self, flow: &alg::ControlFlow, now: Duration) -> Vec<String> {
        let Some(waiting) = self.sessions.remove(&flow.session) else { return Vec::new() };
        let cut = |transfer| self.keep(transfer, FtpResult::CutOff, None, now);
        waiting.list.into_iter().map(cut).collect()
    }

    /// Every transfer, oldest first.
    pub fn views(&self, now: Duration) -> Vec<FtpTransferView> {
        let waiting = self.sessions.values().flat_map(|waiting| &waiting.list);
        let mut all: Vec<&Transfer> = self.ended.iter().chain(waiting).collect();
        all.sort_unstable_by_key(|transfer| transfer.number);
        all.into_iter().map(|transfer| transfer.view(now)).collect()
    }

    /// What a session is transferring, or has last.
    pub fn last(&self, session: u32, now: Duration) -> Option<FtpTransferView> {
        let waiting = self.sessions.get(&session).and_then(|waiting| waiting.list.front());
        let ended = || self.ended.iter().rev().find(|it| it.flow.session == session);
        waiting.or_else(ended).map(|transfer| transfer.view(now))
    }

    /// Takes the lines of data connections that a pass over the flow table has met, and gives the
    /// transfers that are complete with it.
    pub fn measure(&mut self, lines: &[DataLine], now: Duration) -> Vec<FtpTransferView> {
        let mut met: HashMap<Place, Vec<&DataLine>> = HashMap::new();
        for line in lines {
            met.entry(Place::of(line)).or_default().push(line);
        }
        let waiting = self.sessions.values_mut().flat_map(|waiting| &mut waiting.list);
        for transfer in self.ended.iter_mut().filter(|it| !it.settled).chain(waiting) {
            // The same port may have been announced again: the first flow since then is the one.
            let lines = transfer.place().and_then(|place| met.get(&place));
            let since = transfer.asked.as_secs().saturating_sub(EARLY);
            let own = lines.into_iter().flatten().filter(|it| u64::from(it.created) >= since);
            if let Some(line) = own.min_by_key(|line| line.created) {
                (transfer.bytes, transfer.measured) = (line.bytes, Some(now));
            }
        }
        // What this pass has read is later than the pass before.
        let passed = std::mem::replace(&mut self.passed, now);
        self.settle(|ended| ended + REST <= passed, now)
    }

    /// Gives up on flows that no pass has met; the transfers that are complete with it.
    pub fn give_up(&mut self, now: Duration) -> Vec<FtpTransferView> {
        self.settle(|ended| ended + PATIENCE <= now, now)
    }

    fn settle(&mut self, due: impl Fn(Duration) -> bool, now: Duration) -> Vec<FtpTransferView> {
        let mut settled = Vec::new();
        for transfer in self.ended.iter_mut().filter(|it| !it.settled) {
            if transfer.ended.is_some_and(&due) {
                transfer.settled = true;
                settled.push(transfer.view(now));
            }
        }
        settled
    }

    fn keep(
        &mut self,
        transfer: Transfer,
        result: FtpResult,
        reply: Option<u16>,
        now: Duration,
    ) -> String {
        if self.ended.len() == KEPT {
            self.ended.pop_front();
        }
        let name = format!("{}: {result}", transfer.name());
        self.ended.push_back(Transfer { ended: Some(now), result, reply, ..transfer });
        name
    }
}

impl Transfer {
    /// Where the bytes of its file are.
    fn place(&self) -> Option<Place> {
        let Announced { to, mode } = self.announced?;
        let dials = match mode {
            FtpMode::Active => FtpDirection::Download,
            FtpMode::Passive => FtpDirection::Upload,
        };
        let is_original = self.direction() == dials;
        Some(Place { session: self.flow.session, to, is_original })
    }

    fn direction(&self) -> FtpDirection {
        match UPLOADS.contains(&self.command) {
            true => FtpDirection::Upload,
            false => FtpDirection::Download,
        }
    }

    fn name(&self) -> String {
        match &self.file {
            Some(file) => format!("{} {file}", self.command),
            None => self.command.to_owned(),
        }
    }

    /// Bytes a second, as far as they are known.
    fn rate(&self, start: Duration) -> u64 {
        let until = self.measured.into_iter().chain(self.ended).min();
        let seconds = until.map_or(0.0, |until| until.saturating_sub(start).as_secs_f64());
        if seconds > 0.0 { (self.bytes as f64 / seconds) as u64 } else { 0 }
    }

    fn view(&self, now: Duration) -> FtpTransferView {
        let start = self.begun.unwrap_or(self.asked);
        let seconds = self.ended.unwrap_or(now).saturating_sub(start).as_secs_f64();
        FtpTransferView {
            session: self.flow.session.into(),
            client: self.flow.client.to_string(),
            server: self.flow.server.to_string(),
            mode: self.announced.map(|announced| announced.mode),
            direction: self.direction(),
            command: self.command.to_owned(),
            file: self.file.clone(),
            bytes: self.bytes,
            rate: self.rate(start),
            seconds: (seconds * 1000.0).round() / 1000.0,
            result: self.result,
            reply: self.reply,
            age_s: self.ended.map_or(0, |ended| now.saturating_sub(ended).as_secs()),
        }
    }
}

/// One direction of a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    session: u32,
    to: SocketAddr,
    /// From who dials to who is dialled.
    is_original: bool,
}

impl Place {
    fn of(line: &DataLine) -> Place {
        Place {
            session: line.session.number(),
            to: line.to,
            is_original: line.direction == Direction::Original,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::history::tests::flow;
    use crate::alg::{Expectation, ExpectationKey};
    use nat_common::session::SessionId;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(100_000 + milliseconds)
    }

    /// The client, which is inside, has announced a port, or the server has.
    fn announce(transfers: &mut Transfers, mode: FtpMode, port: u16) {
        let flow = flow(7);
        let public = flow.public.ip();
        let (from, to, translation) = match mode {
            FtpMode::Active => {
                let to = SocketAddr::new(public, port);
                (
                    flow.server.ip(),
                    to,
                    Translation::Inbound(SocketAddr::new(flow.client.ip(), port)),
                )
            }
            FtpMode::Passive => {
                let to = SocketAddr::new(flow.server.ip(), port);
                (flow.client.ip(), to, Translation::Outbound(public))
            }
        };
        transfers.expected(&flow, &Expectation { key: ExpectationKey { from, to }, translation });
    }

    /// A line of a data connection to the port, with so many bytes.
    fn line(mode: FtpMode, port: u16, created: u32, direction: Direction, bytes: u64) -> DataLine {
        let flow = flow(7);
        let address = match mode {
            FtpMode::Active => flow.public.ip(),
            FtpMode::Passive => flow.server.ip(),
        };
        let to = SocketAddr::new(address, port);
        DataLine { session: SessionId::from_number(7), to, created, direction, bytes }
    }

    #[test]
    fn a_transfer_has_its_flow_its_time_and_its_result() {
        use Direction::{Original, Reply};
        for (mode, command, direction) in [
            (FtpMode::Active, "RETR", Original),
            (FtpMode::Passive, "RETR", Reply),
            (FtpMode::Active, "STOR", Reply),
            (FtpMode::Passive, "APPE", Original),
        ] {
            let mut transfers = Transfers::default();
            announce(&mut transfers, mode, 5000);
            transfers.asked(&flow(7), command, Some("a b".to_owned()), at(0));
            transfers.begun(&flow(7), at(500));
            let with = |bytes| {
                let of = |direction, bytes| line(mode, 5000, 100, direction, bytes);
                let [own, other] = match direction {
                    Original => [of(Original, bytes), of(Reply, 40)],
                    Reply => [of(Reply, bytes), of(Original, 40)],
                };
                // Another port, and one that was there long before.
                let others =
                    [line(mode, 5001, 100, direction, 7), line(mode, 5000, 9, direction, 8)];
                [own, other, others[0], others[1]]
            };
            assert_eq!(transfers.measure(&with(1000), at(1000)), []);
            let view = &transfers.views(at(1000))[0];
            assert_eq!((view.mode, view.result), (Some(mode), FtpResult::Running));
            assert_eq!((view.bytes, view.seconds, view.rate), (1000, 0.5, 2000), "{command}");

            let ended = transfers.ended(&flow(7), 226, at(1500));
            assert_eq!(ended, Some(format!("{command} a b: complete")));
            assert_eq!(transfers.measure(&with(1100), at(2000)), [], "this pass began before");
            let settled = transfers.measure(&with(1200), at(3000));
            assert_eq!((settled[0].bytes, settled[0].seconds, settled[0].rate), (1200, 1.0, 1200));
            assert_eq!((settled[0].result, settled[0].reply), (FtpResult::Complete, Some(226)));
            assert_eq!(transfers.measure(&with(9999), at(9000)), [], "it is settled");
            assert_eq!(transfers.last(7, at(9000)).map(|it| it.bytes), Some(1200));
        }
    }

    #[test]
    fn what_was_refused_leaves_its_connection_to_the_next() {
        let mut transfers = Transfers::default();
        announce(&mut transfers, FtpMode::Passive, 5000);
        transfers.asked(&flow(7), "RETR", Some("missing".to_owned()), at(0));
        transfers.ended(&flow(7), 550, at(10));
        transfers.asked(&flow(7), "RETR", Some("there".to_owned()), at(20));
        transfers.begun(&flow(7), at(30));
        transfers.ended(&flow(7), 426, at(40));
        transfers.measure(&[line(FtpMode::Passive, 5000, 100, Direction::Reply, 77)], at(50));
        let views = transfers.views(at(50));
        let told: Vec<_> = views.iter().map(|it| (it.result, it.bytes)).collect();
        assert_eq!(told, [(FtpResult::Refused, 0), (FtpResult::Aborted, 77)]);
    }

    #[test]
    fn pipelined_commands_get_the_ports_in_their_order() {
        let mut transfers = Transfers::default();
        for file in ["a", "b"] {
            transfers.asked(&flow(7), "RETR", Some(file.to_owned()), at(0));
        }
        for port in [5001, 5002] {
            announce(&mut transfers, FtpMode::Passive, port);
        }
        let lines = [5001, 5002]
            .map(|port| line(FtpMode::Passive, port, 100, Direction::Reply, u64::from(port)));
        transfers.measure(&lines, at(50));
        let bytes: Vec<_> = transfers.views(at(50)).iter().map(|it| it.bytes).collect();
        assert_eq!(bytes, [5001, 5002]);
    }

    #[test]
    fn the_end_of_a_session_cuts_its_transfers_off_and_lists_are_bounded() {
        let mut transfers = Transfers::default();
        for _ in 0..WAITING + 5 {
            transfers.asked(&flow(7), "LIST", None, at(0));
        }
        let cut = transfers.over(&flow(7), at(5));
        assert_eq!((cut.len(), cut[0].as_str()), (WAITING, "LIST: cut-off"));
        assert!(transfers.sessions.is_empty());
        for number in 0..KEPT as u32 + 5 {
            transfers.asked(&flow(number), "LIST", None, at(0));
            transfers.ended(&flow(number), 226, at(5));
        }
        assert_eq!(transfers.views(at(9)).len(), KEPT);
        // Whose flow no pass has met is complete without.
        assert_eq!(transfers.give_up(at(20_000)).len(), 0);
        assert_eq!(transfers.give_up(at(31_000)).len(), KEPT);
    }
}
