//! TCP over a WAN that is narrower than what both ends know of, where nobody hears of it by ICMP.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    chain::{Chain, DEEP, FAR},
    dialogue::{self, Dialogue, End, padding, port},
    frame::Frame,
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE_DEVICE, WAN, WAN_DEVICE, WAN_SECOND},
    link::Offloads,
    netns::{Lifetime, Namespace},
    process, requirements, session,
    six::{self, FAR6},
};

/// The MTU of the WAN.
const NARROW: u16 = 1400;
/// More than a first flight of segments that fit anyway.
const SIZE: usize = 300_000;
/// Within this a transfer has come to its end, or will not for a long time.
const PATIENCE: Duration = Duration::from_secs(3);

/// A chain whose WAN is narrow, and where no host hears of it.
fn narrow_and_deaf() -> Chain {
    let chain = Chain::new().expect("a chain");
    let lab = &chain.lab;
    for (namespace, device) in [(&lab.gateway, WAN_DEVICE), (&lab.outside, OUTSIDE_DEVICE)] {
        namespace.ip(&format!("link set {device} mtu {NARROW}")).expect("a narrow link");
    }
    for host in [&chain.deep, &chain.far] {
        let rules = "add table inet deaf\n\
                     add chain inet deaf input { type filter hook input priority 0; }\n\
                     add rule inet deaf input icmp type destination-unreachable drop\n\
                     add rule inet deaf input icmpv6 type packet-too-big drop\n";
        let mut command = host.command("nft");
        process::must(command.arg(rules)).expect("a deaf host");
    }
    chain
}

fn open(gateway: &NatCtl) {
    let (public, to) = (WAN_SECOND.to_string(), DEEP.to_string());
    let words = ["one-to-one", "add", "--name", "deep", "--public", &public, "--to", &to];
    let added = gateway.call(&[&words[..], &["--inbound", "any"]].concat()).expect("a call");
    added.checked("one-to-one add").expect("a rule");
}

/// Whether much of what one end sends arrives at the other within [`PATIENCE`].
fn arrives(mut from: TcpStream, to: &mut TcpStream) -> bool {
    let sender = thread::spawn(move || {
        from.set_write_timeout(Some(PATIENCE)).expect("a limit");
        // What does not arrive is seen at the other end.
        let _ = from.write_all(&vec![7; SIZE]);
        thread::sleep(PATIENCE);
    });
    to.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let all = to.read_exact(&mut vec![0; SIZE]).is_ok();
    if !all {
        sender.join().expect("a sender");
    }
    all
}

/// Whether a transfer works each way over a connection of `client` to `server` at `at`.
fn transfers(client: &Namespace, server: &Namespace, at: Ipv4Addr) -> [bool; 2] {
    [false, true].map(|to_client| {
        let [mut near, mut far] = session::pair(client, server, at).expect("a connection");
        if to_client { arrives(far, &mut near) } else { arrives(near, &mut far) }
    })
}

/// What each SYN and SYN-ACK announces; Linux has the MSS first, behind headers of so many bytes.
fn announced(frames: &[Frame], headers: usize) -> Vec<u16> {
    let option = |frame: &Frame| match frame.bytes.get(headers..headers + 4) {
        Some([2, 4, high, low]) => u16::from_be_bytes([*high, *low]),
        other => panic!("no MSS in {other:?}"),
    };
    frames.iter().map(option).collect()
}

/// The gateway in each mode with this setting.
fn in_each_mode(name: &str, setting: &str, test: impl Fn(&Chain, &NatCtl)) {
    let Some(binary) = requirements::met_with_tools(name, &["nft"]) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = narrow_and_deaf();
        let mut gateway = NatCtl::prepare(&chain.lab, mode, &binary).expect("a gateway");
        gateway.configure(&format!("[masquerade]\nclamp_mss = {setting}\n")).expect("a file");
        gateway.run(&[]).expect("a gateway");
        println!("mode {mode}");
        open(&gateway);
        test(&chain, &gateway);
        gateway.stop().expect("an end");
    }
}

/// What ends announce at the far side of the gateway, for connections from inside and from outside.
fn both_ways(chain: &Chain, gateway: &NatCtl) -> ([bool; 2], [bool; 2], Vec<u16>) {
    let folder = chain.lab.folder("capture").expect("a folder");
    let filter = "tcp[tcpflags]&tcp-syn!=0";
    let start = |namespace, device| Capture::start(namespace, device, filter, &folder);
    let captures = [start(&chain.deep, "deep0"), start(&chain.far, "far0")];
    let captures = captures.map(|capture| capture.expect("a capture"));
    let out = transfers(&chain.deep, &chain.far, FAR);
    let into = transfers(&chain.far, &chain.deep, WAN_SECOND);
    let mut all = vec![];
    for (capture, host) in captures.into_iter().zip([DEEP, FAR]) {
        let mut frames = capture.finish().expect("frames");
        // As they arrive.
        frames.retain(|frame| frame.ipv4.as_ref().is_some_and(|ip| ip.destination == host));
        all.extend(announced(&frames, 54));
    }
    assert!(all.len() >= 8, "two of each connection: {all:?}: {}", gateway.diagnosis());
    (out, into, all)
}

#[test]
fn connections_fit_a_narrow_way_out_that_nobody_hears_of() {
    in_each_mode("MSS clamped", "\"auto\"", |chain, gateway| {
        let (out, into, announced) = both_ways(chain, gateway);
        assert_eq!((out, into), ([true; 2], [true; 2]), "{}", gateway.diagnosis());
        assert!(announced.iter().all(|mss| *mss == NARROW - 40), "{announced:?}");
    });
}

