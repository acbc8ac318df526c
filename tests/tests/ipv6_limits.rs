//! Over IPv6: as many flows as one inside host may open, and a table that makes room.

use std::{
    io::ErrorKind,
    net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use nat_tests::{
    chain::Chain,
    flood,
    gateway::{Mode, NatCtl},
    netns::Namespace,
    requirements,
    six::{self, DEEP6, FAR6, INSIDE6, connection, datagram, exchange, udp_socket},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const MOST: u16 = 20;
/// Behind a rule, on the host that is at its limit.
const SERVICE: u16 = 8053;
const REMOTE: u16 = 7000;

fn gateway<'a>(chain: &'a Chain, mode: Mode, name: &str, limits: &str) -> Option<NatCtl<'a>> {
    let binary = requirements::met_with_binary(name)?;
    let mut gateway = NatCtl::prepare(&chain.lab, mode, &binary).expect("a gateway");
    let tables = format!(
        "[limits]\n{limits}\n[[forward]]\nname = \"s\"\nprotocol = \"udp\"\n\
         public = \"[{DEEP6}]:{SERVICE}\"\nto = \"[{DEEP6}]:{SERVICE}\"\n"
    );
    gateway.configure(&tables).expect("a configuration");
    gateway.run(&[]).expect("a start");
    Some(gateway)
}

fn chain() -> Chain {
    let chain = Chain::new().expect("a chain");
    six::turn_on(&chain).expect("IPv6");
    chain
}

fn socket(namespace: &Namespace, at: Ipv6Addr, port: u16) -> UdpSocket {
    udp_socket(namespace, at, port).expect("a socket")
}

/// A datagram outside and back.
fn passes(here: &UdpSocket, there: &UdpSocket, gateway: &NatCtl<'_>) {
    let both = datagram(here, there, 9).and_then(|_| datagram(there, here, 9));
    both.unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

fn has_flows(gateway: &NatCtl<'_>, address: Ipv6Addr, flows: u64) -> Value {
    wait::until(LIMIT, "a count", || {
        let hosts = gateway.json(&["hosts", "list"])?;
        let is_it = |host: &&Value| host["host"] == address.to_string() && host["flows"] == flows;
        Ok(hosts.as_array().and_then(|hosts| hosts.iter().find(is_it)).cloned())
    })
    .unwrap_or_else(|error| panic!("{flows} of {address}: {error:#}\n{}", gateway.diagnosis()))
}

fn opens_nothing_more_and_all_else_goes_on(mode: Mode) {
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let limits = format!("flows_per_host = {MOST}");
    let Some(mut gateway) = gateway(&chain, mode, "limits by host of IPv6", &limits) else {
        return;
    };
    let there = socket(far, FAR6, REMOTE);
    let sockets: Vec<UdpSocket> = (0..=MOST).map(|n| socket(deep, DEEP6, 31_000 + n)).collect();
    let (last, others) = sockets.split_last().expect("sockets");
    // To the last one that it may have.
    others.iter().for_each(|here| passes(here, &there, &gateway));
    last.send_to(b"one too many", (FAR6, REMOTE)).expect("a datagram");
    wait::until_true(LIMIT, "a refusal", || Ok(gateway.dropped("host-limit")? == 1))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let seen = has_flows(&gateway, DEEP6, MOST.into());
    assert_eq!((&seen["limit"], &seen["refused"]), (&MOST.into(), &1.into()), "{seen}");
    // It hears so.
    let told = socket(deep, DEEP6, 32_000);
    told.connect((FAR6, REMOTE)).expect("a destination");
    told.send(b"one too many").expect("a datagram");
    // The kernel takes "administratively prohibited" for this (icmpv6_err_convert).
    let error = told.recv(&mut [0; 20]).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{mode}: {error}");
    let to = SocketAddr::from((FAR6, 80));
    let error = deep.enter(|| TcpStream::connect_timeout(&to, LIMIT)).expect("a namespace");
    assert_eq!(error.expect_err("an error").kind(), ErrorKind::PermissionDenied, "{mode}");
    // Its flows go on, those that others open, and those that lead to it.
    passes(&others[0], &there, &gateway);
    passes(&socket(&lab.inside, INSIDE6, 0), &there, &gateway);
    let service = socket(deep, DEEP6, SERVICE);
    for _ in 0..=MOST {
        let client = socket(far, FAR6, 0);
        passes(&client, &service, &gateway);
    }
    let status = wait::until(LIMIT, "a state of overload", || {
        last.send_to(b"one too many", (FAR6, REMOTE))?;
        let status = gateway.json(&["status"])?;
        Ok((status["overload"][0]["state"] == "host-limit").then_some(status))
    })
    .expect("a state");
    assert_eq!(status["overload"][0]["hosts"], Value::from(vec![DEEP6.to_string()]), "{status}");
    let [from, to] = [format!("[{DEEP6}]:33000"), format!("[{FAR6}]:{REMOTE}")];
    let told = gateway.json(&["explain", "--protocol", "udp", &from, &to]).expect("a story");
    assert_eq!((&told["verdict"], &told["reason"]), (&"dropped".into(), &"host-limit".into()));
    // A successor counts what there is.
    gateway.end(Signal::SIGKILL).expect("a kill");
    gateway.run(&[]).expect("a successor");
    has_flows(&gateway, DEEP6, MOST.into());
    // What ends makes room, and no more than that.
    let deleted = gateway.json(&["flows", "delete", "--sport", "31000"]).expect("an end");
    assert_eq!(deleted["count"], 1, "{deleted}");
    has_flows(&gateway, DEEP6, u64::from(MOST) - 1);
    has_flows(&gateway, INSIDE6, 1);
    passes(last, &there, &gateway);
    let before = gateway.dropped("host-limit").expect("counters");
    others[0].send_to(b"one too many", (FAR6, REMOTE)).expect("a datagram");
    wait::until_true(LIMIT, "a refusal", || Ok(gateway.dropped("host-limit")? > before))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    has_flows(&gateway, DEEP6, MOST.into());
    there.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 20];
    while let Ok((length, _)) = there.recv_from(&mut buffer) {
        assert_ne!(&buffer[..length], b"one too many", "{mode}: refused, and it left");
    }
    gateway.stop().expect("an end");
}

