//! The order of writes, restarts and failures, with a list in the place of the kernel.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nat_common::{
    expectation::{Expectation, ExpectationKey},
    flow::{FlowKey, Rewrite, TCP, Zone},
    port::Port,
    rule::{EncryptedKey, RuleId},
    vouched::Vouched,
    watch::Watch,
};

mod copies;

use super::*;
use crate::agent::packets::{Packet, reference_checksum_is_right};

const CLIENT: [u8; 4] = [10, 0, 1, 2];
const SERVER: [u8; 4] = [198, 51, 100, 7];
const PUBLIC: [u8; 4] = [203, 0, 113, 1];
const PORT_LINE: &[u8] = b"PORT 10,0,1,2,162,71\r\n";
/// 162 * 256 + 71.
const PORT: u16 = 41543;
const ID: SessionId = SessionId::new(4);

#[derive(Debug, PartialEq)]
enum Step {
    Claim(u16),
    Release(u16),
    Expect(ExpectationKey, Expectation),
    Unexpect(ExpectationKey),
    Correct,
    Watch(Side, Watch),
    Range(EncryptedKey, Option<SessionId>),
    Remember,
    Close,
    Send(Vec<u8>),
    Count(Reason),
}

/// The kernel as a list of what was asked of it.
#[derive(Default)]
struct List {
    record: Option<Session>,
    journal: HashMap<SessionId, Vec<u8>>,
    steps: Vec<Step>,
    watches: [Watch; 2],
    mtu: Option<usize>,
    refuses_corrections: bool,
    closed: bool,
}

impl alg::Gateway for List {
    fn claim(&mut self, request: &alg::PortRequest) -> Option<u16> {
        let port = request.port.unwrap_or(50000);
        self.steps.push(Step::Claim(port));
        Some(port)
    }

    fn release(&mut self, public: SocketAddr) {
        self.steps.push(Step::Release(public.port()));
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.is_private())
    }
}

impl Kernel for List {
    fn session(&mut self, id: SessionId) -> Result<Option<Session>, PlaneError> {
        Ok(self.record.filter(|_| id == ID))
    }

    fn is_closed(&mut self, _: &Session) -> Result<bool, PlaneError> {
        Ok(self.closed)
    }

    fn expect(&mut self, key: &ExpectationKey, value: &Expectation) -> Result<(), PlaneError> {
        self.steps.push(Step::Expect(*key, *value));
        Ok(())
    }

    fn unexpect(&mut self, key: &ExpectationKey) -> Result<(), PlaneError> {
        self.steps.push(Step::Unexpect(*key));
        Ok(())
    }

    fn correct(&mut self, _: SessionId, sides: &[Corrections; 2]) -> Result<(), PlaneError> {
        if self.refuses_corrections {
            return Err(PlaneError::Conflict("a test".to_owned()));
        }
        self.steps.push(Step::Correct);
        if let Some(record) = &mut self.record {
            record.copies = [*sides; 2];
            record.generation += 1;
        }
        Ok(())
    }

    fn watch(&mut self, _: SessionId, side: Side, watch: Watch) -> Result<(), PlaneError> {
        self.steps.push(Step::Watch(side, watch));
        self.watches[side.index()] = watch;
        Ok(())
    }

    fn watched(&mut self, _: SessionId, side: Side) -> Result<Watch, PlaneError> {
        Ok(self.watches[side.index()])
    }

    fn vouch(&mut self, _: SessionId, _: &Session, side: Side, to: Option<u32>) {
        let Some(record) = &mut self.record else { return };
        let word = &mut record.vouched[side.index()];
        let now = Vouched::from_word(*word).number();
        // What the data plane has passed meanwhile stands.
        let is_behind = |to: u32| now.is_some_and(|now| now.wrapping_sub(to) < 1 << 31);
        if !to.is_some_and(is_behind) {
            *word = to.map_or(Vouched::NONE, Vouched::up_to).word();
        }
    }

    fn open_range(
        &mut self,
        key: &EncryptedKey,
        session: Option<SessionId>,
    ) -> Result<(), PlaneError> {
        self.steps.push(Step::Range(*key, session));
        Ok(())
    }

    fn keep_ranges(&mut self, _: &dyn Fn(&EncryptedKey) -> bool) -> Result<(), PlaneError> {
        Ok(())
    }

