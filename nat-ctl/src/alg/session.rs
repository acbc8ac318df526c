//! One control flow: segments in, commands out.
//!
//! Invariant: the commands of a segment come in the order in which they must take effect, and a
//! byte is read once. What has been read before only passes through the edit list again.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use nat_common::{sequence::Corrections, watch::Watch};
use serde::{Deserialize, Serialize};

use super::{
    Command, Emit, Segment,
    dialogue::{Dialogue, Facts},
    expect::{ExpectationKey, Gateway},
    flow::{ControlFlow, Side},
    image::{self, ImageError},
    line::{Line, LineState},
    pinhole::Pinholes,
    policy::Policy,
    records::Next,
    refusal::{DropReason, End},
    stream::{Arrival, Reading, Stream},
};

mod announce;
mod change;
mod lines;
mod strict;

/// The type of the first record of a TLS client (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// The engine of one control flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    flow: ControlFlow,
    /// That of the agent that reads, not of the one that has begun.
    #[serde(skip)]
    policy: Arc<Policy>,
    client: Stream,
    server: Stream,
    dialogue: Dialogue,
    pinholes: Pinholes,
    /// Why nothing is read for good.
    end: Option<End>,
}

/// How far reading has come, counted from the first byte that had not been read.
struct Progress {
    /// How many bytes may pass.
    passes: usize,
    /// Where the next one is to be read; ahead of what is there, within a record.
    next: usize,
}

/// A line, and where it lies in its stream.
struct Placed<'a> {
    side: Side,
    line: &'a Line,
    /// Number of its first byte.
    start: u32,
}

/// Why reading stops before a line.
enum Halt {
    /// The line needs an edit, and there is no room for one. Nothing of it was read.
    NoRoom,
    /// The session is over.
    Reset,
}

impl Session {
    /// A control flow from its SYN on.
    pub fn new(flow: ControlFlow, policy: Arc<Policy>) -> Session {
        Session {
            flow,
            policy,
            client: Stream::new(Side::Client),
            server: Stream::new(Side::Server),
            dialogue: Dialogue::default(),
            pinholes: Pinholes::default(),
            end: None,
        }
    }

    /// A control flow that is joined in its middle, at the start of a line, and is taken to have
    /// behaved as FTP so far.
    pub fn joined(flow: ControlFlow, policy: Arc<Policy>) -> Session {
        Session { dialogue: Dialogue::joined(), ..Session::new(flow, policy) }
    }

    /// A control flow that is joined anywhere, and is taken to have behaved as FTP so far: nothing is read
    /// of either side before the end of the line that is under way.
    pub fn picked_up(flow: ControlFlow, policy: Arc<Policy>) -> Session {
        let mut session = Session::joined(flow, policy);
        for side in [Side::Client, Side::Server] {
            session.stream_mut(side).line = LineState::within(side);
        }
        session
    }

    /// A line of `side` starts with this byte, and what stood before it was read by another agent: a command
    /// of the client may wait for its reply.
    pub fn reads_on(&mut self, side: Side, line: u32) {
        let stream = self.stream_mut(side);
        stream.line.restart();
        stream.starts_at(line);
        self.dialogue.miss();
    }

    /// Where the next line of `side` starts, if it is not under way.
    pub fn line_starts(&self, side: Side) -> Option<u32> {
        self.stream(side).line_starts()
    }

    /// The stream of `side` starts with this byte: the number of its SYN, and one. Without it the
    /// first segment that is seen counts as the start.
    pub fn starts_at(&mut self, side: Side, first: u32) {
        self.stream_mut(side).starts_at(first);
    }

    /// A segment with payload, as its sender sent it. The commands are to be carried out in order.
    pub fn on_segment(&mut self, segment: &Segment<'_>, gateway: &mut dyn Gateway) -> Vec<Command> {
        let Segment { side, seq, payload, .. } = *segment;
        if let Some(ack) = segment.ack {
            self.stream_mut(side.other()).acknowledge(ack);
        }
        if self.ended() == Some(End::Reset) {
            return vec![self.reset(segment)];
        }
        let (ended, watched) = (self.ended(), self.watches());
        let old = loop {
            match self.stream_mut(side).arrival(seq, payload.len()) {
                Arrival::Read(old) => break old,
                Arrival::Gap => return vec![Command::Drop { side, reason: DropReason::Gap }],
                Arrival::Lost => self.stop(End::Encrypted),
            }
        };
        let mut out = Vec::new();
        let before = *self.stream(side).corrections();
        let fresh = payload.get(old..).unwrap_or_default();
        let reset = self.reset(segment);
        let Progress { passes, next } = self.read(side, fresh, gateway, &mut out);
        self.stream_mut(side).advance(next);
        let corrections = *self.stream(side).corrections();
        if corrections != before {
            out.push(Command::SetCorrections { side, corrections });
        }
        if self.ended() != ended {
            out.push(self.ended().map_or(Command::ResumeInspection, Command::EndInspection));
        }
        for ((side, watch), (_, before)) in self.watches().into_iter().zip(watched) {
            if watch != before {
                out.push(Command::Watch { side, watch });
            }
        }
        if self.end == Some(End::Reset) {
            out.push(reset);
            return out;
        }
        let taken = payload.get(..old + passes);
        match taken.filter(|taken| !taken.is_empty() || payload.is_empty()) {
            Some(taken) => out.push(Command::Emit(self.emit(segment, taken))),
            None => out.push(Command::Drop { side, reason: DropReason::EditsFull }),
        }
        out
    }

