//! The FTP engine between two ends that cut, repeat, lose and reorder what they send.

use std::{collections::BTreeSet, sync::Arc};

use nat_common::{
    journal::JOURNAL_BYTES,
    sequence::{Corrections, Edit},
};
use nat_ctl::alg::{
    Command, ControlFlow, Emit, End, Expectation, ExpectationKey, ForeignAddress, Policy, Segment,
    Session, Side, Strict, Translation, pinhole::PINHOLES,
};

use super::{
    cursor::Cursor,
    leak,
    ports::Ports,
    script::{self, Fate, Piece, Step},
};

/// First numbers of the streams: both cross a border of the sequence space within a few lines.
const FIRST: [u32; 2] = [0u32.wrapping_sub(40), (1u32 << 31) - 40];

// Bits of the first byte of a script.
const SERVER_INSIDE: u8 = 1;
const JOINED: u8 = 2;
const PICKED_UP: u8 = 4;
const STRICT: u8 = 8;
const FOREIGN_PASSES: u8 = 16;
const SIX: u8 = 32;

/// Runs a script.
pub fn run(data: &[u8]) {
    let mut cursor = Cursor(data);
    let setup = cursor.byte();
    let flow = flow(setup);
    let policy = policy(setup);
    let session = match setup & (JOINED | PICKED_UP) {
        0 => Session::new(flow, Arc::clone(&policy)),
        JOINED => Session::joined(flow, Arc::clone(&policy)),
        _ => Session::picked_up(flow, Arc::clone(&policy)),
    };
    let is_from_line = setup & PICKED_UP == 0;
    Lab::new(session, policy, is_from_line).run(&script::steps(cursor.0));
}

/// A flow for the setup of a script.
pub fn flow(setup: u8) -> ControlFlow {
    let inside = if setup & SERVER_INSIDE == 0 { Side::Client } else { Side::Server };
    let [client, server, public] = match (inside, setup & SIX != 0) {
        (Side::Client, false) => ["10.0.1.2:40021", "203.0.113.10:21", "203.0.113.1:40021"],
        (Side::Server, false) => ["203.0.113.20:40021", "10.0.2.2:21", "203.0.113.1:21"],
        (Side::Client, true) => {
            ["[2001:db8::5]:40021", "[2001:db8:9::9]:21", "[2001:db8::5]:40021"]
        }
        (Side::Server, true) => ["[2001:db8:9::9]:40021", "[2001:db8::5]:21", "[2001:db8::5]:21"],
    }
    .map(|end| end.parse().expect("an endpoint"));
    ControlFlow { session: 7, inside, client, server, public, client_public: None }
}

/// A policy for the setup of a script.
pub fn policy(setup: u8) -> Arc<Policy> {
    let foreign = match setup & FOREIGN_PASSES {
        0 => ForeignAddress::Refuse,
        _ => ForeignAddress::Pass,
    };
    let strict = (setup & STRICT != 0).then(|| Strict { denied: vec!["SITE".to_owned()] });
    Arc::new(Policy { foreign, strict, ..Policy::default() })
}

/// A direction, from its sender to its receiver.
#[derive(Default)]
struct Wire {
    /// What the sender has written.
    stream: Vec<u8>,
    /// Where the sender goes on with what it repeats, once something of it was not taken.
    repeats: bool,
    /// What is held up: where it starts, and how long it is.
    held: Vec<(usize, usize)>,
    /// What has left, as the receiver places it.
    left: Vec<Option<u8>>,
    /// How much of that is whole.
    received: usize,
    /// The shift, as the data plane has been told it.
    shift: Corrections,
    /// Whether an edit has been forgotten: what is older leaves no more.
    forgot: bool,
}

impl Wire {
    fn take(&mut self, offset: usize, bytes: &[u8], may_leave_holes: bool) {
        assert!(offset <= self.left.len() || may_leave_holes, "a hole before offset {offset}");
        let end = offset + bytes.len();
        if self.left.len() < end {
            self.left.resize(end, None);
        }
        for (place, byte) in self.left.iter_mut().skip(offset).zip(bytes) {
            assert!(place.is_none_or(|known| known == *byte), "what has left has changed");
            *place = Some(*byte);
        }
        while self.left.get(self.received).is_some_and(Option::is_some) {
            self.received += 1;
        }
    }

    fn whole(&self) -> Vec<u8> {
        self.left.iter().map_while(|byte| *byte).collect()
    }
}

