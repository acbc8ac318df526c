//! What must not creep up: figures that don't depend on how fast the machine is.

use std::path::Path;

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE},
    netns::Lifetime,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::Session,
};

/// A command, its reply, RETR, 150, 226.
const SEGMENTS: u64 = 5;
/// An odd number, of which a few may have had a segment twice, on a machine that is busy.
const TRANSFERS: usize = 15;

fn punted(gateway: &NatCtl<'_>) -> u64 {
    let status = gateway.json(&["status"]).expect("a status");
    status["packets"]["punted"].as_u64().expect("a number of segments")
}

/// Segments that the agent was given in the middle one of many transfers.
fn of_a_transfer(gateway: &NatCtl<'_>, mut transfer: impl FnMut()) -> u64 {
    let mut counts: Vec<u64> = (0..TRANSFERS)
        .map(|_| {
            let before = punted(gateway);
            transfer();
            punted(gateway) - before
        })
        .collect();
    counts.sort_unstable();
    counts[TRANSFERS / 2]
}

fn a_transfer_hands_over_its_lines(mode: Mode, binary: &Path) {
    let lab = Lab::with(Lifetime::Run, 4096).expect("a lab");
    let folder = lab.folder("server").expect("a folder");
    let _server = Server::start(&lab.outside, &Settings::new(Kind::Vsftpd), &lab.payload, &folder)
        .expect("a server outside");
    let gateway = NatCtl::start(&lab, mode, binary).expect("a gateway");
    let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");

    let passive = of_a_transfer(&gateway, || {
        let digest = session.fetch_passive(FILE).expect("a passive transfer");
        assert_eq!(digest, lab.payload.sha256);
    });
    let active = of_a_transfer(&gateway, || {
        let digest = session.fetch_active(FILE).expect("an active transfer");
        assert_eq!(digest, lab.payload.sha256);
    });
    // Fewer than one a transfer would be a counter that stands still.
    assert!((1..=SEGMENTS).contains(&passive), "{passive} segments of a passive one, {mode}");
    assert!((1..=SEGMENTS).contains(&active), "{active} segments of an active one, {mode}");
}

#[test]
fn of_a_transfer_the_agent_is_handed_the_lines_and_no_acknowledgement() {
    if let Some(binary) = requirements::met_with_binary("segments handed to the agent") {
        a_transfer_hands_over_its_lines(Mode::Tc, &binary);
        a_transfer_hands_over_its_lines(Mode::Xdp, &binary);
    }
}
