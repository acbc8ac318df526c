//! Both ends inside: the client has dialled a public address of its own gateway.

use std::{net::SocketAddr, sync::Arc};

use super::{super::*, Lab, expected, outside, refusals, revoked};

const PORT_LINE: &str = "PORT 10,0,1,2,9,9\r\n";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// The client is known to the server by another address than the server to the client.
pub(super) fn flow() -> ControlFlow {
    ControlFlow {
        session: 1,
        inside: Side::Server,
        client: at("10.0.1.2:40000"),
        server: at("10.0.2.2:21"),
        public: at("203.0.113.11:21"),
        client_public: Some(at("203.0.113.1:50000")),
    }
}

fn lab() -> Lab {
    Lab::with(Session::joined(flow(), Arc::default()))
}

fn translations(commands: &[Command]) -> Vec<Translation> {
    let made = commands.iter().filter_map(|command| match command {
        Command::Expect(made) => Some(made.translation),
        _ => None,
    });
    made.collect()
}

fn server_dials() -> Translation {
    let public = at("203.0.113.11:21").ip();
    Translation::Turned { dials: Side::Server, to: at("10.0.1.2:2313"), public }
}

fn client_dials() -> Translation {
    let public = at("203.0.113.1:0").ip();
    Translation::Turned { dials: Side::Client, to: at("10.0.2.2:2313"), public }
}

#[test]
fn each_end_announces_what_the_other_sees_of_it() {
    for (line, left) in [
        (PORT_LINE, "PORT 203,0,113,1,9,9\r\n"),
        ("EPRT |1|10.0.1.2|2313|\r\n", "EPRT |1|203.0.113.1|2313|\r\n"),
        // It may know what it is seen as.
        ("PORT 203,0,113,1,9,9\r\n", "PORT 203,0,113,1,9,9\r\n"),
    ] {
        let commands = lab().client(line);
        assert_eq!(outside(&commands), left);
        assert_eq!(expected(&commands), ["10.0.2.2 > 203.0.113.1:2313"]);
        assert_eq!(translations(&commands), [server_dials()]);
    }
    for (command, line, left) in [
        ("PASV\r\n", "227 x (10,0,2,2,9,9)\r\n", "227 x (203,0,113,11,9,9)\r\n"),
        ("PASV\r\n", "227 x (203,0,113,11,9,9)\r\n", "227 x (203,0,113,11,9,9)\r\n"),
        ("EPSV\r\n", "229 x (|||2313|)\r\n", "229 x (|||2313|)\r\n"),
    ] {
        let mut lab = lab();
        lab.client(command);
        let commands = lab.server(line);
        assert_eq!(outside(&commands), left);
        assert_eq!(expected(&commands), ["10.0.1.2 > 203.0.113.11:2313"]);
        assert_eq!(translations(&commands), [client_dials()]);
    }
}

#[test]
fn no_end_may_announce_the_other_and_what_is_refused_shows_no_inside_address() {
    for (line, left) in [
        ("PORT 10,0,2,2,9,9\r\n", "PORT 203,0,113,1,9,9\r\n"),
        ("PORT 203,0,113,11,9,9\r\n", "PORT 203,0,113,11,9,9\r\n"),
    ] {
        let commands = lab().client(line);
        assert_eq!((outside(&commands).as_str(), expected(&commands)), (left, vec![]));
        assert_eq!(refusals(&commands), [Refusal::ForeignAddress]);
    }
    let mut lab = lab();
    lab.client("PASV\r\n");
    let commands = lab.server("227 x (10,0,1,2,9,9)\r\n");
    assert_eq!(outside(&commands), "227 x (203,0,113,11,9,9)\r\n");
    assert_eq!((refusals(&commands), expected(&commands)), (vec![Refusal::ForeignAddress], vec![]));
}

