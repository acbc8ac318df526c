//! The order of writes, restarts and ends, with a list in the place of the kernel.

use std::collections::HashMap;

use nat_common::{
    flow::TCP,
    port::Port,
    record::Use,
    six::{Address6, Control6, Expectation6Key},
    watch::Watch,
};

use super::{segment::tests::packet, *};
use crate::agent::send::SendError;

const HERE: (Address6, u16) = ([1; 16], 40_000);
const THERE: (Address6, u16) = ([2; 16], 21);
const NOW: Duration = Duration::from_secs(100);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Expect(Expectation6Key, Expectation6),
    Unexpect(Expectation6Key),
    Keep(Control6),
    Close,
    Send(Vec<u8>),
    Count(Reason),
}

/// The first packet of a flow.
fn at(now: u32) -> Use {
    Use { now, bytes: 60, ..Use::default() }
}

/// The kernel as a list of what was asked of it, with one flow.
struct List {
    key: Flow6Key,
    flow: Option<Flow6>,
    kept: HashMap<Flow6Key, Control6>,
    journal: HashMap<SessionId, Vec<u8>>,
    watches: HashMap<Zone, Watch>,
    prefixes: Prefixes,
    steps: Vec<Step>,
}

impl Kernel for List {
    fn flow(&mut self, key: &Flow6Key) -> Result<Option<Flow6>, PlaneError> {
        Ok(self.flow.filter(|_| *key == self.key))
    }

    fn control(&mut self, key: &Flow6Key) -> Result<Option<Control6>, PlaneError> {
        Ok(self.kept.get(key).copied())
    }

    fn controls(&mut self) -> Result<Vec<(Flow6Key, Control6)>, PlaneError> {
        Ok(self.kept.iter().map(|(key, control)| (*key, *control)).collect())
    }

    fn keep(&mut self, key: &Flow6Key, control: &Control6) -> Result<(), PlaneError> {
        self.kept.insert(*key, *control);
        self.steps.push(Step::Keep(*control));
        Ok(())
    }

    fn watch(&mut self, _key: &Flow6Key, zone: Zone, watch: Watch) -> Result<(), PlaneError> {
        self.watches.insert(zone, watch);
        Ok(())
    }

    fn watched(&mut self, _key: &Flow6Key, zone: Zone) -> Result<Option<Watch>, PlaneError> {
        Ok(self.watches.get(&zone).copied())
    }

    fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    fn remember(&mut self, session: SessionId, state: &[u8]) -> Result<(), PlaneError> {
        self.journal.insert(session, state.to_vec());
        Ok(())
    }

    fn recall(&mut self, session: SessionId) -> Result<Option<Vec<u8>>, PlaneError> {
        Ok(self.journal.get(&session).cloned())
    }

    fn forget(&mut self, session: SessionId) -> Result<(), PlaneError> {
        self.journal.remove(&session);
        Ok(())
    }

    fn expect(&mut self, key: &Expectation6Key, value: &Expectation6) -> Result<(), PlaneError> {
        self.steps.push(Step::Expect(*key, *value));
        Ok(())
    }

    fn unexpect(&mut self, key: &Expectation6Key) -> Result<(), PlaneError> {
        self.steps.push(Step::Unexpect(*key));
        Ok(())
    }

    fn close(&mut self, _key: &Flow6Key) -> Result<(), PlaneError> {
        self.steps.push(Step::Close);
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        self.steps.push(Step::Send(packet.to_vec()));
        Ok(())
    }

    fn count(&mut self, reason: Reason) {
        self.steps.push(Step::Count(reason));
    }
}

/// Two ends, of which the client is on the side of `zone`, and the agent between them.
struct Line {
    bridge: Bridge,
    kernel: List,
    zone: Zone,
    sent: [u32; 2],
}

impl Line {
    fn new(zone: Zone) -> Self {
        Self::with(zone, alg::Policy::default())
    }

    fn with(zone: Zone, policy: alg::Policy) -> Self {
        let key = Flow6Key::new(zone, TCP, HERE.0, Port::new(HERE.1), THERE.0, Port::new(THERE.1));
        let flow = Flow6::new(zone, RuleId::new(3), at(90)).control();
        let kernel = List {
            key,
            flow: Some(flow),
            kept: HashMap::new(),
            journal: HashMap::new(),
            watches: HashMap::new(),
            prefixes: Prefixes::default(),
            steps: vec![],
        };
        Self { bridge: Bridge::new(policy, 30), kernel, zone, sent: [1000, 5000] }
    }

