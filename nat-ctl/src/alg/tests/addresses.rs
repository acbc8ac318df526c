//! Servers with more than one address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{super::*, Lab, expected, flow, outside, refusals};

/// A session with a server that has another address, and that address.
fn lab(inside: Side) -> (Lab, IpAddr) {
    let flow = flow(inside);
    let other = match inside {
        Side::Client => IpAddr::from([203, 0, 113, 11]),
        Side::Server => IpAddr::from([10, 0, 2, 3]),
    };
    let data_addresses = BTreeMap::from([(flow.server.ip(), vec![other])]);
    let policy = Arc::new(Policy { data_addresses, ..Policy::default() });
    (Lab::with(Session::joined(flow, policy)), other)
}

fn revoked(commands: &[Command]) -> Vec<String> {
    let gone = commands.iter().filter_map(|command| match command {
        Command::Unexpect(key) => Some(format!("{} > {}", key.from, key.to)),
        _ => None,
    });
    gone.collect()
}

#[test]
fn a_server_may_dial_from_each_of_its_addresses_and_all_are_taken_back() {
    for (inside, line, left, wanted) in [
        (
            Side::Client,
            "PORT 10,0,1,2,9,9\r\n",
            "PORT 203,0,113,1,9,9\r\n",
            ["203.0.113.10 > 203.0.113.1:2313", "203.0.113.11 > 203.0.113.1:2313"],
        ),
        (
            Side::Server,
            "PORT 203,0,113,20,9,9\r\n",
            "PORT 203,0,113,20,9,9\r\n",
            ["10.0.2.2 > 203.0.113.20:2313", "10.0.2.3 > 203.0.113.20:2313"],
        ),
    ] {
        let (mut lab, other) = lab(inside);
        let commands = lab.client(line);
        assert_eq!(outside(&commands), left);
        assert_eq!(expected(&commands), wanted);
        assert_eq!(revoked(&lab.server("500 no\r\n")), wanted);
        let flow = flow(inside);
        assert_eq!([flow.server.ip(), other].map(|from| flow.dials(from)), [Side::Server; 2]);
        assert_eq!(flow.dials(flow.client.ip()), Side::Client);
        lab.client(line);
        assert_eq!(revoked(&lab.session.on_flow_end(&mut lab.gateway)), wanted);
    }
}

#[test]
fn a_server_may_announce_another_of_its_addresses() {
    let (mut lab, _) = lab(Side::Server);
    for parts in [&["227 x (10,0,2,3,9,9)\r\n"][..], &["227 x (10,0,", "2,3,9,9)\r\n"]] {
        lab.client("PASV\r\n");
        let commands: Vec<Command> = parts.iter().flat_map(|part| lab.server(part)).collect();
        let made: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Expect(made) => Some(made.translation),
                _ => None,
            })
            .collect();
        let to = SocketAddr::new(IpAddr::from([10, 0, 2, 3]), 9 * 256 + 9);
        assert_eq!(made, [Translation::Inbound(to)], "{parts:?}");
        assert!(outside(&commands).contains("(203,0,113,1,"), "{}", outside(&commands));
    }

    let (mut lab, other) = self::lab(Side::Client);
    lab.client("PASV\r\n");
    let commands = lab.server("227 x (203,0,113,11,9,9)\r\n");
    assert_eq!(expected(&commands), [format!("10.0.1.2 > {other}:2313")]);
}

#[test]
fn what_is_nobody_s_address_stays_foreign() {
    let (mut lab, _) = lab(Side::Server);
    lab.client("PASV\r\n");
    let commands = lab.server("227 x (10,0,2,4,9,9)\r\n");
    assert_eq!(refusals(&commands), [Refusal::ForeignAddress]);
    // The client has none but its own.
    let (mut lab, _) = self::lab(Side::Client);
    assert_eq!(refusals(&lab.client("PORT 203,0,113,11,9,9\r\n")), [Refusal::ForeignAddress]);
}
