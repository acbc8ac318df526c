//! What sessions do beyond the recorded dialogues: refusals, repeats, bounds, and any bytes at all.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::*;
use nat_common::sequence::MAX_EDITS;

mod addresses;
mod encrypted;
mod forms;
mod hairpin;
mod limits;
mod random;
mod strict;

const FIRST: [u32; 2] = [0xffff_ffe0, 0x7fff_fff0];

/// Two ends, the engine between them, and a gateway with few or many ports.
struct Lab {
    session: Session,
    gateway: Ports,
    sent: [u32; 2],
    received: [u32; 2],
}

#[derive(Default)]
struct Ports {
    claimed: BTreeSet<u16>,
    taken: BTreeSet<u16>,
    none: bool,
}

impl Gateway for Ports {
    fn claim(&mut self, request: &PortRequest) -> Option<u16> {
        let any = (50000..=65535).find(|port| !self.claimed.contains(port));
        let kept = request.port.filter(|port| !self.taken.contains(port));
        let port = kept.or(any).filter(|_| !self.none)?;
        self.claimed.insert(port);
        Some(port)
    }

    fn release(&mut self, public: SocketAddr) {
        assert!(self.claimed.remove(&public.port()), "{public} was not claimed");
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.is_private())
    }
}

fn flow(inside: Side) -> ControlFlow {
    let at = |text: &str| text.parse().expect("an endpoint");
    match inside {
        Side::Client => ControlFlow {
            session: 1,
            inside,
            client: at("10.0.1.2:40000"),
            server: at("203.0.113.10:21"),
            public: at("203.0.113.1:40000"),
            client_public: None,
        },
        Side::Server => ControlFlow {
            session: 1,
            inside,
            client: at("203.0.113.20:40000"),
            server: at("10.0.2.2:21"),
            public: at("203.0.113.1:21"),
            client_public: None,
        },
    }
}

impl Lab {
    fn new(inside: Side) -> Lab {
        let session = Session::joined(flow(inside), Default::default());
        Lab::with(session)
    }

    fn with(mut session: Session) -> Lab {
        session.starts_at(Side::Client, FIRST[0]);
        session.starts_at(Side::Server, FIRST[1]);
        Lab { session, gateway: Ports::default(), sent: [0; 2], received: [0; 2] }
    }

    fn say(&mut self, side: Side, text: &[u8]) -> Vec<Command> {
        let at = self.sent[side as usize];
        let ack = FIRST[side.other() as usize].wrapping_add(self.received[side.other() as usize]);
        let commands = self.say_at(side, at, text, Some(ack));
        let last = commands.iter().rev().find_map(|command| match command {
            Command::Emit(emit) => Some(emit.seq.wrapping_add(emit.payload.len() as u32)),
            _ => None,
        });
        if let Some(end) = last {
            self.sent[side as usize] += text.len() as u32;
            self.received[side as usize] = end.wrapping_sub(FIRST[side as usize]);
        }
        commands
    }

    fn say_at(&mut self, side: Side, at: u32, text: &[u8], ack: Option<u32>) -> Vec<Command> {
        let seq = FIRST[side as usize].wrapping_add(at);
        let segment = Segment { side, seq, ack, payload: text, fin: false, urgent: None };
        self.session.on_segment(&segment, &mut self.gateway)
    }

    /// Number of the next byte that `side` sends.
    fn next(&self, side: Side) -> u32 {
        FIRST[side as usize].wrapping_add(self.sent[side as usize])
    }

    fn client(&mut self, text: &str) -> Vec<Command> {
        self.say(Side::Client, text.as_bytes())
    }

    fn server(&mut self, text: &str) -> Vec<Command> {
        self.say(Side::Server, text.as_bytes())
    }
}

fn outside(commands: &[Command]) -> String {
    let emitted = commands.iter().filter_map(|command| match command {
        Command::Emit(emit) => Some(String::from_utf8_lossy(&emit.payload).into_owned()),
        _ => None,
    });
    emitted.collect()
}

fn expected(commands: &[Command]) -> Vec<String> {
    let made = commands.iter().filter_map(|command| match command {
        Command::Expect(made) => Some(format!("{} > {}", made.key.from, made.key.to)),
        _ => None,
    });
    made.collect()
}