    fn remember(&mut self, id: SessionId, state: &[u8]) -> Result<(), PlaneError> {
        self.steps.push(Step::Remember);
        self.journal.insert(id, state.to_vec());
        Ok(())
    }

    fn recall(&mut self, id: SessionId) -> Result<Option<Vec<u8>>, PlaneError> {
        Ok(self.journal.get(&id).cloned())
    }

    fn close(&mut self, _: &Session) {
        self.steps.push(Step::Close);
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SendError> {
        if self.mtu.is_some_and(|mtu| packet.len() > mtu) {
            return Err(SendError::TooBig);
        }
        assert!(reference_checksum_is_right(packet));
        self.steps.push(Step::Send(packet.to_vec()));
        Ok(())
    }

    fn count(&mut self, reason: Reason) {
        self.steps.push(Step::Count(reason));
    }
}

impl List {
    /// A client inside, of whose dialogue nothing has passed.
    fn new() -> Self {
        let original =
            FlowKey::new(Zone::Inside, TCP, CLIENT, Port::new(40000), SERVER, Port::new(21));
        let out = Rewrite::source(&original, PUBLIC, Port::new(40000));
        let mut record = Session::default();
        record.mss = [1420, 1420];
        record.open(&original, &original.answer(&out), RuleId::NONE, 100);
        Self { record: Some(record), ..Self::default() }
    }

    fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let steps = self.take();
        let packets = steps.into_iter().filter_map(|step| match step {
            Step::Send(packet) => Some(packet),
            _ => None,
        });
        packets.collect()
    }
}

fn bridge() -> Bridge {
    Bridge::new(alg::Policy::default(), 30)
}

fn client(seq: u32, payload: &[u8]) -> Packet {
    Packet {
        src: CLIENT,
        dst: SERVER,
        seq,
        ack: 5020,
        payload: payload.to_vec(),
        ..Packet::example()
    }
}

fn server(seq: u32, payload: &[u8]) -> Packet {
    Packet {
        src: SERVER,
        dst: PUBLIC,
        sport: 21,
        dport: 40000,
        seq,
        ack: 1000,
        payload: payload.to_vec(),
        ..Packet::example()
    }
}

fn punt(bridge: &mut Bridge, list: &mut List, side: Side, packet: &Packet) {
    let bytes = packet.bytes();
    let header = PuntHeader::new(ID, side, bytes.len() as u32, 2);
    bridge.on_punt(list, &header, &bytes, Duration::from_secs(1000));
}

/// After the greeting; the client's next byte is 1000, the server's 5020.
fn greeted() -> (Bridge, List) {
    let (mut bridge, mut list) = (bridge(), List::new());
    punt(&mut bridge, &mut list, Side::Responder, &server(5000, b"220 Welcome, friend\n"));
    assert_eq!(list.take().len(), 2, "remember and send");
    (bridge, list)
}

/// After a PORT whose line has grown by two bytes.
fn announced() -> (Bridge, List) {
    let (mut bridge, mut list) = greeted();
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, PORT_LINE));
    (bridge, list)
}

fn payload(packet: &[u8]) -> &[u8] {
    Segment::parse(packet).unwrap().payload()
}

#[test]
fn an_expectation_is_in_force_before_corrections_before_the_segment() {
    let (_, mut list) = announced();
    let steps = list.take();
    let [
        Step::Claim(PORT),
        Step::Expect(key, value),
        Step::Correct,
        Step::Remember,
        Step::Send(packet),
    ] = &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_eq!((key.zone(), key.src(), key.dst()), (Zone::Outside, SERVER, PUBLIC));
    assert_eq!((value.address(), value.port().number()), (CLIENT, PORT));
    assert_eq!((value.session(), value.expires()), (ID, 1030));
    assert_eq!(payload(packet), b"PORT 203,0,113,1,162,71\r\n");
    let sent = Segment::parse(packet).unwrap();
    assert_eq!(sent.source(), (PUBLIC, Port::new(40000)));
    assert_eq!(sent.destination(), (SERVER, Port::new(21)));
}

#[test]
fn a_line_that_comes_again_leaves_with_the_same_bytes() {
    let (mut bridge, mut list) = announced();
    let first = list.sent();
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, PORT_LINE));
    assert_eq!(list.sent(), first);
}