#[test]
fn both_directions_grow_and_each_shifts_the_acknowledgements_of_the_other() {
    let mut lab = lab();
    for round in 0..20 {
        assert_eq!(outside(&lab.client(PORT_LINE)), "PORT 203,0,113,1,9,9\r\n", "{round}");
        let answered = lab.server("200 ok\r\n");
        let Some(Command::Emit(emit)) = answered.last() else { panic!("{answered:?}") };
        assert_eq!(emit.ack, Some(lab.next(Side::Client)));
        lab.client("PASV\r\n");
        assert_eq!(
            outside(&lab.server("227 x (10,0,2,2,9,9)\r\n")),
            "227 x (203,0,113,11,9,9)\r\n"
        );
        let asked = lab.client("NOOP\r\n");
        let Some(Command::Emit(emit)) = asked.last() else { panic!("{asked:?}") };
        assert_eq!(emit.ack, Some(lab.next(Side::Server)));
        lab.server("200 ok\r\n");
    }
}

/// A session that is kept and read again by a successor.
fn succeed(lab: &mut Lab) {
    let image = lab.session.to_bytes().expect("it fits");
    lab.session = Session::from_bytes(&image, Arc::default()).expect("its own bytes");
}

#[test]
fn lines_of_both_ends_may_be_cut_anywhere_and_read_on_by_a_successor() {
    let reply = "227 x (10,0,2,2,9,9)\r\n";
    for (first, second) in
        (1..PORT_LINE.len()).flat_map(|cut| (1..reply.len()).map(move |other| (cut, other)))
    {
        let mut lab = lab();
        lab.client("PASV\r\n");
        let (mut asked, mut answered) = (String::new(), String::new());
        let mut made = Vec::new();
        // One line of each is under way at the same time.
        let pieces = [
            (Side::Server, &reply[..second]),
            (Side::Client, &PORT_LINE[..first]),
            (Side::Server, &reply[second..]),
            (Side::Client, &PORT_LINE[first..]),
        ];
        for (side, piece) in pieces {
            succeed(&mut lab);
            let at = lab.received[side as usize];
            let commands = lab.say(side, piece.as_bytes());
            let left = match side {
                Side::Client => &mut asked,
                Side::Server => &mut answered,
            };
            for command in &commands {
                let Command::Emit(emit) = command else { continue };
                // What goes on in an argument that has left brings its end once more.
                let from = emit.seq.wrapping_sub(super::FIRST[side as usize]);
                let again = at.saturating_sub(from) as usize;
                let text = String::from_utf8_lossy(&emit.payload);
                left.push_str(text.get(again..).unwrap_or_default());
            }
            made.extend(translations(&commands));
        }
        for (text, inside) in [(&asked, "10,0,1,2"), (&answered, "10,0,2,2")] {
            assert!(!text.contains(inside), "{first}, {second}: {text}");
        }
        assert!(asked.starts_with("PORT 203,0,113,1,"), "{first}, {second}: {asked}");
        assert!(answered.starts_with("227 x (203,0,113,11,"), "{first}, {second}: {answered}");
        assert!(asked.ends_with("\r\n") && answered.ends_with(")\r\n"));
        assert_eq!(made, [client_dials(), server_dials()], "{first}, {second}");
    }
}

#[test]
fn what_is_announced_is_taken_back_with_the_reply_and_with_the_session() {
    let mut lab = lab();
    lab.client(PORT_LINE);
    assert_eq!(revoked(&lab.server("500 no\r\n")), [2313]);
    lab.client(PORT_LINE);
    lab.server("200 ok\r\n");
    lab.client("PASV\r\n");
    lab.server("227 x (10,0,2");
    assert_eq!(revoked(&lab.session.on_flow_end(&mut lab.gateway)), [2313]);
    // The port of the line that has not ended is given back.
    assert_eq!(lab.gateway.claimed.len(), 1, "{:?}", lab.gateway.claimed);
}

#[test]
fn the_fullest_session_of_two_inside_ends_fits_its_record() {
    let mut lab = lab();
    lab.client(&format!("USER {}\r\nRETR {}\r\n", "u".repeat(900), "f".repeat(900)));
    for port in 0..40 {
        lab.client(&format!("PASV\r\nEPRT |1|10.0.1.2|{}|\r\n", 50_000 + port));
        lab.server(&format!("227 x (10,0,2,2,250,{})\r\n", 100 + port));
    }
    lab.client("PORT 10,0,1,2,9");
    lab.server("227 x (10,0,2,2,9");
    let bytes = lab.session.to_bytes().expect("it fits");
    println!("it takes {} bytes", bytes.len());
    succeed(&mut lab);
    assert_eq!(lab.session.to_bytes().expect("it fits"), bytes);
}
