//! A pool whose ports are all in use: shared by remote end, to the last one, and refused after it.

use std::{collections::HashSet, io::ErrorKind, net::UdpSocket, time::Duration};

use nat_tests::{
    capture::Capture,
    flood,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    netns::Lifetime,
    requirements,
    traffic::udp_socket,
    wait,
};

const LIMIT: Duration = Duration::from_secs(10);

fn gateway<'a>(lab: &'a Lab, mode: Mode, pool: &str) -> Option<NatCtl<'a>> {
    let binary = requirements::met_with_binary("overload")?;
    let mut gateway = NatCtl::prepare(lab, mode, &binary).expect("a gateway");
    gateway
        .configure(&format!("[masquerade]\nports = \"{pool}\"\n[limits]\nflows_per_host = 0\n"))
        .expect("a configuration");
    gateway.run(&[]).expect("a start");
    Some(gateway)
}

/// The text that arrives, and the public port that it comes from; it is sent back.
fn echo(outside: &UdpSocket) -> (String, u16) {
    let mut buffer = [0; 100];
    let (length, peer) = outside.recv_from(&mut buffer).expect("a datagram outside");
    assert_eq!(peer.ip(), WAN);
    outside.send_to(&buffer[..length], peer).expect("an answer");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), peer.port())
}

fn answer(inside: &UdpSocket) -> String {
    let mut buffer = [0; 100];
    let length = inside.recv(&mut buffer).expect("an answer inside");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn three_ports_are_shared_to_the_last_and_nothing_leaves_untranslated() {
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let Some(gateway) = gateway(&lab, mode, "20000-20002") else { return };
        let folder = lab.folder("capture").expect("a folder");
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");
        let remotes: Vec<UdpSocket> =
            [7000, 7001].map(|port| udp_socket(&lab.outside, port).expect("a socket")).into();
        let hosts: Vec<UdpSocket> =
            (0..4u16).map(|n| udp_socket(&lab.inside, 31_000 + n).expect("a socket")).collect();
        let mut first = None;
        for (at, remote) in remotes.iter().enumerate() {
            let mut ports = HashSet::new();
            // Each remote end is dialled by three of the four, and not by the same ones.
            for host in hosts.iter().cycle().skip(at).take(3) {
                let text = format!("to {at} from {host:?}");
                let to = (OUTSIDE, remote.local_addr().expect("an address").port());
                host.send_to(text.as_bytes(), to).expect("a datagram");
                let (arrived, port) = echo(remote);
                assert_eq!(arrived, text);
                assert!((20_000..20_003).contains(&port) && ports.insert(port), "{mode}: {port}");
                first.get_or_insert(port);
                assert_eq!(answer(host), text, "{mode}: the answer is for who asked");
            }
        }
        let before = gateway.dropped("ports-exhausted").expect("counters");
        assert_eq!(before, 0, "{mode}");
        // The last one dials the first one by its public port.
        let first = first.expect("a port");
        for (host, to) in [(3, (OUTSIDE, 7000)), (0, (OUTSIDE, 7001)), (3, (WAN, first))] {
            hosts[host].connect(to).expect("a destination");
            hosts[host].send(b"one too many").expect("a datagram");
            // The kernel takes "administratively prohibited" for this (icmp_err_convert).
            let told = hosts[host].recv(&mut [0; 20]).expect_err("an error");
            assert_eq!(told.kind(), ErrorKind::HostUnreachable, "{mode}: {told}");
        }
        wait::until_true(LIMIT, "three refusals", || Ok(gateway.dropped("ports-exhausted")? == 3))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        for frame in capture.finish().expect("a capture") {
            assert!(!frame.names(is_inside), "{mode}: an inside address outside: {frame:?}");
            assert!(!frame.says("one too many"), "{mode}: refused, and it left");
        }
        gateway.stop().expect("an end");
    }
}

/// A crowd: more inside endpoints than ports, and more flows than any address has ports.
const ENDPOINTS: usize = 2000;
const REMOTES: u16 = 100;
/// Endpoints that dial each remote end: seven tenths of the pool.
const DIALLED_BY: usize = 700;
/// What the buffers of a socket hold.
const BATCH: usize = 50;

