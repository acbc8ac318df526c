//! FTP over IPv6: what a session announces is let in through the filter, and nothing else is.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nat_tests::{
    chain::Chain,
    gateway::{Mode, NatCtl},
    netns::Namespace,
    payload, process, requirements,
    server::{FILE, Kind, Server, Settings},
    six::{self, DEEP6, FAR6, connection, is_shut},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// How long nothing is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(400);

fn chain() -> Chain {
    let chain = Chain::new().expect("a chain");
    six::turn_on(&chain).expect("IPv6");
    chain
}

/// A server inside that anybody may use.
fn forward(gateway: &NatCtl) {
    let at = DEEP6.to_string();
    let words =
        ["forward", "add", "--name", "ftp", "--service", "ftp", "--public", &at, "--to", &at];
    gateway.call(&words).expect("a call").checked("forward add").expect("a rule");
}

/// Both ends of a control connection, played by hand.
struct Dialogue {
    client: TcpStream,
    server: TcpStream,
}

impl Dialogue {
    fn open(client: &Namespace, server: &Namespace, at: Ipv6Addr) -> Self {
        // Not by `connection`, whose question is no FTP.
        let listener = server.enter(|| TcpListener::bind((at, 21))).expect("a namespace");
        let listener = listener.expect("a listener");
        let end = SocketAddr::from((at, 21));
        let client = client.enter(|| TcpStream::connect_timeout(&end, LIMIT)).expect("a namespace");
        let client = client.expect("a control connection");
        let server = nat_tests::session::accept(&listener).expect("the other end");
        for end in [&client, &server] {
            end.set_nodelay(true).expect("no delay");
            end.set_read_timeout(Some(LIMIT)).expect("a limit");
        }
        let mut dialogue = Self { client, server };
        dialogue.server_says("220 hello\r\n");
        dialogue.client_says("USER anna\r\n");
        dialogue.server_says("230 welcome\r\n");
        dialogue
    }

    fn client_says(&mut self, line: &str) {
        say(&mut self.client, &mut self.server, line.as_bytes());
    }

    fn server_says(&mut self, line: &str) {
        say(&mut self.server, &mut self.client, line.as_bytes());
    }
}

/// The bytes arrive as they were sent.
fn say(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).expect("a line");
    hear(to, bytes);
}

fn hear(at: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    at.read_exact(&mut got).expect("a line on the other side");
    assert_eq!(got, bytes, "{}", String::from_utf8_lossy(&got));
}

fn eprt(address: Ipv6Addr, port: u16) -> String {
    format!("EPRT |2|{address}|{port}|\r\n")
}

