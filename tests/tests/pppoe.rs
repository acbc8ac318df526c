//! PPPoE sessions on interfaces that have programs of their own: their frames pass those as they are, and the
//! packets in them are translated on the interface that they belong to.
//!
//! ```text
//!   inside in0 ======= lan0 gateway wan0 ======= out0 outside
//!           \\_ ppp1 line _/         \_ ppp0 line _//
//!            isp1 (192.0.2.6)            isp0 (192.0.2.2)      both of the provider, with its hosts on lo
//! ```

use std::net::{Ipv4Addr, UdpSocket};

use nat_tests::{
    capture::Capture,
    frame::{Frame, is_inside},
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    link::End,
    netns::{Lifetime, Namespace},
    pppoe::{self, Line, Side, Wire},
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{self, Session},
    traffic::{self, path_mtu, udp_socket},
};
use nix::sys::signal::Signal;

/// An MSS for packets of 1,492 bytes.
const MSS: u16 = pppoe::MTU - 40;
/// The largest payload of a datagram that fits.
const LARGEST: usize = pppoe::MTU as usize - 28;
/// Session of frames that belong to nobody here.
const STRANGE: u16 = 0x7777;
const KNOWN: u16 = 5000;
const REMOTE: u16 = 7000;

/// A way to the provider.
struct Way {
    device: &'static str,
    far_device: &'static str,
    addresses: [[&'static str; 1]; 2],
    public: Ipv4Addr,
    /// Where the provider's host is, and its network.
    host: Ipv4Addr,
    network: &'static str,
    session: u16,
}

const WAYS: [Way; 2] = [
    Way {
        device: "ppp0",
        far_device: "isp0",
        addresses: [["192.0.2.1 peer 192.0.2.2/32"], ["192.0.2.2 peer 192.0.2.1/32"]],
        public: Ipv4Addr::new(192, 0, 2, 1),
        host: Ipv4Addr::new(198, 51, 100, 9),
        network: "198.51.100.0/25",
        session: 0x0011,
    },
    Way {
        device: "ppp1",
        far_device: "isp1",
        addresses: [["192.0.2.5 peer 192.0.2.6/32"], ["192.0.2.6 peer 192.0.2.5/32"]],
        public: Ipv4Addr::new(192, 0, 2, 5),
        host: Ipv4Addr::new(198, 51, 100, 137),
        network: "198.51.100.128/25",
        session: 0x4500,
    },
];

/// Lines on the cable of the WAN and on that of the LAN, in the order of [`WAYS`].
fn lines<'a>(lab: &'a Lab, provider: &'a Namespace) -> [Line<'a>; 2] {
    let cables = [
        [(&lab.gateway, WAN_DEVICE), (&lab.outside, OUTSIDE_DEVICE)],
        [(&lab.gateway, LAN_DEVICE), (&lab.inside, INSIDE_DEVICE)],
    ];
    let mut ways = WAYS.iter().zip(cables);
    std::array::from_fn(|_| {
        let (way, [near, far]) = ways.next().expect("one");
        let Way { device, far_device, addresses: [own, other], public, host, network, .. } = way;
        let line = Line::new(
            Side {
                end: End { namespace: &lab.gateway, name: device, addresses: own },
                ethernet: near,
            },
            Side {
                end: End { namespace: provider, name: far_device, addresses: other },
                ethernet: far,
            },
        )
        .expect("a line");
        lab.gateway.ip(&format!("route add {network} dev {device}")).expect("a route");
        provider.ip(&format!("address add {host}/32 dev lo")).expect("a host");
        // A provider whose hosts announce what fits Ethernet.
        let route = format!("route replace {public}/32 dev {far_device} src {host} advmss 1460");
        provider.ip(&route).expect("a route");
        line
    })
}

/// The packet in a frame of a session, behind the link addresses of that frame.
fn carried(frame: &Frame, session: u16) -> Option<Frame> {
    let (0, seen, [0, 0x21, packet @ ..]) = pppoe::read(&frame.bytes)? else { return None };
    let is_session = frame.bytes.get(12..14)? == pppoe::SESSION.to_be_bytes();
    let whole = [frame.bytes.get(..12)?, &[8, 0], packet].concat();
    (is_session && seen == session).then(|| Frame::parse(&whole))
}

/// What a SYN announces, if it is one of a connection other than a control connection; Linux has the MSS first.
fn announced(frame: &Frame) -> Option<u16> {
    let ip = frame.ipv4.as_ref()?;
    let (is_syn, (from, to)) = (ip.tcp.as_ref()?.flags & 2 != 0, ip.ports?);
    let [2, 4, high, low] = frame.bytes.get(54..58)? else { return None };
    // Lines of control connections may grow, so that their segments are kept shorter.
    (is_syn && from != 21 && to != 21).then(|| u16::from_be_bytes([*high, *low]))
}

/// Files, connections, echoes and the largest datagrams by a way.
fn works(lab: &Lab, provider: &Namespace, gateway: &NatCtl<'_>, way: &Way) {
    let check = |error: anyhow::Error| -> ! {
        panic!("{}: {error:#}\n{}", way.device, gateway.diagnosis());
    };
    let mut session = Session::open(&lab.inside, way.host).unwrap_or_else(|error| check(error));
    session.fetch_both_ways(FILE, &lab.payload.sha256).unwrap_or_else(|error| check(error));
    let [mut near, mut far] =
        session::pair(&lab.inside, provider, way.host).unwrap_or_else(|error| check(error));
    session::say(&mut near, &mut far, &[7; 100_000]).unwrap_or_else(|error| check(error));
    session::say(&mut far, &mut near, &[8; 100_000]).unwrap_or_else(|error| check(error));
    assert_eq!(far.peer_addr().expect("an end").ip(), way.public);
    traffic::echo(&lab.inside, way.host).unwrap_or_else(|error| check(error));
    let mtu = path_mtu(&lab.inside, way.host.into(), 1472, [0, 8090]).expect("a discovery");
    assert_eq!(mtu, pppoe::MTU.to_string(), "{}: what an inside host is told", way.device);
    let host = udp_socket(provider, REMOTE).expect("a socket");
    let client = udp_socket(&lab.inside, 0).expect("a socket");
    let mut buffer = [0; 2000];
    client.send_to(&[9; LARGEST], (way.host, REMOTE)).expect("a datagram");
    let (length, peer) = host.recv_from(&mut buffer).expect("the largest datagram");
    assert_eq!((length, peer.ip()), (LARGEST, way.public.into()));
    host.send_to(&buffer[..length], peer).expect("an answer");
    assert_eq!(client.recv(&mut buffer).expect("the largest answer"), LARGEST);
}

/// A datagram behind link addresses, without a checksum of its own.
fn datagram([from, to]: [(Ipv4Addr, u16); 2]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend([from.0.octets(), to.0.octets()].concat());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), [0, 16], [0, 0]].concat());
    packet.extend(b"in PPPoE");
    packet
}

