//! Frames of 9,000 bytes: on both sides, and on one side alone.

use std::{net::Ipv4Addr, time::Duration};

use nat_tests::{
    capture::Capture,
    frame::Frame,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    link::Offloads,
    netns::{Lifetime, Namespace},
    packet::{MORE, OFFSET, WHOLE},
    process, requirements,
    server::{FILE, Kind, Server, Settings},
    session,
    traffic::{path_mtu, udp_socket},
};
use serde_json::Value;

/// As most switches have it.
const JUMBO: u16 = 9000;
/// What a veth has in one buffer, which a program without fragments needs: a page of 4,096 bytes less
/// room before and behind it (drivers/net/veth.c, `veth_xdp_set`).
const BUFFER: u16 = 3400;
const PORT: u16 = 8090;
/// The headers of IPv4 and UDP.
const HEADERS: u16 = 28;

/// Length and fragment word of an IPv4 packet, as its header has them: a capture is shorter.
fn length_and_fragment(frame: &Frame) -> (u16, u16) {
    let word = |at: usize| u16::from_be_bytes([frame.bytes[at], frame.bytes[at + 1]]);
    (word(16), word(20))
}

fn lab_with(inside: u16, outside: u16) -> Lab {
    let lab = Lab::with(Lifetime::Run, 2_000_000).expect("a lab");
    for (namespace, device, mtu) in [
        (&lab.inside, INSIDE_DEVICE, inside),
        (&lab.gateway, LAN_DEVICE, inside),
        (&lab.gateway, WAN_DEVICE, outside),
        (&lab.outside, OUTSIDE_DEVICE, outside),
    ] {
        namespace.ip(&format!("link set {device} mtu {mtu}")).expect("an MTU");
    }
    lab
}

fn serve(lab: &Lab) -> Server {
    let folder = lab.folder("server").expect("a folder");
    Server::start(&lab.outside, &Settings::new(Kind::Vsftpd), &lab.payload, &folder)
        .expect("a server")
}