/// The engine, and what is around it.
struct Lab {
    session: Session,
    policy: Arc<Policy>,
    ports: Ports,
    wires: [Wire; 2],
    /// Pinholes that stand.
    open: BTreeSet<ExpectationKey>,
    /// Ports that pinholes were ever made for: a claim of theirs is theirs.
    announced: BTreeSet<u16>,
    /// What is acknowledged where receivers are silent.
    silent: Option<[u32; 2]>,
    /// Whether all lines were read so far, from their first byte on.
    is_read: bool,
}

impl Lab {
    fn new(mut session: Session, policy: Arc<Policy>, is_read: bool) -> Lab {
        session.starts_at(Side::Client, FIRST[0]);
        session.starts_at(Side::Server, FIRST[1]);
        Lab {
            session,
            policy,
            ports: Ports::default(),
            wires: Default::default(),
            open: BTreeSet::new(),
            announced: BTreeSet::new(),
            silent: None,
            is_read,
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Segment(piece) => self.say(piece),
                Step::Deliver => self.deliver(),
                Step::Ports => self.ports.none = !self.ports.none,
                Step::Full => self.ports.full = !self.ports.full,
                Step::Silent => {
                    self.silent = match self.silent {
                        Some(_) => None,
                        None => Some([Side::Client, Side::Server].map(|side| self.received(side))),
                    };
                }
            }
        }
        self.end();
    }

    /// The side writes bytes, which leave behind what was sent, or with what has to be sent again.
    fn say(&mut self, piece: &Piece) {
        let side = piece.side;
        let read = self.read(side);
        let wire = &mut self.wires[side as usize];
        let from = if wire.repeats { read } else { wire.stream.len() };
        let from = from.saturating_sub(piece.back);
        wire.stream.extend_from_slice(&piece.bytes);
        let length = wire.stream.len() - from;
        match piece.fate {
            Fate::Arrives => self.send(side, from, length, piece.fin, piece.urgent),
            Fate::Lost => {}
            Fate::Held => wire.held.push((from, length)),
        }
    }

    fn deliver(&mut self) {
        for side in [Side::Client, Side::Server] {
            for (from, length) in std::mem::take(&mut self.wires[side as usize].held) {
                self.send(side, from, length, false, None);
            }
        }
    }

    fn send(&mut self, side: Side, from: usize, length: usize, fin: bool, urgent: Option<u16>) {
        if length == 0 {
            return;
        }
        let own = side as usize;
        let payload = self.wires[own].stream[from..from + length].to_vec();
        let acknowledged = match self.silent {
            Some(received) => received[side.other() as usize],
            None => self.received(side.other()),
        };
        let segment = Segment {
            side,
            seq: FIRST[own].wrapping_add(from as u32),
            ack: Some(acknowledged),
            payload: &payload,
            fin,
            urgent,
        };
        let ended = self.session.ended();
        let (mut heir, mut ports) = (self.heir(), self.ports.clone());
        let commands = self.session.on_segment(&segment, &mut self.ports);
        assert_eq!(heir.on_segment(&segment, &mut ports), commands, "a successor does the same");
        assert_eq!(heir.to_bytes().ok(), self.session.to_bytes().ok());
        let ends = commands.iter().filter(|command| {
            matches!(command, Command::Emit(_) | Command::Drop { .. } | Command::Reset { .. })
        });
        assert_eq!(ends.count(), 1, "a segment has one end: {commands:#?}");
        for command in &commands {
            self.carry_out(&segment, from, ended, command);
        }
        assert!(self.open.len() <= PINHOLES, "{} pinholes", self.open.len());
        self.is_read &= ended.is_none() && self.session.ended().is_none();
        self.check_streams();
        let wire = &mut self.wires[own];
        wire.repeats = !self.session.has_read(side, end_of(own, wire.stream.len()));
    }

    fn carry_out(
        &mut self,
        segment: &Segment<'_>,
        from: usize,
        ended: Option<End>,
        command: &Command,
    ) {
        match command {
            Command::Expect(made) => {
                assert_ne!(ended, Some(End::NotFtp), "{made:?}");
                assert_ne!(ended, Some(End::Reset), "{made:?}");
                self.check_expectation(segment.side, made);
                self.open.insert(made.key);
                self.announced.insert(made.key.to.port());
            }
            Command::Unexpect(key) => assert!(self.open.remove(key), "{key:?} is not there"),
            Command::SetCorrections { side, corrections } => {
                let wire = &mut self.wires[*side as usize];
                let first = |shift: &Corrections| shift.edits().first().map(Edit::start);
                let before = first(&wire.shift);
                wire.forgot |= before.is_some() && before != first(corrections);
                wire.shift = *corrections;
            }
            Command::Emit(emit) => self.take(segment, from, emit),
            Command::Drop { side, .. } | Command::Reset { side, .. } => {
                assert_eq!(*side, segment.side);
            }
            Command::Watch { .. }
            | Command::Log(_)
            | Command::EndInspection(_)
            | Command::ResumeInspection => {}
        }
    }

    /// What leaves is where the data plane would put it, and is what has left before.
    fn take(&mut self, segment: &Segment<'_>, from: usize, emit: &Emit) {
        let side = segment.side;
        let back = &self.wires[side.other() as usize];
        assert_eq!(emit.ack, segment.ack.map(|ack| back.shift.map_ack(ack)));
        assert!(!emit.fin || segment.fin, "an end that nobody has sent");
        assert!(emit.urgent.is_none() || segment.urgent.is_some());
        let ended = self.session.ended().is_some();
        let wire = &mut self.wires[side as usize];
        if !wire.forgot {
            assert_eq!(emit.seq, wire.shift.map_seq(end_of(side as usize, from)));
        }
        if !emit.payload.is_empty() {
            let offset = emit.seq.wrapping_sub(FIRST[side as usize]) as usize;
            wire.take(offset, &emit.payload, ended);
        }
    }

    /// An expectation is for the other end, of the sender's own address, and of a port that a whole line
    /// of the sender has named.
    fn check_expectation(&self, side: Side, made: &Expectation) {
        let flow = self.session.flow();
        assert!(made.key.to.port() >= 1024, "{made:?}");
        assert_eq!(made.key.from, flow.address(side.other()), "{made:?}");
        let own = match made.translation {
            Translation::Inbound(inside) | Translation::Turned { to: inside, .. } => inside,
            Translation::Outbound(public) => {
                assert_eq!(public, flow.public.ip());
                made.key.to
            }
        };
        assert_eq!(own.ip(), flow.address(side), "{made:?}");
        let stream = &self.wires[side as usize].stream;
        let named =
            stream.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        assert!(named.into_iter().any(|line| names(line, own.port())), "{made:?} was not named");
    }

    /// The session that a successor would go on with.
    fn heir(&self) -> Session {
        let image = self.session.to_bytes().expect("a session fits its record");
        assert!(image.len() <= JOURNAL_BYTES);
        Session::from_bytes(&image, Arc::clone(&self.policy)).expect("its own record")
    }

    /// No inside address outside, and what the receiver has acknowledged is what was read.
    fn check_streams(&self) {
        if !self.is_read {
            return;
        }
        for side in [Side::Client, Side::Server] {
            let wire = &self.wires[side as usize];
            let left = wire.whole();
            assert_eq!(left.len(), wire.left.len(), "a hole");
            let acknowledged = wire.shift.map_ack(end_of(side as usize, wire.received));
            assert_eq!(acknowledged, end_of(side as usize, self.read(side)), "{side:?}");
            let flow = self.session.flow();
            if flow.is_translated(side) {
                let found = leak::find(side, &left, &flow.address(side).to_string());
                assert_eq!(found, None, "an inside address has left");
            }
        }
    }

    /// With the flow go its pinholes, and the ports of lines that have not ended.
    fn end(mut self) {
        for command in self.session.on_flow_end(&mut self.ports) {
            match command {
                Command::Unexpect(key) => assert!(self.open.remove(&key), "{key:?} is not there"),
                other => panic!("{other:?} at the end"),
            }
        }
        assert!(self.open.is_empty(), "{:?} is left", self.open);
        let lost: Vec<&u16> = self.ports.claimed.difference(&self.announced).collect();
        assert!(lost.is_empty(), "claimed for nothing: {lost:?}");
    }

    /// What the receiver of a side has, in its own numbers.
    fn received(&self, side: Side) -> u32 {
        end_of(side as usize, self.wires[side as usize].received)
    }

    /// How much of a stream has been read.
    fn read(&self, side: Side) -> usize {
        let own = side as usize;
        let read = |at: &usize| self.session.has_read(side, end_of(own, *at));
        (0..=self.wires[own].stream.len()).rev().find(read).unwrap_or(0)
    }
}

fn end_of(wire: usize, offset: usize) -> u32 {
    FIRST[wire].wrapping_add(offset as u32)
}

/// Whether a line has the port in it, as one number or as two that follow each other.
fn names(line: &[u8], port: u16) -> bool {
    let numbers: Vec<u32> = line
        .split(|byte| !byte.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| {
            digits.iter().fold(0u32, |number, digit| {
                number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
            })
        })
        .collect();
    let port = u32::from(port);
    numbers.contains(&port)
        || numbers
            .windows(2)
            .any(|pair| pair[0].saturating_mul(256).saturating_add(pair[1]) == port)
}