/// Frames of PPPoE that hold a datagram of a flow: behind PPP as they should, and right behind the EtherType.
fn frames_like(addresses: [[u8; 6]; 2], packet: &[u8]) -> [(u16, Vec<u8>); 4] {
    let plain = |ethertype: u16| {
        (ethertype, [&addresses.concat()[..], &ethertype.to_be_bytes(), packet].concat())
    };
    let within = [&[0, 0x21], packet].concat();
    let encapsulated =
        |ethertype| (ethertype, pppoe::frame(addresses, ethertype, 0, STRANGE, &within));
    [
        plain(pppoe::SESSION),
        plain(pppoe::DISCOVERY),
        encapsulated(pppoe::SESSION),
        encapsulated(pppoe::DISCOVERY),
    ]
}

/// What looks like packets of a flow passes from one end of a cable to the other, and nobody takes it for them.
fn strangers_pass(lab: &Lab, gateway: &NatCtl<'_>, client: &UdpSocket, public_port: u16) {
    let counted = || {
        let packets = gateway.packets().expect("counters");
        packets.xdp + packets.tc
    };
    let before = counted();
    let ends = [(INSIDE, KNOWN), (OUTSIDE, REMOTE)];
    let (outward, inward) = (datagram(ends), datagram([ends[1], (WAN, public_port)]));
    let [inside, lan] = [(&lab.inside, INSIDE_DEVICE), (&lab.gateway, LAN_DEVICE)];
    let [wan, outside] = [(&lab.gateway, WAN_DEVICE), (&lab.outside, OUTSIDE_DEVICE)];
    for (from, to, packet) in [
        (inside, lan, &outward),
        (outside, wan, &inward),
        (wan, outside, &outward),
        (lan, inside, &inward),
    ] {
        let wires = |(namespace, device): (&Namespace, &str)| {
            [pppoe::SESSION, pppoe::DISCOVERY]
                .map(|ethertype| Wire::open(namespace, device, ethertype).expect("a wire"))
        };
        let ([sender, _], receivers) = (wires(from), wires(to));
        let addresses = [receivers[0].own(), sender.own()];
        for (ethertype, frame) in frames_like(addresses, packet) {
            sender.send(&frame).expect("a frame");
            let receiver = &receivers[usize::from(ethertype == pppoe::DISCOVERY)];
            let seen = receiver.receive().unwrap_or_else(|error| {
                panic!("{ethertype:04x} from {} to {}: {error:#}", from.1, to.1)
            });
            assert_eq!(seen, frame, "as it was");
        }
    }
    assert_eq!(counted(), before, "none of them was translated");
    client.set_nonblocking(true).expect("a socket");
    client.recv(&mut [0; 20]).expect_err("nothing has come in");
}