#[test]
fn seventy_thousand_flows_have_one_public_address() {
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let Some(gateway) = gateway(&lab, Mode::Tc, "20000-20999") else { return };
    let hosts: Vec<UdpSocket> =
        (0..ENDPOINTS).map(|_| udp_socket(&lab.inside, 0).expect("a socket")).collect();
    for number in 0..REMOTES {
        let remote = udp_socket(&lab.outside, 7000 + number).expect("a socket");
        let to = (OUTSIDE, 7000 + number);
        let first = usize::from(number) * 130;
        let dialling: Vec<(usize, &UdpSocket)> =
            hosts.iter().enumerate().cycle().skip(first).take(DIALLED_BY).collect();
        let mut ports = HashSet::new();
        for batch in dialling.chunks(BATCH) {
            for (name, host) in batch {
                host.send_to(name.to_string().as_bytes(), to).expect("a datagram");
            }
            ports.extend(batch.iter().map(|_| echo(&remote).1));
            for (name, host) in batch {
                assert_eq!(answer(host), name.to_string(), "the answer is for who asked");
            }
        }
        assert_eq!(ports.len(), DIALLED_BY, "a port has one inside endpoint to a remote end");
    }
    let flows = gateway.json(&["flows", "count"]).expect("flows");
    let wanted = u64::from(REMOTES) * DIALLED_BY as u64;
    assert_eq!(flows["count"].as_u64(), Some(wanted), "{flows}");
    assert_eq!(gateway.dropped("ports-exhausted").expect("counters"), 0);
    gateway.stop().expect("an end");
}

/// Ends of the flood on either side: more than a table with room for 256 flows takes.
const FLOOD: usize = 300;
/// Behind a forward, where nobody answers.
const SERVICE: u16 = 8053;

#[test]
fn a_flood_fills_the_table_and_what_nobody_answers_makes_room_for_new_flows() {
    let Some(binary) = requirements::met_with_binary("flood") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    let tables = format!(
        "[limits]\nflows = 256\n[[forward]]\nname = \"s\"\nprotocol = \"udp\"\n\
         public = \"{WAN}:{SERVICE}\"\nto = \"{INSIDE}:{SERVICE}\"\n"
    );
    gateway.configure(&tables).expect("a configuration");
    gateway.run(&[]).expect("a start");
    // They take what the flood sends, and never answer.
    let _sinks = [
        udp_socket(&lab.inside, SERVICE).expect("a socket"),
        udp_socket(&lab.outside, SERVICE).expect("a socket"),
    ];
    let remote = udp_socket(&lab.outside, 7000).expect("a socket");
    remote.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    let passes = |host: &UdpSocket| {
        let mut buffer = [0; 100];
        host.send_to(b"it passes", (OUTSIDE, 7000)).expect("a datagram");
        let Ok((length, peer)) = remote.recv_from(&mut buffer) else { return false };
        remote.send_to(&buffer[..length], peer).expect("an answer");
        answer(host) == "it passes"
    };
    let hosts = || (0..5).map(|_| udp_socket(&lab.inside, 0).expect("a socket"));
    let (known, new): (Vec<_>, Vec<_>) = (hosts().collect(), hosts().collect());
    known.iter().for_each(|host| assert!(passes(host), "{}", gateway.diagnosis()));
    let ends: Vec<[UdpSocket; 2]> = (0..FLOOD)
        .map(|_| [&lab.inside, &lab.outside].map(|side| udp_socket(side, 0).expect("a socket")))
        .collect();
    let flood = |ends: &[[UdpSocket; 2]]| {
        for [inside, outside] in ends {
            // What a full buffer loses is not missed.
            let _ = inside.send_to(b"flood", (OUTSIDE, SERVICE));
            let _ = outside.send_to(b"flood", (WAN, SERVICE));
        }
    };
    flood::fill(&gateway, LIMIT, &ends, flood, || new.iter().all(passes))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let flows = gateway.json(&["flows", "count", "--state", "replied"]).expect("flows");
    let answered = (known.len() + new.len()) as u64;
    assert_eq!(flows["count"].as_u64(), Some(answered), "what was answered goes on: {flows}");
    assert!(known.iter().all(passes));
    gateway.stop().expect("an end");
}
