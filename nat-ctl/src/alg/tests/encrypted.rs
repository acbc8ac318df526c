//! Sessions that become encrypted, and clear again.

use super::{super::*, Lab, expected, flow, outside, revoked, watched};

/// A record of this many bytes behind its header, all of them `fill`.
fn record(length: u16, fill: u8) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [&[22, 3, 3, high, low][..], &vec![fill; length.into()]].concat()
}

/// A client inside whose AUTH has been accepted.
fn encrypted(inside: Side) -> Lab {
    let mut lab = Lab::new(inside);
    lab.client("AUTH TLS\r\n");
    lab.server("234 go\r\n");
    lab
}

/// One whose streams both have had records.
fn in_records(inside: Side) -> Lab {
    let mut lab = encrypted(inside);
    lab.say(Side::Client, &record(100, 1));
    lab.say(Side::Server, &record(200, 2));
    lab
}

#[test]
fn behind_an_accepted_auth_only_records_are_watched() {
    let mut lab = Lab::new(Side::Client);
    lab.client("AUTH TLS\r\n");
    let commands = lab.server("234 go\r\n");
    let [client, server] = [lab.next(Side::Client), lab.next(Side::Server)];
    let watches = [
        (Side::Client, Watch::records(client, client)),
        (Side::Server, Watch::records(server, server)),
    ];
    assert_eq!(watched(&commands), watches);
    let commands = lab.say(Side::Client, &record(100, 1));
    assert_eq!(
        watched(&commands),
        [(Side::Client, Watch::records(client, client.wrapping_add(105)))]
    );
    assert_eq!(lab.session.ended(), Some(End::Encrypted));
}

#[test]
fn encryption_from_the_first_byte_is_recognised_by_that_byte() {
    for first in [&record(512, 0)[..], &[22]] {
        let mut lab = Lab::with(Session::new(flow(Side::Client), Default::default()));
        let commands = lab.say(Side::Client, first);
        assert!(commands.contains(&Command::EndInspection(End::Encrypted)), "{commands:?}");
        assert_eq!(watched(&commands).len(), 2);
        lab.say(Side::Server, &record(80, 0));
        assert_eq!(lab.session.ended(), Some(End::Encrypted));
    }
}

#[test]
fn a_client_that_does_not_wait_for_the_answer_to_auth_is_encrypted_first() {
    let mut lab = Lab::new(Side::Client);
    lab.client("AUTH TLS\r\n");
    assert_eq!(watched(&lab.say(Side::Client, &record(100, 1))).len(), 1);
    let commands = lab.server("234 go\r\n");
    assert_eq!(watched(&commands).len(), 1);
    lab.say(Side::Server, &record(100, 1));
    assert_eq!(expected(&lab.client("PASV\r\n")), [""; 0]);
    assert_eq!(
        expected(&lab.server("227 x (203,0,113,10,9,9)\r\n")),
        ["10.0.1.2 > 203.0.113.10:2313"]
    );
}

#[test]
fn lines_behind_the_last_record_are_read_again() {
    let mut lab = in_records(Side::Client);
    let commands = lab.client("PORT 10,0,1,2,9,9\r\n");
    assert_eq!(expected(&commands), ["203.0.113.10 > 203.0.113.1:2313"]);
    assert_eq!(outside(&commands), "PORT 203,0,113,1,9,9\r\n");
    assert_eq!(watched(&commands), [(Side::Client, Watch::LINES)]);
    assert_eq!(lab.session.ended(), Some(End::Encrypted), "the server may still be");
    let commands = lab.server("200 ok\r\n");
    assert!(commands.contains(&Command::ResumeInspection), "{commands:?}");
    assert_eq!(watched(&commands), [(Side::Server, Watch::LINES)]);
    assert_eq!(lab.session.ended(), None);
    // And encrypted again.
    lab.client("AUTH TLS\r\n");
    assert_eq!(revoked(&lab.server("234 go\r\n")), [2313]);
    assert_eq!(lab.session.ended(), Some(End::Encrypted));
}

