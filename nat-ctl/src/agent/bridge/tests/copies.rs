//! Dialogues with harmless lines that pass at once beside the same dialogues without: both ends get
//! the same bytes, and the same connections are expected.

use std::collections::{BTreeMap, BTreeSet};

use nat_common::harmless::{self, LONGEST};
use proptest::prelude::*;

use super::*;

const CLIENT_FIRST: u32 = u32::MAX - 60;
const SERVER_FIRST: u32 = 5000;

const COMMANDS: [&[u8]; 15] = [
    b"PASV\r\n",
    b"EPSV\r\n",
    b"RETR a.bin\r\n",
    b"NOOP\r\n",
    b"PORT 10,0,1,2,162,71\r\n",
    b"PORT 10,0,1,2,4,1\r\n",
    b"EPRT |1|10.0.1.2|5000|\r\n",
    b"USER anonymous\r\n",
    b"CWD /a/b\r\n",
    b"REIN\r\n",
    b"LIST\r\n",
    b"NOOP x\n",
    b"\xff\xf4\xff\xf2ABOR\r\n",
    b"TYPE I\r\nPASV\r\n",
    b"STAT\r\n",
];

const REPLIES: [&[u8]; 12] = [
    b"200 ok\r\n",
    b"150 opening\r\n",
    b"226 done\r\n",
    b"227 Entering Passive Mode (198,51,100,7,156,64).\r\n",
    b"229 Extended (|||40001|)\r\n",
    b"425 no\r\n",
    b"230 in\r\n",
    b"250-first\r\n",
    b"250 last\r\n",
    b"150 opening\r\n226 done\r\n",
    b"227 (198,51,100,7,156,65)\r\n",
    b"331 and\r\n",
];

/// What happens next.
#[derive(Clone, Debug)]
enum Turn {
    /// A line of a side, by its number.
    Say(Side, usize),
    /// The same in two segments.
    Cut(Side, usize, usize),
    /// Everything from the segment that is so far back on, in one.
    Again(Side, usize),
    /// The segment that is so far back, alone.
    Repeat(Side, usize),
    /// The agent reads what is in the ring.
    Beat,
    /// The agent ends, and another one begins.
    Succeed,
    /// It dies, with what it has read of copies.
    Die,
}

fn turns(deadly: bool) -> impl Strategy<Value = Vec<Turn>> {
    let side = || prop_oneof![Just(Side::Originator), Just(Side::Responder)];
    let turn = prop_oneof![
        12 => (side(), 0..32usize).prop_map(|(side, line)| Turn::Say(side, line)),
        2 => (side(), 0..32usize, 1..20usize).prop_map(|(side, line, at)| Turn::Cut(side, line, at)),
        2 => (side(), 0..4usize).prop_map(|(side, back)| Turn::Again(side, back)),
        2 => (side(), 0..4usize).prop_map(|(side, back)| Turn::Repeat(side, back)),
        2 => Just(Turn::Beat),
        1 => Just(if deadly { Turn::Die } else { Turn::Succeed }),
    ];
    prop::collection::vec(turn, 1..40)
}

/// One end: what it has sent, in which segments, and what it has got.
struct End {
    first: u32,
    sent: Vec<u8>,
    segments: Vec<(usize, usize)>,
    /// By distance from the other end's first byte, as counted here.
    got: BTreeMap<u32, u8>,
}

impl End {
    fn new(first: u32) -> Self {
        Self { first, sent: vec![], segments: vec![], got: BTreeMap::new() }
    }

    /// How many bytes it has without a hole.
    fn whole(&self) -> u32 {
        self.got.keys().zip(0..).take_while(|(at, index)| **at == *index).count() as u32
    }
}

/// Both ends, the data plane's rule and the agent.
struct Scene {
    ends: [End; 2],
    bridge: Bridge,
    list: List,
    ring: Vec<(PuntHeader, Vec<u8>)>,
    copies: bool,
    copied: usize,
    expected: BTreeSet<String>,
    dropped: Vec<Reason>,
}

impl Scene {
    fn new(copies: bool) -> Self {
        let ends = [End::new(CLIENT_FIRST), End::new(SERVER_FIRST)];
        let (bridge, list) = (bridge(), List::new());
        let mut scene = Self {
            ends,
            bridge,
            list,
            ring: vec![],
            copies,
            copied: 0,
            expected: BTreeSet::new(),
            dropped: vec![],
        };
        scene.say(Side::Responder, b"220 hello\r\n");
        scene.say(Side::Originator, b"USER anonymous\r\n");
        scene
    }

