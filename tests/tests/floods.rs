//! Very many packets at once: new flows from two processors, and floods of what nobody wants.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nat_tests::{
    bench::field::pin,
    capture::Capture,
    flood,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    netns::{Lifetime, Namespace},
    packet::{ACK, Packet, SYN, Segment, UDP},
    requirements, session,
    traffic::udp_socket,
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(20);
const REMOTE: u16 = 7000;

/// Flows that are begun at once, each by one packet from either processor.
const FLOWS: u16 = 10_000;
/// How many of their packets may be on the way.
const AHEAD: usize = 100;
/// So long after the last packet no other one comes.
const QUIET: Duration = Duration::from_millis(500);
/// Where the ports of one half of them begin, which the pool has, and those of the other, which it has not.
const KEPT: u16 = 20_000;
const MAPPED: u16 = 40_000;
/// Where the ports of a UDP datagram stand, and its text.
const PORTS: usize = 20;
const TEXT: usize = 28;

fn inside_port(number: u16) -> u16 {
    if number < FLOWS / 2 { KEPT + number } else { MAPPED + number - FLOWS / 2 }
}

/// Source and destination port, and the number in the text, of a datagram of this test.
fn read(packet: &[u8]) -> Option<(u16, u16, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if packet.get(9) != Some(&UDP) {
        return None;
    }
    Some((word(PORTS)?, word(PORTS + 2)?, word(TEXT)?))
}

