//! Both ends of the socket, and what hostile clients get.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
};

use super::{frame::LONGEST_REQUEST, message::decode, *};
use crate::{
    output::FlowFilter,
    rules::{Rule, RuleKind},
};

/// Answers with what it was asked.
#[derive(Default)]
struct Echo {
    seen: Vec<Request>,
}

impl Gateway for Echo {
    fn handle(&mut self, request: Request) -> Response {
        self.seen.push(request.clone());
        match request {
            Request::DeleteFlows { .. } => Response::Count(7),
            Request::RemoveRule { name, .. } => {
                Response::Error { exit: Exit::NotFound, message: format!("no rule '{name}'") }
            }
            _ => Response::Done,
        }
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("nat-ctl-api-{name}-{}.sock", std::process::id()))
}

/// Serves until `client` has returned; gives back its result and what the gateway has seen.
fn with_server<T: Send + 'static>(
    name: &str,
    client: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> (T, Vec<Request>) {
    let path = path(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let mut server = Server::bind(&path).expect("bind");
        let mode = std::fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let mut echo = Echo::default();
        let mut client = tokio::task::spawn_blocking({
            let path = path.clone();
            move || client(path)
        });
        let result = loop {
            tokio::select! {
                call = server.next() => call.answer(&mut echo),
                result = &mut client => break result.expect("client"),
            }
        };
        drop(server);
        assert!(!path.exists(), "the socket goes with the server");
        (result, echo.seen)
    })
}

fn raw(path: &PathBuf, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).expect("connect");
    stream.write_all(bytes).expect("write");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("read");
    line
}

#[test]
fn several_requests_go_over_one_connection() {
    let rule: Rule = serde_json::from_value(serde_json::json!({
        "kind": "forward", "name": "a", "protocol": "tcp", "public": "eth0:21", "to": "10.0.0.1"
    }))
    .expect("rule");
    let wanted = [
        Request::AddRule { rule, runtime: true },
        Request::Flows { filter: FlowFilter::of_rule("a") },
        Request::Rules { kind: RuleKind::OneToOne },
        Request::Status,
    ];
    let requests = wanted.clone();
    let (answers, seen) = with_server("several", move |path| {
        let mut client = Client::connect(&path).expect("connect");
        requests.iter().map(|request| client.call(request)).collect::<Vec<_>>()
    });
    assert_eq!(seen, wanted);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Response::Done))), "{answers:?}");
}

#[test]
fn an_error_of_the_agent_keeps_its_exit_status() {
    let (error, _) = with_server("error", |path| {
        let kind = RuleKind::Forward;
        let request = Request::RemoveRule { kind, name: "x".to_owned(), kill_flows: false };
        Client::connect(&path).expect("connect").call(&request).expect_err("refused")
    });
    assert_eq!((error.exit(), error.to_string().as_str()), (Exit::NotFound, "no rule 'x'"));
}

#[test]
fn the_messages_are_those_that_scripts_send() {
    let (line, seen) = with_server("script", |path| {
        raw(&path, b"{\"version\":1,\"request\":\"delete-flows\",\"filter\":{\"dport\":21}}\n")
    });
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value, serde_json::json!({"version": 1, "response": "count", "data": 7}));
    let filter = FlowFilter { dport: Some(21), ..FlowFilter::default() };
    assert_eq!(seen, [Request::DeleteFlows { filter }]);
}

#[test]
fn what_is_no_request_gets_an_error_and_never_reaches_the_gateway() {
    let (lines, seen) = with_server("noise", |path| {
        let noise: [&[u8]; 8] = [
            b"\n",
            b"hello\n",
            b"{}\n",
            b"[1]\n",
            b"{\"version\":2,\"request\":\"status\"}\n",
            b"{\"version\":1,\"request\":\"reboot\"}\n",
            b"{\"version\":1,\"request\":\"flows\",\"filter\":{\"colour\":1}}\n",
            b"\xff\xfe\x00\n",
        ];
        noise.map(|bytes| raw(&path, bytes))
    });
    assert_eq!(seen, []);
    for line in lines {
        let answer: Response = decode(line.as_bytes()).expect("an answer");
        assert!(matches!(answer, Response::Error { exit: Exit::Usage, .. }), "{line}");
    }
}

#[test]
fn a_line_without_end_is_cut_off() {
    let (answer, seen) = with_server("flood", |path| {
        let mut stream = UnixStream::connect(&path).expect("connect");
        let flood = vec![b'x'; usize::try_from(LONGEST_REQUEST).expect("size") + 10];
        // The server may hang up before everything is written.
        let _ = stream.write_all(&flood);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert_eq!(seen, []);
    assert!(answer.is_empty() || answer.contains("line break"), "{answer}");
}

#[test]
fn a_dead_agents_socket_is_replaced_and_a_live_one_is_not() {
    let dead = path("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("bind"));
    assert!(matches!(Client::connect(&dead), Err(ApiError::NotRunning(_))));
    let (second, _) = with_server("dead", |path| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async { Server::bind(&path).map(drop) })
    });
    assert_eq!(second.expect_err("running").exit(), Exit::Conflict);
}
