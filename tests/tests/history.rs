//! Transfers, refusals and events as the command line shows them.

use std::{io::Read as _, process::Stdio, time::Duration};

use nat_tests::{
    dialogue::{Dialogue, End},
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    netns::Lifetime,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{Session, accept, read_part},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A pass over a small table takes a second, and the one that counts begins after the transfer.
const LIMIT: Duration = Duration::from_secs(15);

fn list(gateway: &NatCtl<'_>, words: &[&str]) -> Vec<Value> {
    gateway.json(words).expect("JSON").as_array().cloned().unwrap_or_default()
}

/// A command that goes on, from its start to Ctrl-C.
struct Watching(std::process::Child);

impl Watching {
    fn start(gateway: &NatCtl<'_>, words: &[&str]) -> Self {
        let mut command = gateway.command(words);
        command.args(["-o", "jsonl"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().expect("a command");
        // It asks where to begin first; the lines of the test come a connection later.
        std::thread::sleep(Duration::from_millis(500));
        Self(child)
    }

    /// What it has printed, and that Ctrl-C is no error.
    fn end(mut self, by: Option<Signal>) -> Vec<Value> {
        if let Some(signal) = by {
            std::thread::sleep(Duration::from_millis(500));
            kill(Pid::from_raw(self.0.id() as i32), signal).expect("a signal");
        }
        let mut text = String::new();
        self.0.stdout.take().expect("stdout").read_to_string(&mut text).expect("its output");
        let status = self.0.wait().expect("its end");
        assert_eq!(status.code(), Some(0), "{status}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
fn a_transfer_is_shown_while_it_runs_and_kept_with_its_bytes() {
    let Some(binary) = requirements::met_with_binary("transfers") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let folder = lab.folder("server").expect("a folder");
        let settings = Settings::new(Kind::Vsftpd);
        let _server =
            Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let watching = Watching::start(&gateway, &["ftp", "watch"]);
        let size = lab.payload.bytes.len() as u64;

        let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
        let listener = session.active().expect("PORT");
        session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
        let mut data = accept(&listener).expect("a data connection");
        let first = read_part(&mut data, 100_000).expect("a part of the file");
        let running = || {
            let transfers = list(&gateway, &["ftp", "transfers"]);
            Ok(transfers
                .iter()
                .any(|it| it["result"] == "running" && it["bytes"].as_u64() >= Some(100_000)))
        };
        wait::until_true(LIMIT, "a transfer under way", running)
            .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
        let shown = list(&gateway, &["ftp", "sessions"]);
        assert_eq!(shown[0]["result"], "running", "{shown:?}");
        assert!(shown[0]["rate"].as_u64() > Some(0), "{shown:?}");
        session.finish_after(first, data).expect("the rest");

        session.fetch_passive(FILE).expect("a passive one");
        let mut data = session.passive().expect("a third");
        session.command("NLST", "150").expect("a listing");
        data.read_to_end(&mut vec![]).expect("the listing");
        session.expect("226").expect("its end");
        session.passive().expect("a fourth");
        session.command("RETR missing", "550").expect("a refusal");

        // A pass that began after the end says the last word.
        let logged = || Ok(gateway.output().matches("complete (226), ").count() == 3);
        wait::until_true(LIMIT, "three lines in the log", logged)
            .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
        let transfers = list(&gateway, &["ftp", "transfers"]);
        let told: Vec<_> = transfers
            .iter()
            .map(|it| (it["command"].as_str(), it["mode"].as_str(), it["result"].as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Some("RETR"), Some("active"), Some("complete")),
                (Some("RETR"), Some("passive"), Some("complete")),
                (Some("NLST"), Some("passive"), Some("complete")),
                (Some("RETR"), Some("passive"), Some("refused")),
            ],
            "{mode}: {transfers:?}"
        );
        for transfer in &transfers[..2] {
            let bytes = transfer["bytes"].as_u64().expect("bytes");
            assert!((size..size + size / 4).contains(&bytes), "{mode}: {bytes} of {size}");
            assert_eq!((&transfer["file"], &transfer["reply"]), (&FILE.into(), &226.into()));
        }
        assert_eq!(transfers[3]["bytes"], 0, "{transfers:?}");
        drop(session);
        let over = || Ok(list(&gateway, &["ftp", "sessions"]).is_empty());
        wait::until_true(LIMIT, "the end of the session", over).expect("an end");

        let events = watching.end(Some(Signal::SIGINT));
        let told = kinds(&events);
        assert_eq!((told[0], *told.last().expect("events")), ("session-begins", "session-ends"));
        let count = |kind| told.iter().filter(|it| **it == kind).count();
        assert_eq!((count("transfer-begins"), count("transfer-ends")), (3, 4), "{told:?}");
        assert_eq!(count("rewritten"), 1, "{told:?}");
        let lines: Vec<_> = events.iter().filter_map(|event| event["line"].as_str()).collect();
        assert!(lines.contains(&"RETR missing: refused"), "{lines:?}");
        gateway.stop().expect("an end");
    }
}

#[test]
fn refused_lines_are_kept_without_their_secrets_and_a_trace_shows_what_was_rewritten() {
    let Some(binary) = requirements::met_with_binary("refusals") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let host = INSIDE.to_string();
    let tracing = Watching::start(&gateway, &["trace", "--host", &host, "--for", "3s"]);
    let other = Watching::start(&gateway, &["trace", "--host", "192.0.2.1", "--for", "2s"]);
    let all = Watching::start(&gateway, &["ftp", "watch"]);
    let mut dialogue = Dialogue::open(&lab, End::Client).expect("a dialogue");
    dialogue.log_in().expect("a login");
    let [a, b, c, d] = INSIDE.octets();
    let good = format!("PORT {a},{b},{c},{d},200,9\r\n");
    for line in [&good, "PORT 8,8,8,8,200,9\r\n", "PASS sesame\r\n", "ACCT open\r\n"] {
        dialogue.write(End::Client, line.as_bytes()).expect("a line");
        dialogue.line(End::Server, LIMIT).expect("the line");
    }
    let refusals = gateway.json(&["ftp", "refusals"]).expect("refusals");
    assert_eq!(refusals.as_array().map(Vec::len), Some(1), "{refusals}");
    assert_eq!(refusals[0]["reason"], "foreign-address", "{refusals}");
    assert_eq!(refusals[0]["line"], "PORT 8,8,8,8,200,9", "{refusals}");
    let counts = gateway.json(&["ftp", "refusals", "--count"]).expect("counts");
    assert_eq!((&counts["foreign-address"], &counts["unsolicited"]), (&1.into(), &0.into()));

    let traced = tracing.end(None);
    assert_eq!(kinds(&traced), ["rewritten"], "{traced:?}");
    assert_eq!(traced[0]["line"], good.trim_end(), "{traced:?}");
    let [a, b, c, d] = WAN.octets();
    let after = traced[0]["after"].as_str().expect("a line");
    assert!(after.starts_with(&format!("PORT {a},{b},{c},{d},")), "{after}");
    assert!(other.end(None).is_empty());
    let events = all.end(Some(Signal::SIGINT));
    let text = format!("{events:?}");
    assert!(text.contains("PASS ****") && text.contains("ACCT ****"), "{text}");
    for shown in [text, gateway.output()] {
        assert!(!shown.contains("sesame") && !shown.contains("open\""), "{shown}");
    }
    gateway.stop().expect("an end");
}
