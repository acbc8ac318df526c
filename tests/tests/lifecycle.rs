//! Start, end, death and succession of the agent, seen from the wire.

use std::{net::SocketAddrV4, path::Path, time::Duration};

use nat_tests::{
    capture::Capture,
    client::{self, DataMode, Request},
    frame::{Frame, is_inside},
    gateway::{Mode, NatCtl},
    lab::{INSIDE_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    link::Offloads,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{Session, accept, read_part},
    traffic::{self, Chatter},
    wait,
};
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};

const LIMIT: Duration = Duration::from_secs(20);

fn serve(lab: &Lab) -> Server {
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server outside")
}

fn one_transfer_works(lab: &Lab, server: &Server) {
    let folder = lab.folder("client").expect("a folder");
    let request = Request::new(client::Kind::Curl, DataMode::Port, OUTSIDE);
    client::transfer(&lab.inside, &request, server, &lab.payload, &folder).expect("a transfer");
}

fn nothing_is_left(gateway: &NatCtl<'_>, lab: &Lab) {
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
    let forwarding = lab.gateway.read_sysctl("net.ipv4.ip_forward").expect("a sysctl");
    assert_eq!(forwarding, "0", "forwarding is put back as it was found");
}

fn sigterm_removes_everything(mode: Mode, binary: &Path) {
    let lab = Lab::new().expect("a lab");
    let server = serve(&lab);
    let mut gateway = NatCtl::prepare(&lab, mode, binary).expect("a gateway");
    for _ in 0..2 {
        gateway.run(&[]).expect("a start");
        one_transfer_works(&lab, &server);
        let status = gateway.end(Signal::SIGTERM).expect("an end");
        assert!(status.success(), "{status}");
        nothing_is_left(&gateway, &lab);
    }
}

#[test]
fn sigterm_removes_everything_and_a_second_start_works() {
    if let Some(binary) = requirements::met_with_binary("SIGTERM") {
        sigterm_removes_everything(Mode::Tc, &binary);
        sigterm_removes_everything(Mode::Xdp, &binary);
    }
}

#[test]
fn persist_leaves_the_data_plane_at_work_and_down_removes_it() {
    let Some(binary) = requirements::met_with_binary("--persist") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let server = serve(&lab);
        let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
        gateway.run(&["--persist"]).expect("a start");
        let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
        let mut data = session.passive().expect("a data connection");
        session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
        let first = read_part(&mut data, 1_000_000).expect("a part of the file");

        let status = gateway.end(Signal::SIGTERM).expect("an end");
        assert!(status.success(), "{status}");
        let after = read_part(&mut data, 1_000_000).expect("data without an agent");
        gateway.run(&["--persist"]).expect("a take-over");
        let digest = session.finish_after([first, after].concat(), data).expect("the rest");
        assert_eq!(digest, lab.payload.sha256);
        one_transfer_works(&lab, &server);

        let status = gateway.end(Signal::SIGTERM).expect("an end");
        assert!(status.success(), "{status}");
        let down = gateway.call(&["down"]).expect("a call").checked("nat-ctl down");
        down.expect("everything removed");
        nothing_is_left(&gateway, &lab);
    }
}

