//! Strict mode: what ends a session, and what does not.

use std::sync::Arc;

use super::{super::*, Lab, expected, flow, outside, refusals, revoked};

fn policy(denied: &[&str]) -> Arc<Policy> {
    let denied = denied.iter().map(|word| (*word).to_owned()).collect();
    Arc::new(Policy { strict: Some(Strict { denied }), ..Policy::default() })
}

/// A session in strict mode in which somebody has logged in.
fn logged_in(inside: Side, denied: &[&str]) -> Lab {
    let mut lab = Lab::with(Session::new(flow(inside), policy(denied)));
    for (side, line) in [
        (Side::Server, "220-welcome\r\n220 here\r\n"),
        (Side::Client, "USER anna\r\n"),
        (Side::Server, "331 and?\r\n"),
        (Side::Client, "PASS sesame\r\n"),
        (Side::Server, "230 in\r\n"),
    ] {
        let commands = lab.say(side, line.as_bytes());
        assert_eq!(outside(&commands), line);
    }
    lab
}

fn is_reset(commands: &[Command]) -> bool {
    let sends = |it: &Command| matches!(it, Command::Emit(_));
    matches!(commands.last(), Some(Command::Reset { .. })) && !commands.iter().any(sends)
}

#[test]
fn an_ordinary_session_is_left_alone() {
    for inside in [Side::Client, Side::Server] {
        let mut lab = logged_in(inside, &["SITE"]);
        let dialogue = [
            (Side::Client, "HELP\r\n"),
            (Side::Server, "214-The commands are\r\n PORT PASV SITE\r\nPORT 1\r\n214 end\r\n"),
            (Side::Client, "EPSV\r\n"),
            (Side::Server, "229 Extended (|||50000|)\r\n"),
            (Side::Client, "RETR file\r\n"),
            (Side::Server, "150 go\r\n"),
            (Side::Client, "STAT\r\n"),
            (Side::Server, "213 half\r\n"),
            (Side::Server, "226 done\r\n"),
            (Side::Client, "\u{0}\r\n"),
            (Side::Server, "500 what\r\n"),
            (Side::Client, "QUIT\r\n"),
        ];
        for (side, line) in dialogue {
            let commands = lab.say(side, line.as_bytes());
            assert_eq!(outside(&commands), line, "{line}");
            assert_eq!(refusals(&commands), [], "{line}");
        }
        assert_eq!(lab.session.ended(), None);
    }
}

#[test]
fn each_rule_ends_the_session_before_the_line_leaves() {
    let long = format!("RETR {}\r\n", "x".repeat(600));
    for (line, reason) in [
        ("SITE CHMOD 777 x\r\n", Refusal::DeniedCommand),
        ("sItE x\r\n", Refusal::DeniedCommand),
        ("PWD\nCWD x\r\n", Refusal::LineEnd),
        ("PWD\n", Refusal::LineEnd),
        (&long, Refusal::TooLong),
        (long.trim_end(), Refusal::TooLong),
        ("PORT 10,0,1,2,9\r\n", Refusal::Truncated),
        ("PORT\r\n", Refusal::Truncated),
        ("PORT 10,0,1,2,9,9 \r\n", Refusal::TrailingBytes),
        ("PORT 10,0,1,2,9,9 x\r\n", Refusal::Malformed),
        ("PORT 10,0,1,2,0,22\r\n", Refusal::SystemPort),
        ("PORT 10,0,1,99,9,9\r\n", Refusal::ForeignAddress),
        ("227 Entering Passive Mode (10,0,1,2,9,9)\r\n", Refusal::Spoofed),
        ("PWD\r\nPWD\r\n", Refusal::Pipelined),
    ] {
        let mut lab = logged_in(Side::Client, &["SITE"]);
        let commands = lab.client(line);
        assert_eq!(refusals(&commands), [reason], "{line}");
        assert!(is_reset(&commands), "{line}: {commands:?}");
        assert_eq!(lab.session.ended(), Some(End::Reset));
        // Whatever comes later gets the same answer.
        assert_eq!(lab.client("NOOP\r\n").len(), 1);
        assert!(is_reset(&lab.server("200 ok\r\n")));
    }
}