#[test]
fn what_an_active_client_announces_comes_in_once_from_its_server() {
    let Some(binary) = requirements::met_with_binary("active FTP over IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    let mut dialogue = Dialogue::open(deep, far, FAR6);
    let shut = |from: &Namespace, port| is_shut(from, deep, DEEP6, port).expect("an attempt");
    assert!(shut(far, 5001), "nothing is announced yet");
    dialogue.client_says(&eprt(DEEP6, 5001));
    let expected = &gateway.json(&["expectations", "list"]).expect("a list")[0];
    assert_eq!(
        (&expected["src"], &expected["dst"], &expected["dport"]),
        (&json!(FAR6), &json!(DEEP6), &json!(5001))
    );
    let session = &gateway.json(&["ftp", "sessions"]).expect("a list")[0];
    assert_eq!((&session["id"], &session["user"]), (&expected["session"], &json!("anna")));
    let dials = format!("[{DEEP6}]:5001");
    let words = ["explain", "--protocol", "tcp", &format!("[{FAR6}]:20"), &dials];
    let answer = gateway.json(&words).expect("an answer");
    assert_eq!(answer["verdict"], "forwarded", "{answer:#}");
    assert!(answer["because"].to_string().contains("has announced it"), "{answer:#}");
    assert!(shut(&lab.outside, 5001) && shut(far, 5002), "another host, another port");
    let _data = connection(far, deep, DEEP6, 5001).expect("the data connection");
    let list = gateway.json(&["flows", "list"]).expect("a list");
    let flow = |key: &str, wanted: &Value| {
        let all = list.as_array().expect("flows").iter();
        all.filter(|flow| flow[key] == *wanted).count()
    };
    assert_eq!(
        (flow("alg", &json!("ftp")), flow("related_to", &session["id"])),
        (1, 1),
        "{list:#}"
    );
    assert!(shut(far, 5001), "it was for one connection");

    // A byte a segment; then lines that open nothing and pass all the same.
    for byte in eprt(DEEP6, 5003).bytes() {
        say(&mut dialogue.client, &mut dialogue.server, &[byte]);
    }
    drop(connection(far, deep, DEEP6, 5003).expect("a data connection"));
    dialogue.client_says(&eprt(FAR6, 5004));
    dialogue.client_says(&eprt(DEEP6, 22));
    dialogue.client_says("PORT 10,0,2,2,19,140\r\n");
    assert!(shut(far, 5004) && shut(far, 22) && shut(far, 5004));
    let refused = gateway.json(&["ftp", "refusals", "--count"]).expect("refusals").to_string();
    for reason in ["foreign-address", "system-port", "other-family"] {
        assert!(refused.contains(reason), "{reason}: {refused}");
    }

    // With the session goes what it has announced.
    dialogue.client_says(&eprt(DEEP6, 5005));
    drop(dialogue);
    wait::until_true(LIMIT, "the end of what was announced", || {
        Ok(gateway.json(&["expectations", "list"])?.as_array().is_some_and(Vec::is_empty))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    assert!(shut(far, 5005));
    gateway.stop().expect("an end");
}

#[test]
fn what_a_passive_server_inside_announces_comes_in_from_its_client() {
    let Some(binary) = requirements::met_with_binary("passive FTP over IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    forward(&gateway);
    let mut dialogue = Dialogue::open(far, deep, DEEP6);
    let shut = |from: &Namespace, port| is_shut(from, deep, DEEP6, port).expect("an attempt");
    dialogue.server_says("229 nobody has asked (|||6000|)\r\n");
    assert!(shut(far, 6000));
    dialogue.client_says("EPSV\r\n");
    dialogue.server_says("229 here (|||6001|)\r\n");
    assert!(shut(&lab.outside, 6001), "another host");
    drop(connection(far, deep, DEEP6, 6001).expect("the data connection"));
    // An active one is dialled from inside, and belongs to the session too.
    dialogue.client_says(&eprt(FAR6, 6002));
    let _data = connection(deep, far, FAR6, 6002).expect("the data connection");
    let session = gateway.json(&["ftp", "sessions"]).expect("a list")[0]["id"].clone();
    let rule = gateway.json(&["flows", "list", "--rule", "ftp"]).expect("a list");
    let flows = rule.as_array().expect("flows");
    let related = flows.iter().filter(|flow| flow["related_to"] == session).count();
    assert_eq!((flows.len(), related), (3, 2), "{rule:#}");
    gateway.stop().expect("an end");
}

#[test]
fn lines_wait_for_an_agent_that_is_stopped_or_killed_and_open_what_they_announce() {
    let Some(binary) = requirements::met_with_binary("FTP over IPv6 without an agent") else {
        return;
    };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.run(&["--persist"]).expect("a start");
    forward(&gateway);
    let mut active = Dialogue::open(deep, far, FAR6);
    let mut passive = Dialogue::open(far, deep, DEEP6);
    passive.client_says("EPSV\r\n");

    gateway.signal(Signal::SIGSTOP).expect("a stop");
    let line = eprt(DEEP6, 5001);
    active.client.write_all(line.as_bytes()).expect("a line");
    hears_nothing(&mut active.server);
    gateway.signal(Signal::SIGCONT).expect("the end of it");
    hear(&mut active.server, line.as_bytes());
    drop(connection(far, deep, DEEP6, 5001).expect("a data connection"));

    gateway.end(Signal::SIGKILL).expect("a kill");
    let line = eprt(DEEP6, 5002);
    active.client.write_all(line.as_bytes()).expect("a line");
    // Its question was read by the agent that is gone.
    let reply = "229 here (|||6001|)\r\n";
    passive.server.write_all(reply.as_bytes()).expect("a reply");
    hears_nothing(&mut active.server);
    hears_nothing(&mut passive.client);
    gateway.run(&[]).expect("a take-over");
    hear(&mut active.server, line.as_bytes());
    hear(&mut passive.client, reply.as_bytes());
    drop(connection(far, deep, DEEP6, 5002).expect("a data connection of the active client"));
    drop(connection(far, deep, DEEP6, 6001).expect("a data connection of the passive server"));
    for (dialogue, port) in [(&mut active, 5003), (&mut passive, 5004)] {
        dialogue.client_says("NOOP\r\n");
        dialogue.server_says("200 fine\r\n");
        let client = if port == 5003 { DEEP6 } else { FAR6 };
        dialogue.client_says(&eprt(client, port));
    }
    drop(connection(far, deep, DEEP6, 5003).expect("one more"));
    gateway.stop().expect("an end");
}

/// What docs/ipv6.md says that a transfer costs.
#[test]
fn each_line_of_a_transfer_waits_for_the_agent_and_nothing_else_does() {
    let Some(binary) = requirements::met_with_binary("segments over IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    let mut dialogue = Dialogue::open(deep, far, FAR6);
    let before = gateway.punted().expect("a status");
    dialogue.client_says(&eprt(DEEP6, 5001));
    dialogue.server_says("200 fine\r\n");
    dialogue.client_says("RETR x\r\n");
    dialogue.server_says("150 here it comes\r\n");
    let mut data = connection(far, deep, DEEP6, 5001).expect("the data connection");
    six::exchange(&mut data).expect("bytes both ways");
    drop(data);
    dialogue.server_says("226 done\r\n");
    assert_eq!(gateway.punted().expect("a status") - before, 5, "{}", gateway.diagnosis());
}

/// A TLS record of so many bytes of data (RFC 8446, 5.1).
fn record(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [&[23, 3, 3, high, low][..], &vec![b'x'; length.into()]].concat()
}

#[test]
fn records_pass_without_the_agent_and_lines_are_read_again_behind_them() {
    let Some(binary) = requirements::met_with_binary("CCC over IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let mut gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    let expected = |gateway: &NatCtl| {
        gateway.json(&["expectations", "list"]).expect("a list").as_array().expect("one").len()
    };
    let mut dialogue = Dialogue::open(deep, far, FAR6);
    dialogue.client_says("AUTH TLS\r\n");
    dialogue.server_says("234 go\r\n");
    let before = gateway.punted().expect("a status");
    for length in 0..20 {
        let (near, back) = (record(300 + length), [record(2), record(700)].concat());
        say(&mut dialogue.client, &mut dialogue.server, &near);
        say(&mut dialogue.server, &mut dialogue.client, &back);
    }
    assert_eq!(gateway.punted().expect("a status"), before, "{}", gateway.diagnosis());
    // What starts a segment within a record is none, whatever it says.
    let line = eprt(DEEP6, 5001);
    let mut whole = record(100 + u16::try_from(line.len()).expect("short"));
    let at = whole.len() - line.len();
    whole.splice(at.., line.bytes());
    for part in [&whole[..at], &whole[at..]] {
        say(&mut dialogue.client, &mut dialogue.server, part);
    }
    assert_eq!((gateway.punted().expect("a status"), expected(&gateway)), (before, 0));
    // A successor goes on with it.
    gateway.end(Signal::SIGKILL).expect("an end");
    say(&mut dialogue.client, &mut dialogue.server, &record(50));
    gateway.run(&[]).expect("another agent");
    let sessions = gateway.json(&["ftp", "sessions"]).expect("a list");
    assert_eq!((&sessions[0]["encrypted"], &sessions[0]["user"]), (&json!(true), &json!("anna")));
    say(&mut dialogue.client, &mut dialogue.server, &record(60));
    say(&mut dialogue.server, &mut dialogue.client, &record(70));
    // CCC and its answer were among them.
    dialogue.client_says("PBSZ 0\r\n");
    dialogue.server_says("200 fine\r\n");
    dialogue.client_says(&line);
    assert_eq!(expected(&gateway), 1, "{}", gateway.diagnosis());
    let _data = connection(far, deep, DEEP6, 5001).expect("the data connection");
}

fn hears_nothing(at: &mut TcpStream) {
    at.set_read_timeout(Some(SILENCE)).expect("a limit");
    let said = at.read(&mut [0; 64]).expect_err("nothing without an agent");
    assert!(matches!(said.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{said}");
    at.set_read_timeout(Some(LIMIT)).expect("a limit");
}

#[test]
fn strict_mode_resets_both_ends_and_their_ports_may_be_used_again() {
    let Some(binary) = requirements::met_with_binary("strict FTP over IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("[ftp]\nstrict = true\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    let mut dialogue = Dialogue::open(deep, far, FAR6);
    dialogue.client.write_all(eprt(FAR6, 5001).as_bytes()).expect("a line");
    for end in [&mut dialogue.client, &mut dialogue.server] {
        let said = end.read(&mut [0; 64]).expect_err("a reset");
        assert_eq!(said.kind(), ErrorKind::ConnectionReset, "{said}");
    }
    assert!(gateway.dropped("alg-reset").expect("drops") > 0);
    let state = &gateway.json(&["flows", "list", "--proto", "tcp"]).expect("a list")[0]["state"];
    assert_eq!(*state, "closed");
    gateway.stop().expect("an end");
}

/// A download by curl.
fn fetch(from: &Namespace, at: Ipv6Addr, mode: &[&str], to: &std::path::Path) {
    let url = format!("ftp://[{at}]/{FILE}");
    let mut command = from.command("curl");
    command.args(["--disable", "--silent", "--show-error", "--globoff", "--max-time", "10"]);
    command.args(mode).args(["--user", "anonymous:lab@example.net", "--output"]).arg(to).arg(url);
    process::must(&mut command).expect("a transfer");
}

#[test]
fn real_servers_and_clients_transfer_in_both_modes_from_both_sides() {
    let Some(binary) = requirements::met_with_tools("FTP over IPv6", &["curl"]) else { return };
    for (mode, kind) in [(Mode::Tc, Kind::Vsftpd), (Mode::Xdp, Kind::Pyftpdlib)] {
        if !kind.is_installed() {
            eprintln!("SKIPPED FTP over IPv6 with {kind}: missing {}", kind.package());
            continue;
        }
        let chain = chain();
        let Chain { deep, far, lab } = &chain;
        let gateway = NatCtl::start(lab, mode, &binary).expect("a gateway");
        forward(&gateway);
        let settings = Settings { six: true, ..Settings::new(kind) };
        let folder = lab.folder("files").expect("a folder");
        let mut servers = vec![];
        for (client, server, at) in [(deep, far, FAR6), (far, deep, DEEP6)] {
            let home = lab.folder("server").expect("a folder");
            let started = Server::start(server, &settings, &lab.payload, &home);
            servers.push(started.expect("a server"));
            for (name, data) in [("passive", &["--ftp-pasv"][..]), ("active", &["--ftp-port", "-"])]
            {
                let file = folder.join(name);
                fetch(client, at, data, &file);
                let digest = payload::file_digest(&file).expect("a digest");
                assert_eq!(digest, lab.payload.sha256, "{kind}, {name}, {}", gateway.diagnosis());
            }
        }
        let measured = || {
            let transfers = gateway.json(&["ftp", "transfers"])?;
            let all = transfers.as_array().cloned().unwrap_or_default();
            let size = lab.payload.bytes.len() as u64;
            let is_whole = |it: &Value| {
                it["result"] == "complete" && it["bytes"].as_u64().is_some_and(|all| all > size)
            };
            Ok(all.len() == 4 && all.iter().all(is_whole))
        };
        wait::until_true(LIMIT, "the bytes of four transfers", measured)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        gateway.stop().expect("an end");
    }
}