fn killed_agent_is_succeeded(mode: Mode, binary: &Path) {
    let lab = Lab::new().expect("a lab");
    // The frame that is replayed has to carry its whole checksum.
    lab.set_offloads(Offloads::Off).expect("offloads off");
    let _server = serve(&lab);
    let mut gateway = NatCtl::prepare(&lab, mode, binary).expect("a gateway");
    gateway.run(&["--persist"]).expect("a start");
    let capture = |namespace, device| {
        let folder = lab.folder("capture").expect("a folder");
        Capture::start(namespace, device, "tcp port 21", &folder).expect("a capture")
    };
    let inner = capture(&lab.inside, INSIDE_DEVICE);
    let outer = capture(&lab.outside, OUTSIDE_DEVICE);

    let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
    let listener = session.active().expect("PORT, whose line grows by the rewrite");
    session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
    let mut data = accept(&listener).expect("a data connection");
    let mut bytes = read_part(&mut data, 1_000_000).expect("a part of the file");
    gateway.end(Signal::SIGKILL).expect("a kill");
    bytes.extend(read_part(&mut data, lab.payload.bytes.len() - bytes.len()).expect("the rest"));
    assert!(Sha256::digest(&bytes)[..] == Sha256::digest(&lab.payload.bytes)[..]);

    gateway.run(&["--persist"]).expect("a take-over");
    session.expect("226").expect("the end of the transfer");
    assert_eq!(session.fetch_passive(FILE).expect("a passive transfer"), lab.payload.sha256);
    assert_eq!(session.fetch_active(FILE).expect("an active transfer"), lab.payload.sha256);

    let port = |frames: Vec<Frame>| frames.into_iter().find(|frame| frame.says("PORT "));
    let sent = port(inner.finish().expect("a capture")).expect("a PORT inside");
    traffic::send_frame(&lab.inside, INSIDE_DEVICE, &sent.bytes).expect("a replay");
    let segments = || {
        let frames = outer.so_far()?;
        let first = frames.iter().find(|frame| frame.says("PORT ")).cloned();
        let sequence = first.as_ref().and_then(sequence_of);
        let same = |frame: &Frame| frame.says("PORT ") && sequence_of(frame) == sequence;
        Ok(frames.into_iter().filter(same).collect::<Vec<_>>())
    };
    let outside = wait::until(LIMIT, "the replayed PORT outside", || {
        segments().map(|found: Vec<Frame>| (found.len() >= 2).then_some(found))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let payloads = outside.iter().map(payload_of).collect::<Vec<_>>();
    assert!(payloads.iter().all(|payload| payload == &payloads[0]), "{payloads:?}");
    let text = String::from_utf8_lossy(&payloads[0]).into_owned();
    assert!(text.starts_with("PORT 203,0,113,1,"), "{text}");

    gateway.end(Signal::SIGTERM).expect("an end");
    gateway.call(&["down"]).expect("a call").checked("nat-ctl down").expect("removal");
    nothing_is_left(&gateway, &lab);
    let leaks =
        outer.finish().expect("a capture").iter().filter(|frame| frame.names(is_inside)).count();
    assert_eq!(leaks, 0);
}

fn sequence_of(frame: &Frame) -> Option<u32> {
    Some(frame.ipv4.as_ref()?.tcp.as_ref()?.sequence)
}

fn payload_of(frame: &Frame) -> Vec<u8> {
    let tcp = frame.ipv4.as_ref().and_then(|ip| ip.tcp.as_ref());
    tcp.map(|tcp| tcp.payload.clone()).unwrap_or_default()
}

#[test]
fn killed_agent_is_succeeded_in_mid_session_in_tc() {
    if let Some(binary) = requirements::met_with_binary("kill -9 in TC") {
        killed_agent_is_succeeded(Mode::Tc, &binary);
    }
}

#[test]
fn killed_agent_is_succeeded_in_mid_session_in_xdp() {
    if let Some(binary) = requirements::met_with_binary("kill -9 in XDP") {
        killed_agent_is_succeeded(Mode::Xdp, &binary);
    }
}

/// Waits until more translated datagrams have come through than before.
fn more_comes_through(capture: &Capture) {
    let count = || {
        let translated = |frame: &Frame| frame.ipv4.as_ref().is_some_and(|ip| ip.source == WAN);
        Ok::<_, anyhow::Error>(capture.so_far()?.iter().filter(|frame| translated(frame)).count())
    };
    let before = count().expect("a capture");
    wait::until_true(LIMIT, "translated datagrams outside", || Ok(count()? > before + 20))
        .expect("a data plane at work");
}

#[test]
fn no_frame_with_an_inside_address_leaves_through_start_end_death_and_removal() {
    let Some(binary) = requirements::met_with_binary("leaks") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
        let folder = lab.folder("capture").expect("a folder");
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");
        let chatter =
            Chatter::start(&lab.inside, SocketAddrV4::new(OUTSIDE, 9)).expect("datagrams");

        gateway.run(&[]).expect("a start");
        more_comes_through(&capture);
        gateway.end(Signal::SIGTERM).expect("an end");
        gateway.run(&["--persist"]).expect("a second start");
        more_comes_through(&capture);
        gateway.end(Signal::SIGKILL).expect("a kill");
        more_comes_through(&capture);
        gateway.run(&["--persist"]).expect("a take-over");
        more_comes_through(&capture);
        gateway.end(Signal::SIGTERM).expect("an end");
        more_comes_through(&capture);
        gateway.call(&["down"]).expect("a call").checked("nat-ctl down").expect("removal");
        nothing_is_left(&gateway, &lab);

        drop(chatter);
        let frames = capture.finish().expect("a capture");
        let leaks = frames.iter().filter(|frame| frame.names(is_inside)).collect::<Vec<_>>();
        assert!(leaks.is_empty(), "{mode}: {} frames, first {:?}", leaks.len(), leaks[0].ipv4);
    }
}

#[test]
fn full_table_drops_and_leaks_nothing() {
    let Some(binary) = requirements::met_with_binary("full table") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
        gateway.configure("[limits]\nflows = 64\n").expect("a configuration");
        gateway.run(&[]).expect("a start");
        let folder = lab.folder("capture").expect("a folder");
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");
        for port in 0..300 {
            let socket = traffic::udp_socket(&lab.inside, 30_000 + port).expect("a socket");
            socket.send_to(b"one of many", (OUTSIDE, 9)).expect("a datagram");
        }
        wait::until_true(LIMIT, "datagrams outside", || {
            Ok(capture.so_far()?.iter().any(|frame| frame.says("one of many")))
        })
        .expect("the first flows pass");
        wait::until_true(LIMIT, "a drop that is counted", || {
            let drops = gateway.json(&["drops"])?;
            let counts = drops.as_object().into_iter().flatten();
            Ok(counts.filter(|(name, _)| *name != "version").any(|(_, n)| n.as_u64() > Some(0)))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        gateway.stop().expect("an end");
        let frames = capture.finish().expect("a capture");
        assert_eq!(frames.iter().filter(|frame| frame.names(is_inside)).count(), 0);
    }
}
