//! Hosts inside that dial a public address of their own gateway, with no rule made for it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
};

use nat_tests::{
    chain::{Chain, DEEP},
    client::{self, DataMode, Kind, Request},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, OUTSIDE, WAN, WAN_SECOND},
    matrix, requirements,
    server::{self, Server},
    session::{Session, accept, connect},
    traffic::{self, udp_socket, udp_socket_at},
};

/// The gateway in each mode, between hosts inside that have routers between them.
fn in_each_mode(name: &str, test: impl Fn(&Chain, &mut NatCtl)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = Chain::new().expect("a chain");
        let mut gateway = NatCtl::start(&chain.lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        test(&chain, &mut gateway);
        gateway.stop().expect("an end");
    }
}

fn add(gateway: &NatCtl, words: &[&str]) {
    gateway.call(words).expect("a call").checked("a rule").expect("a rule");
}

#[test]
fn a_forward_is_reached_from_another_host_inside_and_from_its_own() {
    in_each_mode("hairpin, TCP", |chain, gateway| {
        let (public, to) = (format!("{WAN}:8080"), format!("{INSIDE}:80"));
        let words = ["forward", "add", "--name", "web", "--protocol", "tcp"];
        add(gateway, &[&words[..], &["--public", &public, "--to", &to]].concat());
        let inside = &chain.lab.inside;
        let listener = inside
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))
            .expect("a namespace")
            .expect("a listener");
        for client in [&chain.deep, inside] {
            let mut near = connect(client, SocketAddrV4::new(WAN, 8080))
                .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
            let mut far = accept(&listener).expect("a connection");
            // The server sees the public address, and answers by the gateway.
            assert_eq!(far.peer_addr().expect("a peer").ip(), WAN);
            near.write_all(&[7; 100_000]).expect("a write");
            far.read_exact(&mut vec![0; 100_000]).expect("a read");
            far.write_all(b"answered").expect("a write");
            near.read_exact(&mut [0; 8]).expect("a read");
        }
    });
}

#[test]
fn datagrams_reach_the_mapping_of_another_host_and_show_that_of_their_own() {
    in_each_mode("hairpin, UDP", |chain, gateway| {
        let server = udp_socket(&chain.lab.outside, 3478).expect("a socket outside");
        let sockets = [&chain.deep, &chain.lab.inside].map(|it| udp_socket(it, 0).expect("one"));
        let mut buffer = [0; 100];
        let mapped = sockets.each_ref().map(|socket| {
            socket.send_to(b"who am I?", (OUTSIDE, 3478)).expect("a datagram");
            server.recv_from(&mut buffer).expect("a datagram outside").1
        });
        for (from, to) in [(0, 1), (1, 0)] {
            sockets[from].send_to(b"hello", mapped[to]).expect("a datagram");
            let (length, peer) = sockets[to]
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("{error}: {}", gateway.diagnosis()));
            assert_eq!((&buffer[..length], peer), (&b"hello"[..], mapped[from]));
        }
    });
}

#[test]
fn an_address_of_its_own_is_reached_from_inside_by_echo_and_datagram() {
    in_each_mode("hairpin, one-to-one", |chain, gateway| {
        let (public, to) = (WAN_SECOND.to_string(), DEEP.to_string());
        let words = ["one-to-one", "add", "--name", "deep", "--public", &public, "--to", &to];
        add(gateway, &[&words[..], &["--inbound", "any"]].concat());
        for from in [&chain.lab.inside, &chain.deep] {
            traffic::echo(from, WAN_SECOND)
                .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
        }
        let host = udp_socket(&chain.deep, 7000).expect("a socket");
        let client = udp_socket_at(&chain.lab.inside, SocketAddrV4::new(INSIDE, 0)).expect("one");
        client.send_to(b"question", (WAN_SECOND, 7000)).expect("a datagram");
        let mut buffer = [0; 100];
        let (_, peer) = host.recv_from(&mut buffer).expect("a question");
        assert_eq!(peer.ip(), WAN);
        host.send_to(b"answer", peer).expect("an answer");
        let (_, peer) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!(peer, SocketAddrV4::new(WAN_SECOND, 7000).into());
    });
}

/// Every command of two clients to a server inside that has a rule, from a host beside it, and from its
/// own; and where an active data connection comes from.
fn transfers(chain: &Chain, gateway: &mut NatCtl, kind: server::Kind, rule: &Rule) {
    gateway.add(rule).expect("a rule");
    let (lab, address) = (&chain.lab, WAN_SECOND);
    let folder = lab.folder("server").expect("a folder");
    let settings = server::Settings::new(kind);
    let server = Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server");
    let folder = lab.folder("client").expect("a folder");
    let (deep, own) = (&chain.deep, &lab.inside);
    for (host, client, mode) in [
        (deep, Kind::Curl, DataMode::Port),
        (deep, Kind::Curl, DataMode::Eprt),
        (deep, Kind::Curl, DataMode::Pasv),
        (deep, Kind::Lftp, DataMode::Port),
        (deep, Kind::Lftp, DataMode::Epsv),
        (own, Kind::Curl, DataMode::Port),
        (own, Kind::Curl, DataMode::Pasv),
    ] {
        let request = Request::new(client, mode, address);
        let done = client::transfer(host, &request, &server, &lab.payload, &folder);
        let from = host.name();
        done.unwrap_or_else(|error| {
            panic!("{kind} {client} {mode} from {from}: {error:#}: {}", gateway.diagnosis())
        });
    }
    let mut session = Session::open(deep, address).expect("a session");
    for command in ["RETR", "LIST"] {
        // Two of a session: the numbers of both directions are shifted by then.
        let listener = session.active().expect("a listener");
        session.command(&format!("{command} {}", server::FILE), "1").expect("a transfer");
        let data = accept(&listener).expect("a data connection");
        let from = data.peer_addr().expect("a peer");
        assert_eq!(from.ip(), address, "{kind}: as the client has dialled it");
        if kind == server::Kind::Vsftpd {
            assert_eq!(from.port(), 20, "its own port is free");
        }
        session.finish(data).expect("its end");
        let data = session.passive().expect("a data connection");
        session.command(&format!("RETR {}", server::FILE), "1").expect("a transfer");
        assert_eq!(session.finish(data).expect("a file"), lab.payload.sha256);
    }
    gateway.remove(rule).expect("an end of the rule");
}

#[test]
fn files_come_from_a_server_inside_to_hosts_inside_by_every_command() {
    let (name, public, to) = ("ftp".to_owned(), WAN_SECOND, INSIDE);
    let rules =
        [Rule::ForwardFtp { name: name.clone(), public, to }, Rule::OneToOne { name, public, to }];
    in_each_mode("hairpin, FTP", |chain, gateway| {
        for (kind, rule) in matrix::servers().expect("two servers").into_iter().zip(&rules) {
            transfers(chain, gateway, kind, rule);
        }
        assert_eq!(gateway.dropped("unsolicited").expect("drops"), 0, "{}", gateway.diagnosis());
    });
}