#[test]
fn a_successor_goes_on_with_the_same_bytes_and_numbers() {
    let (_, mut list) = announced();
    let first = list.sent();
    let mut successor = bridge();
    punt(&mut successor, &mut list, Side::Originator, &client(1000, PORT_LINE));
    assert_eq!(list.sent(), first);
    punt(&mut successor, &mut list, Side::Originator, &client(1022, b"NOOP\r\n"));
    let [packet] = &list.sent()[..] else { panic!("one packet") };
    assert_eq!(Segment::parse(packet).unwrap().sequence(), 1025);
}

#[test]
fn a_successor_shows_the_sessions_that_are_open() {
    let (_, mut list) = announced();
    for (closed, shown) in [(false, 1), (true, 0)] {
        list.closed = closed;
        let mut successor = bridge();
        successor.adopt(&mut list);
        assert_eq!(successor.open().count(), shown);
    }
}

/// The RSTs that were sent, each with its sequence number, by whom it is for.
fn resets(steps: &[Step]) -> Vec<([u8; 4], u32)> {
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(packet) => Some(Segment::parse(packet).unwrap()),
        _ => None,
    });
    sent.filter(|it| it.has(wire::RST)).map(|it| (it.destination().0, it.sequence())).collect()
}

#[test]
fn without_its_state_an_edited_session_is_reset_at_both_ends() {
    for unreadable in [false, true] {
        let (_, mut list) = announced();
        match unreadable {
            true => list.journal.get_mut(&ID).unwrap()[4] += 1,
            false => list.journal.clear(),
        }
        list.take();
        let mut successor = bridge();
        for _ in 0..2 {
            punt(&mut successor, &mut list, Side::Originator, &client(1022, b"NOOP\r\n"));
            let steps = list.take();
            assert_eq!(resets(&steps), [(SERVER, 1025), (CLIENT, 5020)], "{steps:?}");
            let rest = &steps[2..];
            assert!(matches!(rest, [Step::Close, Step::Count(Reason::AlgReset)]), "{rest:?}");
        }
        let answer = Packet { ack: 1025, ..server(5020, b"200 ok\r\n") };
        punt(&mut successor, &mut list, Side::Responder, &answer);
        assert_eq!(resets(&list.take()), [(CLIENT, 5020), (SERVER, 1025)]);
        assert_eq!(successor.open().count(), 0);
    }
}

#[test]
fn without_its_state_a_session_that_has_no_edits_is_read_from_the_next_line_on() {
    let (_, mut list) = greeted();
    list.journal.get_mut(&ID).unwrap()[4] += 1;
    let mut successor = bridge();
    punt(&mut successor, &mut list, Side::Originator, &client(1000, b"OOP\r\n"));
    punt(&mut successor, &mut list, Side::Originator, &client(1005, PORT_LINE));
    let sent = list.sent();
    assert_eq!(
        sent.iter().map(|it| payload(it)).collect::<Vec<_>>(),
        [&b"OOP\r\n"[..], b"PORT 203,0,113,1,162,71\r\n"]
    );
}

#[test]
fn a_session_that_breaks_a_rule_of_strict_mode_is_reset_and_no_longer_shown() {
    let strict = alg::Strict { denied: vec!["SITE".to_owned()] };
    let policy = alg::Policy { strict: Some(strict), ..alg::Policy::default() };
    let (mut bridge, mut list) = (Bridge::new(policy, 30), List::new());
    punt(&mut bridge, &mut list, Side::Responder, &server(5000, b"220 Welcome, friend\n"));
    list.take();
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, b"SITE x\r\n"));
    let steps = list.take();
    assert_eq!(resets(&steps), [(SERVER, 1000), (CLIENT, 5020)]);
    assert!(steps.ends_with(&[Step::Close, Step::Count(Reason::AlgReset)]), "{steps:?}");
    assert_eq!(bridge.open().count(), 0);
}

#[test]
fn a_place_that_was_given_to_another_session_is_told_from_the_first() {
    let (mut bridge, mut list) = announced();
    list.take();
    let original = *list.record.unwrap().original();
    let reply = *list.record.unwrap().reply();
    let mut record = Session::default();
    record.open(&original, &reply, RuleId::NONE, 900);
    list.record = Some(record);
    punt(&mut bridge, &mut list, Side::Responder, &server(9000, b"220 Hello\r\n"));
    let steps = list.take();
    assert!(matches!(steps[..], [Step::Unexpect(_), Step::Remember, Step::Send(_)]), "{steps:?}");
}

