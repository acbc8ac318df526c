//! What stands at the edges of the path: packets that are none of a flow's, ways out that change
//! under a flow, the gateway's own traffic where rules and pools come near it.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    netns::{Lifetime, Namespace},
    process, requirements,
    traffic::{self, udp_socket, udp_socket_at},
    wait,
};

/// How long a new flow may take.
const PATIENCE: Duration = Duration::from_millis(700);
const LIMIT: Duration = Duration::from_secs(10);

fn small_lab() -> Lab {
    Lab::with(Lifetime::Run, 1000).expect("a lab")
}

fn capture(lab: &Lab, filter: &str) -> Capture {
    let folder = lab.folder("capture").expect("a folder");
    Capture::start(&lab.outside, OUTSIDE_DEVICE, filter, &folder).expect("a capture")
}

/// Link address of a device.
fn link_address(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.ip(&format!("-o link show {device}")).expect("a device");
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
    let mut bytes = words.next().expect("a link address").split(':');
    std::array::from_fn(|_| {
        u8::from_str_radix(bytes.next().expect("six bytes"), 16).expect("hexadecimal")
    })
}

/// A frame with a datagram that has no UDP checksum.
fn datagram(
    to: [u8; 6],
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    data: &[u8],
) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((28 + data.len() as u16).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(source.0.octets());
    ip.extend(destination.0.octets());
    let words = ip.chunks(2).map(|word| (u32::from(word[0]) << 8) | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 0x99], &[8, 0], &ip].concat();
    for word in [source.1, destination.1, 8 + data.len() as u16, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(data);
    frame
}

#[test]
fn a_flow_whose_inside_route_is_gone_does_not_leave_by_the_wan() {
    let Some(binary) = requirements::met_with_binary("lost inside route") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = small_lab();
        // What makes it possible: the way to everywhere is the WAN.
        lab.gateway.ip(&format!("route add default via {OUTSIDE}")).expect("a route");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let outside = udp_socket(&lab.outside, 7000).expect("a socket");
        let inside = udp_socket(&lab.inside, 0).expect("a socket");
        inside.send_to(b"hello", (OUTSIDE, 7000)).expect("a datagram");
        let mut buffer = [0; 16];
        let (_, peer) = outside.recv_from(&mut buffer).expect("a datagram outside");
        let capture = capture(&lab, "udp");
        lab.gateway.ip(&format!("link set {LAN_DEVICE} down")).expect("a link down");
        for _ in 0..5 {
            outside.send_to(b"answer", peer).expect("an answer");
        }
        // What comes after them has overtaken none of them.
        traffic::echo(&lab.gateway, OUTSIDE).expect("an echo");
        let frames = capture.finish().expect("a capture");
        let leaked = frames.iter().filter(|frame| frame.names(is_inside)).count();
        assert_eq!(leaked, 0, "{mode}: frames with an inside address");
        gateway.stop().expect("an end");
    }
}

#[test]
fn no_destination_lets_an_inside_address_out() {
    let Some(binary) = requirements::met_with_binary("reserved destinations") else { return };
    let lab = small_lab();
    lab.gateway.ip(&format!("route add default via {OUTSIDE}")).expect("a route");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let capture = capture(&lab, "udp");
    let inside = udp_socket(&lab.inside, 0).expect("a socket");
    // The kernel forwards class E, which is unicast to it.
    for to in [[240, 1, 2, 3], [255, 1, 2, 3], [224, 0, 1, 99], [0, 1, 2, 3], [127, 1, 2, 3]] {
        // Some are refused at home already.
        let _ = inside.send_to(b"whereto", (Ipv4Addr::from(to), 9));
    }
    inside.send_to(b"the last", (OUTSIDE, 9)).expect("a datagram");
    let last = || Ok(capture.so_far()?.iter().any(|frame| frame.says("the last")));
    wait::until_true(LIMIT, "the last datagram", last).expect("a datagram outside");
    let frames = capture.finish().expect("a capture");
    assert_eq!(frames.iter().filter(|frame| frame.names(is_inside)).count(), 0);
    gateway.stop().expect("an end");
}

#[test]
fn a_frame_to_another_station_is_not_ours() {
    let Some(binary) = requirements::met_with_binary("other stations") else { return };
    let lab = small_lab();
    // In mode xdp the NIC has to filter: see the limits in the README.
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let outside = udp_socket(&lab.outside, 7000).expect("a socket");
    let mut buffer = [0; 16];
    let source = (INSIDE, 5555);
    let own = link_address(&lab.gateway, LAN_DEVICE);
    for (station, data) in [(own, b"ours"), ([2, 0xaa, 0, 0, 0, 1], b"else"), (own, b"last")] {
        let frame = datagram(station, source, (OUTSIDE, 7000), data);
        traffic::send_frame(&lab.inside, INSIDE_DEVICE, &frame).expect("a frame");
    }
    for wanted in [b"ours", b"last"] {
        let (length, _) = outside.recv_from(&mut buffer).expect("our datagram");
        assert_eq!(&buffer[..length], wanted);
    }
    gateway.stop().expect("an end");
}

