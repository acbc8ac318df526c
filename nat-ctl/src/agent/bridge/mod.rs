//! Segments of control connections between the wire, the FTP engine and the data plane.
//!
//! Invariant: what a segment announces is in force before it leaves, in this order: expectation,
//! corrections, journal, segment. Whatever fails before the last step keeps the segment back, and
//! its sender repeats it; the engine gives the same answer then.
//!
//! ```text
//!   punt -> Segment -> session record -> engine (new, or resumed from its journal) -> commands
//!                                                                                       |
//!        send <- remember <- correct <- expect <----------------------------------------+
//! ```
//!
//! A copy of a line that has passed goes the same way, but nothing is sent, and what the engine has
//! read is kept at the end of the round. After each segment the data plane is told from where on
//! harmless lines need not wait ([`nat_common::vouched`]).

mod life;
mod range;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use nat_common::{
    flow::Rewrite,
    punt::PuntHeader,
    reason::Reason,
    rule::RuleId,
    sequence::Corrections,
    session::{Session, SessionId, Side},
    tcp::wire,
};

use range::Ranges;

use super::{
    control::{self, Identity},
    history::History,
    journal,
    kernel::Kernel,
    outgoing::{Outgoing, most_payload},
    report::{self, Said},
    reset,
    segment::Segment,
    send::SendError,
};
use crate::{
    alg::{self, Command, DropReason},
    output::FtpTransferView,
    plane::PlaneError,
};

/// Least payload that a packet is cut to where the way out takes no larger one: every link takes 68
/// bytes, which leaves 8 behind the longest IP header (RFC 791, 3.2).
const LEAST_CUT: usize = 8;

/// Every control connection that the agent has seen a segment of.
#[derive(Debug)]
pub struct Bridge {
    engine: alg::Sessions,
    tracked: BTreeMap<SessionId, Tracked>,
    /// Seconds that an expectation waits for its connection.
    expectation: u32,
    /// Who may use passive ranges.
    ranges: Ranges,
    /// Where the sweep goes on.
    swept: Option<SessionId>,
    /// Sessions of which copies have been read since their state was kept.
    unsaved: Vec<SessionId>,
    /// What is to be said when the segment in hand has left.
    said: Vec<(alg::ControlFlow, Said)>,
    /// What was said.
    history: History,
}

/// What the bridge knows of a session beside the engine.
#[derive(Debug)]
struct Tracked {
    identity: Identity,
    /// As the engine wants them, by [`Side::index`].
    corrections: [Corrections; 2],
    /// Whether they are in the map.
    in_force: bool,
    /// Which sides have ended their stream.
    ended: [bool; 2],
    /// Whether a copy has been read since the state was kept.
    unsaved: bool,
    /// Which sides have not come to where the data plane is since the state is a predecessor's.
    resumed: [bool; 2],
}

/// A segment with all that belongs to it.
struct Passing<'a> {
    id: SessionId,
    side: Side,
    record: &'a Session,
    segment: &'a Segment<'a>,
    rewrite: Rewrite,
    now: u32,
    /// Whether it has passed already, and is only read.
    is_copy: bool,
    /// Whether it starts a line, and the data plane knows of nothing that is missing before it.
    is_at_line: bool,
}

impl Bridge {
    /// No session yet. An expectation lives `expectation` seconds.
    pub fn new(policy: alg::Policy, expectation: u32) -> Self {
        let engine = alg::Sessions::new(policy);
        Self {
            engine,
            tracked: BTreeMap::new(),
            expectation,
            ranges: Ranges::default(),
            swept: None,
            unsaved: vec![],
            said: vec![],
            history: History::default(),
        }
    }

    /// Sessions to come by these rules are held to strict mode, or not.
    pub fn hold(&mut self, rules: &BTreeMap<RuleId, bool>) {
        self.engine.hold(rules);
    }

    /// A segment that the data plane has handed over, at `now` (of the monotonic clock).
    pub fn on_punt(
        &mut self,
        kernel: &mut impl Kernel,
        header: &PuntHeader,
        packet: &[u8],
        now: Duration,
    ) {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let passed = self.pass(kernel, header, packet, seconds);
        self.tell(now);
        if let Err(reason) = passed {
            tracing::debug!(
                "ftp session {}: drop a segment of {} bytes: {reason}",
                header.session().number(),
                packet.len()
            );
            kernel.count(reason);
        }
    }