#[test]
fn connections_over_ipv6_fit_a_narrow_way_out_that_nobody_hears_of() {
    for (setting, wanted) in [("\"auto\"", NARROW - 60), ("900", 900)] {
        let Some(binary) = requirements::met_with_tools("MSS of IPv6", &["nft"]) else { return };
        let chain = narrow_and_deaf();
        six::turn_on(&chain).expect("IPv6");
        let mut gateway = NatCtl::prepare(&chain.lab, Mode::Xdp, &binary).expect("a gateway");
        gateway.configure(&format!("[masquerade]\nclamp_mss = {setting}\n")).expect("a file");
        gateway.run(&[]).expect("a gateway");
        let folder = chain.lab.folder("capture").expect("a folder");
        let filter = "ip6 and tcp and ip6[53] & 2 != 0";
        let start = |namespace, device| Capture::start(namespace, device, filter, &folder);
        let captures = [(&chain.deep, "deep0"), (&chain.far, "far0")]
            .map(|(namespace, device)| start(namespace, device).expect("a capture"));
        for to_client in [false, true] {
            let listen = || TcpListener::bind((FAR6, 0));
            let listener = chain.far.enter(listen).expect("a namespace").expect("a listener");
            let at = listener.local_addr().expect("its address");
            let dial = || TcpStream::connect_timeout(&at, PATIENCE);
            let mut near = chain.deep.enter(dial).expect("a namespace").expect("a connection");
            let mut far = listener.accept().expect("a connection").0;
            let arrived = if to_client { arrives(far, &mut near) } else { arrives(near, &mut far) };
            assert!(arrived, "{setting}: {}", gateway.diagnosis());
        }
        // The SYN and SYN-ACK of two connections, at each end; the last one of each has been changed.
        let seen = captures.map(|capture| announced(&capture.finish().expect("frames"), 74));
        let own = 1440;
        for seen in &seen {
            let (own, lowered): (Vec<u16>, Vec<u16>) = seen.iter().partition(|mss| **mss == own);
            assert_eq!((own.len(), &lowered[..]), (2, &[wanted; 2][..]), "{seen:?}");
        }
    }
}

/// A line that grows at the end of a full segment, or of several that are sent as one.
#[test]
fn lines_that_grow_in_full_segments_leave_in_no_fragment_and_in_none_too_long() {
    let Some(binary) = requirements::met_with_binary("full segments") else { return };
    for offloads in [Offloads::On, Offloads::Off] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        lab.set_offloads(offloads).expect("offloads");
        let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
        let folder = lab.folder("capture").expect("a folder");
        let filter = "tcp dst port 21";
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, filter, &folder).expect("one");
        for segments in [1, 3] {
            let mut session = Dialogue::open(&lab, End::Client).expect("a session");
            session.log_in().expect("a login");
            let full = segments * session.full_segment(End::Client).expect("an MSS");
            // Ports of the pool are kept, so that the line has to grow.
            let own = 30_000 + u16::try_from(segments).expect("a few");
            let listener = session.listen_on(End::Client, own).expect("a listener");
            let [high, low] = port(&listener).expect("a port").to_be_bytes();
            let line = format!("PORT 10,0,1,2,{high},{low}\r\n");
            let all = padding(full - line.len()) + &line;
            session.write(End::Client, all.as_bytes()).expect("a write");
            let is_it = |line: &str| line.starts_with("PORT");
            let heard = session
                .lines_to(End::Server, PATIENCE, is_it)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
            let (last, before) = heard.split_last().expect("a line");
            assert_eq!(before.concat(), padding(full - line.len()));
            let to = dialogue::announced(last, WAN).expect("an address");
            assert!(last.len() > line.len() && *to.ip() == WAN, "{last}");
            session.data(End::Server, to, &listener, PATIENCE).expect("a data connection");
        }
        let frames = capture.finish().expect("frames");
        // As the IP header has it: what is captured of a frame is shorter.
        let length = |frame: &Frame| u16::from_be_bytes([frame.bytes[16], frame.bytes[17]]);
        assert!(frames.iter().any(|frame| length(frame) > 1400), "none was full");
        for frame in &frames {
            assert!(length(frame) <= 1500, "{} bytes", length(frame));
            assert_eq!(frame.bytes[20] & 0x3f | frame.bytes[21], 0, "a fragment");
        }
    }
}

#[test]
fn connections_announce_no_more_than_was_set() {
    in_each_mode("MSS set", "900", |chain, gateway| {
        let (out, into, announced) = both_ways(chain, gateway);
        assert_eq!((out, into), ([true; 2], [true; 2]), "{}", gateway.diagnosis());
        assert!(announced.iter().all(|mss| *mss == 900), "{announced:?}");
    });
}

#[test]
fn what_is_not_to_be_clamped_is_as_it_was_and_goes_nowhere() {
    in_each_mode("MSS kept", "\"off\"", |chain, gateway| {
        let (out, into, announced) = both_ways(chain, gateway);
        assert!(announced.iter().all(|mss| *mss == 1460), "{announced:?}");
        // So it is for a reason that the other tests see transfers end.
        assert_eq!((out, into), ([false; 2], [false; 2]), "{}", gateway.diagnosis());
    });
}