fn watched(commands: &[Command]) -> Vec<(Side, Watch)> {
    let watched = commands.iter().filter_map(|command| match command {
        Command::Watch { side, watch } => Some((*side, *watch)),
        _ => None,
    });
    watched.collect()
}

fn revoked(commands: &[Command]) -> Vec<u16> {
    let gone = commands.iter().filter_map(|command| match command {
        Command::Unexpect(key) => Some(key.to.port()),
        _ => None,
    });
    gone.collect()
}

fn refusals(commands: &[Command]) -> Vec<Refusal> {
    let refused = commands.iter().filter_map(|command| match command {
        Command::Log(Event::Refused { reason, .. }) => Some(*reason),
        _ => None,
    });
    refused.collect()
}

#[test]
fn a_refused_line_hides_the_inside_address() {
    for (line, left, reason) in [
        ("PORT 10,0,1,2,0,22", "PORT 203,0,113,1,0,22", Refusal::SystemPort),
        ("PORT 10,0,1,99,9,9", "PORT 203,0,113,1,9,9", Refusal::ForeignAddress),
        ("PORT 10,0,1,2,9,9,9", "PORT 203,0,113,1,9,9,9", Refusal::Malformed),
        ("EPRT |2|::ffff:10.0.1.2|5000|", "EPRT |2|::ffff:203.0.113.1|5000|", Refusal::OtherFamily),
        ("PORT 192,0,2,9,9,9", "PORT 192,0,2,9,9,9", Refusal::ForeignAddress),
    ] {
        let mut lab = Lab::new(Side::Client);
        let commands = lab.client(&format!("{line}\r\n"));
        assert_eq!(outside(&commands), format!("{left}\r\n"));
        assert_eq!(refusals(&commands), [reason], "{line}");
        let leak = |it: &Command| matches!(it, Command::Log(Event::LeakPrevented { .. }));
        assert_eq!(commands.iter().any(leak), line != left, "{line}");
        assert_eq!(expected(&commands), [""; 0]);
        assert!(lab.gateway.claimed.is_empty());
    }
}

#[test]
fn the_lowest_port_is_1024() {
    let mut lab = Lab::new(Side::Client);
    assert_eq!(refusals(&lab.client("PORT 10,0,1,2,3,255\r\n")), [Refusal::SystemPort]);
    let commands = lab.client("PORT 10,0,1,2,4,0\r\n");
    assert_eq!(expected(&commands), ["203.0.113.10 > 203.0.113.1:1024"]);
}

#[test]
fn a_client_outside_may_announce_only_itself() {
    let mut lab = Lab::new(Side::Server);
    let commands = lab.client("PORT 203,0,113,20,9,9\r\n");
    assert_eq!(expected(&commands), ["10.0.2.2 > 203.0.113.20:2313"]);
    let commands = lab.client("PORT 203,0,113,21,9,9\r\n");
    assert_eq!(refusals(&commands), [Refusal::ForeignAddress]);
    assert_eq!(outside(&commands), "PORT 203,0,113,21,9,9\r\n");
}

#[test]
fn third_hosts_may_be_taken_as_meant_but_get_no_pinhole() {
    let policy = Policy { foreign: ForeignAddress::Pass, ..Policy::default() };
    let mut lab = Lab::with(Session::joined(flow(Side::Client), Arc::new(policy)));
    let commands = lab.client("PORT 192,0,2,9,9,9\r\n");
    assert_eq!((refusals(&commands), expected(&commands)), (vec![], vec![]));
}

#[test]
fn a_port_that_is_taken_is_moved_and_a_full_pool_refuses() {
    let mut lab = Lab::new(Side::Server);
    lab.gateway.taken.insert(2313);
    lab.client("EPSV\r\nPASV\r\n");
    let commands = lab.server("229 ok (|||2313|)\r\n");
    assert_eq!(outside(&commands), "229 ok (|||50000|)\r\n");
    assert_eq!(expected(&commands), ["203.0.113.20 > 203.0.113.1:50000"]);
    lab.gateway.none = true;
    let commands = lab.server("227 ok (10,0,2,2,9,10)\r\n");
    assert_eq!(refusals(&commands), [Refusal::NoPublicPort]);
    assert_eq!(outside(&commands), "227 ok (203,0,113,1,9,10)\r\n");
}