fn sessions_on_named_interfaces(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("PPPoE") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let provider = Namespace::new(lab.name(), "provider", Lifetime::Run).expect("a provider");
    let mut lines = lines(&lab, &provider);
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server = Server::start(&provider, &settings, &lab.payload, &folder).expect("a server");
    let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
    let devices = WAYS.map(|way| way.device).join(",");
    gateway.run(&["--wan", &devices]).expect("a start");

    // The sessions are made while the programs are there.
    for (line, way) in lines.iter_mut().zip(&WAYS) {
        line.dial(way.session).unwrap_or_else(|error| panic!("{}: {error:#}", way.device));
    }
    let captures = lab.folder("capture").expect("a folder");
    let start = |namespace, device| {
        let filter = "ether proto 0x8864 or (ip and tcp[tcpflags] & tcp-syn != 0)";
        Capture::start(namespace, device, filter, &captures).expect("a capture")
    };
    let on_the_wire = [start(&lab.outside, OUTSIDE_DEVICE), start(&lab.inside, INSIDE_DEVICE)];
    for way in &WAYS {
        works(&lab, &provider, &gateway, way);
    }
    // And the interfaces below are what they are without it.
    let [outside, client] = [(&lab.outside, REMOTE), (&lab.inside, KNOWN)]
        .map(|(namespace, port)| udp_socket(namespace, port).expect("a socket"));
    client.send_to(b"plain", (OUTSIDE, REMOTE)).expect("a datagram");
    let (_, peer) = outside.recv_from(&mut [0; 20]).expect("a datagram outside");
    assert_eq!(peer.ip(), WAN);
    outside.send_to(b"plain", peer).expect("an answer");
    client.recv(&mut [0; 20]).expect("an answer inside");
    assert_eq!(gateway.packets().expect("counters").xdp > 0, mode == Mode::Xdp);

    let [outer, inner] = on_the_wire.map(|capture| capture.finish().expect("frames"));
    strangers_pass(&lab, &gateway, &client, peer.port());
    for (way, frames) in WAYS.iter().zip([&outer, &inner]) {
        let packets: Vec<_> =
            frames.iter().filter_map(|frame| carried(frame, way.session)).collect();
        let by = |address| {
            packets
                .iter()
                .filter(move |frame| frame.ipv4.as_ref().is_some_and(|ip| ip.source == address))
        };
        let sent: Vec<_> = by(way.public).filter_map(announced).collect();
        assert!(sent.len() >= 3 && sent.iter().all(|mss| *mss == MSS), "{sent:?}");
        assert!(by(way.host).filter_map(announced).any(|mss| mss == 1460), "it fits no session");
        assert!(!packets.iter().any(|frame| frame.names(is_inside)), "an inside address leaves");
    }
    let is_heard = |frame: &&Frame| {
        let hosts = WAYS.map(|way| way.host);
        frame.ipv4.as_ref().is_some_and(|ip| ip.destination == INSIDE && hosts.contains(&ip.source))
    };
    let heard: Vec<_> = inner.iter().filter(is_heard).filter_map(announced).collect();
    assert!(heard.len() >= 6 && heard.iter().all(|mss| *mss == MSS), "inside hears {heard:?}");
    gateway.end(Signal::SIGTERM).expect("an end");
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}

#[test]
fn a_session_on_a_named_interface_is_a_wan_in_mode_tc() {
    sessions_on_named_interfaces(Mode::Tc);
}

#[test]
fn a_session_on_a_named_interface_is_a_wan_in_mode_xdp() {
    sessions_on_named_interfaces(Mode::Xdp);
}