    fn say(&mut self, side: alg::Side, flags: u8, text: &[u8]) -> Vec<Step> {
        let (ends, numbers, zone) = match side {
            alg::Side::Client => ([HERE, THERE], self.sent, self.zone),
            alg::Side::Server => ([THERE, HERE], [self.sent[1], self.sent[0]], self.zone.other()),
        };
        let bytes = packet(ends, numbers, wire::ACK | flags, text);
        self.bridge.on_punt(&mut self.kernel, zone, &bytes, NOW);
        self.sent[side as usize] += text.len() as u32;
        std::mem::take(&mut self.kernel.steps)
    }

    fn client(&mut self, text: &str) -> Vec<Step> {
        self.say(alg::Side::Client, 0, text.as_bytes())
    }

    fn server(&mut self, text: &str) -> Vec<Step> {
        self.say(alg::Side::Server, 0, text.as_bytes())
    }

    fn greet(&mut self) {
        self.server("220 hello\r\n");
        self.client("USER anna\r\n");
        self.server("230 welcome\r\n");
    }

    /// What `EPRT |2|101:..|5000|` of the client lets in.
    fn announced(&self) -> Expectation6Key {
        let zone = self.zone.other();
        Expectation6Key::new(zone, TCP, THERE.0, HERE.0, Port::new(5000))
    }
}

/// The client's own address, as text.
fn eprt(port: u16) -> String {
    format!("EPRT |2|{}|{port}|\r\n", Ipv6Addr::from(HERE.0))
}

fn payload(step: &Step) -> &[u8] {
    match step {
        // Behind 40 bytes of IPv6, 32 of TCP.
        Step::Send(packet) => &packet[72..],
        other => panic!("not sent: {other:?}"),
    }
}

#[test]
fn an_announcement_is_let_in_then_kept_then_sent_on_unchanged() {
    for zone in [Zone::Inside, Zone::Outside] {
        let mut line = Line::new(zone);
        line.greet();
        let steps = line.client(&eprt(5000));
        let [Step::Expect(key, value), Step::Keep(kept), sent] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(*key, line.announced());
        assert_eq!((value.session(), value.rule()), (kept.session(), RuleId::new(3)));
        assert_eq!(value.expires(), 130);
        assert_eq!(payload(sent), eprt(5000).as_bytes());
        let steps = line.server("500 no\r\n");
        assert_eq!(steps[0], Step::Unexpect(line.announced()));
    }
}

#[test]
fn a_passive_port_is_let_in_for_who_has_asked() {
    let mut line = Line::new(Zone::Outside);
    line.greet();
    line.client("EPSV\r\n");
    let steps = line.server("229 here (|||6000|)\r\n");
    let wanted = Expectation6Key::new(Zone::Outside, TCP, HERE.0, THERE.0, Port::new(6000));
    assert!(matches!(steps[..], [Step::Expect(key, _), _, _] if key == wanted), "{steps:?}");
    let steps = line.server("229 again (|||6001|)\r\n");
    assert!(matches!(steps[..], [Step::Keep(_), Step::Send(_)]), "nobody has asked: {steps:?}");
}

#[test]
fn a_line_that_is_cut_is_let_in_before_its_last_byte_leaves() {
    let mut line = Line::new(Zone::Inside);
    line.greet();
    let text = eprt(5000);
    let mut got = vec![];
    for (at, byte) in text.bytes().enumerate() {
        let steps = line.client(&char::from(byte).to_string());
        let is_last = at + 1 == text.len();
        assert_eq!(matches!(steps[0], Step::Expect(..)), is_last, "byte {at}: {steps:?}");
        got.extend_from_slice(payload(steps.last().unwrap()));
    }
    assert_eq!(got, text.as_bytes());
}