#[test]
fn a_session_whose_place_is_free_takes_its_expectations_along() {
    let (mut bridge, mut list) = announced();
    list.take();
    assert!(bridge.sweep(&mut list, 1000));
    assert_eq!(list.take(), []);
    list.record = None;
    assert!(bridge.sweep(&mut list, 1000));
    assert!(matches!(list.take()[..], [Step::Unexpect(_)]));
}

#[test]
fn an_end_of_stream_does_not_overtake_a_line() {
    let (mut bridge, mut list) = greeted();
    let fin = Packet { flags: 0x11, ..client(1022, b"") };
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, PORT_LINE));
    list.take();
    let early = Packet { flags: 0x11, ..client(1023, b"") };
    punt(&mut bridge, &mut list, Side::Originator, &early);
    assert_eq!(list.take(), [Step::Count(Reason::AlgGap)]);
    punt(&mut bridge, &mut list, Side::Originator, &fin);
    let [packet] = &list.sent()[..] else { panic!("one packet") };
    let sent = Segment::parse(packet).unwrap();
    assert_eq!((sent.sequence(), sent.has(wire::FIN)), (1025, true));
}

#[test]
fn expectations_go_with_the_second_end_of_stream_or_a_reset() {
    for reset in [false, true] {
        let (mut bridge, mut list) = announced();
        list.take();
        if reset {
            let rst = Packet { flags: 0x14, ..server(5020, b"") };
            punt(&mut bridge, &mut list, Side::Responder, &rst);
        } else {
            let fin = Packet { flags: 0x11, ..client(1022, b"") };
            punt(&mut bridge, &mut list, Side::Originator, &fin);
            assert!(matches!(list.take()[..], [Step::Send(_)]));
            let fin = Packet { flags: 0x11, ..server(5020, b"") };
            punt(&mut bridge, &mut list, Side::Responder, &fin);
        }
        let steps = list.take();
        assert!(matches!(steps[..], [Step::Send(_), Step::Unexpect(_)]), "{steps:?}");
    }
}

#[test]
fn what_the_way_out_does_not_take_is_cut_smaller() {
    let (mut bridge, mut list) = greeted();
    list.mtu = Some(80);
    let line = [b"STOR ", &[b'x'; 200][..], b"\r\n"].concat();
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, &line));
    let packets = list.sent();
    assert!(packets.len() > 5 && packets.iter().all(|packet| packet.len() <= 80));
    let joined: Vec<u8> = packets.iter().flat_map(|packet| payload(packet).to_vec()).collect();
    assert_eq!(joined, line);
}

#[test]
fn nothing_leaves_before_its_corrections_are_in_force() {
    let (mut bridge, mut list) = greeted();
    list.refuses_corrections = true;
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, PORT_LINE));
    let steps = list.take();
    assert!(!steps.iter().any(|step| matches!(step, Step::Send(_) | Step::Correct)), "{steps:?}");
    assert_eq!(steps.last(), Some(&Step::Count(Reason::AlgBusy)));
    list.refuses_corrections = false;
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, PORT_LINE));
    let steps = list.take();
    assert!(matches!(steps[..], [Step::Correct, Step::Remember, Step::Send(_)]), "{steps:?}");
}

#[test]
fn a_segment_of_another_connection_is_refused() {
    let (mut bridge, mut list) = greeted();
    let stranger = Packet { sport: 40001, ..client(1000, PORT_LINE) };
    punt(&mut bridge, &mut list, Side::Originator, &stranger);
    let syn = Packet { flags: 0x02, ..client(1000, PORT_LINE) };
    punt(&mut bridge, &mut list, Side::Originator, &syn);
    let counted = [Step::Count(Reason::AlgUnknown), Step::Count(Reason::AlgMalformed)];
    assert_eq!(list.take(), counted);
}

#[test]
fn acknowledgements_and_replies_come_back_as_the_client_counts() {
    let (mut bridge, mut list) = announced();
    list.take();
    let reply = Packet { ack: 1025, ..server(5020, b"200 PORT ok\r\n") };
    punt(&mut bridge, &mut list, Side::Responder, &reply);
    let [packet] = &list.sent()[..] else { panic!("one packet") };
    let sent = Segment::parse(packet).unwrap();
    assert_eq!((sent.sequence(), sent.acknowledgement()), (5020, 1022));
    assert_eq!(sent.destination(), (CLIENT, Port::new(40000)));
}