#[test]
fn a_host_at_its_limit_of_ipv6_opens_nothing_more_and_all_else_goes_on() {
    for mode in [Mode::Tc, Mode::Xdp] {
        opens_nothing_more_and_all_else_goes_on(mode);
    }
}

/// Ends of the flood on either side: more than a table with room for 256 flows takes.
const FLOOD: usize = 300;
/// Where nobody is.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0xdead);

#[test]
fn a_flood_fills_the_table_of_ipv6_and_what_nobody_answers_makes_room_for_new_flows() {
    let chain = chain();
    let Chain { deep, far, .. } = &chain;
    let limits = "flows6 = 256\nflows_per_host = 0";
    let Some(gateway) = gateway(&chain, Mode::Tc, "flood of IPv6", limits) else { return };
    // They take what the flood sends, and never answer.
    let _sinks = [socket(deep, DEEP6, SERVICE), socket(far, FAR6, SERVICE)];
    let remote = socket(far, FAR6, REMOTE);
    remote.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    let passes = |host: &UdpSocket| {
        let mut buffer = [0; 100];
        let _ = host.send_to(b"it passes", (FAR6, REMOTE));
        let Ok((length, peer)) = remote.recv_from(&mut buffer) else { return false };
        remote.send_to(&buffer[..length], peer).expect("an answer");
        host.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"it passes")
    };
    let hosts = || (0..5).map(|_| socket(deep, DEEP6, 0));
    let (known, new): (Vec<_>, Vec<_>) = (hosts().collect(), hosts().collect());
    known.iter().for_each(|host| assert!(passes(host), "{}", gateway.diagnosis()));
    let mut connected = connection(deep, far, FAR6, 0).expect("a connection");
    let ends: Vec<[UdpSocket; 2]> =
        (0..FLOOD).map(|_| [socket(deep, DEEP6, 0), socket(far, FAR6, 0)]).collect();
    let flood = |ends: &[[UdpSocket; 2]]| {
        for [inside, outside] in ends {
            // What a full buffer loses is not missed.
            let _ = inside.send_to(b"flood", (FAR6, SERVICE));
            let _ = outside.send_to(b"flood", (DEEP6, SERVICE));
        }
        let to = SocketAddr::from((NOBODY, 80));
        let syn = deep.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(2)));
        syn.expect("a namespace").expect_err("nobody is there");
    };
    flood::fill(&gateway, LIMIT, &ends, flood, || new.iter().all(passes))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    let flows = gateway.json(&["flows", "count", "--state", "replied"]).expect("flows");
    let answered = (known.len() + new.len()) as u64;
    assert_eq!(flows["count"].as_u64(), Some(answered), "what was answered goes on: {flows}");
    assert!(known.iter().all(passes));
    exchange(&mut connected).unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    gateway.stop().expect("an end");
}