#[test]
fn a_dhcp_client_on_the_wan_sees_its_offer() {
    let Some(binary) = requirements::met_with_binary("DHCP on the WAN") else { return };
    let lab = small_lab();
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let wan = link_address(&lab.gateway, WAN_DEVICE);
    lab.gateway.ip(&format!("address flush dev {WAN_DEVICE}")).expect("no address");
    // As a client listens: a packet socket for IPv4, for the address is not there yet.
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0008)\n\
                  s.bind((sys.argv[1], 0x0800))\n\
                  s.settimeout(3)\n\
                  while b'offer' not in s.recv(2000):\n\
                  \x20   pass\n";
    let mut client = lab.gateway.command("python3");
    client.args(["-c", script, WAN_DEVICE]);
    let offer =
        datagram(wan, (OUTSIDE, 67), (Ipv4Addr::new(203, 0, 113, 50), 68), b"offer of an address");
    let seen = std::thread::scope(|scope| {
        let client = scope.spawn(|| process::run(&mut client, Duration::from_secs(6)));
        wait::until_true(LIMIT, "the end of the client", || {
            traffic::send_frame(&lab.outside, OUTSIDE_DEVICE, &offer)?;
            Ok(client.is_finished())
        })
        .expect("an end");
        client.join().expect("a thread").expect("a client")
    });
    seen.checked("the DHCP client").expect("the offer");
    gateway.stop().expect("an end");
}

#[test]
fn own_connections_work_from_ports_that_a_forward_has() {
    let Some(binary) = requirements::met_with_binary("own ports and forwards") else { return };
    let lab = small_lab();
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    for protocol in ["tcp", "udp"] {
        let public = format!("{WAN}:40000-40100");
        let rule = ["forward", "add", "--name", protocol, "--protocol", protocol];
        let ends = ["--public", &public, "--to", &INSIDE.to_string()];
        gateway.call(&[&rule[..], &ends].concat()).expect("a call").checked("a rule").expect("ok");
    }
    let outside = udp_socket(&lab.outside, 5353).expect("a socket");
    let own = udp_socket_at(&lab.gateway, SocketAddrV4::new(WAN, 40_050)).expect("a socket");
    own.connect((OUTSIDE, 5353)).expect("a peer");
    own.send(b"question").expect("a question");
    let mut buffer = [0; 16];
    let (_, peer) = outside.recv_from(&mut buffer).expect("the question");
    outside.send_to(b"answer", peer).expect("an answer");
    own.recv(&mut buffer).expect("the answer to the gateway's own question");

    let listener = lab.outside.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000)));
    let _listener = listener.expect("a namespace").expect("a listener");
    let script = "import socket, sys\n\
                  socket.create_connection((sys.argv[1], 8000), 3, (sys.argv[2], 40051))\n";
    let mut client = lab.gateway.command("python3");
    client.args(["-c", script, &OUTSIDE.to_string(), &WAN.to_string()]);
    process::must(&mut client).expect("the gateway's own connection");
    gateway.stop().expect("an end");
}

#[test]
fn a_client_uses_one_port_for_two_ways_to_one_server() {
    let Some(binary) = requirements::met_with_binary("two ways in") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = small_lab();
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        for port in ["8080", "8081"] {
            let (public, to) = (format!("{WAN}:{port}"), format!("{INSIDE}:80"));
            let words = ["forward", "add", "--name", port, "--protocol", "tcp"];
            let words = [&words[..], &["--public", &public, "--to", &to]].concat();
            gateway.call(&words).expect("a call").checked("forward add").expect("a rule");
        }
        let listener = lab.inside.enter(|| TcpListener::bind((INSIDE, 80)));
        let _listener = listener.expect("a namespace").expect("a listener");
        // Reset, so that the client's own stack has the port free at once.
        let script = "import socket, struct, sys\n\
                      for port in (8080, 8081, 8080):\n\
                      \x20   s = socket.create_connection((sys.argv[1], port), 0.8, ('', 6000))\n\
                      \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n\
                      \x20   s.close()\n";
        let mut client = lab.outside.command("python3");
        client.args(["-c", script, &WAN.to_string()]);
        // A SYN that were dropped would be repeated after a second, which is too late.
        process::must(&mut client)
            .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
        gateway.stop().expect("an end");
    }
}

#[test]
fn a_host_with_many_ports_leaves_some_for_the_others() {
    let Some(binary) = requirements::met_with_binary("ports of many") else { return };
    let lab = small_lab();
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("[masquerade]\nports = \"10000-19999\"\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    // A quarter of the pool in one run, as a scanner takes it: each keeps its number.
    for port in 12_000..14_500 {
        let socket = udp_socket(&lab.inside, port).expect("a socket");
        socket.send_to(b"taken", (OUTSIDE, 9)).expect("a datagram");
    }
    let outside = udp_socket(&lab.outside, 7000).expect("a socket");
    outside.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let mut buffer = [0; 16];
    let lost = (40_000..40_100).filter(|port| {
        let socket = udp_socket(&lab.inside, *port).expect("a socket");
        socket.send_to(b"one more", (OUTSIDE, 7000)).expect("a datagram");
        outside.recv_from(&mut buffer).is_err()
    });
    assert_eq!(lost.count(), 0, "flows without a port while three quarters of them are free");
    gateway.stop().expect("an end");
}
