//! The JSON that scripts rely on, and what filters and tables make of it.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    units::{bytes, seconds},
    *,
};
use crate::rules::{Alg, Origin, Protocol, Rule};

pub(super) fn flow() -> FlowView {
    let end = |src: &str, sport, dst: &str, dport, packets, bytes| End {
        src: src.parse().expect("address"),
        sport,
        dst: dst.parse().expect("address"),
        dport,
        packets,
        bytes,
    };
    FlowView {
        protocol: Protocol::Tcp.into(),
        state: "established".to_owned(),
        original: end("192.168.1.5", 40000, "198.51.100.9", 21, 10, 900),
        reply: end("198.51.100.9", 21, "203.0.113.10", 50000, 8, 1200),
        age_s: 60,
        idle_s: 2,
        expires_s: 7438,
        alg: Some(Alg::Ftp),
        rule: None,
        related_to: None,
    }
}

fn shape(view: &impl Serialize) -> Value {
    serde_json::to_value(view).expect("JSON")
}

#[test]
fn a_flow_has_the_documented_fields() {
    assert_eq!(
        shape(&flow()),
        json!({
            "protocol": "tcp",
            "state": "established",
            "original": {"src": "192.168.1.5", "sport": 40000, "dst": "198.51.100.9", "dport": 21,
                         "packets": 10, "bytes": 900},
            "reply": {"src": "198.51.100.9", "sport": 21, "dst": "203.0.113.10", "dport": 50000,
                      "packets": 8, "bytes": 1200},
            "age_s": 60, "idle_s": 2, "expires_s": 7438,
            "alg": "ftp", "rule": null, "related_to": null,
        })
    );
}

#[test]
fn status_has_the_documented_fields() {
    let usage = Usage { used: 1, max: 2 };
    let status = StatusView {
        instance: "default".to_owned(),
        ready: true,
        uptime_s: 5,
        interfaces: vec![InterfaceView {
            name: "eth0".to_owned(),
            role: Role::Wan,
            mode: InterfaceMode::Xdp,
            reason: "asked for".to_owned(),
            gone: false,
        }],
        flows: usage,
        flows6: usage,
        ports: usage,
        expectations: usage,
        ftp_sessions: 3,
        drops: 4,
        packets: PacketsView { xdp: 1, tc: 2, stack: 3, punted: 4, copied: 5, ipv6: 6 },
        overload: vec![OverloadView {
            state: "host-limit".to_owned(),
            refused: 6,
            ended: 0,
            for_s: 7,
            hosts: vec![[10, 0, 1, 2].into()],
        }],
    };
    assert_eq!(
        shape(&status),
        json!({
            "instance": "default", "ready": true, "uptime_s": 5,
            "interfaces": [{"name": "eth0", "role": "wan", "mode": "xdp", "reason": "asked for"}],
            "flows": {"used": 1, "max": 2}, "ports": {"used": 1, "max": 2},
            "expectations": {"used": 1, "max": 2}, "ftp_sessions": 3, "drops": 4,
            "packets": {"xdp": 1, "tc": 2, "stack": 3, "punted": 4, "copied": 5, "ipv6": 6},
            "flows6": {"used": 1, "max": 2},
            "overload": [
                {"state": "host-limit", "refused": 6, "for_s": 7, "hosts": ["10.0.1.2"]},
            ],
        })
    );
}

#[test]
fn expectations_and_sessions_have_the_documented_fields() {
    let expectation = json!({
        "protocol": "tcp", "src": "198.51.100.9", "dst": "203.0.113.10", "dport": 50001,
        "to": "192.168.1.5", "to_port": 40001, "expires_s": 30, "session": 7,
    });
    let view: ExpectationView = serde_json::from_value(expectation.clone()).expect("view");
    assert_eq!(shape(&view), expectation);

    let session = json!({
        "id": 7, "client": "192.168.1.5:40000", "server": "198.51.100.9:21",
        "public": "203.0.113.10:50000", "user": "anonymous", "state": "open", "encrypted": false,
        "mode": "passive", "command": "RETR", "file": "a.bin", "bytes": 10485760, "age_s": 9,
        "note": null, "rule": null, "rate": 1048576, "result": "running",
    });
    let view: FtpSessionView = serde_json::from_value(session.clone()).expect("view");
    assert_eq!(shape(&view), session);
}