#[test]
fn what_must_not_be_announced_passes_and_opens_nothing() {
    let mut line = Line::new(Zone::Inside);
    line.greet();
    for text in [
        "EPRT |2|2001:db8::99|5000|\r\n".to_owned(),
        eprt(22),
        "EPRT |1|10.0.0.1|5000|\r\n".to_owned(),
        "PORT 10,0,0,1,19,136\r\n".to_owned(),
        "EPRT |2|::ffff:10.0.0.1|5000|\r\n".to_owned(),
    ] {
        let steps = line.client(&text);
        let [Step::Keep(_), sent] = &steps[..] else { panic!("{text}: {steps:?}") };
        assert_eq!(payload(sent), text.as_bytes());
    }
}

#[test]
fn strict_mode_ends_a_session_that_names_another_host() {
    let policy = alg::Policy { strict: Some(alg::Strict::default()), ..alg::Policy::default() };
    let mut line = Line::with(Zone::Inside, policy);
    line.greet();
    for _ in 0..2 {
        let steps = line.client("EPRT |2|2001:db8::99|5000|\r\n");
        let [Step::Send(there), Step::Send(back), Step::Close, Step::Count(reason)] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!(*reason, Reason::AlgReset);
        assert!([there, back].iter().all(|reset| reset[53] & wire::RST != 0));
    }
}

#[test]
fn a_successor_goes_on_at_the_next_line() {
    let mut line = Line::new(Zone::Inside);
    line.greet();
    line.client("EPSV\r\n");
    let before = line.kernel.kept[&line.kernel.key];
    let mut next = Bridge::new(alg::Policy::default(), 30);
    next.adopt(&mut line.kernel);
    assert_eq!(next.open().count(), 1);
    line.bridge = next;
    // Its question was read by an agent that is gone.
    let steps = line.server("229 here (|||6000|)\r\n");
    let [Step::Expect(_, value), Step::Keep(kept), _] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((value.session(), kept.session()), (before.session(), before.session()));
    let steps = line.client(&eprt(5000));
    assert!(matches!(steps[0], Step::Expect(..)), "{steps:?}");
    // A session that is new gets a number that nobody has had.
    line.kernel.flow = Some(Flow6::new(Zone::Inside, RuleId::NONE, at(99)).control());
    line.sent = [1, 1];
    let steps = line.server("220 hello\r\n");
    let kept = steps.iter().find_map(|step| match step {
        Step::Keep(kept) => Some(kept.session()),
        _ => None,
    });
    assert!(kept.is_some_and(|session| session > before.session()), "{steps:?}");
}

#[test]
fn what_is_encrypted_is_followed_and_what_is_no_ftp_is_read_no_more() {
    let mut line = Line::new(Zone::Inside);
    line.server("220 hello\r\n");
    line.client("AUTH TLS\r\n");
    let steps = line.server("234 go\r\n");
    assert!(matches!(steps[..], [Step::Keep(kept), _] if kept.is_watched()), "{steps:?}");
    let mut line = Line::new(Zone::Inside);
    let steps = line.client("GET / HTTP/1.1\r\n");
    assert!(matches!(steps[..], [Step::Keep(kept), _] if kept.is_unread()), "{steps:?}");
}

/// Encrypted, with records of both sides that the data plane has passed on.
fn encrypted(zone: Zone) -> Line {
    let mut line = Line::new(zone);
    line.greet();
    line.client("AUTH TLS\r\n");
    line.server("234 go\r\n");
    for (side, from, bytes) in [(0, zone, 700), (1, zone.other(), 900)] {
        line.sent[side] += bytes;
        line.kernel.watches.get_mut(&from).unwrap().boundary = line.sent[side];
    }
    line
}

#[test]
fn lines_are_read_again_behind_what_was_encrypted() {
    for zone in [Zone::Inside, Zone::Outside] {
        for is_successor in [false, true] {
            let mut line = encrypted(zone);
            if is_successor {
                line.bridge = Bridge::new(alg::Policy::default(), 30);
                line.bridge.adopt(&mut line.kernel);
                assert_eq!(line.bridge.open().count(), 1);
            }
            let steps = line.client("PBSZ 0\r\n");
            assert!(matches!(steps[..], [Step::Keep(kept), _] if kept.is_watched()), "{steps:?}");
            let steps = line.server("200 fine\r\n");
            assert!(matches!(steps[..], [Step::Keep(kept), _] if !kept.is_watched()), "{steps:?}");
            let steps = line.client(&eprt(5000));
            assert!(
                matches!(steps[0], Step::Expect(key, _) if key == line.announced()),
                "{steps:?}"
            );
        }
    }
}

