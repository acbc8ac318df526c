//! Frames that are longer than the packet in them: Ethernet has 60 bytes at least (IEEE 802.3, without
//! the checksum), and what fills them up is anything, also what looks like more of the packet.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    netns::Lifetime,
    packet::{ACK, HEADER, ICMP, PSH, Packet, SYN, Segment, UDP, checksum, transport_sum},
    requirements, wait,
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(10);
/// The shortest frame, without its link header.
const SHORTEST: usize = 46;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(INSIDE, 5000);
const SERVER: SocketAddrV4 = SocketAddrV4::new(OUTSIDE, 7000);

/// What frames are filled up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    /// Nothing.
    None,
    /// Zeros, up to the shortest frame.
    Zeros,
    /// Ones, up to the shortest frame: what would count in a checksum.
    Ones,
    /// More than that, which looks like a line of FTP.
    Line,
}

const ALL: [Padding; 4] = [Padding::None, Padding::Zeros, Padding::Ones, Padding::Line];

impl Padding {
    fn of(self, packet: &Packet) -> Vec<u8> {
        let mut bytes = packet.bytes();
        let length = bytes.len().max(SHORTEST);
        match self {
            Self::None => {}
            Self::Zeros => bytes.resize(length, 0),
            Self::Ones => bytes.resize(length, 0xff),
            Self::Line => {
                bytes.extend(b"PORT 10,0,1,2,77,77\r\n");
                bytes.extend([0xa5; 40]);
            }
        }
        bytes
    }
}

/// A packet as it has arrived, whose lengths and checksums were right.
struct Arrived {
    source: Ipv4Addr,
    /// What follows the IP header: as much as that says.
    payload: Vec<u8>,
}

impl Arrived {
    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!((bytes[0], usize::from(word(2))), (0x45, bytes.len()), "a length");
        assert_eq!(checksum(&bytes[..HEADER]), [0; 2], "the checksum of IPv4");
        let address =
            |at: usize| Ipv4Addr::from(*bytes[at..].first_chunk::<4>().expect("an address"));
        let (source, destination) = (address(12), address(16));
        let payload = bytes[HEADER..].to_vec();
        let sum = match bytes[9] {
            ICMP => checksum(&payload),
            protocol => transport_sum(source, destination, protocol, &payload),
        };
        assert_eq!(sum, [0; 2], "the checksum of protocol {}: {payload:02x?}", bytes[9]);
        if bytes[9] == UDP {
            assert_eq!(usize::from(u16::from_be_bytes([payload[4], payload[5]])), payload.len());
        }
        Self { source, payload }
    }

    /// Whence it came, where it has ports.
    fn from(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.source, u16::from_be_bytes([self.payload[0], self.payload[1]]))
    }

    /// What follows a TCP header, and the sequence number in it.
    fn segment(&self) -> (u32, &[u8]) {
        let number = self.payload[4..].first_chunk().map(|chunk| u32::from_be_bytes(*chunk));
        let header = usize::from(self.payload[12] >> 4) * 4;
        (number.expect("a number"), &self.payload[header..])
    }
}

/// The two ends of the gateway.
struct Ends<'a> {
    inside: Wire,
    outside: Wire,
    gateway: &'a NatCtl<'a>,
}

impl<'a> Ends<'a> {
    fn new(lab: &Lab, gateway: &'a NatCtl<'a>) -> Self {
        let wire = |host, device, address, to| {
            Wire::new(host, device, address, (&lab.gateway, to)).expect("a wire")
        };
        Self {
            inside: wire(&lab.inside, INSIDE_DEVICE, INSIDE, LAN_DEVICE),
            outside: wire(&lab.outside, OUTSIDE_DEVICE, OUTSIDE, WAN_DEVICE),
            gateway,
        }
    }