    /// Says what has happened, and keeps it.
    pub fn tell(&mut self, now: Duration) {
        for (flow, said) in self.said.drain(..) {
            said.of(&flow);
            self.history.note(&flow, &said, now);
        }
    }

    /// What a session is transferring, or has last.
    pub fn last_transfer(&self, session: u32, now: Duration) -> Option<FtpTransferView> {
        self.history.last_transfer(session, now)
    }

    /// What has happened lately.
    pub fn history(&mut self) -> &mut History {
        &mut self.history
    }

    fn pass(
        &mut self,
        kernel: &mut impl Kernel,
        header: &PuntHeader,
        packet: &[u8],
        now: u32,
    ) -> Result<(), Reason> {
        let (id, side) = (header.session(), header.side());
        let is_copy = header.is_copy();
        let segment = if is_copy { Segment::parse_copy(packet) } else { Segment::parse(packet) }?;
        // A SYN with payload (RFC 7413) comes again without.
        if segment.has(wire::SYN) {
            return Err(Reason::AlgMalformed);
        }
        let record = kernel.session(id).map_err(unknown)?.ok_or(Reason::AlgUnknown)?;
        let key = control::key(&record, side);
        if segment.source() != (key.src(), key.sport())
            || segment.destination() != (key.dst(), key.dport())
        {
            return Err(Reason::AlgUnknown);
        }
        let rewrite = control::rewrite(&record, side);
        let is_at_line = header.is_at_line();
        let (record, segment) = (&record, &segment);
        let passing = Passing { id, side, record, segment, rewrite, now, is_copy, is_at_line };
        let passed = self.take(kernel, &passing);
        self.vouch(kernel, &passing, passed);
        passed
    }

    fn take(&mut self, kernel: &mut impl Kernel, passing: &Passing<'_>) -> Result<(), Reason> {
        self.track(kernel, passing)?;
        self.follow(kernel, passing.id)?;
        self.rejoin(passing);
        if passing.segment.payload().is_empty() {
            self.pass_empty(kernel, passing)?;
        } else {
            self.pass_payload(kernel, passing)?;
        }
        self.note_end(kernel, passing);
        Ok(())
    }

    /// Tells the engine of the records that have passed without it.
    fn follow(&mut self, kernel: &mut impl Kernel, id: SessionId) -> Result<(), Reason> {
        let session = self.engine.find(id.number()).ok_or(Reason::AlgUnknown)?;
        if session.ended() != Some(alg::End::Encrypted) {
            return Ok(());
        }
        for side in [Side::Originator, Side::Responder] {
            if let Some(boundary) = kernel.watched(id, side).map_err(unknown)?.next_record() {
                session.followed(side.into(), boundary);
            }
        }
        Ok(())
    }

    /// Tells the data plane from where on harmless lines need not wait: from where each side stands,
    /// if a line starts there. What could not be read changes nothing; where anything else has failed
    /// every line waits. What a predecessor has vouched for stands until all before it is known.
    fn vouch(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
        passed: Result<(), Reason>,
    ) {
        if passed == Err(Reason::AlgGap) {
            return;
        }
        let Passing { id, record, .. } = *passing;
        let resumed = self.tracked.get(&id).map_or([false; 2], |tracked| tracked.resumed);
        let session = self.engine.find(id.number()).filter(|_| passed.is_ok());
        for (side, resumed) in [Side::Originator, Side::Responder].into_iter().zip(resumed) {
            if !resumed {
                let to = session.as_ref().and_then(|session| session.resolved(side.into()));
                kernel.vouch(id, record, side, to);
            }
        }
    }

    /// Keeps the states of sessions of which only copies were read, after a round of them. Should the
    /// agent die before, its successor goes on at the next line that the data plane knows the start
    /// of.
    pub fn settle(&mut self, kernel: &mut impl Kernel) {
        for id in std::mem::take(&mut self.unsaved) {
            if let Ok(Some(record)) = kernel.session(id)
                && let Some(tracked) = self.tracked.get(&id)
                && tracked.unsaved
                && tracked.identity == Identity::of(&record)
            {
                self.remember(kernel, id, &record);
            }
        }
    }

