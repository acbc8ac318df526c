//! The data plane without its agent: stopped or dead, it follows neighbours and routes.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, OUTSIDE_DEVICE},
    requirements,
    routers::{self, REMOTE},
    server::{FILE, Kind, Server, Settings},
    session::{Session, read_part},
    traffic::{self, udp_socket, udp_socket_at},
    wait,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);

/// A transfer, during which the agent gets `signal` and then `change` happens; both must do no harm.
fn transfer_survives(
    mode: Mode,
    binary: &Path,
    signal: Signal,
    server: Ipv4Addr,
    prepare: impl FnOnce(&Lab) -> anyhow::Result<()>,
    change: impl FnOnce(&Lab),
) {
    let lab = Lab::new().expect("a lab");
    prepare(&lab).expect("a preparation");
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server =
        Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server outside");
    let mut gateway = NatCtl::prepare(&lab, mode, binary).expect("a gateway");
    gateway.run(&["--persist"]).expect("a start");
    let folder = lab.folder("capture").expect("a folder");
    let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");

    let mut session = Session::open(&lab.inside, server).expect("a session");
    let mut data = session.passive().expect("a data connection");
    session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
    let first = read_part(&mut data, 500_000).expect("a part of the file");
    gateway.signal(signal).expect("a signal");
    change(&lab);
    let rest = read_part(&mut data, lab.payload.bytes.len() - first.len())
        .unwrap_or_else(|error| panic!("{mode} {signal}: {error:#}"));
    assert!([first, rest].concat() == lab.payload.bytes);

    // New flows need no agent either.
    let outside = udp_socket_at(&lab.outside, SocketAddrV4::new(server, 7777)).expect("a socket");
    let inside = udp_socket(&lab.inside, 0).expect("a socket");
    inside.send_to(b"are you there", (server, 7777)).expect("a datagram");
    let mut buffer = [0; 64];
    let (length, peer) = outside.recv_from(&mut buffer).expect("a datagram through the gateway");
    outside.send_to(&buffer[..length], peer).expect("an answer");
    inside.recv_from(&mut buffer).expect("an answer through the gateway");

    let frames = capture.finish().expect("a capture");
    assert_eq!(frames.iter().filter(|frame| frame.names(is_inside)).count(), 0);
}

fn each_mode_and_signal(name: &str, check: impl Fn(Mode, &Path, Signal)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            check(mode, &binary, signal);
        }
    }
}

#[test]
fn neighbour_that_changes_its_address_is_followed() {
    each_mode_and_signal("neighbour change", |mode, binary, signal| {
        transfer_survives(mode, binary, signal, OUTSIDE, routers::announce_changes, |lab| {
            lab.outside
                .ip(&format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:01"))
                .expect("a new hardware address");
        });
    });
}

#[test]
fn route_that_changes_is_followed() {
    each_mode_and_signal("route change", |mode, binary, signal| {
        transfer_survives(mode, binary, signal, REMOTE, routers::two_routers, |lab| {
            routers::take_the_second(lab).expect("a new route");
            // The way that was taken so far is dead from here on, and says nothing.
            lab.outside
                .ip(&format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:02"))
                .expect("a new hardware address");
        });
    });
}

#[test]
fn lab_itself_follows_both_changes_through_linux() {
    if !requirements::met("changes through Linux") {
        return;
    }
    let lab = Lab::with(nat_tests::netns::Lifetime::Run, 1000).expect("a lab");
    routers::two_routers(&lab).expect("two routers");
    routers::announce_changes(&lab).expect("a sysctl");
    let kind = nat_tests::gateway::Kind::Linux;
    let _gateway = nat_tests::gateway::Gateway::start(&lab, kind, "".as_ref()).expect("a gateway");
    let reaches = |what: &str| {
        wait::until_true(LIMIT, what, || Ok(traffic::echo(&lab.inside, REMOTE).is_ok()))
            .unwrap_or_else(|error| panic!("{error:#}"));
    };
    reaches("an echo by the first router");
    lab.outside.ip("link set out0 address 02:00:5e:10:00:01").expect("a new hardware address");
    reaches("an echo after the change of a neighbour");
    routers::take_the_second(&lab).expect("a new route");
    reaches("an echo by the second router");
}
