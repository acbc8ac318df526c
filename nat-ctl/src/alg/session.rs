//! One control flow: segments in, commands out.
//!
//! Invariant: the commands of a segment come in the order in which they must take effect, and a
//! byte is read once. What has been read before only passes through the edit list again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Command, Emit, Segment,
    dialogue::{Dialogue, Facts},
    expect::Gateway,
    flow::{ControlFlow, Side},
    image::{self, ImageError},
    line::Line,
    opening::Promise,
    pinhole::Pinholes,
    refusal::{DropReason, End, ForeignAddress},
    stream::{Arrival, Stream},
};

mod announce;
mod change;
mod lines;

/// The engine of one control flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    flow: ControlFlow,
    foreign: ForeignAddress,
    client: Stream,
    server: Stream,
    dialogue: Dialogue,
    pinholes: Pinholes,
    /// What the inside end has been made to announce in a line that has not ended.
    promise: Option<Promise>,
    end: Option<End>,
}

/// A line, and where it lies in its stream.
struct Placed<'a> {
    side: Side,
    line: &'a Line,
    /// Number of its first byte.
    start: u32,
}

/// Nothing was read: the line needs an edit, and there is no room for one.
struct NoRoom;

impl Session {
    /// A control flow from its SYN on.
    pub fn new(flow: ControlFlow, foreign: ForeignAddress) -> Session {
        Session {
            flow,
            foreign,
            client: Stream::new(Side::Client),
            server: Stream::new(Side::Server),
            dialogue: Dialogue::default(),
            pinholes: Pinholes::default(),
            promise: None,
            end: None,
        }
    }

    /// A control flow that is joined in its middle, at the start of a line, and is taken to have
    /// behaved as FTP so far.
    pub fn joined(flow: ControlFlow, foreign: ForeignAddress) -> Session {
        Session { dialogue: Dialogue::joined(), ..Session::new(flow, foreign) }
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
        let old = match self.stream_mut(side).arrival(seq, payload.len()) {
            Arrival::Read(old) => old,
            Arrival::Gap => return vec![Command::Drop { side, reason: DropReason::Gap }],
        };
        let mut out = Vec::new();
        let ended = self.end;
        let before = *self.stream(side).corrections();
        let read = self.read(side, payload.get(old..).unwrap_or_default(), gateway, &mut out);
        self.stream_mut(side).advance(read);
        let corrections = *self.stream(side).corrections();
        if corrections != before {
            out.push(Command::SetCorrections { side, corrections });
        }
        let taken = payload.get(..old + read);
        match taken.filter(|taken| !taken.is_empty() || payload.is_empty()) {
            Some(taken) => out.push(Command::Emit(self.emit(segment, taken))),
            None => out.push(Command::Drop { side, reason: DropReason::EditsFull }),
        }
        if let Some(end) = self.end.filter(|_| ended.is_none()) {
            out.push(Command::EndInspection(end));
        }
        out
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
        let promised = side == self.flow.inside && self.promise.is_some();
        let reads = self.end.is_none() && !promised && self.dialogue.has_begun();
        self.stream(side).line_starts().filter(|_| reads)
    }

    /// A line of `side` starts at `seq`, and everything before it has left. Where some of that was
    /// not read, for an agent has died over it, reading goes on there, and no reply is expected to
    /// what has been asked. Whether it is so.
    pub fn resume_at(&mut self, side: Side, seq: u32) -> bool {
        let missed = self.stream_mut(side).skip_to(seq);
        if missed {
            self.dialogue.lose();
            if side == self.flow.inside {
                // Its port goes with the sweep.
                self.promise = None;
            }
        }
        missed
    }

    /// The control flow is over. What it has announced and nobody has used goes with it.
    pub fn on_flow_end(&mut self, gateway: &mut dyn Gateway) -> Vec<Command> {
        if let Some(promise) = self.promise.take() {
            self.release(promise.port, gateway);
        }
        self.pinholes.revoke_all().into_iter().map(Command::Unexpect).collect()
    }

    /// The ends of the flow.
    pub fn flow(&self) -> &ControlFlow {
        &self.flow
    }

    /// What users see of the dialogue.
    pub fn facts(&self) -> Facts {
        self.dialogue.facts()
    }

    /// Why lines are no longer read; `None` while they are.
    pub fn ended(&self) -> Option<End> {
        self.end
    }

    /// The state for a successor. At most [`nat_common::journal::JOURNAL_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        image::encode(self)
    }

    /// The state that a predecessor has left.
    pub fn from_bytes(bytes: &[u8]) -> Result<Session, ImageError> {
        image::decode(bytes)
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

    /// Reads new bytes, and says how many of them may pass.
    fn read(
        &mut self,
        side: Side,
        fresh: &[u8],
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> usize {
        let mut read = 0;
        while self.end.is_none() {
            let Some(rest) = fresh.get(read..).filter(|rest| !rest.is_empty()) else { break };
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
            let done = match length {
                Some(_) => self.complete(&placed, gateway, out),
                None => self.incomplete(&placed, gateway),
            };
            if let Err(NoRoom) = done {
                return read;
            }
            match length {
                Some(_) => self.stream_mut(side).line.end(bytes),
                None => self.stream_mut(side).line.extend(bytes),
            }
            read += bytes.len();
        }
        fresh.len()
    }
}