#[test]
fn a_reply_that_nothing_asked_for_opens_nothing() {
    let mut lab = Lab::new(Side::Client);
    let commands = lab.server("227 ok (203,0,113,10,9,9)\r\n");
    assert_eq!(refusals(&commands), [Refusal::Unsolicited]);
    lab.client("PASV\r\n");
    let commands = lab.server("550-x\r\n227 ok (203,0,113,10,9,9)\r\n550 end\r\n");
    assert_eq!((refusals(&commands), expected(&commands)), (vec![Refusal::Unsolicited], vec![]));
}

#[test]
fn no_pinhole_before_the_greeting_nor_behind_auth() {
    let mut lab = Lab::with(Session::new(flow(Side::Client), Default::default()));
    let commands = lab.client("PORT 10,0,1,2,9,9\r\n");
    assert_eq!(refusals(&commands), [Refusal::BeforeGreeting]);
    assert_eq!(outside(&commands), "PORT 203,0,113,1,9,9\r\n");
    let mut lab = Lab::new(Side::Client);
    let commands = lab.client("AUTH TLS\r\nPORT 10,0,1,2,9,9\r\n");
    assert_eq!(refusals(&commands), [Refusal::AfterAuth]);
}

#[test]
fn an_accepted_auth_ends_reading_and_repeats_stay_the_same() {
    let mut lab = Lab::new(Side::Client);
    let port = b"PORT 10,0,1,2,9,9\r\n";
    let first = outside(&lab.say(Side::Client, port));
    lab.server("200 ok\r\n");
    lab.client("AUTH TLS\r\n");
    let commands = lab.server("234 go\r\n");
    assert_eq!(revoked(&commands), [2313]);
    assert!(commands.contains(&Command::EndInspection(End::Encrypted)), "{commands:?}");
    assert_eq!(lab.session.ended(), Some(End::Encrypted));
    assert_eq!(outside(&lab.say_at(Side::Client, 0, port, None)), first);
    assert_eq!(outside(&lab.say(Side::Client, port)), "PORT 10,0,1,2,9,9\r\n");
}

#[test]
fn a_first_line_that_is_no_command_ends_reading() {
    for line in ["GET / HTTP/1.1\r\n", "\x16\x01\x01\x02\n\r\n"] {
        let mut lab = Lab::with(Session::new(flow(Side::Client), Default::default()));
        let commands = lab.client(&format!("{line}PORT 10,0,1,2,9,9\r\n"));
        assert_eq!(lab.session.ended(), Some(End::NotFtp));
        assert_eq!(expected(&commands), [""; 0]);
        let nothing = |side: Side| Watch::nothing(lab.next(side));
        let [client, server] = [Side::Client, Side::Server].map(nothing);
        assert_eq!(watched(&commands), [(Side::Client, client), (Side::Server, server)]);
    }
}

#[test]
fn an_error_takes_the_pinhole_of_its_command_back() {
    let mut lab = Lab::new(Side::Client);
    lab.client("TYPE I\r\nPORT 10,0,1,2,9,9\r\n");
    assert_eq!(revoked(&lab.server("500 what\r\n")), [0; 0]);
    assert_eq!(revoked(&lab.server("500 no\r\n")), [2313]);
}

#[test]
fn a_newer_command_replaces_what_no_transfer_waits_for() {
    let mut lab = Lab::new(Side::Client);
    lab.client("PORT 10,0,1,2,9,9\r\n");
    assert_eq!(revoked(&lab.client("PORT 10,0,1,2,9,10\r\n")), [2313]);
    // The same again is the same pinhole.
    assert_eq!(revoked(&lab.client("PORT 10,0,1,2,9,10\r\n")), [0; 0]);
    assert_eq!(revoked(&lab.client("RETR a\r\nPORT 10,0,1,2,9,11\r\n")), [0; 0]);
    let commands = lab.server("200 ok\r\n200 ok\r\n200 ok\r\n150 go\r\n226 done\r\n");
    assert_eq!(revoked(&commands), [2314]);
}

