//! `explain` says beforehand what the data plane then does, and does nothing itself.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    time::Duration,
};

use nat_common::checksum::Sum;
use nat_tests::{
    capture::Capture,
    client,
    frame::Frame,
    gateway::{Mode, NatCtl},
    lab::{
        INSIDE, INSIDE_DEVICE, LAN, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE,
        WAN_SECOND,
    },
    netns::{Lifetime, Namespace},
    requirements,
    server::{Encryption, FILE, Kind, Server, Settings},
    session::{Session, accept},
    traffic, wait,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);
const SYN: u8 = 2;
const ACK: u8 = 16;
/// An inside host with a public address of its own, one whose address is not allowed, one that no
/// route leads to.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

#[derive(Clone, Copy, Debug)]
enum Side {
    Inside,
    Outside,
}

/// A packet; of ICMP it is an echo request, `sport` its identifier.
#[derive(Clone, Copy, Debug)]
struct Packet {
    from: Side,
    protocol: &'static str,
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    flags: u8,
}

impl Packet {
    const fn tcp(from: Side, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Self {
        Self { from, protocol: "tcp", src, dst, flags: SYN }
    }

    /// The frame for a gateway with this link address, made apart from what `explain` makes.
    fn frame(&self, link: [u8; 6]) -> Vec<u8> {
        let (number, mut segment, sum_at) = match self.protocol {
            "tcp" => {
                let mut tcp = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
                tcp.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, self.flags, 0x20, 0, 0, 0, 0, 0]);
                (6, tcp, 16)
            }
            "udp" => {
                let ports = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
                (17, [&ports[..], &[0, 12, 0, 0], b"ask?"].concat(), 6)
            }
            _ => (1, [&[8, 0, 0, 0][..], &self.src.1.to_be_bytes(), &[0, 1]].concat(), 2),
        };
        let (src, dst) = (self.src.0.octets(), self.dst.0.octets());
        let length = segment.len() as u16;
        let sum = match number {
            1 => Sum::ZERO,
            _ => Sum::ZERO.pseudo_header(src, dst, number, length),
        };
        let field = sum.bytes(&segment).field().to_ne_bytes();
        segment[sum_at..sum_at + 2].copy_from_slice(&field);
        let mut ip =
            [&[0x45, 0][..], &(20 + length).to_be_bytes(), &[0, 7, 0, 0, 61, number, 0, 0]]
                .concat();
        ip.extend(src);
        ip.extend(dst);
        let field = Sum::ZERO.bytes(&ip).field().to_ne_bytes();
        ip[10..12].copy_from_slice(&field);
        [&link[..], &[2, 0, 0, 0, 0, 9, 8, 0], &ip, &segment].concat()
    }
}

/// The link address of a device.
fn link(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.ip(&format!("-o link show dev {device}")).expect("a device");
    let word = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    let bytes = word.expect("an address").split(':').map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<Vec<_>, _>>().expect("bytes").try_into().expect("six")
}

struct Bench<'lab> {
    lab: &'lab Lab,
    gateway: NatCtl<'lab>,
    links: [[u8; 6]; 2],
    captures: [Capture; 2],
}

impl<'lab> Bench<'lab> {
    fn new(lab: &'lab Lab, gateway: NatCtl<'lab>) -> Self {
        let capture = |namespace, device| {
            let folder = lab.folder("capture").expect("a folder");
            Capture::start(namespace, device, "ip", &folder).expect("a capture")
        };
        Self {
            links: [link(&lab.gateway, LAN_DEVICE), link(&lab.gateway, WAN_DEVICE)],
            captures: [capture(&lab.inside, INSIDE_DEVICE), capture(&lab.outside, OUTSIDE_DEVICE)],
            lab,
            gateway,
        }
    }

