//! Everything that isn't FTP: datagrams, echoes, connections, the gateway's own traffic.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, LAN, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    link::{self, End, Offloads},
    netns::{Lifetime, Namespace},
    requirements, session,
    traffic::{self, udp_socket, udp_socket_at},
    wait,
};

const LIMIT: Duration = Duration::from_secs(10);

fn lab_with(offloads: Offloads) -> Lab {
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    lab.set_offloads(offloads).expect("offloads set");
    lab
}

fn datagram_and_answer(lab: &Lab, size: usize) {
    let outside = udp_socket(&lab.outside, 7000).expect("a socket");
    let inside = udp_socket(&lab.inside, 0).expect("a socket");
    inside.send_to(&vec![7; size], (OUTSIDE, 7000)).expect("a datagram");
    let mut buffer = [0; 2000];
    let (length, peer) = outside.recv_from(&mut buffer).expect("a datagram outside");
    assert_eq!((length, peer.ip()), (size, WAN.into()));
    outside.send_to(&buffer[..length], peer).expect("an answer");
    assert_eq!(inside.recv_from(&mut buffer).expect("an answer inside").0, size);
}

fn connection_and_answer(client: &Namespace, server: &Namespace, at: Ipv4Addr, seen_as: Ipv4Addr) {
    let [mut near, mut far] = session::pair(client, server, at).expect("a connection");
    assert_eq!(far.peer_addr().expect("a peer").ip(), seen_as);
    session::say(&mut near, &mut far, b"question").expect("bytes");
    session::say(&mut far, &mut near, b"answered").expect("bytes");
}

#[test]
fn datagrams_echoes_and_connections_come_through_and_back() {
    let Some(binary) = requirements::met_with_binary("masquerade") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        for offloads in [Offloads::On, Offloads::Off] {
            let lab = lab_with(offloads);
            let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
            for size in [0, 1, 33, 1472] {
                datagram_and_answer(&lab, size);
            }
            traffic::echo(&lab.inside, OUTSIDE).expect("an echo");
            connection_and_answer(&lab.inside, &lab.outside, OUTSIDE, WAN);
            gateway.stop().expect("an end");
        }
    }
}

/// A network behind the host outside, which knows the way to the inside.
const SITE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

#[test]
fn networks_that_are_exempt_are_reached_and_reach_untranslated_and_all_else_is_translated() {
    let Some(binary) = requirements::met_with_binary("exempt networks") else { return };
    let lab = lab_with(Offloads::On);
    lab.outside.ip(&format!("address add {SITE}/32 dev {OUTSIDE_DEVICE}")).expect("an address");
    lab.outside.ip(&format!("route add 10.0.1.0/24 via {WAN} src {SITE}")).expect("a route");
    lab.gateway.ip(&format!("route add 10.8.0.0/16 via {OUTSIDE}")).expect("a route");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("[masquerade]\nexempt = [\"10.8.0.0/16\"]\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    connection_and_answer(&lab.inside, &lab.outside, SITE, INSIDE);
    connection_and_answer(&lab.outside, &lab.inside, INSIDE, SITE);
    traffic::echo(&lab.inside, SITE).expect("an echo");
    traffic::echo(&lab.outside, INSIDE).expect("an echo from there");
    connection_and_answer(&lab.inside, &lab.outside, OUTSIDE, WAN);
    datagram_and_answer(&lab, 100);
    // The same host by its other address is not let in.
    let before = gateway.dropped("unsolicited").expect("counters");
    let other = udp_socket_at(&lab.outside, SocketAddrV4::new(OUTSIDE, 0)).expect("a socket");
    other.send_to(b"let me in", (INSIDE, 7000)).expect("a datagram");
    wait::until_true(LIMIT, "a refusal", || Ok(gateway.dropped("unsolicited")? > before))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let packet = ["explain", "--protocol", "udp", "10.0.1.2:5000", "10.8.0.1:53"];
    let told = gateway.json(&packet).expect("an explanation");
    assert_eq!(
        (&told["leaves"]["src"], &told["leaves"]["sport"]),
        (&"10.0.1.2".into(), &5000.into())
    );
    assert!(told["because"].to_string().contains("exempt from NAT"), "{told}");
    gateway.stop().expect("an end");
}

#[test]
fn the_gateways_own_connections_are_untouched() {
    let Some(binary) = requirements::met_with_binary("own connections") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = lab_with(Offloads::On);
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        connection_and_answer(&lab.gateway, &lab.outside, OUTSIDE, WAN);
        connection_and_answer(&lab.outside, &lab.gateway, WAN, OUTSIDE);
        connection_and_answer(&lab.inside, &lab.gateway, LAN, INSIDE);
        connection_and_answer(&lab.gateway, &lab.inside, INSIDE, LAN);
        traffic::echo(&lab.gateway, OUTSIDE).expect("an echo to the outside");
        traffic::echo(&lab.inside, LAN).expect("an echo to the gateway");
        traffic::echo(&lab.outside, WAN).expect("an echo from the outside");
        gateway.stop().expect("an end");
    }
}