    /// Sends a packet from one side, and gives what arrives at the other.
    fn passes(&self, outward: bool, packet: &Packet, padding: Padding) -> Arrived {
        let (from, to) = match outward {
            true => (&self.inside, &self.outside),
            false => (&self.outside, &self.inside),
        };
        from.send(&padding.of(packet)).expect("a frame");
        let bytes = wait::until(LIMIT, "a packet on the other side", || {
            let found = to.receive()?;
            Ok(found.filter(|bytes| bytes[9] == packet.protocol))
        });
        let bytes = bytes.unwrap_or_else(|error| {
            panic!("{padding:?}, outward {outward}: {error:#}\n{}", self.gateway.diagnosis())
        });
        Arrived::read(&bytes)
    }
}

/// The sum of the pseudo-header of a datagram, as a stack leaves it to a device to finish it.
fn unfinished(packet: &Packet) -> [u8; 2] {
    let length = packet.payload.len() as u32;
    let ends = [packet.source.octets(), packet.destination.octets()];
    let words = [u32::from(packet.protocol).to_be_bytes(), length.to_be_bytes()];
    checksum(&[ends.as_flattened(), words.as_flattened()].concat()).map(|byte| !byte)
}

/// A datagram whose checksum is right, and by chance that which a device would have to finish.
fn looks_unfinished(from: SocketAddrV4, to: SocketAddrV4) -> Packet {
    let all = (0..=u16::MAX).map(|word| Packet::udp(from, to, &word.to_be_bytes()));
    let mut found = all.filter(|packet| packet.payload[6..8] == unfinished(packet));
    found.next().expect("one in so many")
}

fn datagrams(ends: &Ends, padding: Padding) -> SocketAddrV4 {
    // Of a new flow, and of one that is there.
    for text in [&b"1"[..], b"2", b""] {
        let seen = ends.passes(true, &Packet::udp(CLIENT, SERVER, text), padding);
        assert_eq!((seen.source, &seen.payload[8..]), (WAN, text));
    }
    let seen = ends.passes(true, &Packet::udp(CLIENT, SERVER, b"3"), padding);
    let public = seen.from();
    for text in [&b"4"[..], b""] {
        let seen = ends.passes(false, &Packet::udp(SERVER, public, text), padding);
        assert_eq!((seen.from(), &seen.payload[8..]), (SERVER, text));
    }
    let packet = looks_unfinished(CLIENT, SERVER);
    let seen = ends.passes(true, &packet, padding);
    assert_eq!(seen.payload[8..], packet.payload[8..]);
    let packet = looks_unfinished(SERVER, public);
    let seen = ends.passes(false, &packet, padding);
    assert_eq!(seen.payload[8..], packet.payload[8..]);
    let echo = Packet::icmp(INSIDE, OUTSIDE, [8, 0], 0x0007_0001, b"e");
    let seen = ends.passes(true, &echo, padding);
    assert_eq!((seen.source, &seen.payload[8..]), (WAN, &b"e"[..]));
    let word = seen.payload[4..].first_chunk().map(|chunk| u32::from_be_bytes(*chunk));
    let reply = Packet::icmp(OUTSIDE, WAN, [0, 0], word.expect("an identifier"), b"e");
    let seen = ends.passes(false, &reply, padding);
    assert_eq!((seen.source, &seen.payload[4..]), (OUTSIDE, &[0, 7, 0, 1, b'e'][..]));
    public
}

/// A connection from `client` to this server; the client as the server knows it.
fn connection(ends: &Ends, [client, server]: [SocketAddrV4; 2], padding: Padding) -> SocketAddrV4 {
    let segment = |flags, sequence, acknowledgement| Segment {
        flags,
        sequence,
        acknowledgement,
        ..Segment::default()
    };
    let seen = ends.passes(true, &Packet::tcp(client, server, &segment(SYN, 100, 0)), padding);
    let public = seen.from();
    assert_eq!((*public.ip(), seen.segment()), (WAN, (100, &[][..])));
    let packet = Packet::tcp(server, public, &segment(SYN | ACK, 500, 101));
    let seen = ends.passes(false, &packet, padding);
    assert_eq!((seen.from(), seen.segment()), (server, (500, &[][..])));
    let seen = ends.passes(true, &Packet::tcp(client, server, &segment(ACK, 101, 501)), padding);
    assert_eq!(seen.segment(), (101, &[][..]));
    let seen = ends.passes(false, &Packet::tcp(server, public, &segment(ACK, 501, 101)), padding);
    assert_eq!(seen.segment(), (501, &[][..]));
    public
}

