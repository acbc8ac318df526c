//! The format of the corpus, as its first line describes it.

use std::net::SocketAddr;

use nat_common::watch::{record_length, starts_record};
use nat_ctl::alg::{ControlFlow, Side};
use serde_json::Value;

/// Ports of the control flow; the corpus leaves them out.
const CLIENT_PORT: u16 = 40021;

/// Cases that begin with the connection, though no greeting shows it. Other dialogues without a
/// greeting stand for sessions that have behaved so far.
const FROM_SYN: [&str; 3] = ["c232", "c234", "c235"];

/// A dialogue and what is wanted of it.
pub struct Case {
    pub id: String,
    nat: Value,
    pub before: Vec<(Side, Vec<u8>)>,
    pub segments: Vec<(Side, Vec<u8>)>,
    pub wants: Vec<Want>,
}

/// What is wanted of a segment, or of the whole case.
pub struct Want {
    pub segment: Option<usize>,
    pub act: String,
    /// The line that must appear outside.
    pub line: Option<String>,
    pub expect: Option<Expect>,
}

/// A data connection, in the words of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub from: String,
    pub to: String,
    pub dnat: Option<String>,
    pub snat: Option<String>,
}

/// Reads a line of the corpus; the first is no case.
pub fn parse(line: &str) -> Option<Case> {
    let value: Value = serde_json::from_str(line).expect("the corpus is JSON");
    let id = value["id"].as_str().expect("a case has a name").to_owned();
    (id != "meta").then(|| Case {
        id,
        nat: value["nat"].clone(),
        before: segments(&value["pre"]),
        segments: segments(&value["segs"]),
        wants: value["want"].as_array().into_iter().flatten().map(want).collect(),
    })
}

impl Case {
    /// The control flow.
    pub fn flow(&self) -> ControlFlow {
        let end = |name: &str, port| {
            let address = self.nat[name].as_str().expect("an address");
            SocketAddr::new(address.parse().expect("an address"), port)
        };
        let kind = self.nat["kind"].as_str().expect("a kind");
        let inside = if kind.starts_with("client") { Side::Client } else { Side::Server };
        let (client, server) = (end("client", CLIENT_PORT), end("server", 21));
        let public = match inside {
            Side::Client => end("ext", CLIENT_PORT),
            Side::Server => end("ext", 21),
        };
        ControlFlow { session: 7, inside, client, server, public, client_public: None }
    }

    /// Whether the dialogue begins with the connection.
    pub fn is_from_syn(&self) -> bool {
        let mut all = self.before.iter().chain(&self.segments);
        let greeting = all.find(|(side, _)| *side == Side::Server);
        greeting.is_some_and(|(_, bytes)| bytes.starts_with(b"220"))
            || FROM_SYN.contains(&self.id.as_str())
    }

    /// What is wanted of a segment.
    pub fn want(&self, segment: usize) -> Option<&Want> {
        self.wants.iter().find(|want| want.segment == Some(segment))
    }

    /// What is wanted of the case as a whole.
    pub fn whole(&self) -> Option<&Want> {
        self.wants.iter().find(|want| want.segment.is_none())
    }
}

fn segments(value: &Value) -> Vec<(Side, Vec<u8>)> {
    let list = value.as_array().into_iter().flatten();
    list.map(|segment| {
        let side = if segment[0] == "C" { Side::Client } else { Side::Server };
        (side, bytes(segment[1].as_str().expect("a segment has text")))
    })
    .collect()
}

/// Each character is a byte; `<xN>` stands for N more of the byte before it, and `...` at the end of a
/// TLS record for the rest of it.
fn bytes(text: &str) -> Vec<u8> {
    let latin = |text: &str| -> Vec<u8> {
        text.chars().map(|char| u8::try_from(u32::from(char)).expect("latin-1")).collect()
    };
    let repeated = text.split_once("<x").and_then(|(head, tail)| {
        let (count, tail) = tail.split_once('>')?;
        Some((head, count.parse::<usize>().ok()?, tail))
    });
    // A TLS record whose end is left out: its header says how long it is.
    if let Some(head) = text.strip_suffix("...").map(latin)
        && let Some(header) = head.first_chunk().filter(|header| starts_record(header[0]))
    {
        let length = record_length(*header).expect("a record") as usize;
        return [head.clone(), vec![0; length - head.len()]].concat();
    }
    match repeated {
        Some((head, count, tail)) => {
            let last = *latin(head).last().expect("a byte to repeat");
            [latin(head), vec![last; count], latin(tail)].concat()
        }
        None => latin(text),
    }
}

/// An address and a port as Rust writes them: the corpus has no brackets around an address of IPv6.
fn end(text: &str) -> String {
    let (address, port) = text.rsplit_once(':').expect("an address and a port");
    let (address, port) = (address.parse(), port.parse());
    SocketAddr::new(address.expect("an address"), port.expect("a port")).to_string()
}

fn want(value: &Value) -> Want {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let end = |value: &Value| value.as_str().map(end);
    let expect = &value["expect"];
    Want {
        segment: value["seg"].as_u64().map(|index| index as usize),
        act: text(&value["act"]).expect("an action"),
        line: text(&value["out"]).or(text(&value["final"])),
        expect: expect.is_object().then(|| Expect {
            from: text(&expect["from"]).expect("who dials"),
            to: end(&expect["to"]).expect("what is dialled"),
            dnat: end(&expect["dnat"]),
            snat: text(&expect["snat"]),
        }),
    }
}