    fn say(&mut self, side: Side, text: &[u8]) {
        let end = &mut self.ends[side.index()];
        end.segments.push((end.sent.len(), text.len()));
        end.sent.extend_from_slice(text);
        let (at, length) = end.segments[end.segments.len() - 1];
        self.arrive(side, at, length);
    }

    fn again(&mut self, side: Side, back: usize, whole: bool) {
        let end = &self.ends[side.index()];
        let Some(&(at, length)) = end.segments.iter().rev().nth(back) else { return };
        self.arrive(side, at, if whole { end.sent.len() - at } else { length });
    }

    /// A segment arrives: it passes with a copy, or waits for the agent, which that wakes.
    fn arrive(&mut self, side: Side, at: usize, length: usize) {
        let [this, that] = [side.index(), side.other().index()];
        let end = &self.ends[this];
        let payload = &end.sent[at..at + length];
        let seq = end.first.wrapping_add(at as u32);
        let ack = self.ends[that].first.wrapping_add(end.whole());
        let packet = match side {
            Side::Originator => Packet { ack, ..client(seq, payload) },
            Side::Responder => Packet { ack, ..server(seq, payload) },
        };
        let bytes = packet.bytes();
        let header = PuntHeader::new(ID, side, bytes.len() as u32, 2);
        let record = self.list.record.as_mut().unwrap();
        let header = if record.vouched[this] != Vouched::up_to(seq).word() || !self.copies {
            header
        } else if is_harmless(side, payload) {
            let next = seq.wrapping_add(length as u32);
            record.vouched[this] = Vouched::up_to(next).word();
            header.copy()
        } else {
            header.at_line()
        };
        self.ring.push((header, bytes.clone()));
        if !header.is_copy() {
            return self.read();
        }
        self.copied += 1;
        let record = *record;
        let segment = Segment::parse(&bytes).unwrap();
        let rewrite = control::rewrite(&record, side);
        let sent = record.corrections(side);
        let shifted = Outgoing::shifted(&segment, &rewrite, sent, record.corrections(side.other()));
        for packet in shifted.packets(usize::MAX).unwrap() {
            self.deliver(&packet);
        }
    }

    /// The agent reads all that is in the ring.
    fn read(&mut self) {
        for (header, packet) in std::mem::take(&mut self.ring) {
            self.bridge.on_punt(&mut self.list, &header, &packet, Duration::from_secs(1000));
        }
        for step in self.list.take() {
            match step {
                Step::Send(packet) => self.deliver(&packet),
                Step::Expect(key, value) => {
                    self.expected.insert(format!(
                        "{key:?} {:?} {:?}",
                        value.address(),
                        value.port()
                    ));
                }
                Step::Unexpect(key) => {
                    let gone = format!("{key:?} ");
                    self.expected.retain(|expected| !expected.starts_with(&gone));
                }
                Step::Claim(_)
                | Step::Release(_)
                | Step::Correct
                | Step::Watch(..)
                | Step::Range(..)
                | Step::Remember
                | Step::Close => {}
                Step::Count(reason) => self.dropped.push(reason),
            }
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        let segment = Segment::parse(packet).unwrap();
        let (to, from) = match segment.destination().0 {
            SERVER => (Side::Responder, Side::Originator),
            _ => (Side::Originator, Side::Responder),
        };
        let start = segment.sequence().wrapping_sub(self.ends[from.index()].first);
        for (at, byte) in (start..).zip(segment.payload()) {
            let before = self.ends[to.index()].got.insert(at, *byte);
            assert!(
                before.is_none_or(|before| before == *byte),
                "byte {at} for {to:?} has changed"
            );
        }
    }

    fn take_turn(&mut self, turn: &Turn) {
        match *turn {
            Turn::Say(side, number) => self.say(side, line(side, number)),
            Turn::Cut(side, number, at) => {
                let text = line(side, number);
                let (head, tail) = text.split_at(at.min(text.len() - 1));
                self.say(side, head);
                self.say(side, tail);
            }
            Turn::Again(side, back) => self.again(side, back, true),
            Turn::Repeat(side, back) => self.again(side, back, false),
            Turn::Beat => {
                self.read();
                self.bridge.settle(&mut self.list);
            }
            Turn::Succeed => {
                self.bridge.settle(&mut self.list);
                self.bridge = bridge();
            }
            Turn::Die => {
                self.read();
                self.bridge = bridge();
            }
        }
    }

    /// Plays all of it; what both ends have got.
    fn play(&mut self, turns: &[Turn]) -> [Vec<u8>; 2] {
        for turn in turns {
            self.take_turn(turn);
        }
        self.read();
        let got = |end: &End| end.got.values().copied().collect();
        [got(&self.ends[0]), got(&self.ends[1])]
    }
}

fn line(side: Side, number: usize) -> &'static [u8] {
    match side {
        Side::Originator => COMMANDS[number % COMMANDS.len()],
        Side::Responder => REPLIES[number % REPLIES.len()],
    }
}