#[test]
fn what_comes_behind_the_last_record_must_be_ftp() {
    let mut lab = in_records(Side::Client);
    let commands = lab.client("what\r\nPORT 10,0,1,2,9,9\r\n");
    assert_eq!((expected(&commands), lab.session.ended()), (vec![], Some(End::NotFtp)));
}

#[test]
fn a_line_within_a_record_is_none() {
    let mut lab = in_records(Side::Client);
    let port = b"PORT 10,0,1,2,9,9\r\n";
    // The record is cut so that its segments start like lines.
    for piece in [&[23, 3, 3, 0, 38][..], port, port] {
        let commands = lab.say(Side::Client, piece);
        assert_eq!((expected(&commands), outside(&commands).len()), (vec![], piece.len()));
    }
    assert_eq!(expected(&lab.say(Side::Client, port)).len(), 1, "and behind it they are lines");
}

#[test]
fn a_line_where_the_first_record_should_be_ends_reading_for_good() {
    let mut lab = encrypted(Side::Server);
    let commands = lab.server("227 x (10,0,2,2,9,9)\r\n");
    assert_eq!(expected(&commands), [""; 0]);
    lab.say(Side::Client, &record(10, 0));
    lab.client("PASV\r\n");
    assert_eq!(expected(&lab.server("227 x (10,0,2,2,9,9)\r\n")), [""; 0]);
    assert_eq!(lab.session.ended(), Some(End::Encrypted));
}

#[test]
fn a_header_that_is_cut_is_put_together() {
    let mut lab = in_records(Side::Client);
    let start = lab.next(Side::Client);
    let hello = record(20, 3);
    for at in 0..hello.len() {
        let commands = lab.say(Side::Client, &hello[at..at + 1]);
        let watches = watched(&commands);
        let moved = watches.iter().map(|(_, watch)| watch.next_record());
        // The data plane waits at the header until it is whole.
        let wanted = if at == 4 { vec![Some(start.wrapping_add(25))] } else { vec![] };
        assert_eq!(moved.collect::<Vec<_>>(), wanted, "byte {at}");
    }
    assert_eq!(expected(&lab.client("PORT 10,0,1,2,9,9\r\n")).len(), 1);
}

#[test]
fn records_that_others_have_followed_are_skipped() {
    let mut lab = in_records(Side::Client);
    let next = lab.next(Side::Client);
    lab.session.followed(Side::Client, next.wrapping_add(5000));
    assert!(lab.session.has_read(Side::Client, next.wrapping_add(4000)), "an end that comes early");
    lab.sent[Side::Client as usize] += 5000;
    lab.received[Side::Client as usize] += 5000;
    assert_eq!(expected(&lab.client("PORT 10,0,1,2,9,9\r\n")).len(), 1);
}

#[test]
fn a_gap_that_never_closes_ends_reading() {
    let mut lab = in_records(Side::Client);
    let at = lab.sent[Side::Client as usize] + 1;
    let mut dropped = 0;
    let passed = loop {
        let commands = lab.say_at(Side::Client, at, b"x", None);
        match commands[..] {
            [Command::Drop { reason: DropReason::Gap, .. }] => dropped += 1,
            _ => break commands,
        }
    };
    assert_eq!((dropped, outside(&passed).as_str()), (5, "x"));
    assert_eq!(lab.session.ended(), Some(End::Encrypted));
}

#[test]
fn numbers_that_are_far_from_the_start_move_it_on() {
    let mut lab = in_records(Side::Client);
    let next = lab.next(Side::Client);
    let far = 1 << 29;
    lab.session.followed(Side::Client, next.wrapping_add(far));
    let commands =
        lab.say_at(Side::Client, lab.sent[Side::Client as usize] + far, &record(9, 0), None);
    let start = next.wrapping_add(far);
    assert_eq!(watched(&commands), [(Side::Client, Watch::records(start, start.wrapping_add(14)))]);
}
