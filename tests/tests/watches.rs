//! What is shown while it happens: flows, expectations, drops, overload, and what a scraper reads.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::Path,
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{LAN, Lab, OUTSIDE, WAN},
    netns::Lifetime,
    process::Process,
    requirements,
    server::{FILE, Kind, Server, Settings},
    session::{Session, accept, connect},
    traffic, wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(15);

/// A watch at work, its events read as they come.
struct Watching {
    process: Process,
}

impl Watching {
    fn start(lab: &Lab, gateway: &NatCtl<'_>, words: &[&str]) -> Self {
        let log = lab.folder("watch").expect("a folder").join("log");
        let all = [words, &["--every", "0.1", "-o", "jsonl"]].concat();
        let mut command = gateway.command(&all);
        Self { process: Process::spawn(&mut command, "a watch", &log).expect("a watch") }
    }

    fn events(&self) -> Vec<Value> {
        let output = self.process.output();
        let whole = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    /// Waits for an event that is meant.
    fn until(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        wait::until(LIMIT, what, || Ok(self.events().into_iter().find(&is_meant)))
            .unwrap_or_else(|error| panic!("{error:#}: {:#?}", self.events()))
    }
}

#[test]
fn flows_and_expectations_are_told_of_as_they_come_and_go() {
    let Some(binary) = requirements::met_with_binary("watches") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server = Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let old = traffic::udp_socket(&lab.inside, 4000).expect("a socket");
    old.send_to(b"before", (OUTSIDE, 9)).expect("a datagram");
    wait::until_true(LIMIT, "a flow", || Ok(gateway.json(&["flows", "count"])?["count"] == 1))
        .expect("a flow");

    let flows = Watching::start(&lab, &gateway, &["flows", "watch", "--proto", "tcp"]);
    let all = Watching::start(&lab, &gateway, &["flows", "watch"]);
    let expectations = Watching::start(&lab, &gateway, &["expectations", "watch"]);
    // What happens before the first look is no news: a flow that is only there to be seen.
    let marker = traffic::udp_socket(&lab.inside, 0).expect("a socket");
    wait::until_true(LIMIT, "watches that have looked", || {
        marker.send_to(b"now?", (OUTSIDE, 10)).expect("a datagram");
        let gone = gateway.json(&["flows", "delete", "--dport", "10"])?["count"] == 1;
        Ok(gone && !all.events().is_empty())
    })
    .expect("watches");
    let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
    let control = flows.until("a new control connection", |event| {
        event["event"] == "new" && event["original"]["dport"] == 21
    });
    assert_eq!((&control["version"], &control["protocol"]), (&1.into(), &"tcp".into()));
    let listener = session.active().expect("PORT");
    let port = listener.local_addr().expect("an address").port();
    let expected = expectations.until("an expectation", |event| event["event"] == "new");
    assert_eq!(
        (&expected["to_port"], &expected["src"]),
        (&port.into(), &OUTSIDE.to_string().into())
    );
    session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
    let data = accept(&listener).expect("a data connection");
    expectations.until("its end", |event| event["event"] == "destroy");
    assert_eq!(session.finish(data).expect("the file"), lab.payload.sha256);
    session.command("QUIT", "221").expect("the end of the session");
    flows.until("another state", |event| {
        event["event"] == "update" && event["original"]["dport"] == 21
    });
    gateway.call(&["flows", "delete"]).expect("a call").checked("flows delete").expect("an end");
    flows.until("the end of the control connection", |event| {
        event["event"] == "destroy" && event["original"]["dport"] == 21
    });
    all.until("the end of the datagrams", |event| {
        event["event"] == "destroy" && event["original"]["sport"] == 4000
    });
    let is_udp = |event: &Value| event["protocol"] == "udp";
    assert!(!flows.events().iter().any(is_udp), "a filter narrows it");
    let begun = |event: &Value| event["event"] == "new" && event["original"]["sport"] == 4000;
    assert!(!all.events().iter().any(begun), "what was there is no news");
    drop((flows, all, expectations));
    gateway.stop().expect("an end");
}

#[test]
fn drops_are_told_of_as_they_happen() {
    let Some(binary) = requirements::met_with_binary("drops --watch") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let drops = Watching::start(&lab, &gateway, &["drops", "--watch"]);
    let socket = traffic::udp_socket(&lab.outside, 0).expect("a socket");
    let event = wait::until(LIMIT, "a drop", || {
        socket.send_to(b"scan", (WAN, 999)).expect("a datagram");
        Ok(drops.events().into_iter().find(|event| event["reason"] == "unsolicited"))
    })
    .expect("a drop");
    assert!(
        event["packets"].as_u64() >= Some(1)
            && event["total"].as_u64() >= event["packets"].as_u64()
    );
    drop(drops);
    gateway.stop().expect("an end");
}

fn overload(binary: &Path, tables: &str, state: &str) {
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, binary).expect("a gateway");
    gateway.configure(tables).expect("a configuration");
    gateway.run(&[]).expect("an agent");
    let status = gateway.json(&["status"]).expect("a status");
    assert_eq!(status["overload"], Value::Array(vec![]), "{status}");
    // The agent looks once a second: refusals have to go on until it has looked twice.
    let sockets: Vec<_> = (0..200)
        .map(|port| traffic::udp_socket(&lab.inside, 30_000 + port).expect("a socket"))
        .collect();
    let status = wait::until(LIMIT, "a state of overload", || {
        for socket in &sockets {
            socket.send_to(b"one of many", (OUTSIDE, 9)).expect("a datagram");
        }
        let status = gateway.json(&["status"])?;
        Ok((status["overload"][0]["state"] == state).then_some(status))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let refused = status["overload"][0]["refused"].as_u64().expect("a number");
    let drops = gateway.json(&["drops"]).expect("drops");
    assert!(refused > 0 && drops[state].as_u64() >= Some(refused), "{status} {drops}");
    let text = gateway.call(&["status"]).expect("a call").stdout;
    let line = text.lines().find(|line| line.starts_with("overload")).expect("a line");
    assert!(line.contains(state) && line.contains("new flows are refused"), "{line}");
    assert!(gateway.output().contains(&format!("overload: {state}")), "{}", gateway.output());
    drop(sockets);
    wait::until_true(Duration::from_secs(30), "its end", || {
        Ok(gateway.json(&["status"])?["overload"] == Value::Array(vec![]))
    })
    .expect("an end of the overload");
    gateway.stop().expect("an end");
}

#[test]
fn a_full_table_is_a_state_with_a_name_a_counter_and_a_line() {
    let Some(binary) = requirements::met_with_binary("overload, table") else { return };
    overload(&binary, "[limits]\nflows = 64\n", "table-full");
}

#[test]
fn a_full_pool_is_a_state_with_a_name_a_counter_and_a_line() {
    let Some(binary) = requirements::met_with_binary("overload, ports") else { return };
    overload(&binary, "[masquerade]\nports = \"20000-20007\"\n", "ports-exhausted");
}

/// What a scraper gets: the status line and the body.
fn scrape(lab: &Lab, request: &str) -> (String, String) {
    let to = SocketAddrV4::new(LAN, 9100);
    let mut stream = connect(&lab.inside, to).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length, Some(body.len().to_string().as_str()), "{head}");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn sample(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[test]
fn a_scraper_reads_what_the_commands_show() {
    let Some(binary) = requirements::met_with_binary("metrics") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.run(&["--persist", "--metrics", &format!("{LAN}:9100")]).expect("a start");
    let listener = lab.outside.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000)));
    let listener = listener.expect("a namespace").expect("a listener");
    let _near = connect(&lab.inside, SocketAddrV4::new(OUTSIDE, 8000)).expect("a connection");
    let _far = accept(&listener).expect("a connection");
    let socket = traffic::udp_socket(&lab.outside, 0).expect("a socket");
    socket.send_to(b"scan", (WAN, 999)).expect("a datagram");
    wait::until_true(LIMIT, "a drop", || {
        Ok(gateway.json(&["drops"])?["unsolicited"].as_u64() >= Some(1))
    })
    .expect("a drop");

