//! One control flow: segments in, commands out.
//!
//! Invariant: the commands of a segment come in the order in which they must take effect, and a
//! byte is read once. What has been read before only passes through the edit list again.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Command, Emit, Event, Segment,
    announcement::{self, Announcement, Reading, Stated},
    dialogue::{Dialogue, Effect, Facts},
    expect::{Expectation, ExpectationKey, Gateway, PortRequest, Translation},
    flow::{ControlFlow, Side},
    image::{self, ImageError},
    keyword::{self, Form, Verb},
    line::Line,
    opening::{self, Promise},
    pinhole::{Kind, PinholeId, Pinholes},
    refusal::{DropReason, End, ForeignAddress, Refusal},
    stream::{Arrival, Stream},
};

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
        match payload.get(..old + read).filter(|taken| !taken.is_empty()) {
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
            let line = stream.line.with(bytes);
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

    /// Bytes of an argument whose new text has left already do not leave.
    fn swallow(&mut self, side: Side, bytes: &[u8]) {
        if side != self.flow.inside {
            return;
        }
        let Some(promise) = self.promise.as_mut().filter(|promise| promise.grows) else { return };
        let swallowed = promise.swallows(bytes);
        promise.grows = swallowed == bytes.len();
        if self.stream_mut(side).extend_edit(swallowed).is_err()
            && let Some(promise) = &mut self.promise
        {
            promise.grows = false;
        }
    }

    fn complete(
        &mut self,
        placed: &Placed<'_>,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Result<(), NoRoom> {
        let text = &placed.line.text;
        let reading = match placed.side {
            _ if placed.line.truncated => Reading::Nothing,
            Side::Client => announcement::of_command(text),
            Side::Server => announcement::of_reply(text),
        };
        if reading != Reading::Nothing && self.promise.is_none() {
            self.need_room(placed.side)?;
        }
        match placed.side {
            Side::Client => self.command(placed, reading, gateway, out),
            Side::Server => self.reply(placed, reading, gateway, out),
        }
        Ok(())
    }

    fn command(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) {
        let Some(command) = keyword::command(&placed.line.text) else { return };
        if self.dialogue.is_first_command() && command.name.is_none() {
            let tls = is_tls(&placed.line.text);
            self.end = Some(if tls { End::Encrypted } else { End::NotFtp });
            return;
        }
        let pinhole = self.announce(placed, reading, gateway, out);
        let replaced = match command.verb {
            Verb::Active(_) => self.pinholes.replaced(Kind::Active, pinhole),
            Verb::Passive => self.pinholes.replaced(Kind::Passive, None),
            Verb::Transfer => {
                self.pinholes.bind();
                Vec::new()
            }
            _ => Vec::new(),
        };
        out.extend(replaced.into_iter().map(Command::Unexpect));
        self.dialogue.command(&command, pinhole);
    }

    fn reply(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) {
        let reply = keyword::reply(&placed.line.text);
        if !self.dialogue.is_inside_other(reply) {
            self.announce(placed, reading, gateway, out);
        } else if reading != Reading::Nothing {
            // Text of another reply, perhaps one that repeats what a client was made to send
            // (VU#328867). It is never rewritten.
            out.push(refused(placed, Refusal::Unsolicited));
        }
        let gone = match self.dialogue.reply(reply) {
            Effect::None => Vec::new(),
            Effect::Revoke(pinhole) => self.pinholes.revoke(pinhole),
            Effect::RevokeAll => self.pinholes.revoke_all(),
            Effect::TransferDone => self.pinholes.transfer_done(),
            Effect::TransferFailed => {
                self.pinholes.transfer_failed();
                Vec::new()
            }
            Effect::Encrypted => {
                self.end = Some(End::Encrypted);
                self.pinholes.revoke_all()
            }
        };
        out.extend(gone.into_iter().map(Command::Unexpect));
    }

    /// Acts on what a complete line announces.
    fn announce(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Option<PinholeId> {
        let promise = match placed.side == self.flow.inside {
            true => self.promise.take(),
            false => None,
        };
        let (refusal, stated) = match reading {
            Reading::Nothing => match &promise {
                Some(_) => (Refusal::CutLine, None),
                None => return None,
            },
            Reading::Refused(refusal, stated) => (refusal, stated),
            Reading::Announced(found) => match self.permit(placed, &found, &promise, gateway) {
                Ok(public) => return Some(self.open(placed, &found, public, promise, out)),
                Err(refusal) => (refusal, found.stated),
            },
        };
        if let Some(promise) = &promise {
            self.release(promise.port, gateway);
        }
        if refusal != Refusal::ForeignAddress || self.foreign == ForeignAddress::Refuse {
            out.push(refused(placed, refusal));
        }
        let hidden =
            promise.is_some() || stated.is_some_and(|stated| self.hide(placed, &stated, gateway));
        if hidden {
            let line = keyword::masked(&placed.line.text);
            out.push(Command::Log(Event::LeakPrevented { side: placed.side, line }));
        }
        None
    }

    /// Whether the announcement may have its pinhole, and with which port outside.
    fn permit(
        &self,
        placed: &Placed<'_>,
        found: &Announcement,
        promise: &Option<Promise>,
        gateway: &mut dyn Gateway,
    ) -> Result<u16, Refusal> {
        let side = placed.side;
        if let Some(refusal) = self.dialogue.forbids(side) {
            return Err(refusal);
        }
        if let Some(stated) = &found.stated
            && !self.flow.is_own(side, stated.address)
        {
            return Err(Refusal::ForeignAddress);
        }
        if found.port < 1024 {
            return Err(Refusal::SystemPort);
        }
        if side != self.flow.inside {
            return Ok(found.port);
        }
        if let Some(promise) = promise {
            let kept = promise.is_kept_by(found) && promise.port != 0;
            return if kept { Ok(promise.port) } else { Err(Refusal::CutLine) };
        }
        let public = self.claim(Some(found.port), gateway).ok_or(Refusal::NoPublicPort)?;
        if self.change(placed, found, public).is_some_and(|change| change.at < placed.line.passed) {
            self.release(public, gateway);
            return Err(Refusal::CutLine);
        }
        Ok(public)
    }

    /// Makes the expectation, and puts the public address into the line.
    fn open(
        &mut self,
        placed: &Placed<'_>,
        found: &Announcement,
        public: u16,
        promise: Option<Promise>,
        out: &mut Vec<Command>,
    ) -> PinholeId {
        let (side, peer) = (placed.side, placed.side.other());
        let own = SocketAddrV4::new(self.flow.address(side), found.port);
        let from = self.flow.address(peer);
        let address = *self.flow.public.ip();
        let (to, translation) = match side == self.flow.inside {
            true => (SocketAddrV4::new(address, public), Translation::Inbound(own)),
            false => (own, Translation::Outbound(address)),
        };
        let key = ExpectationKey { from, to };
        let bound = side == Side::Server && self.dialogue.transfer_waits();
        let (id, oldest) = self.pinholes.add(key, Kind::of(found.form), bound);
        out.extend(oldest.map(Command::Unexpect));
        out.push(Command::Expect(Expectation { key, translation }));
        self.dialogue.announced(found.form);
        if side == self.flow.inside
            && promise.is_none()
            && let Some(change) = self.change(placed, found, public)
        {
            out.extend(self.apply(placed, change));
        }
        id
    }

    /// Puts the public address in the place of an inside one that will not be served. Whether it
    /// was one, and could be replaced.
    fn hide(&mut self, placed: &Placed<'_>, stated: &Stated, gateway: &mut dyn Gateway) -> bool {
        let inside = self.flow.address(self.flow.inside);
        if placed.side != self.flow.inside
            || stated.address != inside && !gateway.is_inside(stated.address)
            || stated.address == *self.flow.public.ip()
        {
            return false;
        }
        let text = stated.separator.write(*self.flow.public.ip());
        let change = Change::between(&placed.line.text, stated.span.start, stated.span.end, text);
        change.is_some_and(|change| {
            change.at >= placed.line.passed && self.apply(placed, change).is_some()
        })
    }

    /// What has to change in the line for it to announce the public address and port.
    fn change(&self, placed: &Placed<'_>, found: &Announcement, public: u16) -> Option<Change> {
        let address = *self.flow.public.ip();
        let same = found.stated.as_ref().is_none_or(|stated| stated.address == address);
        if placed.side != self.flow.inside || same && found.port == public {
            return None;
        }
        let line = placed.line;
        let text = found.rewritten(address, public);
        let change = Change::between(&line.text, found.span.start, found.span.end, text)?;
        if change.at >= line.passed {
            return Some(change);
        }
        // The verb has left as it was. What is behind it may still be in time.
        let own = [self.flow.address(placed.side), address];
        let argument = opening::find(placed.side, &line.text, own).and_then(|opening| {
            let span = opening.span(&line.text);
            Change::between(&line.text, span.start, span.end, opening.text(address, public))
        });
        Some(argument.unwrap_or(change))
    }

    fn apply(&mut self, placed: &Placed<'_>, change: Change) -> Option<Command> {
        let Change { at, old_len, text } = change;
        let mut after = placed.line.text.clone();
        after.splice(at..at + old_len, text.iter().copied());
        let start = placed.start.wrapping_add(at as u32);
        self.stream_mut(placed.side).edit(start, old_len, text).ok()?;
        Some(Command::Log(Event::Rewritten {
            side: placed.side,
            before: keyword::masked(&placed.line.text),
            after: keyword::masked(&after),
        }))
    }

    /// Looks at a line that does not end in its segment: an address that begins in it is replaced
    /// before the rest has come.
    fn incomplete(&mut self, placed: &Placed<'_>, gateway: &mut dyn Gateway) -> Result<(), NoRoom> {
        let Placed { side, line, start } = *placed;
        if side != self.flow.inside || self.promise.is_some() || line.truncated {
            return Ok(());
        }
        if side == Side::Server && self.dialogue.is_inside_other(keyword::reply(&line.text)) {
            return Ok(());
        }
        let public = *self.flow.public.ip();
        let own: [Ipv4Addr; 2] = [self.flow.address(side), public];
        let Some(opening) = opening::find(side, &line.text, own) else { return Ok(()) };
        if opening.at < line.passed {
            return Ok(());
        }
        self.need_room(side)?;
        let permitted = self.dialogue.forbids(side).or(opening.refusal).is_none();
        let claimed = permitted.then(|| self.claim(opening.port, gateway)).flatten();
        if opening.form == Form::Epsv && claimed.is_none() {
            return Ok(());
        }
        let announced = claimed.or(opening.port).unwrap_or(0);
        let mut promise = Promise {
            form: opening.form,
            at: opening.at as u16,
            port: claimed.unwrap_or(0),
            grows: false,
        };
        let span = opening.span(&line.text);
        promise.grows = opening.end.is_none() && span.end == line.text.len();
        let text = opening.text(public, announced);
        let start = start.wrapping_add(span.start as u32);
        match self.stream_mut(side).edit(start, span.len(), text) {
            Ok(()) => self.promise = Some(promise),
            Err(_) => self.release(promise.port, gateway),
        }
        Ok(())
    }

    fn need_room(&mut self, side: Side) -> Result<(), NoRoom> {
        if side != self.flow.inside || self.stream_mut(side).has_room() {
            Ok(())
        } else {
            Err(NoRoom)
        }
    }

    fn claim(&self, port: Option<u16>, gateway: &mut dyn Gateway) -> Option<u16> {
        let inside = self.flow.address(self.flow.inside);
        let (session, public) = (self.flow.session, *self.flow.public.ip());
        gateway.claim(&PortRequest { session, public, inside, port }).filter(|port| *port >= 1024)
    }

    fn release(&self, port: u16, gateway: &mut dyn Gateway) {
        if port != 0 {
            gateway.release(SocketAddrV4::new(*self.flow.public.ip(), port));
        }
    }
}

/// A replacement within a line, as small as it can be.
struct Change {
    at: usize,
    old_len: usize,
    text: Vec<u8>,
}

impl Change {
    /// `text` in the place of `start..end`, without what both have in common at their ends; at
    /// least one byte stays on each side, because an edit may not be empty.
    fn between(line: &[u8], start: usize, end: usize, text: Vec<u8>) -> Option<Change> {
        let old = line.get(start..end)?;
        if old == text || text.is_empty() {
            return None;
        }
        let most = old.len().min(text.len()).saturating_sub(1);
        let same = |(a, b): &(&u8, &u8)| a == b;
        let head = old.iter().zip(&text).take_while(same).count().min(most);
        let tail = old.iter().rev().zip(text.iter().rev()).take_while(same).count();
        let tail = tail.min(most - head);
        let text = text.get(head..text.len() - tail)?.to_vec();
        Some(Change { at: start + head, old_len: old.len() - head - tail, text })
    }
}

/// The first record of a TLS client: type handshake, major version 3 (RFC 8446, 5.1).
fn is_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16, 3])
}

fn refused(placed: &Placed<'_>, reason: Refusal) -> Command {
    let line = keyword::masked(&placed.line.text);
    Command::Log(Event::Refused { side: placed.side, reason, line })
}
