//! Hosts inside that dial a public address of their own gateway, with no rule made for it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
};

use nat_tests::{
    chain::{Chain, DEEP},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, OUTSIDE, WAN, WAN_SECOND},
    matrix,
    netns::Namespace,
    requirements,
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

/// An FTP server inside, dialled from inside by the public address of its forward.
fn passive(chain: &Chain, gateway: &mut NatCtl, client: &Namespace) {
    let kind = matrix::servers().expect("two servers")[0];
    let folder = chain.lab.folder("server").expect("a folder");
    let settings = server::Settings::new(kind);
    let server = Server::start(&chain.lab.inside, &settings, &chain.lab.payload, &folder);
    let _server = server.expect("a server");
    let mut session = Session::open(client, WAN)
        .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
    let reply = session.command("PASV", "227").expect("a reply");
    let numbers = WAN.to_string().replace('.', ",");
    assert!(reply.contains(&numbers), "the public address in `{reply}`");
    let data = session.passive().expect("a data connection");
    session.command(&format!("RETR {}", server::FILE), "1").expect("a transfer");
    let digest = session.finish(data);
    let digest = digest.unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
    assert_eq!(digest, chain.lab.payload.sha256);
}

#[test]
fn a_passive_transfer_by_a_forward_works_from_inside() {
    in_each_mode("hairpin, FTP", |chain, gateway| {
        let rule = Rule::ForwardFtp { name: "ftp".into(), public: WAN, to: INSIDE };
        gateway.add(&rule).expect("a rule");
        for client in [&chain.deep, &chain.lab.inside] {
            passive(chain, gateway, client);
        }
    });
}
