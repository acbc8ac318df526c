//! Datagrams in fragments through the gateway: both ways, in every order, with some missing, and too many
//! of them; and packets that the gateway has to cut.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use nat_tests::{
    capture::Capture,
    chain::{Chain, DEEP, FAR},
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE, WAN_SECOND},
    matrix,
    netns::{Lifetime, Namespace},
    process, requirements, server,
    server::Server,
    session::Session,
    traffic::{udp_socket, udp_socket_at},
    wait,
};

const LIMIT: Duration = Duration::from_secs(10);
/// What fits no packet of 1,500 bytes.
const LARGE: usize = 8000;

/// The gateway in each mode.
fn in_each_mode(name: &str, test: impl Fn(&Chain, &NatCtl)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = Chain::new().expect("a chain");
        let gateway = NatCtl::start(&chain.lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        test(&chain, &gateway);
        gateway.stop().expect("an end");
    }
}

fn add(gateway: &NatCtl, words: &[&str]) {
    gateway.call(words).expect("a call").checked("a rule").expect("a rule");
}

/// Bytes that tell where they are.
fn large(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 7 + at) as u8).collect()
}

/// What a socket gets next, and from whom.
fn receive(socket: &UdpSocket, gateway: &NatCtl) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (length, peer) = socket
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("a datagram: {error}: {}", gateway.diagnosis()));
    buffer.truncate(length);
    (buffer, peer)
}

/// Sends a datagram there and the same back.
fn there_and_back(near: &UdpSocket, far: &UdpSocket, to: SocketAddrV4, gateway: &NatCtl) {
    for size in [1473, 2000, LARGE, 60_000] {
        near.send_to(&large(size), to).expect("a datagram");
        let (seen, peer) = receive(far, gateway);
        assert!(seen == large(size), "{size} bytes, as they were sent");
        far.send_to(&seen, peer).expect("an answer");
        assert!(receive(near, gateway).0 == large(size), "{size} bytes back");
    }
}

#[test]
fn large_datagrams_and_echoes_come_through_and_back() {
    in_each_mode("fragments", |chain, gateway| {
        let (public, to) = (format!("{WAN}:7000"), format!("{INSIDE}:7001"));
        let words = ["forward", "add", "--name", "dns", "--protocol", "udp"];
        add(gateway, &[&words[..], &["--public", &public, "--to", &to]].concat());
        let (public, to) = (WAN_SECOND.to_string(), DEEP.to_string());
        let words = ["one-to-one", "add", "--name", "deep", "--public", &public, "--to", &to];
        add(gateway, &[&words[..], &["--inbound", "any"]].concat());

        let outside = udp_socket(&chain.far, 7000).expect("a socket");
        // Masquerade and one-to-one from inside, a forward and one-to-one from outside.
        for host in [&chain.lab.inside, &chain.deep] {
            let inside = udp_socket(host, 0).expect("a socket");
            there_and_back(&inside, &outside, SocketAddrV4::new(FAR, 7000), gateway);
        }
        let forwarded = udp_socket_at(&chain.lab.inside, SocketAddrV4::new(INSIDE, 7001));
        let own = udp_socket_at(&chain.deep, SocketAddrV4::new(DEEP, 7002));
        let client = udp_socket(&chain.far, 0).expect("a socket");
        let to = SocketAddrV4::new(WAN, 7000);
        there_and_back(&client, &forwarded.expect("a socket"), to, gateway);
        let to = SocketAddrV4::new(WAN_SECOND, 7002);
        there_and_back(&client, &own.expect("a socket"), to, gateway);

        let ways = [(&chain.lab.inside, FAR), (&chain.deep, FAR), (&chain.far, WAN_SECOND)];
        for (host, to) in ways {
            ping(host, to).unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
        }
        // By a public address, from one inside host to another.
        let near = udp_socket(&chain.deep, 0).expect("a socket");
        let far = udp_socket_at(&chain.lab.inside, SocketAddrV4::new(INSIDE, 7001));
        there_and_back(&near, &far.expect("a socket"), SocketAddrV4::new(WAN, 7000), gateway);
    });
}

/// An echo of 4,000 bytes.
fn ping(host: &Namespace, to: Ipv4Addr) -> Result<()> {
    let mut command = host.command("ping");
    command.args(["-n", "-c", "2", "-i", "0.2", "-W", "3", "-s", "4000", &to.to_string()]);
    process::must(&mut command).map(drop)
}