#[test]
fn a_transfer_that_fails_leaves_its_port_for_the_next() {
    let mut lab = Lab::new(Side::Client);
    lab.client("PORT 10,0,1,2,9,9\r\nRETR a\r\n");
    assert_eq!(revoked(&lab.server("200 ok\r\n550 none\r\n")), [0; 0]);
    lab.client("RETR b\r\n");
    assert_eq!(revoked(&lab.server("226 done\r\n")), [2313]);
}

#[test]
fn pinholes_go_with_rein_with_quit_and_with_the_flow() {
    for (command, reply) in [("REIN", "220 again"), ("QUIT", "221 bye")] {
        let mut lab = Lab::new(Side::Client);
        lab.client("PORT 10,0,1,2,9,9\r\n");
        lab.server("200 ok\r\n");
        assert_eq!(revoked(&lab.client(&format!("{command}\r\n"))), [0; 0]);
        assert_eq!(revoked(&lab.server(&format!("{reply}\r\n"))), [2313]);
    }
    let mut lab = Lab::new(Side::Client);
    lab.client("PORT 10,0,1,2,9,9\r\nPORT 10,0,1,2,9");
    assert_eq!(lab.gateway.claimed.len(), 2);
    assert_eq!(revoked(&lab.session.on_flow_end(&mut lab.gateway)), [2313]);
    assert_eq!(lab.gateway.claimed.len(), 1, "the port of the cut line is free again");
}

#[test]
fn pinholes_are_few() {
    let mut lab = Lab::new(Side::Client);
    let mut open = BTreeSet::new();
    for port in 0..40 {
        let mut commands = lab.client(&format!("PORT 10,0,1,2,9,{port}\r\nRETR a\r\n"));
        commands.extend(lab.server("200 ok\r\n150 go\r\n"));
        open.extend(expected(&commands));
        for gone in revoked(&commands) {
            assert!(open.remove(&format!("203.0.113.10 > 203.0.113.1:{gone}")));
        }
        assert!(open.len() <= pinhole::PINHOLES);
    }
}

#[test]
fn a_gap_is_never_read() {
    let mut lab = Lab::new(Side::Client);
    let commands = lab.say_at(Side::Client, 1, b"PORT 10,0,1,2,9,9\r\n", None);
    assert_eq!(commands, [Command::Drop { side: Side::Client, reason: DropReason::Gap }]);
}

#[test]
fn a_bare_fin_leaves_with_the_shift_and_a_gap_before_it_holds_it_back() {
    let mut lab = Lab::new(Side::Client);
    lab.client("PORT 10,0,1,2,9,9\r\n");
    let fin = |at: u32| Segment {
        side: Side::Client,
        seq: FIRST[0].wrapping_add(at),
        ack: None,
        payload: b"",
        fin: true,
        urgent: None,
    };
    let commands = lab.session.on_segment(&fin(lab.sent[0]), &mut lab.gateway);
    let [Command::Emit(emit)] = commands.as_slice() else { panic!("{commands:?}") };
    assert!(emit.fin && emit.payload.is_empty());
    assert_eq!(emit.seq, FIRST[0].wrapping_add(lab.received[0]));
    let commands = lab.session.on_segment(&fin(lab.sent[0] + 1), &mut lab.gateway);
    assert!(matches!(commands.as_slice(), [Command::Drop { reason: DropReason::Gap, .. }]));
}

#[test]
fn the_urgent_pointer_moves_with_what_it_points_to() {
    let mut lab = Lab::new(Side::Client);
    let text = b"PORT 10,0,1,2,9,9\r\n\xff\xf4\xff\xf2ABOR\r\n";
    let segment = Segment {
        side: Side::Client,
        seq: FIRST[0],
        ack: None,
        payload: text,
        fin: false,
        urgent: Some(23),
    };
    let commands = lab.session.on_segment(&segment, &mut lab.gateway);
    let Some(Command::Emit(emit)) = commands.last() else { panic!("{commands:?}") };
    let urgent = usize::from(emit.urgent.expect("URG stays"));
    assert_eq!(&emit.payload[urgent - 4..urgent], b"\xff\xf4\xff\xf2");
}

#[test]
fn bytes_that_start_a_segment_but_no_line_open_nothing() {
    let mut lab = Lab::new(Side::Client);
    lab.client("STOR aaaaaaaaaaaaaaa");
    let commands = lab.client("PORT 10,0,1,2,9,9\r\n");
    assert_eq!((expected(&commands), refusals(&commands)), (vec![], vec![]));
}