fn is_harmless(side: Side, payload: &[u8]) -> bool {
    let mut line = [0; LONGEST];
    let Some(room) = line.get_mut(..payload.len()) else { return false };
    room.copy_from_slice(payload);
    harmless::is_harmless(side, &line, payload.len())
}

proptest! {
    #[test]
    fn lines_that_pass_at_once_change_nothing_for_anybody(turns in turns(false)) {
        let (mut with, mut without) = (Scene::new(true), Scene::new(false));
        let got = without.play(&turns);
        // No room for another edit: its sender would repeat the line.
        prop_assume!(without.dropped.is_empty());
        prop_assert_eq!(with.play(&turns), got);
        prop_assert_eq!(with.dropped, []);
        prop_assert_eq!(with.expected, without.expected);
    }

    #[test]
    fn an_agent_that_dies_over_copies_loses_no_byte(turns in turns(true)) {
        let (mut with, mut without) = (Scene::new(true), Scene::new(false));
        let got = without.play(&turns);
        prop_assume!(without.dropped.is_empty());
        prop_assert_eq!(with.play(&turns), got);
        prop_assert_eq!(with.dropped, []);
    }
}

#[test]
fn of_a_transfer_only_what_announces_waits() {
    let mut scene = Scene::new(true);
    for (side, text) in [
        (Side::Responder, &b"331 password\r\n"[..]),
        (Side::Originator, b"PASV\r\n"),
        (Side::Responder, REPLIES[3]),
        (Side::Originator, b"RETR a\r\n"),
        (Side::Responder, b"150 opening\r\n"),
        (Side::Responder, b"226 done\r\n"),
        (Side::Originator, COMMANDS[4]),
        (Side::Responder, b"200 ok\r\n"),
        (Side::Originator, b"RETR b\r\n"),
        (Side::Responder, b"150 opening\r\n"),
        (Side::Responder, b"226 done\r\n"),
    ] {
        scene.say(side, text);
    }
    assert_eq!((scene.copied, scene.ring.len()), (9, 4));
    // What follows a line that grew is counted on from its new end.
    assert!(scene.ends[1].got.len() > scene.ends[0].sent.len());
    scene.read();
    assert_eq!(scene.bridge.open().next().unwrap().0.facts().file.as_deref(), Some("b"));
    assert!(!scene.list.journal.is_empty());
}

#[test]
fn what_follows_a_line_that_waits_waits_too() {
    let mut scene = Scene::new(true);
    scene.say(Side::Originator, b"NOOP\r\n");
    assert_eq!(scene.copied, 1);
    // Nobody reads: the agent has stopped.
    let record = scene.list.record.as_ref().unwrap().vouched;
    scene.ends[0].sent.extend_from_slice(COMMANDS[4]);
    scene.say(Side::Originator, b"NOOP\r\n");
    assert_eq!((scene.copied, &scene.dropped[..]), (1, &[Reason::AlgGap][..]));
    assert_eq!(scene.list.record.as_ref().unwrap().vouched, record);
}

#[test]
fn every_line_waits_before_the_greeting_and_once_nothing_is_read() {
    let (mut bridge, mut list) = (bridge(), List::new());
    let vouched = |list: &List| list.record.unwrap().vouched.map(Vouched::from_word);
    punt(
        &mut bridge,
        &mut list,
        Side::Originator,
        &Packet { ack: 5000, ..client(1000, b"USER a\r\n") },
    );
    assert_eq!(vouched(&list), [Vouched::NONE; 2]);
    punt(&mut bridge, &mut list, Side::Responder, &server(5000, b"220 Welcome, friend\n"));
    assert_eq!(vouched(&list), [Vouched::up_to(1008), Vouched::up_to(5020)]);
    punt(&mut bridge, &mut list, Side::Originator, &client(1008, b"AUTH T"));
    assert_eq!(vouched(&list), [Vouched::NONE, Vouched::up_to(5020)]);
    // A gap says nothing of what came before it.
    punt(&mut bridge, &mut list, Side::Responder, &server(5021, b"x\r\n"));
    assert_eq!(vouched(&list), [Vouched::NONE, Vouched::up_to(5020)]);
    punt(&mut bridge, &mut list, Side::Originator, &client(1014, b"LS\r\n"));
    assert_eq!(vouched(&list), [Vouched::up_to(1018), Vouched::up_to(5020)]);
    punt(&mut bridge, &mut list, Side::Responder, &server(5020, b"331 x\r\n234 go on\r\n"));
    assert_eq!(vouched(&list), [Vouched::NONE; 2]);
}