    let get = "GET /metrics HTTP/1.1\r\nHost: gateway\r\nAccept: */*\r\n\r\n";
    let (status, text) = scrape(&lab, get);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(sample(&text, "nat_flows"), Some(1), "{text}");
    assert_eq!(sample(&text, "nat_flows_limit"), Some(1 << 20), "{text}");
    assert_eq!(sample(&text, "nat_dropped_packets_total{reason=\"unsolicited\"}"), Some(1));
    assert_eq!(
        sample(&text, "nat_interface_mode{interface=\"wan0\",role=\"wan\",mode=\"tc\"}"),
        Some(1)
    );
    assert!(sample(&text, "nat_packets_total{way=\"tc\"}") >= Some(2), "{text}");
    assert!(sample(&text, "nat_agent_heartbeat_age_seconds") <= Some(4), "{text}");
    let said = gateway.call(&["metrics"]).expect("a call").stdout;
    assert_eq!(sample(&said, "nat_flows"), Some(1), "{said}");
    let json = gateway.json(&["metrics"]).expect("JSON");
    assert_eq!(json["status"]["flows"]["used"], 1, "{json}");
    assert_eq!(json["drops"]["unsolicited"], 1, "{json}");

    for (request, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
    ] {
        assert_eq!(scrape(&lab, request).0, wanted);
    }
    // Who says nothing keeps nobody else waiting.
    let silent: Vec<_> = (0..4)
        .map(|_| connect(&lab.inside, SocketAddrV4::new(LAN, 9100)).expect("a connection"))
        .collect();
    assert_eq!(scrape(&lab, get).0, "HTTP/1.1 200 OK");
    drop(silent);