fn ten_thousand_at_once(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("ten thousand flows at once") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
    let lan = (&lab.gateway, LAN_DEVICE);
    let hosts: [Wire; 2] =
        [(); 2].map(|()| Wire::new(&lab.inside, INSIDE_DEVICE, INSIDE, lan).expect("a wire"));
    let wan = (&lab.gateway, WAN_DEVICE);
    let remote = Wire::new(&lab.outside, OUTSIDE_DEVICE, OUTSIDE, wan).expect("a wire");

    // Both processors begin every flow, in one order, so that they meet at many of them. No queue on the
    // way has more packets than it holds.
    let start = Barrier::new(hosts.len());
    let (seen, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut mapped: HashMap<u16, HashSet<u16>> = HashMap::new();
    let all = 2 * usize::from(FLOWS);
    thread::scope(|scope| {
        for (core, host) in hosts.iter().enumerate() {
            let (start, seen, ended) = (&start, &seen, &ended);
            scope.spawn(move || {
                let cores = thread::available_parallelism().map_or(1, usize::from);
                pin(core % cores).expect("a processor");
                start.wait();
                for number in 0..FLOWS {
                    let ahead = || 2 * usize::from(number) > seen.load(Ordering::Relaxed) + AHEAD;
                    let begun = Instant::now();
                    while ahead() {
                        if begun.elapsed() > LIMIT {
                            return;
                        }
                        thread::yield_now();
                    }
                    let from = SocketAddrV4::new(INSIDE, inside_port(number));
                    let to = SocketAddrV4::new(OUTSIDE, REMOTE);
                    let packet = Packet::udp(from, to, &number.to_be_bytes());
                    host.send(&packet.bytes()).expect("a datagram");
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut last = Instant::now();
        while seen.load(Ordering::Relaxed) < all && last.elapsed() < LIMIT {
            let Some(packet) = remote.receive().expect("a socket") else {
                if ended.load(Ordering::Relaxed) == hosts.len() && last.elapsed() > QUIET {
                    break;
                }
                thread::yield_now();
                continue;
            };
            last = Instant::now();
            if let Some((public, REMOTE, number)) = read(&packet) {
                assert_eq!(packet[12..16], WAN.octets());
                mapped.entry(number).or_default().insert(public);
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    // Nobody waits for long: of two that make one flow, one may be told to come again.
    let busy = gateway.dropped("flow-busy").expect("counters") as usize;
    assert!(busy < all / 20, "{mode}: {busy} of {all} came again");
    let told = || format!("{mode}: packets are lost\n{}", gateway.diagnosis());
    assert_eq!(seen.into_inner() + busy, all, "{}", told());
    assert_eq!(mapped.len(), usize::from(FLOWS));
    assert!(mapped.values().all(|ports| ports.len() == 1), "{mode}: an endpoint with two ports");
    let publics: HashSet<u16> = mapped.values().flatten().copied().collect();
    assert_eq!(publics.len(), usize::from(FLOWS), "{mode}: a port with two endpoints");
    let flows = gateway.json(&["flows", "count", "--proto", "udp"]).expect("flows");
    assert_eq!(flows["count"], FLOWS, "{mode}");

    let answers: Vec<(u16, u16)> = mapped
        .into_iter()
        .flat_map(|(number, ports)| ports.into_iter().map(move |public| (number, public)))
        .collect();
    let mut answered = HashSet::new();
    for some in answers.chunks(AHEAD) {
        for (number, public) in some {
            let (from, to) = (SocketAddrV4::new(OUTSIDE, REMOTE), SocketAddrV4::new(WAN, *public));
            let answer = Packet::udp(from, to, &number.to_be_bytes());
            remote.send(&answer.bytes()).expect("an answer");
        }
        let begun = Instant::now();
        while some.iter().any(|(number, _)| !answered.contains(number)) {
            assert!(begun.elapsed() < LIMIT, "{mode}: a lost answer\n{}", gateway.diagnosis());
            let Some(packet) = hosts[0].receive().expect("a socket") else { continue };
            if let Some((REMOTE, own, number)) = read(&packet) {
                assert_eq!((own, &packet[16..20]), (inside_port(number), &INSIDE.octets()[..]));
                answered.insert(number);
            }
        }
    }
    assert_eq!(answered.len(), usize::from(FLOWS));
    gateway.stop().expect("an end");
}

#[test]
fn ten_thousand_flows_at_once_from_two_processors_have_one_mapping_each() {
    ten_thousand_at_once(Mode::Tc);
}

#[test]
fn the_same_in_xdp() {
    ten_thousand_at_once(Mode::Xdp);
}

/// A service inside, by a forward.
const SERVICE: u16 = 8080;
/// Packets of a flood that leave at once, and the pause behind them.
const BURST: u32 = 20;
const PAUSE: Duration = Duration::from_millis(2);
/// Datagrams of the flow that was there before, and the pause between them.
const STEADY: u32 = 500;
const PACE: Duration = Duration::from_millis(2);

/// Packets that nobody wants.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// To the public address, from anywhere.
    Outside(Kind),
    /// To a remote host, from many hosts inside.
    Inside(Kind),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Syn,
    Ack,
    Datagram,
    /// To the service.
    Open,
}

impl Flood {
    /// The packet number `n`.
    fn packet(self, n: u32) -> Vec<u8> {
        let [_, _, high, low] = n.to_be_bytes();
        // None of them is of a flow that another flood has begun.
        let first = if matches!(self, Self::Inside(Kind::Ack)) { 31_000 } else { 1024 };
        let port = first + (n % 30_000) as u16;
        let (from, to, kind) = match self {
            Self::Outside(kind) => ([198, 51, high, low].into(), WAN, kind),
            Self::Inside(kind) => (Ipv4Addr::new(10, 0, 1, 10 + low % 200), OUTSIDE, kind),
        };
        let to = SocketAddrV4::new(to, if matches!(kind, Kind::Open) { SERVICE } else { port });
        let from = SocketAddrV4::new(from, port);
        let segment =
            |flags| Segment { flags, sequence: n, acknowledgement: n, ..Segment::default() };
        match kind {
            Kind::Syn | Kind::Open => Packet::tcp(from, to, &segment(SYN)),
            Kind::Ack => Packet::tcp(from, to, &segment(ACK)),
            Kind::Datagram => Packet::udp(from, to, b"flood"),
        }
        .bytes()
    }
}

/// A connection that is opened while the flood goes on.
fn opens(client: &Namespace, to: Ipv4Addr, port: u16) -> anyhow::Result<TcpStream> {
    let to = SocketAddr::from((to, port));
    Ok(client.enter(|| TcpStream::connect_timeout(&to, LIMIT))??)
}

fn floods(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("floods") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
    gateway
        .configure(&format!(
            "[[forward]]\nname = \"s\"\nprotocol = \"tcp\"\npublic = \"{WAN}:{SERVICE}\"\n\
             to = \"{INSIDE}:{SERVICE}\"\n"
        ))
        .expect("a configuration");
    gateway.run(&[]).expect("a start");
    let captures = lab.folder("capture").expect("a folder");
    let leaks = Capture::start(&lab.outside, OUTSIDE_DEVICE, "src net 10.0.0.0/8", &captures)
        .expect("a capture");
    let listen = |host: &Namespace| {
        host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVICE))).expect("a namespace")
    };
    let _services = [listen(&lab.inside), listen(&lab.outside)];
    let near = udp_socket(&lab.inside, 0).expect("a socket");
    let far = udp_socket(&lab.outside, REMOTE).expect("a socket");
    near.connect((OUTSIDE, REMOTE)).expect("a destination");
    near.send(b"first").expect("a datagram");
    let (_, peer) = far.recv_from(&mut [0; 20]).expect("a datagram outside");
    far.send_to(b"answer", peer).expect("an answer");
    near.recv(&mut [0; 20]).expect("an answer inside");
    let [mut talks, mut listens] =
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");

    let ways = [
        Wire::beside(&lab.inside, INSIDE_DEVICE, false, (&lab.gateway, LAN_DEVICE)),
        Wire::beside(&lab.outside, OUTSIDE_DEVICE, false, (&lab.gateway, WAN_DEVICE)),
    ]
    .map(|wire| wire.expect("a wire"));
    for flood in [
        Flood::Outside(Kind::Syn),
        Flood::Outside(Kind::Open),
        Flood::Outside(Kind::Ack),
        Flood::Outside(Kind::Datagram),
        Flood::Inside(Kind::Syn),
        Flood::Inside(Kind::Ack),
        Flood::Inside(Kind::Datagram),
    ] {
        let way = match flood {
            Flood::Inside(_) => &ways[0],
            Flood::Outside(_) => &ways[1],
        };
        let (mut made, mut sent) = (0, 0);
        let burst = || {
            for _ in 0..BURST {
                made += 1;
                // What a full queue loses is not missed.
                sent += u32::from(way.send(&flood.packet(made)).is_ok());
            }
            thread::sleep(PAUSE);
        };
        let (arrived, new) = flood::beside(burst, || {
            thread::scope(|scope| {
                let counter = scope.spawn(|| {
                    let mut arrived = 0;
                    // Some of the flood is for this port as well.
                    let mut text = [0; 20];
                    while let Ok(length) = far.recv(&mut text) {
                        match &text[..length] {
                            b"steady" => arrived += 1,
                            b"end" => break,
                            _ => {}
                        }
                    }
                    arrived
                });
                for _ in 0..STEADY {
                    near.send(b"steady").expect("a datagram");
                    thread::sleep(PACE);
                }
                let new = [
                    opens(&lab.inside, OUTSIDE, SERVICE).map(drop),
                    opens(&lab.outside, WAN, SERVICE).map(drop),
                ];
                near.send(b"end").expect("a datagram");
                (counter.join().expect("a count"), new)
            })
        });
        // Nothing of it hangs on the speed of this machine: a flood that is not one would show here.
        assert!(sent > STEADY, "{mode}, {flood:?}: {sent} sent");
        let told = format!("{mode}, {flood:?}, {sent} sent, {arrived} of {STEADY} arrived");
        assert!(arrived >= STEADY * 95 / 100, "{told}\n{}", gateway.diagnosis());
        for opened in new {
            opened.unwrap_or_else(|error| panic!("{told}: {error:#}\n{}", gateway.diagnosis()));
        }
        session::say(&mut talks, &mut listens, &[7; 50_000]).expect("it arrives");
        session::say(&mut listens, &mut talks, &[8; 50_000]).expect("it comes back");
    }
    // What begins no flow was dropped and counted, as what it is.
    for reason in ["unsolicited", "no-syn"] {
        assert!(gateway.dropped(reason).expect("counters") > u64::from(STEADY), "{mode}: {reason}");
    }
    for frame in leaks.finish().expect("a capture") {
        assert!(!frame.names(is_inside), "{mode}: an inside address outside: {frame:?}");
    }
    gateway.stop().expect("an end");
}

#[test]
fn floods_from_either_side_leave_what_there_is_and_let_new_connections_in() {
    floods(Mode::Tc);
}

#[test]
fn floods_leave_it_in_xdp_too() {
    floods(Mode::Xdp);
}