    /// FIN or RST without payload: nothing to read, but it must not overtake payload.
    fn pass_empty(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
    ) -> Result<(), Reason> {
        let Passing { id, side, segment, .. } = *passing;
        let session = self.engine.find(id.number()).ok_or(Reason::AlgUnknown)?;
        if segment.has(wire::FIN) && !session.has_read(side.into(), segment.sequence()) {
            return Err(Reason::AlgGap);
        }
        self.put_in_force(kernel, id)?;
        let tracked = self.tracked.get(&id).ok_or(Reason::AlgUnknown)?;
        let [sent, acknowledged] = tracked.of(side);
        send(kernel, passing, &Outgoing::shifted(segment, &passing.rewrite, sent, acknowledged))
    }

    fn pass_payload(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
    ) -> Result<(), Reason> {
        let Passing { id, side, segment, .. } = *passing;
        let read = alg::Segment {
            side: side.into(),
            seq: segment.sequence(),
            ack: segment.has(wire::ACK).then(|| segment.acknowledgement()),
            payload: segment.payload(),
            fin: segment.has(wire::FIN),
            urgent: segment.urgent(),
        };
        let commands = self
            .engine
            .on_segment(id.number(), &read, kernel, passing.now)
            .ok_or(Reason::AlgUnknown)?;
        for command in commands {
            self.carry_out(kernel, passing, command)?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
        command: Command,
    ) -> Result<(), Reason> {
        let Passing { id, record, now, .. } = *passing;
        let flow = control::flow(id, record);
        match command {
            Command::Expect(expectation) => {
                let key = control::expectation_key(&flow, &expectation.key);
                let expires = now.saturating_add(self.expectation);
                let value = control::expectation(&expectation, id, record, expires);
                // Without it only the data connection fails; the dialogue can go on.
                match kernel.expect(&key, &value) {
                    Ok(()) => self.said.push((flow, Said::Expected(expectation))),
                    Err(error) => report::failed(&error),
                }
            }
            Command::Unexpect(key) => unexpect(kernel, &flow, &key),
            Command::SetCorrections { side, corrections } => {
                let tracked = self.tracked.get_mut(&id).ok_or(Reason::AlgUnknown)?;
                if let Some(place) = tracked.corrections.get_mut(Side::from(side).index()) {
                    *place = corrections;
                    tracked.in_force = false;
                }
            }
            Command::Emit(_) if passing.is_copy => {
                self.put_in_force(kernel, id)?;
                let tracked = self.tracked.get_mut(&id).ok_or(Reason::AlgUnknown)?;
                if !std::mem::replace(&mut tracked.unsaved, true) {
                    self.unsaved.push(id);
                }
            }
            Command::Emit(emit) => {
                self.put_in_force(kernel, id)?;
                self.remember(kernel, id, record);
                let tracked = self.tracked.get(&id).ok_or(Reason::AlgUnknown)?;
                let [_, acknowledged] = tracked.of(emit.side.into());
                let outgoing = Outgoing {
                    segment: passing.segment,
                    rewrite: &passing.rewrite,
                    acknowledged,
                    sequence: emit.seq,
                    acknowledgement: emit.ack.unwrap_or_default(),
                    payload: &emit.payload,
                    fin: emit.fin,
                    urgent: emit.urgent,
                };
                send(kernel, passing, &outgoing)?;
            }
            Command::Drop { side: _, reason } => {
                return Err(match reason {
                    DropReason::Gap => Reason::AlgGap,
                    DropReason::EditsFull => Reason::AlgEditsFull,
                });
            }
            Command::Reset { side: _, seq, ack } => {
                if let Some(tracked) = self.tracked.get_mut(&id).filter(|it| !it.is_over()) {
                    tracked.ended = [true; 2];
                    self.said.push((flow, Said::Over));
                }
                self.remember(kernel, id, record);
                // Of a copy the receiver has the bytes.
                let passed = if passing.is_copy { passing.segment.payload().len() } else { 0 };
                let receiver = seq.wrapping_add(passed as u32);
                let reason = reset(kernel, passing, receiver, ack.unwrap_or_default());
                // A copy is of a packet that was not dropped.
                return if passing.is_copy { Ok(()) } else { Err(reason) };
            }
            Command::Log(event) => self.said.push((flow, Said::Event(event))),
            Command::Watch { side, watch } => {
                // Without it the data plane goes on handing over what it did before.
                if let Err(error) = kernel.watch(id, side.into(), watch) {
                    report::failed(&error);
                }
            }
            Command::EndInspection(end) => {
                self.said.push((flow, Said::Ended(end)));
                if end == alg::End::Encrypted {
                    self.ranges.open(kernel, id, record);
                }
            }
            Command::ResumeInspection => {
                self.said.push((flow, Said::Resumed));
                self.ranges.close(kernel, id);
            }
        }
        Ok(())
    }

    /// Brings the corrections into the map, unless they are there.
    fn put_in_force(&mut self, kernel: &mut impl Kernel, id: SessionId) -> Result<(), Reason> {
        let tracked = self.tracked.get_mut(&id).ok_or(Reason::AlgUnknown)?;
        if !tracked.in_force {
            kernel.correct(id, &tracked.corrections).map_err(|error| {
                report::failed(&error);
                Reason::AlgBusy
            })?;
            tracked.in_force = true;
        }
        Ok(())
    }

    /// Without a journal only a successor is worse off.
    fn remember(&mut self, kernel: &mut impl Kernel, id: SessionId, record: &Session) {
        let Some(session) = self.engine.find(id.number()) else { return };
        if let Some(tracked) = self.tracked.get_mut(&id) {
            tracked.unsaved = false;
        }
        match session.to_bytes() {
            Ok(image) => {
                if let Err(error) = kernel.remember(id, &journal::seal(&image, record)) {
                    report::failed(&error);
                }
            }
            Err(error) => tracing::warn!("{}: {error}", report::name(session.flow())),
        }
    }
}

impl Tracked {
    fn new(record: &Session) -> Self {
        let sides = [Side::Originator, Side::Responder];
        Self {
            identity: Identity::of(record),
            corrections: sides.map(|side| *record.corrections(side)),
            in_force: true,
            ended: [false; 2],
            unsaved: false,
            resumed: [false; 2],
        }
    }