#[test]
fn a_line_feed_that_ends_no_line_leaves_behind_the_new_address() {
    let mut lab = Lab::new(Side::Client);
    lab.client("NOOP\r\n");
    lab.client("EPRT |1|");
    let cut = lab.client("1\n");
    assert_eq!(outside(&cut), "203.0.113.1|50000|\n");
    let end = lab.client("x\r\n");
    assert_eq!(outside(&end), "x\r\n");
    assert_eq!((refusals(&end), lab.gateway.claimed.len()), (vec![Refusal::CutLine], 0));
}

#[test]
fn an_address_in_a_cut_line_leaves_whole_with_its_first_byte() {
    let mut lab = Lab::new(Side::Server);
    lab.client("PASV\r\n");
    assert_eq!(outside(&lab.server("227 Mode 2 (")), "227 Mode 2 (");
    let opened = lab.server("1");
    assert_eq!(outside(&opened), "203,0,113,1,195,80");
    assert_eq!(expected(&opened), [""; 0], "none from a line that is not complete");
    // What is swallowed still makes the receiver acknowledge.
    assert_eq!(outside(&lab.server("0,0,2,2,")), "1,195,80");
    let closed = lab.server("9,9)\r\n");
    assert!(outside(&closed).ends_with(")\r\n"));
    assert_eq!(expected(&closed), ["203.0.113.20 > 203.0.113.1:50000"]);
}

