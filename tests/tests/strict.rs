//! Strict mode on live TCP: real clients go on, and what breaks a rule ends at both ends.

use std::time::Duration;

use nat_tests::{
    capture::Capture,
    dialogue::{Dialogue, End},
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, OUTSIDE_DEVICE},
    netns::Lifetime,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::Session,
    wait,
};

const LIMIT: Duration = Duration::from_secs(5);
const STRICT: &str = "[ftp]\nstrict = true\ndenied_commands = [\"SITE\"]\n";

fn gateway<'a>(lab: &'a Lab, mode: Mode) -> Option<NatCtl<'a>> {
    let binary = requirements::met_with_binary("strict mode")?;
    let mut gateway = NatCtl::prepare(lab, mode, &binary).expect("a gateway");
    gateway.configure(STRICT).expect("a configuration");
    gateway.run(&[]).expect("a start");
    Some(gateway)
}

/// Whether an end has been told that its connection is over.
fn is_reset(dialogue: &mut Dialogue<'_>, end: End) -> bool {
    let error = dialogue.line(end, LIMIT).expect_err("no line after the end");
    format!("{error:#}").contains("reset by peer")
}

#[test]
fn transfers_go_on_and_a_denied_command_ends_the_session_at_both_ends() {
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let Some(gateway) = gateway(&lab, mode) else { return };
        let folder = lab.folder("server").expect("a folder");
        let settings = Settings::new(Kind::Vsftpd);
        let server =
            Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
        let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
        for _ in 0..2 {
            assert_eq!(session.fetch_active(FILE).expect("an active one"), lab.payload.sha256);
            assert_eq!(session.fetch_passive(FILE).expect("a passive one"), lab.payload.sha256);
        }
        let error = session.command("SITE CHMOD 777 x", "").expect_err("an end");
        assert!(format!("{error:#}").contains("reset by peer"), "{mode}: {error:#}");
        let closed = || {
            let flows = gateway.json(&["flows", "list", "--state", "closed"])?;
            Ok(flows.as_array().is_some_and(|flows| flows.iter().any(|flow| flow["alg"] == "ftp")))
        };
        wait::until_true(LIMIT, "the end of the flow", closed)
            .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
        let sessions = gateway.json(&["ftp", "sessions"]).expect("sessions");
        assert_eq!(sessions.as_array().map(Vec::len), Some(0), "{sessions}");
        assert!(gateway.output().contains("refused (denied-command)"), "{}", gateway.output());
        drop(server);

        let folder = lab.folder("capture").expect("a folder");
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "", &folder).expect("a capture");
        for line in ["SITE EXEC\r\n", "PWD\r\nPWD\r\n", "PWD\n", "PORT 10,0,1\r\n"] {
            let mut dialogue = Dialogue::open(&lab, End::Client).expect("a dialogue");
            dialogue.log_in().expect("a login");
            dialogue.write(End::Client, line.as_bytes()).expect("a line");
            for end in [End::Client, End::Server] {
                assert!(is_reset(&mut dialogue, end), "{mode} {line:?}: the {end:?}");
            }
        }
        let frames = capture.finish().expect("a capture");
        assert!(!frames.iter().any(|frame| frame.says("EXEC")), "{mode}: it has left");
        let drops = gateway.json(&["drops"]).expect("drops");
        assert!(drops["alg-reset"].as_u64() >= Some(5), "{drops}");
        gateway.stop().expect("an end");
    }
}

#[test]
fn a_server_inside_is_held_to_its_part() {
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let Some(mut gateway) = gateway(&lab, Mode::Tc) else { return };
    let rule = nat_tests::gateway::Rule::ForwardFtp {
        name: "ftp".to_owned(),
        public: nat_tests::lab::WAN,
        to: nat_tests::lab::INSIDE,
    };
    gateway.add(&rule).expect("a forward");
    let mut dialogue = Dialogue::open(&lab, End::Server).expect("a dialogue");
    dialogue.log_in().expect("a login");
    dialogue.write(End::Server, b"227 x (192,168,1,10,9,9)\r\n").expect("a line");
    for end in [End::Client, End::Server] {
        assert!(is_reset(&mut dialogue, end), "the {end:?}");
    }
    gateway.stop().expect("an end");
}