/// A program that cuts UDP datagrams to the host that is its second argument by itself, and sends the
/// fragments in the order of its words: datagram and index in one, `0.1`; `-` waits.
const CUTTER: &str = "import socket, struct, sys, time\n\
    src, dst, sport, dport, ids = sys.argv[1:6]\n\
    size = 1200\n\
    def total(data):\n\
    \x20   if len(data) % 2: data += b'\\0'\n\
    \x20   s = sum(struct.unpack('!%dH' % (len(data) // 2), data))\n\
    \x20   while s > 65535: s = (s & 65535) + (s >> 16)\n\
    \x20   return s\n\
    def datagram(number):\n\
    \x20   body = bytes([number]) * 3000\n\
    \x20   head = struct.pack('!HHHH', int(sport), int(dport), len(body) + 8, 0)\n\
    \x20   ends = socket.inet_aton(src) + socket.inet_aton(dst)\n\
    \x20   pseudo = ends + struct.pack('!BBH', 0, 17, len(body) + 8)\n\
    \x20   field = 65535 - total(pseudo + head + body) or 65535\n\
    \x20   return head[:6] + struct.pack('!H', field) + body\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n\
    ids = [int(i) for i in ids.split(',')]\n\
    for word in sys.argv[6:]:\n\
    \x20   if word == '-':\n\
    \x20       time.sleep(0.3)\n\
    \x20       continue\n\
    \x20   number, index = (int(part) for part in word.split('.'))\n\
    \x20   whole = datagram(number)\n\
    \x20   at = index * size\n\
    \x20   piece = whole[at:at + size]\n\
    \x20   more = 0x2000 if at + size < len(whole) else 0\n\
    \x20   ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(piece), ids[number],\n\
    \x20       at // 8 | more, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst))\n\
    \x20   s.sendto(ip + piece, (dst, 0))\n";

/// Sends fragments of datagrams with these identifications in the order of `words`.
fn cut(host: &Namespace, [from, to]: [SocketAddrV4; 2], ids: &str, words: &str) {
    let mut command = host.command("python3");
    let (sport, dport) = (from.port().to_string(), to.port().to_string());
    command.args(["-c", CUTTER, &from.ip().to_string(), &to.ip().to_string(), &sport, &dport, ids]);
    process::must(command.args(words.split(' '))).expect("fragments");
}