    fn is_over(&self) -> bool {
        self.ended == [true; 2]
    }

    /// Corrections of what `side` sends, and of what it acknowledges.
    fn of(&self, side: Side) -> [&Corrections; 2] {
        let [originator, responder] = &self.corrections;
        match side {
            Side::Originator => [originator, responder],
            Side::Responder => [responder, originator],
        }
    }
}

fn unexpect(kernel: &mut impl Kernel, flow: &alg::ControlFlow, key: &alg::ExpectationKey) {
    if let Err(error) = kernel.unexpect(&control::expectation_key(flow, key)) {
        report::failed(&error);
    }
}

/// Sends a segment in pieces that the receiver takes, and smaller ones where the way out does not.
fn send(
    kernel: &mut impl Kernel,
    passing: &Passing<'_>,
    outgoing: &Outgoing<'_>,
) -> Result<(), Reason> {
    let [originator, responder] = passing.record.mss;
    let mss = match passing.side {
        Side::Originator => responder,
        Side::Responder => originator,
    };
    let mut most = most_payload(mss, passing.segment.options().len());
    loop {
        let packets = outgoing.packets(most)?;
        match packets.iter().try_for_each(|packet| kernel.send(packet)) {
            Ok(()) => return Ok(()),
            Err(SendError::TooBig) if most > LEAST_CUT => most = (most / 2).max(LEAST_CUT),
            Err(error) => {
                report::not_sent(passing.id, &error);
                return Err(Reason::AlgSend);
            }
        }
    }
}

/// Tells both ends that the connection is over, and its flow to go soon. The segment goes no further,
/// and counts as dropped for that.
fn reset(
    kernel: &mut impl Kernel,
    passing: &Passing<'_>,
    sequence: u32,
    acknowledgement: u32,
) -> Reason {
    let Passing { id, record, segment, rewrite, .. } = *passing;
    let back = Rewrite::answer(control::key(record, passing.side));
    let packets =
        [reset::to_receiver(&rewrite, sequence, acknowledgement), reset::to_sender(segment, &back)];
    for packet in packets.iter() {
        if let Err(error) = kernel.send(packet) {
            report::not_sent(id, &error);
        }
    }
    kernel.close(record);
    Reason::AlgReset
}

fn unknown(error: PlaneError) -> Reason {
    report::failed(&error);
    Reason::AlgUnknown
}