#[test]
fn an_encrypted_session_whose_state_is_lost_passes_unread() {
    let mut line = encrypted(Zone::Inside);
    line.kernel.journal.clear();
    line.bridge = Bridge::new(alg::Policy::default(), 30);
    line.bridge.adopt(&mut line.kernel);
    assert_eq!(line.bridge.open().count(), 0);
    assert!(line.kernel.kept[&line.kernel.key].is_unread());
}

#[test]
fn an_end_takes_back_what_was_announced_and_overtakes_nothing() {
    let mut line = Line::new(Zone::Inside);
    line.greet();
    line.client(&eprt(5000));
    line.sent[0] += 10;
    assert_eq!(line.say(alg::Side::Client, wire::FIN, b""), [Step::Count(Reason::AlgGap)]);
    line.sent[0] -= 10;
    let steps = line.say(alg::Side::Client, wire::FIN, b"");
    assert!(matches!(steps[..], [Step::Send(_)]), "{steps:?}");
    let steps = line.say(alg::Side::Server, wire::FIN, b"");
    assert!(matches!(steps[..], [Step::Send(_), Step::Unexpect(_)]), "{steps:?}");

    let mut line = Line::new(Zone::Inside);
    line.greet();
    line.client(&eprt(5000));
    line.kernel.flow = None;
    line.bridge.sweep(&mut line.kernel, 101);
    assert_eq!(line.kernel.steps, [Step::Unexpect(line.announced())]);
    line.kernel.steps.clear();
    assert_eq!(line.client("NOOP\r\n"), [Step::Count(Reason::AlgUnknown)]);
}

#[test]
fn a_connection_that_is_opened_anew_in_the_same_second_is_read_from_its_beginning() {
    let mut line = Line::new(Zone::Inside);
    line.greet();
    let before = line.kernel.kept[&line.kernel.key].session();
    // The data plane forgets what was kept when the new SYN comes.
    line.kernel.kept.clear();
    line.sent = [700_000, 900_000];
    let steps = line.server("220 hello again\r\n");
    let [Step::Keep(kept), sent] = &steps[..] else { panic!("{steps:?}") };
    assert!(kept.session() > before);
    assert_eq!(payload(sent), b"220 hello again\r\n");
}

/// The client is inside, and known outside by another prefix.
fn behind_a_prefix() -> (Line, Ipv6Addr) {
    let text = "wan = 'wan0'\ninside = '101:101:101::/48'\npublic = '2001:db8:1000::/48'\n";
    let pair: crate::rules::Prefix = toml::from_str(text).unwrap();
    let mut line = Line::new(Zone::Inside);
    line.kernel.prefixes = pair.entries(3).into_iter().collect();
    let public = pair.public_of(HERE.0.into()).unwrap();
    line.greet();
    (line, public)
}

fn segment(step: &Step) -> (u32, u32) {
    let Step::Send(packet) = step else { panic!("not sent: {step:?}") };
    let segment = Segment::parse(packet).unwrap();
    (segment.sequence(), segment.acknowledgement())
}

#[test]
fn behind_a_prefix_a_line_leaves_with_the_public_address_and_numbers_are_shifted() {
    let (mut line, public) = behind_a_prefix();
    let [client, server] = line.sent;
    let steps = line.client(&eprt(5000));
    let [Step::Expect(key, _), Step::Keep(kept), sent] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(*key, line.announced(), "it is let in to the inside address");
    assert!(kept.is_shifted());
    let text = format!("EPRT |2|{public}|5000|\r\n");
    assert_eq!(payload(sent), text.as_bytes());
    assert_eq!(segment(sent), (client, server));
    // Repeated it leaves as it did.
    line.sent[0] = client;
    assert_eq!(line.client(&eprt(5000)).last(), Some(sent));
    // The server acknowledges what it got, the client hears what it has sent.
    let grown = (text.len() as u32).wrapping_sub(eprt(5000).len() as u32);
    assert_ne!(grown, 0);
    let after = line.sent[0];
    line.sent[0] = after.wrapping_add(grown);
    let steps = line.server("200 fine\r\n");
    assert_eq!(segment(steps.last().unwrap()), (server, after));
    let steps = line.say(alg::Side::Server, 0, b"");
    assert_eq!(segment(&steps[0]), (line.sent[1], after), "an empty one, too");
    line.sent[0] = after;
    let steps = line.client("NOOP\r\n");
    assert_eq!(segment(steps.last().unwrap()), (after.wrapping_add(grown), line.sent[1]));
    // Encrypted or not, its numbers stay shifted.
    line.sent[0] = line.sent[0].wrapping_add(grown);
    line.server("200 nothing\r\n");
    line.sent[0] = line.sent[0].wrapping_sub(grown);
    line.client("AUTH TLS\r\n");
    line.sent[0] = line.sent[0].wrapping_add(grown);
    let steps = line.server("234 go\r\n");
    let [Step::Unexpect(_), Step::Keep(kept), _] = &steps[..] else { panic!("{steps:?}") };
    assert!(kept.is_shifted() && !kept.is_unread());
}