#[test]
fn transfers_refusals_and_events_have_the_documented_fields() {
    let transfer = json!({
        "session": 7, "client": "192.168.1.5:40000", "server": "198.51.100.9:21", "mode": "active",
        "direction": "download", "command": "RETR", "file": "a.bin", "bytes": 1024, "rate": 2048,
        "seconds": 0.5, "result": "cut-off", "reply": null, "age_s": 3,
    });
    let view: FtpTransferView = serde_json::from_value(transfer.clone()).expect("view");
    assert_eq!(shape(&view), transfer);
    let refusals = json!({
        "counts": {"system-port": 1},
        "last": [{
            "session": 7, "client": "192.168.1.5:40000", "server": "198.51.100.9:21",
            "side": "client", "reason": "system-port", "text": "why", "line": "PORT 1,2,3,4,0,22",
            "age_s": 3,
        }],
    });
    let view: FtpRefusalsView = serde_json::from_value(refusals.clone()).expect("view");
    assert_eq!(shape(&view), refusals);
    let event = json!({
        "number": 9, "time_s": 1.5, "session": 7, "client": "192.168.1.5:40000",
        "server": "198.51.100.9:21", "public": "203.0.113.10:50000", "event": "rewritten",
        "line": "PORT 1", "after": "PORT 2",
    });
    let view: FtpEventView = serde_json::from_value(event.clone()).expect("view");
    assert_eq!(shape(&view), event);
    let of = |host: [u8; 4]| view.is_of(host.into());
    assert!(of([192, 168, 1, 5]) && of([203, 0, 113, 10]) && !of([192, 168, 1, 50]));
}

#[test]
fn every_reason_is_counted() {
    let drops = DropsView::new(|reason| reason as u64);
    let value = shape(&drops);
    assert_eq!(value["not-allowed"], 3);
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(nat_common::reason::REASONS));
    let last = nat_common::reason::REASONS as u64 - 1;
    assert_eq!(drops.total(), last * (last + 1) / 2);
}

#[test]
fn rules_have_addresses_as_text_and_ports_as_numbers() {
    let rule: Rule = serde_json::from_value(json!({
        "kind": "forward", "name": "web", "protocol": "tcp", "public": "eth0:8000-8010",
        "to": "192.168.1.10", "allow": ["198.51.100.0/24"], "uplink": "eth1", "comment": "shop",
    }))
    .expect("rule");
    assert_eq!(
        shape(&RuleView::new(&rule, Origin::Command, 7)),
        json!({
            "kind": "forward", "name": "web", "protocol": "tcp", "public": "eth0",
            "public_ports": {"first": 8000, "last": 8010}, "to": "192.168.1.10",
            "to_ports": {"first": 8000, "last": 8010}, "allow": ["198.51.100.0/24"], "alg": null, "strict": null, "passive_range": null,
            "uplink": "eth1", "comment": "shop", "origin": "command", "number": 7,
        })
    );
    let rule: Rule = serde_json::from_value(json!({
        "kind": "one-to-one", "name": "mail", "public": "203.0.113.11", "to": "192.168.1.11",
        "inbound": ["tcp:25@198.51.100.0/24", "icmp"],
    }))
    .expect("rule");
    let view = RuleView::new(&rule, Origin::File, 8);
    assert_eq!(
        shape(&view)["inbound"],
        json!([
            {"protocol": "tcp", "ports": {"first": 25, "last": 25}, "allow": ["198.51.100.0/24"]},
            {"protocol": "icmp", "ports": null, "allow": ["0.0.0.0/0"]},
        ])
    );
    assert_eq!(serde_json::from_value::<RuleView>(shape(&view)).expect("view"), view);
}

#[test]
fn each_condition_of_a_filter_narrows_it() {
    let flow = flow();
    let filter = |key: &str, value: Value| -> FlowFilter {
        serde_json::from_value(json!({ key: value })).expect("filter")
    };
    assert!(FlowFilter::default().matches(&flow.line()));
    for (key, hit, miss) in [
        ("proto", json!("tcp"), json!("udp")),
        ("src", json!("192.168.0.0/16"), json!("203.0.113.10")),
        ("dst", json!("198.51.100.9"), json!("192.168.1.5")),
        ("sport", json!(40000), json!(21)),
        ("dport", json!(21), json!(50000)),
        ("host", json!("203.0.113.10"), json!("203.0.113.11")),
        ("state", json!("established"), json!("closing")),
    ] {
        assert!(filter(key, hit).matches(&flow.line()), "{key}");
        assert!(!filter(key, miss).matches(&flow.line()), "{key}");
    }
    let rule = FlowFilter::of_rule("ftp");
    assert!(!rule.matches(&flow.line()));
    assert!(rule.matches(&FlowView { rule: Some("ftp".to_owned()), ..flow }.line()));
}

#[test]
fn numbers_for_people_are_short_and_never_too_large() {
    let text = [0, 1023, 1024, 10_905_190, u64::MAX].map(bytes);
    assert_eq!(text, ["0 B", "1023 B", "1.0 KiB", "10.4 MiB", "15.9 EiB"]);
    let text = [0, 59, 60, 61, 7440, 90_000, 86_400].map(seconds);
    assert_eq!(text, ["0s", "59s", "1m", "1m1s", "2h4m", "1d1h", "1d"]);
}