/// Lines of a few bytes, of which the agent reads what is theirs.
fn control_lines(ends: &Ends, padding: Padding) {
    let [client, server] = [SocketAddrV4::new(INSIDE, 6000), SocketAddrV4::new(OUTSIDE, 21)];
    let public = connection(ends, [client, server], padding);
    let said = |sequence, acknowledgement, data| Segment {
        flags: ACK | PSH,
        sequence,
        acknowledgement,
        data,
        ..Segment::default()
    };
    let (mut own, mut other) = (101, 501);
    for (outward, line) in [
        (false, &b"220\r\n"[..]),
        (true, b"PWD\r\n"),
        (false, b"257\r\n"),
        // A line in pieces, of which the first ones stand in short frames.
        (true, b"NO"),
        (true, b"OP"),
        (true, b"\r\n"),
        (false, b"2"),
        (false, b"00\r\n"),
    ] {
        let packet = match outward {
            true => Packet::tcp(client, server, &said(own, other, line)),
            false => Packet::tcp(server, public, &said(other, own, line)),
        };
        let seen = ends.passes(outward, &packet, padding);
        let wanted = if outward { own } else { other };
        assert_eq!(seen.segment(), (wanted, line), "{padding:?}");
        *(if outward { &mut own } else { &mut other }) += line.len() as u32;
    }
    // A line that changes its length, with its end in a short frame.
    let (start, end) = (&b"PORT 10,0,1,2,200,1"[..], &b"0\r\n"[..]);
    let seen =
        ends.passes(true, &Packet::tcp(client, server, &said(own, other, start)), Padding::None);
    assert_eq!(seen.segment().0, own);
    let mut text = seen.segment().1.to_vec();
    own += start.len() as u32;
    let shown = Packet::tcp(client, server, &said(own, other, end));
    let seen = ends.passes(true, &shown, padding);
    text.extend(seen.segment().1);
    let line = String::from_utf8(text).expect("a line");
    let port = "PORT 203,0,113,1,";
    assert!(line.starts_with(port) && line.ends_with("\r\n"), "{padding:?}: {line:?}");
    assert_eq!(line.matches("PORT").count(), 1, "{padding:?}: {line:?}");
}

fn in_mode(mode: Mode) {
    let Some(binary) = requirements::met_with_binary("padding") else { return };
    for padding in ALL {
        println!("mode {mode}, {padding:?}");
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let ends = Ends::new(&lab, &gateway);
        datagrams(&ends, padding);
        connection(&ends, [SocketAddrV4::new(INSIDE, 5001), SERVER], padding);
        control_lines(&ends, padding);
        assert_eq!(gateway.packets().expect("counters").xdp > 0, mode == Mode::Xdp);
        let drops = gateway.json(&["drops"]).expect("drops");
        let reasons = drops.as_object().into_iter().flatten();
        let counted = reasons.filter(|(name, count)| *name != "version" && **count != 0);
        assert_eq!(counted.count(), 0, "{drops}");
        let sessions = gateway.json(&["ftp", "sessions"]).expect("sessions");
        let seen = (sessions[0]["mode"].as_str(), sessions[0]["command"].as_str());
        assert_eq!(seen, (Some("active"), Some("PORT")), "{sessions}");
        let expected = gateway.json(&["expectations", "list"]).expect("expectations");
        assert_eq!(expected.as_array().map(Vec::len), Some(1), "of the line, and of nothing else");
        gateway.stop().expect("an end");
    }
}

#[test]
fn what_fills_up_a_frame_is_no_part_of_its_packet_in_tc() {
    in_mode(Mode::Tc);
}

#[test]
fn what_fills_up_a_frame_is_no_part_of_its_packet_in_xdp() {
    in_mode(Mode::Xdp);
}