/// Which datagrams arrive: their numbers, sorted.
fn arrived(socket: &UdpSocket, count: usize, gateway: &NatCtl) -> Vec<u8> {
    let mut numbers: Vec<u8> = (0..count)
        .map(|_| {
            let (seen, _) = receive(socket, gateway);
            assert!(seen.len() == 3000 && seen.iter().all(|byte| *byte == seen[0]), "one datagram");
            seen[0]
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn nothing_more(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
    assert!(socket.recv_from(&mut [0; 100]).is_err(), "nothing more");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
}

/// Orders of the three fragments of each of two datagrams, and which of them arrive.
const ORDERS: [(&str, &[u8]); 6] = [
    ("0.0 0.1 0.2", &[0]),
    ("0.2 0.1 0.0", &[0]),
    ("0.1 0.2 - 0.0", &[0]),
    ("0.2 1.1 1.0 0.0 1.2 0.1", &[0, 1]),
    ("1.2 0.2 0.1 1.1 - 1.0 0.0", &[0, 1]),
    ("0.1 0.2 1.0 1.1 1.2", &[1]),
];

#[test]
fn fragments_come_in_any_order_from_either_side() {
    in_each_mode("order of fragments", |chain, gateway| {
        let (public, to) = (format!("{WAN}:7000"), format!("{INSIDE}:7001"));
        let words = ["forward", "add", "--name", "dns", "--protocol", "udp"];
        add(gateway, &[&words[..], &["--public", &public, "--to", &to]].concat());
        let far = udp_socket(&chain.far, 7000).expect("a socket");
        let near = udp_socket_at(&chain.lab.inside, SocketAddrV4::new(INSIDE, 7001));
        let near = near.expect("a socket");
        let out = [SocketAddrV4::new(INSIDE, 5000), SocketAddrV4::new(FAR, 7000)];
        let into = [SocketAddrV4::new(FAR, 5000), SocketAddrV4::new(WAN, 7000)];
        for (number, (words, wanted)) in ORDERS.into_iter().enumerate() {
            let ids = format!("{},{}", 100 + 2 * number, 101 + 2 * number);
            for (host, ends, socket) in [(&chain.lab.inside, out, &far), (&chain.far, into, &near)]
            {
                cut(host, ends, &ids, words);
                assert_eq!(arrived(socket, wanted.len(), gateway), wanted, "{words}");
                nothing_more(socket);
            }
        }
        // Those whose first one never came are gone by now, and counted.
        wait::until_true(LIMIT, "two fragments alone", || {
            Ok(gateway.json(&["drops"])?["fragment-alone"].as_u64() >= Some(2))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
    });
}

#[test]
fn two_hosts_with_one_identification_are_told_apart_outside() {
    in_each_mode("identifications", |chain, gateway| {
        let folder = chain.lab.folder("capture").expect("a folder");
        let capture = Capture::start(&chain.lab.outside, OUTSIDE_DEVICE, "udp", &folder);
        let capture = capture.expect("a capture");
        let far = udp_socket(&chain.far, 7000).expect("a socket");
        let to = SocketAddrV4::new(FAR, 7000);
        // Their fragments come between each other's, to one remote end.
        for (round, words) in ["0.0", "0.1", "0.2"].into_iter().enumerate() {
            cut(&chain.deep, [SocketAddrV4::new(DEEP, 5000), to], "77", words);
            let other = ["1.0", "1.2", "1.1"][round];
            cut(&chain.lab.inside, [SocketAddrV4::new(INSIDE, 5000), to], "77,77", other);
        }
        assert_eq!(arrived(&far, 2, gateway), [0, 1]);
        let frames = capture.finish().expect("frames");
        let mut ids: Vec<[u8; 2]> =
            frames.iter().filter_map(|frame| frame.bytes.get(18..20)?.try_into().ok()).collect();
        assert_eq!(ids.len(), 6);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2, "an identification for each datagram");
        assert!(frames.iter().all(|frame| !frame.names(is_inside)));
    });
}

#[test]
fn a_flood_of_later_fragments_leaves_ftp_and_others_alone() {
    let Some(binary) = requirements::met_with_binary("flood of fragments") else { return };
    let lab = Lab::with(Lifetime::Run, 1_000_000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let kind = matrix::servers().expect("two servers")[0];
    let folder = lab.folder("server").expect("a folder");
    let settings = server::Settings::new(kind);
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    // Later fragments of as many datagrams as there are identifications, from many senders, over and
    // over for some seconds.
    let script = "import socket, struct, sys, time\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n\
        dst = socket.inet_aton(sys.argv[1])\n\
        end = time.monotonic() + 6\n\
        n = 0\n\
        while time.monotonic() < end:\n\
        \x20   for _ in range(200):\n\
        \x20       n += 1\n\
        \x20       src = bytes([10, 0, 1, 100 + n % 100])\n\
        \x20       s.sendto(struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1020, n & 65535, 100, 64, 17, 0,\n\
        \x20           src, dst) + bytes(1000), (sys.argv[1], 0))\n";
    let flood = |host: &Namespace, to: Ipv4Addr| {
        let mut command = host.command("python3");
        command.args(["-c", script, &to.to_string()]);
        command.spawn().expect("a flood")
    };
    let mut floods = [flood(&lab.inside, OUTSIDE), flood(&lab.outside, WAN)];
    let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
    session.command("PASV", "227").expect("a reply");
    let data = session.passive().expect("a data connection");
    session.command(&format!("RETR {}", server::FILE), "1").expect("a transfer");
    let digest = session.finish(data);
    let digest = digest.unwrap_or_else(|error| panic!("{error:#}: {}", gateway.diagnosis()));
    assert_eq!(digest, lab.payload.sha256);
    // One that is only out of order comes through.
    let outside = udp_socket(&lab.outside, 7000).expect("a socket");
    let ends = [SocketAddrV4::new(INSIDE, 5000), SocketAddrV4::new(OUTSIDE, 7000)];
    let went = (0..10).any(|number| {
        cut(&lab.inside, ends, &format!("{}", 40_000 + number), "0.1 0.2 0.0");
        outside.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        outside.recv_from(&mut [0; 4000]).is_ok()
    });
    assert!(went, "{}", gateway.diagnosis());
    for flood in &mut floods {
        flood.wait().expect("an end");
    }
    let drops = gateway.json(&["drops"]).expect("drops");
    let full = drops["fragments-full"].as_u64().unwrap_or_default();
    let alone = drops["fragment-alone"].as_u64().unwrap_or_default();
    assert!(full > 100, "most were refused: {drops}");
    assert!(full + alone > 1000, "{drops}");
    gateway.stop().expect("an end");
}

#[test]
fn what_is_too_long_for_the_way_out_leaves_in_pieces() {
    in_each_mode("cut", |chain, gateway| {
        let lab = &chain.lab;
        for (namespace, device) in [(&lab.gateway, WAN_DEVICE), (&lab.outside, OUTSIDE_DEVICE)] {
            namespace.ip(&format!("link set {device} mtu 1400")).expect("a narrow link");
        }
        // The sender leaves out DF, and so cuts by its own link alone (IP_PMTUDISC_DONT).
        let script = "import socket, sys\n\
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            s.setsockopt(socket.IPPROTO_IP, 10, 0)\n\
            s.sendto(bytes(n % 251 for n in range(int(sys.argv[2]))), (sys.argv[1], 7000))\n";
        let far = udp_socket(&chain.far, 7000).expect("a socket");
        for size in [1373, 1450, 1472, 4000] {
            let mut command = chain.deep.command("python3");
            command.args(["-c", script, &FAR.to_string(), &size.to_string()]);
            process::must(&mut command).expect("a datagram");
            let (seen, peer) = receive(&far, gateway);
            let wanted: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            assert!(seen == wanted, "{size} bytes, as they were sent");
            assert_eq!(peer.ip(), WAN);
        }
    });
}