#[test]
fn a_number_that_only_looked_like_the_address_hides_the_real_one() {
    let mut lab = Lab::new(Side::Server);
    lab.client("PASV\r\n");
    lab.server("227 line 10");
    let commands = lab.server(" (10,0,2,2,9,9)\r\n");
    assert_eq!((refusals(&commands), expected(&commands)), (vec![Refusal::CutLine], vec![]));
    assert!(!outside(&commands).contains("10,0,2,2"), "{}", outside(&commands));
    assert!(lab.gateway.claimed.is_empty());
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_makes_no_room() {
    let mut lab = Lab::new(Side::Client);
    let lines: String = (0..MAX_EDITS).map(|port| format!("PORT 10,0,1,2,9,{port}\r\n")).collect();
    lab.say_at(Side::Client, 0, lines.as_bytes(), None);
    lab.say_at(Side::Server, 0, b"200 ok\r\n", Some(FIRST[0].wrapping_add(1 << 20)));
    let more = lab.say_at(Side::Client, lines.len() as u32, b"PORT 10,0,1,2,9,9\r\n", None);
    assert_eq!(more, [Command::Drop { side: Side::Client, reason: DropReason::EditsFull }]);
}

#[test]
fn a_segment_that_passes_in_part_does_not_end_the_stream() {
    let mut lab = Lab::new(Side::Client);
    let lines: String = (0..=MAX_EDITS).map(|port| format!("PORT 10,0,1,2,9,{port}\r\n")).collect();
    let segment = Segment {
        side: Side::Client,
        seq: FIRST[0],
        ack: None,
        payload: lines.as_bytes(),
        fin: true,
        urgent: None,
    };
    let commands = lab.session.on_segment(&segment, &mut lab.gateway);
    let Some(Command::Emit(emit)) = commands.last() else { panic!("{commands:?}") };
    assert!(!emit.fin);
}

#[test]
fn more_rewrites_than_fit_leave_as_acknowledgements_come() {
    let mut lab = Lab::new(Side::Client);
    let count = MAX_EDITS + 3;
    let lines: String = (0..count).map(|port| format!("PORT 10,0,1,2,9,{port}\r\n")).collect();
    let first = lab.say_at(Side::Client, 0, lines.as_bytes(), None);
    assert_eq!(outside(&first).matches("203,0,113,1").count(), MAX_EDITS);
    assert_eq!(expected(&first).len(), MAX_EDITS);
    let Some(Command::Emit(emit)) = first.last() else { panic!("{first:?}") };
    let end = emit.seq.wrapping_add(emit.payload.len() as u32);
    // Nothing is acknowledged: what is repeated brings nothing new.
    let again = lab.say_at(Side::Client, 0, lines.as_bytes(), None);
    assert_eq!(outside(&again), outside(&first));
    let rest = lines.split_inclusive('\n').skip(MAX_EDITS).collect::<String>();
    let at = (lines.len() - rest.len()) as u32;
    let full = lab.say_at(Side::Client, at, rest.as_bytes(), None);
    assert_eq!(full, [Command::Drop { side: Side::Client, reason: DropReason::EditsFull }]);
    // The server has it all: there is room again.
    lab.say_at(Side::Server, 0, b"200 ok\r\n", Some(end));
    let rest = lab.say_at(Side::Client, at, rest.as_bytes(), None);
    assert_eq!(outside(&rest).matches("203,0,113,1").count(), 3);
    // What has been forgotten makes the receiver acknowledge again, and shows nothing.
    let old = lab.say_at(Side::Client, 0, b"PORT 10,0,1,2,9,0\r\n", None);
    assert_eq!(outside(&old), "");
    assert!(matches!(old.as_slice(), [Command::Emit(_)]));
}

#[test]
fn a_keepalive_inside_a_rewritten_line_is_answered_by_its_end() {
    let mut lab = Lab::new(Side::Client);
    let line = b"PORT 10,0,1,2,9,9\r\n";
    let sent = lab.say(Side::Client, line);
    let Some(Command::Emit(whole)) = sent.last() else { panic!("{sent:?}") };
    for at in 0..line.len() {
        let one = lab.say_at(Side::Client, at as u32, &line[at..at + 1], None);
        let [Command::Emit(one)] = one.as_slice() else { panic!("{one:?}") };
        let offset = one.seq.wrapping_sub(whole.seq) as usize;
        assert_eq!(&whole.payload[offset..offset + one.payload.len()], one.payload);
        assert!(!one.payload.is_empty());
    }
}

#[test]
fn secrets_do_not_reach_events_or_facts() {
    let mut lab = Lab::new(Side::Client);
    let commands = lab.client("USER anna\r\nPASS sesame\r\n");
    assert!(!format!("{commands:?}").replace("PASS sesame\\r\\n\"", "").contains("sesame"));
    assert!(!format!("{:?}", lab.session.facts()).contains("sesame"));
    assert_eq!(lab.session.facts().user.as_deref(), Some("anna"));
}

#[test]
fn the_fullest_session_fits_its_record() {
    let mut lab = Lab::new(Side::Server);
    lab.client(&format!("USER {}\r\nRETR {}\r\n", "u".repeat(900), "\u{1}\u{fffd}".repeat(300)));
    for _ in 0..100 {
        lab.client("PASV\r\n");
    }
    for port in 0..60 {
        lab.server(&format!("227 x (10,0,2,2,250,{})\r\n", 100 + port));
    }
    for _ in 0..40 {
        lab.client("EPSV\r\n");
    }
    lab.client(&"x".repeat(3000));
    lab.server(&"y".repeat(3000));
    let bytes = lab.session.to_bytes().expect("it fits");
    println!("the fullest session takes {} bytes", bytes.len());
    let successor = Session::from_bytes(&bytes, Arc::default()).expect("its own bytes");
    assert_eq!(successor.to_bytes().expect("it fits"), bytes);
}

#[test]
fn what_another_version_has_left_is_refused() {
    let mut bytes = Lab::new(Side::Client).session.to_bytes().expect("it fits");
    bytes[0] += 1;
    assert!(matches!(Session::from_bytes(&bytes, Arc::default()), Err(ImageError::Version(7))));
    assert!(Session::from_bytes(&bytes[..9], Arc::default()).is_err());
    assert!(Session::from_bytes(&[], Arc::default()).is_err());
}

#[test]
fn a_session_that_is_picked_up_is_read_from_the_next_line_on() {
    for (first, second) in [
        ("ORT 10,0,1,2,9,9\r\n", "PORT 10,0,1,2,9,9\r\n"),
        ("x\nPORT 10,0,1,2,8,8\r\n", "PORT 10,0,1,2,9,9\r\n"),
    ] {
        let mut session = Session::picked_up(flow(Side::Client), Arc::default());
        assert_eq!(session.resolved(Side::Client), None);
        let mut gateway = Ports::default();
        let mut say = |seq: u32, text: &str| {
            let payload = text.as_bytes();
            let segment = Segment {
                side: Side::Client,
                seq,
                ack: Some(7),
                payload,
                fin: false,
                urgent: None,
            };
            session.on_segment(&segment, &mut gateway)
        };
        let commands = say(500, first);
        assert_eq!(outside(&commands), first);
        assert_eq!(expected(&commands).len() + refusals(&commands).len(), 0);
        // What was sent before the pick-up and comes again passes too.
        assert_eq!(outside(&say(480, "x")), "x");
        let commands = say(500 + first.len() as u32, second);
        assert_eq!(outside(&commands), "PORT 203,0,113,1,9,9\r\n");
        assert_eq!(expected(&commands), ["203.0.113.10 > 203.0.113.1:2313"]);
    }
}

#[test]
fn a_server_that_is_picked_up_is_read_from_its_next_line_on() {
    let mut session = Session::picked_up(flow(Side::Server), Arc::default());
    let mut gateway = Ports::default();
    let mut say = |side, seq: u32, text: &str| {
        let payload = text.as_bytes();
        let segment = Segment { side, seq, ack: None, payload, fin: false, urgent: None };
        session.on_segment(&segment, &mut gateway)
    };
    say(Side::Client, 1, "V\r\n");
    say(Side::Server, 1, "27 (10,0,2,2,8,8)\r\n");
    say(Side::Client, 4, "PASV\r\n");
    let commands = say(Side::Server, 20, "227 (10,0,2,2,9,9)\r\n");
    assert_eq!(outside(&commands), "227 (203,0,113,1,9,9)\r\n");
}

#[test]
fn a_reply_to_what_a_dead_agent_has_read_alone_announces_once() {
    let mut lab = Lab::new(Side::Server);
    lab.client("NOOP\r\n");
    lab.server("200 ok\r\n");
    let refused = |lab: &mut Lab| refusals(&lab.server("227 x (10,0,2,2,9,9)\r\n"));
    assert_eq!(refused(&mut lab), [Refusal::Unsolicited]);
    // PASV has passed, and whoever has read it is gone.
    let passed = lab.next(Side::Client).wrapping_add(6);
    lab.session.passed_without(passed);
    assert_eq!(refused(&mut lab), []);
    assert_eq!(refused(&mut lab), [Refusal::Unsolicited]);
    lab.session.passed_without(passed);
    lab.client("NOOP\r\n");
    assert_eq!(refused(&mut lab), [Refusal::Unsolicited]);
    lab.session.passed_without(lab.next(Side::Client));
    assert_eq!(refused(&mut lab), [Refusal::Unsolicited]);
}

#[test]
fn a_passive_command_outlives_the_loss_of_replies_that_came_before_it() {
    let mut lab = Lab::new(Side::Server);
    lab.client("RETR a\r\n");
    let image = lab.session.to_bytes().expect("an image");
    lab.session = Session::from_bytes(&image, Arc::default()).expect("a successor");
    // The predecessor has read a 226 and died over it; what comes after that the successor reads.
    lab.client("PASV\r\n");
    lab.sent[Side::Server as usize] += 10;
    let next = lab.next(Side::Server);
    assert!(lab.session.resume_at(Side::Server, next));
    let commands = lab.server("227 x (10,0,2,2,9,9)\r\n");
    assert_eq!(expected(&commands), ["203.0.113.20 > 203.0.113.1:2313"]);
    // What the predecessor has left is waited for no more.
    let commands = lab.server("227 x (10,0,2,2,9,10)\r\n");
    assert_eq!(refusals(&commands), [Refusal::Unsolicited]);
}

#[test]
fn a_reply_to_what_is_not_known_ends_no_transfer() {
    let mut lab = Lab::new(Side::Server);
    lab.client("RETR a\r\n");
    // 226 and PASV have died with who has read them.
    let passed = lab.next(Side::Client).wrapping_add(6);
    lab.session.passed_without(passed);
    let commands = lab.server("227 x (10,0,2,2,9,9)\r\n");
    assert_eq!(expected(&commands), ["203.0.113.20 > 203.0.113.1:2313"]);
    assert!(!commands.iter().any(|it| matches!(it, Command::Unexpect(_))), "{commands:?}");
}