    fn explain(&self, packet: &Packet) -> Value {
        let place = |(address, port)| format!("{address}:{port}");
        let (src, dst) = (place(packet.src), place(packet.dst));
        let interface = match packet.from {
            Side::Inside => LAN_DEVICE,
            Side::Outside => WAN_DEVICE,
        };
        let mut words = vec!["explain", "--protocol", packet.protocol, &src, &dst];
        words.extend(["--interface", interface]);
        if packet.flags == ACK {
            words.push("--ack");
        }
        self.gateway.json(&words).expect("an answer")
    }

    /// A request on the agent's socket, as it is written there.
    fn ask_agent(&self, request: &Value) -> Value {
        let path = format!("/run/nat-ctl/{}.sock", self.gateway.instance());
        let mut stream = UnixStream::connect(path).expect("an agent");
        writeln!(stream, "{request}").expect("a request");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Everything that a packet could change, and how many were left to the kernel.
    fn counted(&self) -> ([Value; 4], Option<u64>) {
        let status = self.gateway.json(&["status"]).expect("a status");
        let counts = ["flows", "ports", "expectations", "drops"].map(|key| status[key].clone());
        (counts, status["packets"]["stack"].as_u64())
    }

    fn dropped(&self, answer: &Value) -> Option<u64> {
        let drops = self.gateway.json(&["drops"]).expect("drops");
        drops[answer["reason"].as_str().expect("a reason")].as_u64()
    }

    fn send(&self, packet: &Packet) {
        let (namespace, device, link) = match packet.from {
            Side::Inside => (&self.lab.inside, INSIDE_DEVICE, self.links[0]),
            Side::Outside => (&self.lab.outside, OUTSIDE_DEVICE, self.links[1]),
        };
        traffic::send_frame(namespace, device, &packet.frame(link)).expect("a frame");
    }

    /// Asks, sends, and compares what is done with what was said. Gives back the answer.
    fn holds(&self, packet: Packet, verdict: &str, by: &str) -> Value {
        let (before, passed) = self.counted();
        let answer = self.explain(&packet);
        assert_eq!(self.counted().0, before, "to explain changes nothing: {packet:?}");
        let about = || format!("{packet:?}\n{answer:#}\n{}", self.gateway.diagnosis());
        assert_eq!(answer["verdict"], verdict, "{}", about());
        let text = answer["because"].to_string();
        assert!(text.contains(by), "{by}: {}", about());
        let dropped = (verdict == "dropped").then(|| self.dropped(&answer)).flatten();
        self.send(&packet);
        let done = match verdict {
            "forwarded" => wait::until_true(LIMIT, "the packet as it was said to leave", || {
                self.seen(&packet, &answer["leaves"])
            }),
            "dropped" => wait::until_true(LIMIT, "one more drop of that reason", || {
                Ok(self.dropped(&answer) == dropped.map(|count| count + 1))
            }),
            _ => wait::until_true(LIMIT, "one more packet that is left to the kernel", || {
                Ok(self.counted().1 > passed)
            }),
        };
        done.unwrap_or_else(|error| panic!("{error:#}: {}", about()));
        if verdict != "dropped" {
            assert_eq!(self.counted().0[3], before[3], "nothing is dropped: {}", about());
        }
        answer
    }

    /// Whether the packet has come out on either side as it was said to.
    fn seen(&self, packet: &Packet, leaves: &Value) -> anyhow::Result<bool> {
        let address = |key: &str| leaves[key].as_str().and_then(|text| text.parse().ok());
        let port = |key: &str| leaves[key].as_u64().and_then(|port| u16::try_from(port).ok());
        let is_it = |frame: &Frame| {
            let Some(ip) = &frame.ipv4 else { return false };
            let ports = match packet.protocol {
                // The identifier of the echo.
                "icmp" => {
                    let at = frame.bytes.get(38..40).map(|id| u16::from_be_bytes([id[0], id[1]]));
                    at == port("sport")
                }
                _ => ip.ports == port("sport").zip(port("dport")),
            };
            Some(ip.source) == address("src") && Some(ip.destination) == address("dst") && ports
                // Not the packet as it was sent.
                && ip.ttl == 60
        };
        for capture in &self.captures {
            if capture.so_far()?.iter().any(is_it) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn explained(mode: Mode, name: &str) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    lab.inside.ip(&format!("address add {HOST}/24 dev {INSIDE_DEVICE}")).expect("an address");
    // The first packet is to be seen, not to wait for ARP.
    for (namespace, to) in [(&lab.gateway, INSIDE), (&lab.gateway, HOST), (&lab.gateway, OUTSIDE)] {
        traffic::echo(namespace, to).expect("a neighbour");
    }
    let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
    for line in [
        "forward add --name ftp --service ftp --public wan0 --to 10.0.1.2 --allow 203.0.113.0/28",
        "one-to-one add --name host --public 203.0.113.11 --to 10.0.1.3 --inbound tcp:443",
    ] {
        let words: Vec<_> = line.split_whitespace().collect();
        gateway.call(&words).expect("a call").checked(line).expect("a rule");
    }
    let listener = || TcpListener::bind(("0.0.0.0", 22)).expect("a listener");
    let _own = lab.gateway.enter(listener).expect("a namespace");
    let bench = Bench::new(&lab, gateway);
    use Side::{Inside, Outside};
    let tcp = Packet::tcp;

    let dial = tcp(Outside, (OUTSIDE, 5001), (WAN, 21));
    let answer =
        bench.holds(dial, "forwarded", "rule 'ftp' leads tcp 203.0.113.1:21 to 10.0.1.2:21");
    assert_eq!(answer["rule"], "ftp");
    bench.holds(dial, "forwarded", "a flow has this tuple");
    let answer = bench.holds(tcp(Outside, (STRANGER, 5001), (WAN, 21)), "dropped", "rule 'ftp'");
    assert_eq!((&answer["reason"], &answer["rule"]), (&"not-allowed".into(), &"ftp".into()));
    let answer = bench.holds(tcp(Outside, (OUTSIDE, 5002), (WAN, 80)), "dropped", "no rule");
    assert_eq!(answer["reason"], "unsolicited");
    assert!(answer["change"].to_string().contains("--public 203.0.113.1:80"), "{answer}");
    bench.holds(tcp(Outside, (OUTSIDE, 5003), (WAN, 22)), "gateway", "a socket of the gateway");

    let leave = tcp(Inside, (INSIDE, 40_000), (OUTSIDE, 80));
    let answer = bench.holds(leave, "forwarded", "masquerade");
    let port = answer["leaves"]["sport"].as_u64().expect("a port") as u16;
    let again =
        bench.holds(tcp(Inside, (INSIDE, 40_000), (OUTSIDE, 81)), "forwarded", "masquerade");
    assert_eq!(again["leaves"]["sport"], port, "one mapping for every destination");
    let back = Packet { flags: SYN | ACK, ..tcp(Outside, (OUTSIDE, 80), (WAN, port)) };
    bench.holds(Packet { flags: ACK, ..back }, "forwarded", "a flow has this tuple");
    let lone = Packet { flags: ACK, ..tcp(Inside, (INSIDE, 40_001), (OUTSIDE, 80)) };
    assert_eq!(bench.holds(lone, "dropped", "no flow")["reason"], "no-syn");
    let udp = Packet { protocol: "udp", ..tcp(Inside, (INSIDE, 500), (OUTSIDE, 53)) };
    bench.holds(udp, "forwarded", "masquerade");
    let udp = Packet { protocol: "udp", ..tcp(Outside, (OUTSIDE, 500), (WAN, 53)) };
    bench.holds(udp, "dropped", "no rule");
    let echo = Packet { protocol: "icmp", ..tcp(Inside, (INSIDE, 77), (OUTSIDE, 0)) };
    bench.holds(echo, "forwarded", "masquerade");

    let answer =
        bench.holds(tcp(Inside, (HOST, 40_000), (OUTSIDE, 80)), "forwarded", "rule 'host'");
    assert_eq!(answer["leaves"]["src"], WAN_SECOND.to_string());
    bench.holds(tcp(Outside, (OUTSIDE, 5004), (WAN_SECOND, 443)), "forwarded", "rule 'host' leads");
    bench.holds(tcp(Inside, (INSIDE, 40_002), (LAN, 22)), "gateway", "an address of the gateway");
    bench.holds(tcp(Inside, (INSIDE, 40_003), (NOWHERE, 80)), "kernel", "no route");
    let turned = bench.holds(tcp(Inside, (HOST, 40_004), (WAN, 21)), "forwarded", "rule 'ftp'");
    assert_eq!(turned["leaves"]["interface"], LAN_DEVICE);

    // What root sees in the maps the agent tells those who may only ask it.
    let question = json!({
        "protocol": "tcp", "src": OUTSIDE, "sport": 5002, "dst": WAN, "dport": 80,
        "interface": WAN_DEVICE,
    });
    let told = bench.ask_agent(&json!({"version": 1, "request": "explain", "question": question}));
    assert_eq!(told["response"], "explain", "{told}");
    let mut seen = bench.explain(&tcp(Outside, (OUTSIDE, 5002), (WAN, 80)));
    seen.as_object_mut().expect("an object").remove("version");
    assert_eq!(told["data"], seen);
    let missing = bench.gateway.call(&["explain", "--protocol", "tcp", "10.0.1.2", "10.0.1.1:1"]);
    assert_eq!(missing.expect("a call").status.code(), Some(2));
    let words = ["explain", "--protocol", "tcp", "10.0.1.2:1", "10.0.1.1:1", "--interface", "lo"];
    assert_eq!(bench.gateway.call(&words).expect("a call").status.code(), Some(3));
    let Bench { gateway, .. } = bench;
    gateway.stop().expect("an end");
}

#[test]
fn the_data_plane_does_what_explain_says_in_tc() {
    explained(Mode::Tc, "explain in TC");
}

#[test]
fn the_data_plane_does_what_explain_says_in_xdp() {
    explained(Mode::Xdp, "explain in XDP");
}

#[test]
fn an_announced_connection_is_explained_and_still_expected() {
    let Some(binary) = requirements::met_with_binary("explain, expectation") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
    let listener = session.active().expect("PORT");
    let expected = &gateway.json(&["expectations", "list"]).expect("a list")[0];
    let dials = format!("{WAN}:{}", expected["dport"]);
    let from = format!("{OUTSIDE}:20");
    let words = ["explain", "--protocol", "tcp", &from, &dials];
    for _ in 0..2 {
        let answer = gateway.json(&words).expect("an answer");
        assert_eq!(answer["verdict"], "forwarded", "{answer}");
        assert_eq!(answer["leaves"]["dport"], expected["to_port"], "{answer}");
        let because = answer["because"].to_string();
        let session = format!("FTP session {} has announced it", expected["session"]);
        assert!(because.contains(&session), "{because}");
        assert!(answer["note"].is_null(), "{answer}");
    }
    session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
    let data = accept(&listener).expect("a data connection");
    assert_eq!(session.finish(data).expect("the file"), lab.payload.sha256);
    gateway.stop().expect("an end");
}

#[test]
fn what_an_encrypted_session_announces_is_explained_with_the_words_of_ftp_sessions() {
    let Some(binary) = requirements::met_with_binary("explain, TLS") else { return };
    let lab = Lab::new().expect("a lab");
    let settings = Settings { encryption: Encryption::Asked, ..Settings::new(Kind::Vsftpd) };
    let folder = lab.folder("server").expect("a folder");
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let log = folder.join("log");
    let _slow = client::slow_over_tls(&lab.inside, OUTSIDE, &log).expect("curl");
    let session = gateway.encrypted_session(LIMIT).expect("a session");
    let (from, to) = (format!("{OUTSIDE}:20"), format!("{WAN}:50000"));
    let answer = gateway.json(&["explain", "--protocol", "tcp", &from, &to]).expect("an answer");
    assert_eq!(answer["reason"], "unsolicited", "{answer}");
    assert_eq!(answer["note"], session["note"], "{answer}");
    gateway.stop().expect("an end");
}