/// After an AUTH that was accepted; the client's next byte is 1010, the server's 5028.
fn encrypted() -> (Bridge, List) {
    let (mut bridge, mut list) = greeted();
    punt(&mut bridge, &mut list, Side::Originator, &client(1000, b"AUTH TLS\r\n"));
    list.take();
    punt(&mut bridge, &mut list, Side::Responder, &server(5020, b"234 go\r\n"));
    (bridge, list)
}

#[test]
fn the_data_plane_knows_of_records_before_the_answer_to_auth_leaves() {
    let (_, mut list) = encrypted();
    let steps = list.take();
    assert!(
        matches!(
            steps[..],
            [
                Step::Watch(Side::Originator, _),
                Step::Watch(Side::Responder, _),
                Step::Remember,
                Step::Send(_)
            ]
        ),
        "{steps:?}"
    );
    assert_eq!(list.watches, [Watch::records(1010, 1010), Watch::records(5028, 5028)]);
}

#[test]
fn what_the_data_plane_has_followed_is_known_to_the_engine_and_to_a_successor() {
    for restarted in [false, true] {
        let (mut bridge, mut list) = encrypted();
        if restarted {
            bridge = self::bridge();
        }
        // Records up to there have passed, and then CCC and the end of encryption.
        list.watches = [Watch::records(1010, 2000), Watch::records(5028, 7000)];
        list.take();
        punt(&mut bridge, &mut list, Side::Originator, &client(2000, PORT_LINE));
        let steps = list.take();
        assert!(steps.iter().any(|step| matches!(step, Step::Expect(..))), "{steps:?}");
        assert_eq!(list.watches[0], Watch::LINES);
        let fin = Packet { flags: 0x11, ..server(6990, b"") };
        punt(&mut bridge, &mut list, Side::Responder, &fin);
        assert!(matches!(list.take()[..], [Step::Send(_)]));
    }
}

/// A server inside that is reached by rule 7, behind an AUTH that was accepted.
fn encrypted_inside() -> (Bridge, List) {
    let original =
        FlowKey::new(Zone::Outside, TCP, SERVER, Port::new(40000), PUBLIC, Port::new(21));
    let inward = Rewrite::destination(&original, CLIENT, Port::new(21));
    let mut record = Session::default();
    record.mss = [1420, 1420];
    record.open(&original, &original.answer(&inward), RuleId::new(7), 100);
    let (mut bridge, mut list) = (bridge(), List { record: Some(record), ..List::default() });
    let server = |seq, payload: &[u8]| Packet {
        src: CLIENT,
        dst: SERVER,
        sport: 21,
        dport: 40000,
        ..self::server(seq, payload)
    };
    punt(&mut bridge, &mut list, Side::Responder, &server(5000, b"220 Welcome, friend\n"));
    punt(&mut bridge, &mut list, Side::Originator, &outside_client(1000, b"AUTH TLS\r\n"));
    list.take();
    punt(&mut bridge, &mut list, Side::Responder, &server(5020, b"234 go\r\n"));
    (bridge, list)
}

/// A packet of the host outside to that server.
fn outside_client(seq: u32, payload: &[u8]) -> Packet {
    Packet { src: SERVER, sport: 40000, dst: PUBLIC, dport: 21, ..client(seq, payload) }
}

#[test]
fn a_range_is_open_while_an_encrypted_session_through_its_rule_lasts() {
    let key = EncryptedKey::new(RuleId::new(7), SERVER);
    let (mut bridge, mut list) = encrypted_inside();
    let steps = list.take();
    let opened = steps.iter().position(|step| *step == Step::Range(key, Some(ID)));
    let sent = steps.iter().position(|step| matches!(step, Step::Send(_)));
    assert!(opened.is_some() && opened < sent, "{steps:?}");
    let rst = Packet { flags: 0x14, ..outside_client(1010, b"") };
    punt(&mut bridge, &mut list, Side::Originator, &rst);
    assert!(list.take().contains(&Step::Range(key, None)));
    // One that a predecessor has left, and one that ends without a word.
    let (_, mut list) = encrypted_inside();
    list.take();
    let mut successor = self::bridge();
    successor.adopt(&mut list);
    assert_eq!(list.take(), [Step::Range(key, Some(ID))]);
    list.record = None;
    assert!(successor.sweep(&mut list, 1000));
    assert_eq!(list.take(), [Step::Range(key, None)]);
}

#[test]
fn a_client_inside_opens_no_range() {
    let (_, mut list) = encrypted();
    assert!(!list.take().iter().any(|step| matches!(step, Step::Range(..))));
}