#[test]
fn a_server_is_held_to_its_part() {
    for (before, line, reason) in [
        ("PWD\r\n", "PORT 10,0,2,2,9,9\r\n", Refusal::Spoofed),
        ("PWD\r\n", "227 x (10,0,2,2,9,9)\r\n", Refusal::Unsolicited),
        ("PASV\r\n", "227 Logout.\r\n", Refusal::Truncated),
        ("PASV\r\n", "227 x (10,0,2,2,9,9). And more of it\r\n", Refusal::TrailingBytes),
    ] {
        let mut lab = logged_in(Side::Server, &[]);
        lab.client(before);
        let commands = lab.server(line);
        assert_eq!(refusals(&commands), [reason], "{line}");
        assert!(is_reset(&commands), "{line}: {commands:?}");
    }
}

#[test]
fn nothing_is_announced_before_a_login_and_the_session_goes_on() {
    let mut lab = Lab::with(Session::new(flow(Side::Client), policy(&[])));
    lab.server("220 here\r\n");
    let commands = lab.client("PORT 10,0,1,2,9,9\r\n");
    assert_eq!(refusals(&commands), [Refusal::NotLoggedIn]);
    assert_eq!(
        (outside(&commands).as_str(), expected(&commands).len()),
        ("PORT 203,0,113,1,9,9\r\n", 0)
    );
    lab.server("530 no\r\n");
    for (side, line) in [(Side::Client, "USER anna\r\n"), (Side::Server, "230 in\r\n")] {
        lab.say(side, line.as_bytes());
    }
    assert_eq!(expected(&lab.client("PORT 10,0,1,2,9,9\r\n")).len(), 1);
}

#[test]
fn what_does_not_begin_as_ftp_is_ended_and_so_is_encryption_that_nobody_may_ask_for() {
    let mut lab = Lab::with(Session::new(flow(Side::Client), policy(&[])));
    lab.server("220 here\r\n");
    assert!(is_reset(&lab.client("GET / HTTP/1.1\r\n")));
    let mut lab = Lab::with(Session::new(flow(Side::Client), policy(&["AUTH"])));
    assert!(is_reset(&lab.say(Side::Client, &[22, 3, 1, 2, 0])));
    let mut lab = Lab::with(Session::new(flow(Side::Client), policy(&[])));
    assert!(!is_reset(&lab.say(Side::Client, &[22, 3, 1, 2, 0])));
}

#[test]
fn the_end_takes_back_what_was_announced_and_names_the_numbers_that_are_expected() {
    let mut lab = logged_in(Side::Client, &["SITE"]);
    lab.client("PORT 10,0,1,2,9,9\r\n");
    lab.server("200 ok\r\n");
    let next = lab.received[Side::Client as usize];
    let acknowledged = lab.next(Side::Server);
    let commands = lab.client("SITE x\r\n");
    assert_eq!(revoked(&commands), [9 * 256 + 9]);
    let seq = super::FIRST[0].wrapping_add(next);
    let reset = Command::Reset { side: Side::Client, seq, ack: Some(acknowledged) };
    assert_eq!(commands.last(), Some(&reset));
}

#[test]
fn no_line_is_vouched_for() {
    let mut lab = logged_in(Side::Client, &[]);
    assert_eq!([Side::Client, Side::Server].map(|side| lab.session.resolved(side)), [None; 2]);
    lab.client("NOOP\r\n");
    assert_eq!(lab.session.resolved(Side::Client), None);
}

#[test]
fn a_successor_reads_by_its_own_rules() {
    let lab = logged_in(Side::Client, &[]);
    let image = lab.session.to_bytes().expect("it fits");
    let session = Session::from_bytes(&image, policy(&["DELE"])).expect("its own bytes");
    let mut successor = Lab { session, ..lab };
    assert!(is_reset(&successor.client("DELE x\r\n")));
}

#[test]
fn a_rule_of_the_gateway_may_hold_its_sessions_to_it_or_let_them_be() {
    use nat_common::rule::RuleId;
    let by_rule = Strict { denied: vec!["SITE".to_owned()] };
    for everybody in [false, true] {
        let strict = everybody.then(|| by_rule.clone());
        let mut sessions =
            Sessions::new(Policy { strict, by_rule: by_rule.clone(), ..Policy::default() });
        let [held, free, other] = [3, 4, 5].map(RuleId::new);
        sessions.hold(&[(held, true), (free, false)].into());
        for (rule, ends) in
            [(held, true), (free, false), (other, everybody), (RuleId::NONE, everybody)]
        {
            let session = sessions.start(flow(Side::Client), rule).clone();
            let mut lab = Lab::with(session);
            lab.server("220 here\r\n");
            assert_eq!(is_reset(&lab.client("SITE x\r\n")), ends, "{rule:?} {everybody}");
        }
    }
}