    // What an agent has left is measured by root without it.
    gateway.end(Signal::SIGKILL).expect("a kill");
    wait::until_true(LIMIT, "an agent that is known to be gone", || {
        let text = gateway.call(&["metrics"])?.stdout;
        Ok((sample(&text, "nat_agent_up"), sample(&text, "nat_flows")) == (Some(0), Some(1)))
    })
    .expect("an agent that is gone");
    gateway.call(&["down"]).expect("a call").checked("down").expect("an end");
}

#[test]
fn what_moves_is_told_by_flow_and_by_host() {
    let Some(binary) = requirements::met_with_binary("top") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let _chatter = traffic::Chatter::start(&lab.inside, SocketAddrV4::new(OUTSIDE, 9));
    let top = |words: &[&str]| {
        let all = [&["top", "--once", "--every", "0.5"], words].concat();
        gateway.call(&all).expect("a call").checked("top").expect("rows").stdout
    };
    let rows = |words: &[&str]| -> Vec<Value> {
        let text = top(&[words, &["-o", "jsonl"]].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    };
    wait::until_true(LIMIT, "four flows", || Ok(rows(&[]).len() == 4)).expect("four flows");
    let flows = rows(&[]);
    assert!(flows.iter().all(|row| row["original_bytes_s"].as_u64() > Some(0)), "{flows:?}");
    assert_eq!(rows(&["--rows", "3"]).len(), 3);
    let hosts = rows(&["--by", "host"]);
    assert_eq!((hosts.len(), &hosts[0]["flows"]), (1, &4.into()), "{hosts:?}");
    assert_eq!(hosts[0]["who"], nat_tests::lab::INSIDE.to_string());
    assert_eq!(rows(&["--by", "rule"]), Vec::<Value>::new());
    let table = top(&["--by", "host"]);
    assert!(table.starts_with("4 flows, "), "{table}");
    assert!(table.contains("SENT/S"), "{table}");
}