    /// How what `side` sends is shifted.
    pub fn corrections(&self, side: Side) -> &Corrections {
        self.stream(side).corrections()
    }

    /// Whether every byte of `side` before `seq` has been read, so that what stands there (the end
    /// of the stream) overtakes nothing.
    pub fn has_read(&self, side: Side, seq: u32) -> bool {
        self.stream(side).has_read(seq)
    }

    /// Where `side` goes on, if a line starts there: from there on a harmless line
    /// ([`nat_common::harmless`]) may leave before it is read. `None` until both ends have said what
    /// they begin with, and once lines are no longer read.
    pub fn resolved(&self, side: Side) -> Option<u32> {
        let promised = self.stream(side).promise.is_some();
        // A line that ends a session of strict mode must not leave before it is read.
        let waits = promised || self.policy.strict.is_some();
        let reads = self.ended().is_none() && !waits && self.dialogue.has_begun();
        self.stream(side).line_starts().filter(|_| reads)
    }

    /// A line of `side` starts at `seq`, and everything before it has left. Where some of that was
    /// not read, for an agent has died over it, reading goes on there, and no reply is expected to
    /// what has been asked. Whether it is so.
    pub fn resume_at(&mut self, side: Side, seq: u32) -> bool {
        let missed = self.stream_mut(side).skip_to(seq);
        if missed {
            self.dialogue.lose();
        }
        missed
    }

    /// Lines of the client up to `seq` have passed, and some may not be known: then one of them may be a
    /// passive command, whose reply must not count as one that nobody has asked for.
    pub fn passed_without(&mut self, seq: u32) {
        if !self.has_read(Side::Client, seq) {
            self.dialogue.miss();
        }
    }

    /// The control flow is over. What it has announced and nobody has used goes with it.
    pub fn on_flow_end(&mut self, gateway: &mut dyn Gateway) -> Vec<Command> {
        for side in [Side::Client, Side::Server] {
            if let Some(promise) = self.stream_mut(side).promise.take() {
                self.give_back(side, promise.port, gateway);
            }
        }
        let gone = self.pinholes.revoke_all();
        self.take_back(gone).collect()
    }

    /// Takes pinholes back, with those that the other addresses of the server have beside them.
    fn take_back(&self, keys: Vec<ExpectationKey>) -> impl Iterator<Item = Command> + use<> {
        let twins: Vec<ExpectationKey> = keys.into_iter().flat_map(|key| self.twins(key)).collect();
        twins.into_iter().map(Command::Unexpect)
    }

    /// A pinhole, and the same for each other address that the server may dial from.
    fn twins(&self, key: ExpectationKey) -> impl Iterator<Item = ExpectationKey> {
        let dials = key.from == self.flow.server.ip();
        let others = self.others().iter().filter(move |_| dials);
        std::iter::once(key).chain(others.map(move |from| ExpectationKey { from: *from, ..key }))
    }

    /// The other addresses of the server.
    fn others(&self) -> &[IpAddr] {
        self.policy.others(self.flow.server.ip())
    }

    /// The addresses that an end may announce as its own.
    fn own(&self, side: Side) -> Vec<IpAddr> {
        let public = Some(self.flow.seen(side).ip()).filter(|_| self.flow.is_inside(side));
        let others = self.others().iter().copied().filter(|_| side == Side::Server);
        std::iter::once(self.flow.address(side)).chain(public).chain(others).collect()
    }

    /// The ends of the flow.
    pub fn flow(&self) -> &ControlFlow {
        &self.flow
    }

    /// How many connections it has announced that are not known to be over.
    pub fn pinholes(&self) -> usize {
        self.pinholes.len()
    }

    /// What users see of the dialogue.
    pub fn facts(&self) -> Facts {
        self.dialogue.facts()
    }

    /// Why lines are not read; `None` while those of both sides are.
    pub fn ended(&self) -> Option<End> {
        let records = |stream: &Stream| matches!(stream.reading, Reading::Records(_));
        let encrypted = records(&self.client) || records(&self.server);
        self.end.or(encrypted.then_some(End::Encrypted))
    }

    /// Whether it is encrypted, and lines may come again: its records are followed.
    pub fn is_followed(&self) -> bool {
        self.end.is_none() && self.ended().is_some()
    }

    /// The data plane has passed records of `side` on without the engine, and the next one starts at
    /// `boundary`.
    pub fn followed(&mut self, side: Side, boundary: u32) {
        self.stream_mut(side).followed(boundary);
    }

