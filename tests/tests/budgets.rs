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

/// What waits: the 227, or the PORT.
const SEGMENTS: u64 = 1;
/// What passes with a copy: PASV, or the reply to PORT; RETR, 150, 226.
const COPIES: u64 = 4;
/// An odd number, of which a few may have had a segment twice, on a machine that is busy.
const TRANSFERS: usize = 15;

/// Segments that have waited for the agent, and copies.
fn handed(gateway: &NatCtl<'_>) -> [u64; 2] {
    let status = gateway.json(&["status"]).expect("a status");
    ["punted", "copied"].map(|name| status["packets"][name].as_u64().expect("a number of segments"))
}

/// The same of the middle one of many transfers, each by itself.
fn of_a_transfer(gateway: &NatCtl<'_>, mut transfer: impl FnMut()) -> [u64; 2] {
    let counts: Vec<[u64; 2]> = (0..TRANSFERS)
        .map(|_| {
            let before = handed(gateway);
            transfer();
            let after = handed(gateway);
            [after[0] - before[0], after[1] - before[1]]
        })
        .collect();
    [0, 1].map(|kind| {
        let mut counts: Vec<u64> = counts.iter().map(|counts| counts[kind]).collect();
        counts.sort_unstable();
        counts[TRANSFERS / 2]
    })
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
    assert_eq!(passive, [SEGMENTS, COPIES], "of a passive one, {mode}");
    assert_eq!(active, [SEGMENTS, COPIES], "of an active one, {mode}");
}

#[test]
fn of_a_transfer_the_agent_is_handed_the_lines_and_no_acknowledgement() {
    if let Some(binary) = requirements::met_with_binary("segments handed to the agent") {
        a_transfer_hands_over_its_lines(Mode::Tc, &binary);
        a_transfer_hands_over_its_lines(Mode::Xdp, &binary);
    }
}
