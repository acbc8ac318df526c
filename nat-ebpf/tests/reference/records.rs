//! Encrypted control connections: their records are followed, and the agent sees only what is none.

use crate::{
    common::frame::{ACK, Body, FIN, PSH, SYN, Spec},
    gateway::{self, Gateway, HOST, LAN, PUBLIC, REMOTE, SERVER as SERVER_INSIDE, WAN},
};
use nat_common::{
    flow::{Origin, TCP, Zone},
    port::{Endpoint, Port},
    reason::Reason,
    rule::{EncryptedKey, Forward, RuleId},
    session::{SessionId, Side},
    watch::Watch,
};
use nat_ebpf::host::{self, HostPacket, Verdict};

const CLIENT: ([u8; 4], u16) = (HOST, 40000);
const SERVER: ([u8; 4], u16) = (REMOTE, 21);
/// The first byte that the client sends behind its AUTH.
const FROM: u32 = 0xffff_ffc0;

/// A control connection, and where its record is.
fn control(watch: Watch) -> (Gateway, usize) {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    assert!(matches!(send(&gateway, FROM - 1, SYN, b""), Verdict::Forward(_)));
    let place = gateway.memory.state().sessions.iter().position(|session| session.claimed != 0);
    let place = place.expect("a session");
    gateway.memory.state().watches[2 * place + Side::Originator.index()] = watch;
    (gateway, place)
}

fn send(gateway: &Gateway, seq: u32, flags: u8, payload: &[u8]) -> Verdict {
    let mut spec = Spec::tcp(CLIENT, SERVER, flags).with(payload);
    if let Body::Tcp { sequence: number, .. } = &mut spec.body {
        *number = seq;
    }
    let mut packet = HostPacket::new(spec.build(), LAN, &gateway.world);
    host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Inside)
}

/// What the client's watch has become.
fn watch(gateway: &Gateway, place: usize) -> Watch {
    gateway.memory.state().watches[2 * place]
}

fn record(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [&[23, 3, 3, high, low][..], &vec![0; length.into()]].concat()
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward(_))
}

#[test]
fn records_pass_without_the_agent_and_lines_do_not() {
    let (gateway, place) = control(Watch::records(FROM, FROM));
    let two = [record(40), record(60)].concat();
    assert!(is_forwarded(send(&gateway, FROM, PSH | ACK, &two)));
    let mut next = FROM.wrapping_add(110);
    assert_eq!(watch(&gateway, place), Watch::records(FROM, next));
    // One over two segments; the second starts within it.
    let long = record(1000);
    assert!(is_forwarded(send(&gateway, next, PSH | ACK, &long[..500])));
    assert!(is_forwarded(send(&gateway, next.wrapping_add(500), PSH | ACK, &long[500..])));
    next = next.wrapping_add(1005);
    assert_eq!(watch(&gateway, place), Watch::records(FROM, next));
    // All of it again.
    assert!(is_forwarded(send(&gateway, FROM, PSH | ACK, &two)));
    assert_eq!(watch(&gateway, place), Watch::records(FROM, next));
    assert_eq!(send(&gateway, next, PSH | ACK, b"PWD\r\n"), Verdict::Punted);
    assert_eq!(send(&gateway, next, PSH | ACK, b"PWD\r\n"), Verdict::Punted);
    assert_eq!(watch(&gateway, place), Watch::records(FROM, next));
}

#[test]
fn what_cannot_be_followed_is_handed_over() {
    let (gateway, place) = control(Watch::records(FROM, FROM));
    let many = record(5).repeat(9);
    let cut = [record(5), vec![23, 3, 3, 0]].concat();
    let both = [record(5), b"PWD\r\n".to_vec()].concat();
    for (seq, flags, payload) in [
        (FROM.wrapping_sub(1), PSH | ACK, &record(5)),
        (FROM.wrapping_add(1), PSH | ACK, &record(5)),
        (FROM, PSH | ACK | FIN, &record(5)),
        (FROM, PSH | ACK, &many),
        (FROM, PSH | ACK, &cut),
        (FROM, PSH | ACK, &both),
    ] {
        assert_eq!(send(&gateway, seq, flags, payload), Verdict::Punted);
        assert_eq!(watch(&gateway, place), Watch::records(FROM, FROM));
    }
    assert_eq!(send(&gateway, FROM, ACK | FIN, b""), Verdict::Punted);
}

#[test]
fn what_is_not_ftp_passes_from_where_that_was_known() {
    let (gateway, _) = control(Watch::nothing(FROM));
    assert!(is_forwarded(send(&gateway, FROM, PSH | ACK, b"Host: a\r\n")));
    assert_eq!(send(&gateway, FROM - 9, PSH | ACK, b"GET / HTTP/1.1\r\n"), Verdict::Punted);
}

#[test]
fn records_go_on_while_no_agent_runs_and_lines_wait() {
    let (gateway, _) = control(Watch::records(FROM, FROM));
    gateway.memory.state().settings.heartbeat = 0;
    assert!(is_forwarded(send(&gateway, FROM, PSH | ACK, &record(40))));
    let line = send(&gateway, FROM.wrapping_add(45), PSH | ACK, b"PWD\r\n");
    assert_eq!(line, Verdict::Drop(Reason::AlgNoAgent));
}

#[test]
fn a_passive_range_is_open_to_who_holds_an_encrypted_session() {
    let gateway = gateway::gateway(64, true, Some(PUBLIC));
    let rule = RuleId::new(9);
    let range = Forward::new(SERVER_INSIDE, Port::NONE, rule, 0).for_encrypted();
    let public = Endpoint::new(TCP, PUBLIC, Port::new(50000));
    gateway.memory.state().forwards.insert(public, range);
    let dial = |port| {
        let spec = Spec::tcp((REMOTE, port), (PUBLIC, 50000), SYN);
        let mut packet = HostPacket::new(spec.build(), WAN, &gateway.world);
        host::tc_ingress(&mut packet, &mut gateway.memory.tables(), Zone::Outside)
    };
    assert_eq!(dial(1), Verdict::Drop(Reason::NotAllowed));
    let key = EncryptedKey::new(rule, REMOTE);
    gateway.memory.state().encrypted.insert(key, SessionId::new(3));
    // As many connections as it likes.
    for port in [1, 2, 3] {
        assert!(is_forwarded(dial(port)));
    }
    let related = gateway
        .memory
        .state()
        .flows()
        .values()
        .all(|record| record.flow().origin() == Origin::Related(SessionId::new(3)));
    assert!(related, "data connections belong to the session");
    gateway.memory.state().encrypted.clear();
    assert_eq!(dial(4), Verdict::Drop(Reason::NotAllowed));
}