#[test]
fn unsolicited_datagrams_are_dropped_with_a_reason() {
    let Some(binary) = requirements::met_with_binary("unsolicited") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = lab_with(Offloads::On);
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let stranger = udp_socket(&lab.outside, 0).expect("a socket");
        let drops = || {
            let drops = gateway.json(&["drops"])?;
            let fields = drops.as_object().into_iter().flatten();
            let counts =
                fields.filter(|(name, _)| *name != "version").filter_map(|(_, n)| n.as_u64());
            Ok::<_, anyhow::Error>(counts.sum::<u64>())
        };
        let before = drops().expect("counters");
        for port in 40_000..40_010 {
            stranger.send_to(b"let me in", (WAN, port)).expect("a datagram");
        }
        wait::until_true(LIMIT, "ten drops", || Ok(drops()? >= before + 10))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        gateway.stop().expect("an end");
    }
}

/// A third interface of the gateway, with a host behind it that has the gateway as its router.
fn host_behind_an_unnamed_interface(lab: &Lab) -> Namespace {
    let third = Namespace::new(lab.name(), "third", Lifetime::Run).expect("a namespace");
    link::connect(
        End { namespace: &lab.gateway, name: "third0", addresses: &["10.0.9.1/24"] },
        End { namespace: &third, name: "host0", addresses: &["10.0.9.2/24"] },
    )
    .expect("a link");
    third.ip("route add default via 10.0.9.1").expect("a route");
    third
}

#[test]
fn an_interface_that_nobody_named_neither_leaks_nor_is_reached() {
    let Some(binary) = requirements::met_with_binary("unnamed interface") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = lab_with(Offloads::On);
        let third = host_behind_an_unnamed_interface(&lab);
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        lab.outside.ip(&format!("route add 10.0.9.0/24 via {WAN}")).expect("a route");
        let folder = lab.folder("capture").expect("a folder");
        let outside =
            Capture::start(&lab.outside, OUTSIDE_DEVICE, "udp", &folder).expect("a capture");
        let behind = Capture::start(&third, "host0", "udp", &folder).expect("a capture");
        let leaving = udp_socket(&third, 0).expect("a socket");
        let entering = udp_socket(&lab.outside, 0).expect("a socket");
        let counted = |reason: &str| gateway.json(&["drops"]).map(|drops| drops[reason].as_u64());
        let before = counted("unsolicited").expect("counters");
        leaving.send_to(b"out of the third", (OUTSIDE, 9)).expect("a datagram");
        entering.send_to(b"into the third", ("10.0.9.2", 9)).expect("a datagram");
        wait::until_true(LIMIT, "both drops", || {
            Ok(counted("untranslated")? >= Some(1) && counted("unsolicited")? > before)
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        let seen = |capture: Capture, text: &str| {
            capture.finish().expect("a capture").iter().any(|frame| frame.says(text))
        };
        assert!(!seen(outside, "out of the third"), "{mode}: a private address outside");
        assert!(!seen(behind, "into the third"), "{mode}: reached from outside");
        gateway.stop().expect("an end");
    }
}

#[test]
fn a_hundred_ports_claimed_from_two_threads_have_one_owner_each() {
    let Some(binary) = requirements::met_with_binary("port owners") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = lab_with(Offloads::On);
        let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
        gateway.configure("[masquerade]\nports = \"20000-20099\"\n").expect("a configuration");
        gateway.run(&[]).expect("a start");
        let folder = lab.folder("capture").expect("a folder");
        let capture =
            Capture::start(&lab.outside, OUTSIDE_DEVICE, "udp", &folder).expect("a capture");
        let sockets = |base: u16| {
            (base..base + 100)
                .map(|port| udp_socket(&lab.inside, port))
                .collect::<Result<Vec<_>, _>>()
        };
        let (odd, even) = (sockets(31_000).expect("sockets"), sockets(32_000).expect("sockets"));
        std::thread::scope(|scope| {
            for sockets in [&odd, &even] {
                scope.spawn(move || {
                    for _ in 0..3 {
                        for socket in sockets {
                            let port = socket.local_addr().expect("an address").port();
                            let text = format!("from {port};");
                            socket.send_to(text.as_bytes(), (OUTSIDE, 9)).expect("a datagram");
                        }
                    }
                });
            }
        });
        let owners = || {
            let mut owners = HashMap::<u16, Vec<u16>>::new();
            for frame in capture.so_far()? {
                assert!(!frame.names(is_inside));
                let Some(ip) = frame.ipv4.as_ref().filter(|ip| ip.source == WAN) else { continue };
                let Some((public, _)) = ip.ports else { continue };
                let inside = (31_000..32_100).find(|port| frame.says(&format!("from {port};")));
                let known = owners.entry(public).or_default();
                inside.into_iter().for_each(|port| known.push(port));
            }
            Ok::<_, anyhow::Error>(owners)
        };
        wait::until_true(LIMIT, "a hundred public ports in use", || Ok(owners()?.len() >= 100))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        for (public, mut inside) in owners().expect("a capture") {
            assert!((20_000..20_100).contains(&public), "public port {public}");
            inside.dedup();
            inside.sort_unstable();
            inside.dedup();
            assert_eq!(inside.len(), 1, "public port {public} belongs to {inside:?}");
        }
        gateway.stop().expect("an end");
    }
}