    /// The state for a successor. At most [`nat_common::journal::JOURNAL_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        image::encode(self)
    }

    /// The state that a predecessor has left. What it was asked for is not part of that.
    pub fn from_bytes(bytes: &[u8], policy: Arc<Policy>) -> Result<Session, ImageError> {
        Ok(Session { policy, ..image::decode(bytes)? })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.client.is_sound() && self.server.is_sound()
    }

    fn stream(&self, side: Side) -> &Stream {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn stream_mut(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn emit(&self, segment: &Segment<'_>, taken: &[u8]) -> Emit {
        let Segment { side, seq, .. } = *segment;
        let corrections = self.stream(side).corrections();
        let (start, bytes) = self.stream(side).outside(seq, taken);
        let whole = taken.len() == segment.payload.len();
        let urgent = segment.urgent.filter(|_| whole).and_then(|urgent| {
            let at = corrections.map_seq(seq.wrapping_add(u32::from(urgent)));
            u16::try_from(at.wrapping_sub(start)).ok()
        });
        Emit {
            side,
            seq: start,
            ack: segment.ack.map(|ack| self.stream(side.other()).corrections().map_ack(ack)),
            payload: Bytes::from(bytes),
            fin: segment.fin && whole,
            urgent,
        }
    }

    /// Both ends are told that it is over. What the receiver expects is what has not been read; had it
    /// less, it would ask for the RST again (RFC 5961, 3.2).
    fn reset(&self, segment: &Segment<'_>) -> Command {
        let (side, back) = (segment.side, self.stream(segment.side.other()));
        let stream = self.stream(side);
        let seq = stream.corrections().map_seq(stream.at(0));
        Command::Reset { side, seq, ack: segment.ack.map(|ack| back.corrections().map_ack(ack)) }
    }

    fn watches(&mut self) -> [(Side, Watch); 2] {
        [(Side::Client, self.client.watch()), (Side::Server, self.server.watch())]
    }

    /// Both sides send records from here on, if they did not before.
    fn encrypt(&mut self) {
        self.client.encrypt();
        self.server.encrypt();
    }

    fn stop(&mut self, end: End) {
        self.end = Some(end);
        self.client.stop();
        self.server.stop();
    }

    /// Reads new bytes.
    fn read(
        &mut self,
        side: Side,
        fresh: &[u8],
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Progress {
        let mut read = 0;
        while let Some(rest) = fresh.get(read..).filter(|rest| !rest.is_empty()) {
            let next = match &mut self.stream_mut(side).reading {
                Reading::Lines => None,
                Reading::Records(records) => Some(records.next(rest)),
                Reading::Nothing => Some(Next::Record { here: rest.len(), ahead: 0 }),
            };
            match next {
                None if self.begins_encrypted(side, rest) && self.is_denied_encryption() => {
                    self.break_off(gateway, out);
                    break;
                }
                None if self.begins_encrypted(side, rest) => match self.dialogue.has_spoken() {
                    true => self.client.encrypt(),
                    false => self.encrypt(),
                },
                None => match self.read_line(side, read, rest, gateway, out) {
                    Ok(length) => read += length,
                    Err(Halt::NoRoom | Halt::Reset) => break,
                },
                Some(Next::Record { here, ahead }) => {
                    read += here;
                    if ahead > 0 {
                        return Progress { passes: read, next: read + ahead };
                    }
                }
                Some(Next::Line) => {
                    if side == Side::Client {
                        self.dialogue.resume();
                    }
                    self.stream_mut(side).resume(side);
                }
                Some(Next::Unknown) => self.stop(match self.dialogue.has_spoken() {
                    true => End::Encrypted,
                    false => End::NotFtp,
                }),
            }
        }
        Progress { passes: read, next: read }
    }

    /// Whether the client speaks TLS from here on: to a port where encryption comes first, or before
    /// the answer to its AUTH has come. No command starts like that.
    fn begins_encrypted(&self, side: Side, bytes: &[u8]) -> bool {
        side == Side::Client
            && bytes.first() == Some(&TLS_HANDSHAKE)
            && self.client.line.is_at_start()
            && self.dialogue.may_encrypt()
    }

    /// Reads a line, or the beginning of one, and says how long it is.
    fn read_line(
        &mut self,
        side: Side,
        read: usize,
        rest: &[u8],
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Result<usize, Halt> {
        let stream = self.stream(side);
        let length = stream.line.length(rest);
        let bytes = length.and_then(|length| rest.get(..length)).unwrap_or(rest);
        let line = match length {
            Some(_) => stream.line.ended_by(bytes),
            None => stream.line.with(bytes),
        };
        let start = stream.at(read).wrapping_sub(line.passed as u32);
        let placed = Placed { side, line: &line, start };
        self.swallow(side, bytes);
        match length {
            Some(_) => self.complete(&placed, bytes, gateway, out)?,
            None => self.incomplete(&placed, bytes, gateway, out)?,
        }
        match length {
            Some(_) => self.stream_mut(side).line.end(bytes),
            None => self.stream_mut(side).line.extend(bytes),
        }
        Ok(bytes.len())
    }
}