fn fetch(lab: &Lab, gateway: &NatCtl<'_>) {
    session::fetch_both_ways(&lab.inside, OUTSIDE, FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

/// Sends a datagram of numbered bytes, with DF or without.
fn send(from: &Namespace, own: u16, to: (Ipv4Addr, u16), size: u16, whole: bool) {
    // IP_MTU_DISCOVER: IP_PMTUDISC_DO or IP_PMTUDISC_DONT.
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.setsockopt(socket.IPPROTO_IP, 10, int(sys.argv[1]))\n\
                  s.bind(('', int(sys.argv[2])))\n\
                  s.sendto(bytes(n % 251 for n in range(int(sys.argv[5]))),\n\
                  \x20   (sys.argv[3], int(sys.argv[4])))\n";
    let mut command = from.command("python3");
    command.args(["-c", script, if whole { "2" } else { "0" }, &own.to_string()]);
    command.args([to.0.to_string(), to.1.to_string(), size.to_string()]);
    process::must(&mut command).expect("a datagram");
}

/// Bytes in a frame that a device takes, on the average, while this is done.
fn mean_frame(host: &Namespace, device: &str, work: impl FnOnce()) -> u64 {
    let counters = || {
        let shown = host.ip(&format!("-s -j link show dev {device}")).expect("counters");
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        ["bytes", "packets"].map(|name| shown[0]["stats64"]["rx"][name].as_u64().expect("one"))
    };
    let before = counters();
    work();
    let after = counters();
    (after[0] - before[0]) / (after[1] - before[1])
}

fn numbered(size: u16) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Everything is as long as it may be, from end to end.
fn from_end_to_end(mode: Mode, mtu: u16, offloads: Offloads) {
    let Some(binary) = requirements::met_with_binary("jumbo frames") else { return };
    println!("mode {mode}, {mtu} bytes, offloads {offloads:?}");
    let lab = lab_with(mtu, mtu);
    lab.set_offloads(offloads).expect("offloads");
    let _server = serve(&lab);
    let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
    let captures = lab.folder("capture").expect("a folder");
    let capture = |filter: &str| {
        Capture::start(&lab.outside, OUTSIDE_DEVICE, filter, &captures).expect("a capture")
    };

    // Connections both ways: full segments, and none that was cut.
    let tcp = capture("tcp and not port 21");
    fetch(&lab, &gateway);
    let [mut near, mut far] =
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    let out = mean_frame(&lab.outside, OUTSIDE_DEVICE, || {
        session::say(&mut near, &mut far, &[7; 300_000]).expect("it arrives");
    });
    let back = mean_frame(&lab.inside, INSIDE_DEVICE, || {
        session::say(&mut far, &mut near, &[8; 300_000]).expect("it comes back");
    });
    println!("frames of {out} bytes out, of {back} back");
    assert!(out > 1600 && back > 1600, "frames of {out} bytes out, of {back} back");
    let frames = tcp.finish().expect("frames");
    for from in [WAN, OUTSIDE] {
        let by = |frame: &&Frame| frame.ipv4.as_ref().is_some_and(|ip| ip.source == from);
        let seen: Vec<_> = frames.iter().filter(by).map(length_and_fragment).collect();
        assert!(seen.iter().all(|(_, fragment)| fragment & (MORE | OFFSET) == 0), "a fragment");
        let longest = seen.iter().map(|(length, _)| *length).max().unwrap_or_default();
        // Of super-packets, and of what GRO has put together, the length says nothing.
        let is_one = mode == Mode::Tc && offloads == Offloads::Off;
        assert!(longest == mtu || longest > mtu && !is_one, "from {from} {longest} bytes");
    }

    // Datagrams with DF, of all bytes that fit.
    let udp = capture("udp");
    let [outside, inside] =
        [(&lab.outside, PORT), (&lab.inside, 0)].map(|(host, port)| udp_socket(host, port));
    let (outside, inside) = (outside.expect("a socket"), inside.expect("a socket"));
    let mut buffer = vec![0; usize::from(JUMBO)];
    let mut sizes = vec![mtu - 100, mtu - HEADERS];
    for size in &sizes {
        send(&lab.inside, 5000, (OUTSIDE, PORT), *size, true);
        let (length, peer) = outside.recv_from(&mut buffer).unwrap_or_else(|error| {
            panic!("{size} bytes: {error}\n{}", gateway.diagnosis());
        });
        assert!(buffer[..length] == numbered(*size), "{size} bytes, as they were sent");
        assert_eq!(peer.ip(), WAN);
    }
    inside.send_to(b"a question", (OUTSIDE, PORT)).expect("a datagram");
    let (_, peer) = outside.recv_from(&mut buffer).expect("a question");
    let std::net::SocketAddr::V4(peer) = peer else { panic!("{peer}") };
    drop(outside);
    send(&lab.outside, PORT, (*peer.ip(), peer.port()), mtu - HEADERS, true);
    let length = inside.recv(&mut buffer).expect("an answer");
    assert!(buffer[..length] == numbered(mtu - HEADERS), "an answer, as it was sent");
    sizes.push(mtu - HEADERS);
    let mut seen: Vec<_> = udp.finish().expect("frames").iter().map(length_and_fragment).collect();
    seen.retain(|(length, _)| *length > 1500);
    let wanted: Vec<_> = sizes.iter().map(|size| (size + HEADERS, WHOLE)).collect();
    assert_eq!(seen, wanted, "lengths, and DF alone");
    assert_eq!(gateway.packets().expect("counters").xdp > 50, mode == Mode::Xdp);
    gateway.stop().expect("an end");
}

#[test]
fn jumbo_frames_pass_whole_from_end_to_end() {
    for offloads in [Offloads::On, Offloads::Off] {
        from_end_to_end(Mode::Tc, JUMBO, offloads);
    }
}

#[test]
fn what_fits_a_buffer_passes_whole_in_xdp() {
    from_end_to_end(Mode::Xdp, BUFFER, Offloads::Off);
}

#[test]
fn jumbo_frames_that_fit_no_buffer_are_refused_in_mode_xdp() {
    let Some(binary) = requirements::met_with_binary("jumbo frames in XDP") else { return };
    let lab = lab_with(JUMBO, JUMBO);
    let gateway = NatCtl::prepare(&lab, Mode::Xdp, &binary).expect("a gateway");
    let limit = Duration::from_secs(90);
    let refused = process::run(&mut gateway.agent_command(&[]), limit).expect("an answer");
    assert!(!refused.status.success(), "programs have no use for the second buffer of a frame");
    assert!(refused.stderr.contains("or not at this MTU"), "{}", refused.stderr);
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}

/// Sends large datagrams from the wide side to the narrow one: they are told of the MTU, or cut.
fn into_the_narrow(
    lab: &Lab,
    gateway: &NatCtl<'_>,
    (wide, mtu): (&Namespace, u16),
    (narrow, device): (&Namespace, &str),
    to: Ipv4Addr,
) {
    let captures = lab.folder("capture").expect("a folder");
    let capture = Capture::start(narrow, device, "udp or tcp", &captures).expect("a capture");
    let told = path_mtu(wide, to.into(), mtu - HEADERS, [0, PORT]).expect("a discovery");
    assert_eq!(told, "1500", "{}", gateway.diagnosis());
    let receiver = udp_socket(narrow, PORT).expect("a socket");
    let mut buffer = vec![0; usize::from(JUMBO)];
    for size in [1473, 1500, 8900] {
        send(wide, 5001, (to, PORT), size, false);
        let length = receiver.recv(&mut buffer).unwrap_or_else(|error| {
            panic!("{size} bytes: {error}\n{}", gateway.diagnosis());
        });
        assert!(buffer[..length] == numbered(size), "{size} bytes, as they were sent");
    }
    // What has to be whole and fits.
    send(wide, 5001, (to, PORT), 1500 - HEADERS, true);
    assert_eq!(receiver.recv(&mut buffer).expect("a full one"), 1472);
    let frames = capture.finish().expect("frames");
    let longest = frames.iter().map(|frame| length_and_fragment(frame).0).max();
    assert_eq!(longest, Some(1500));
}

fn wide_on_one_side(mode: Mode, wide: u16, is_inside: bool) {
    let Some(binary) = requirements::met_with_binary("jumbo frames on one side") else { return };
    println!("mode {mode}, {wide} bytes, inside: {is_inside}");
    let lab = if is_inside { lab_with(wide, 1500) } else { lab_with(1500, wide) };
    lab.set_offloads(Offloads::Off).expect("offloads");
    let _server = serve(&lab);
    let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
    let public = format!("{WAN}:{PORT}");
    let to = INSIDE.to_string();
    let words = ["forward", "add", "--name", "udp", "--protocol", "udp", "--public", &public];
    let added = gateway.call(&[&words[..], &["--to", &to]].concat()).expect("a call");
    added.checked("forward add").expect("a rule");
    fetch(&lab, &gateway);
    let [mut near, mut far] =
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    session::say(&mut near, &mut far, &[7; 300_000]).expect("it arrives");
    session::say(&mut far, &mut near, &[8; 300_000]).expect("it comes back");
    let (inside, outside) = ((&lab.inside, INSIDE_DEVICE), (&lab.outside, OUTSIDE_DEVICE));
    if is_inside {
        into_the_narrow(&lab, &gateway, (&lab.inside, wide), outside, OUTSIDE);
    } else {
        into_the_narrow(&lab, &gateway, (&lab.outside, wide), inside, WAN);
    }
    gateway.stop().expect("an end");
}

#[test]
fn a_wide_inside_before_a_narrow_outside_is_told_and_cut() {
    wide_on_one_side(Mode::Tc, JUMBO, true);
    wide_on_one_side(Mode::Xdp, BUFFER, true);
}

#[test]
fn a_wide_outside_before_a_narrow_inside_is_told_and_cut() {
    wide_on_one_side(Mode::Tc, JUMBO, false);
    wide_on_one_side(Mode::Xdp, BUFFER, false);
}