/// The client says a line in pieces; what has been let in, and what got through of it.
fn in_pieces<'a>(
    line: &mut Line,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Expectation6Key>, Vec<u8>) {
    let (first, mut got, mut expected) = (line.sent[0], vec![], vec![]);
    for piece in pieces {
        assert!(!got.ends_with(b"\n"), "the announcement left before all of it was read");
        let steps = line.client(str::from_utf8(piece).unwrap());
        expected.extend(steps.iter().filter_map(|step| match step {
            Step::Expect(key, _) => Some(*key),
            _ => None,
        }));
        // What is swallowed sends the byte before it again.
        if let Some(step @ Step::Send(_)) = steps.last() {
            got.truncate(segment(step).0.wrapping_sub(first) as usize);
            got.extend_from_slice(payload(step));
        }
    }
    (expected, got)
}

#[test]
fn behind_a_prefix_a_line_that_is_cut_anywhere_announces_what_it_would_whole() {
    let text = eprt(5000);
    for at in 1..text.len() {
        let (mut line, public) = behind_a_prefix();
        let (expected, got) =
            in_pieces(&mut line, <[&[u8]; 2]>::from(text.as_bytes().split_at(at)));
        assert_eq!(expected, [line.announced()], "cut at {at}");
        assert_eq!(got, format!("EPRT |2|{public}|5000|\r\n").as_bytes(), "cut at {at}");
    }
    let (mut line, public) = behind_a_prefix();
    let (expected, got) = in_pieces(&mut line, text.as_bytes().chunks(1));
    assert_eq!(expected, [line.announced()]);
    assert_eq!(got, format!("EPRT |2|{public}|5000|\r\n").as_bytes());
}

#[test]
fn behind_a_prefix_a_cut_line_that_is_refused_leaves_no_inside_address() {
    let other = "101:101:101::77".parse::<Ipv6Addr>().unwrap();
    let refused = [
        (format!("EPRT |2|{other}|5000|\r\n"), "5000"),
        (eprt(22), "22"),
        // What stands around the address may stand in it: it ends with the line.
        (eprt(5000).replace('|', ":"), "0"),
    ];
    for (text, port) in refused {
        let (mut line, public) = behind_a_prefix();
        let (expected, got) = in_pieces(&mut line, text.as_bytes().chunks(1));
        let delimiter = &text[5..6];
        let wanted = format!("EPRT |2|{public}|{port}|\r\n").replace('|', delimiter);
        assert_eq!((expected, String::from_utf8(got).unwrap()), (vec![], wanted), "{text}");
    }
}

#[test]
fn behind_a_prefix_a_successor_goes_on_with_the_shift_or_ends_the_session() {
    let (mut line, _) = behind_a_prefix();
    line.client(&eprt(5000));
    let mut next = Bridge::new(alg::Policy::default(), 30);
    next.adopt(&mut line.kernel);
    line.bridge = next;
    let first = line.client("NOOP\r\n");
    let (sequence, _) = segment(first.last().unwrap());
    assert_ne!(sequence, line.sent[0] - 6);

    line.kernel.journal.clear();
    line.bridge = Bridge::new(alg::Policy::default(), 30);
    line.bridge.adopt(&mut line.kernel);
    assert_eq!(line.bridge.open().count(), 0);
    let steps = line.client("NOOP\r\n");
    let [Step::Send(reset), Step::Count(reason)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(*reason, Reason::AlgReset);
    assert!(reset[53] & wire::RST != 0);
    assert_eq!(reset[24..40], HERE.0, "who has spoken hears of it");
}
