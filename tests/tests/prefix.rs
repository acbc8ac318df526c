//! Prefixes of IPv6 that are translated (RFC 6296), over live links: the outside knows the inside by its
//! public prefix alone, whatever goes wrong on the way.
//!
//! The inside addresses have no route outside, so nothing of this works by chance.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    chain::Chain,
    gateway::{Mode, NatCtl},
    lab::OUTSIDE_DEVICE,
    netns::Namespace,
    process, requirements, session,
    six::{
        self, DEEP6, FAR6, INSIDE6, OUTER_ROUTER6, OUTSIDE6, WAN6, datagram, exchange, udp_socket,
    },
    traffic::path_mtu,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(400);

/// Inside is 2001:db8:1:: and 2001:db8:2::.
const PAIRS: &str = "[[prefix]]\nwan = \"wan0\"\n\
                     inside = \"2001:db8:1::/48\"\npublic = \"2001:db8:d::/48\"\n\
                     [[prefix]]\nwan = \"wan0\"\n\
                     inside = \"2001:db8:2::/48\"\npublic = \"2001:db8:e::/48\"\n";
/// What the outside knows them as: the third groups differ by -12, so the fourth ones do by 12.
const DEEP_OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0xfff3, 0, 0, 0, 2);
const INSIDE_OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0xfff3, 0, 0, 0, 2);

fn chain() -> Chain {
    let chain = Chain::new().expect("a chain");
    six::turn_on(&chain).expect("IPv6");
    for network in ["1", "2"] {
        let route = format!("-6 route del 2001:db8:{network}::/64");
        chain.lab.outside.ip(&route).expect("one route less");
    }
    for network in ["d", "e"] {
        let route = format!("-6 route add 2001:db8:{network}::/48 via {WAN6}");
        chain.lab.outside.ip(&route).expect("a route to the public prefix");
    }
    chain
}

/// A connection to `to` that comes out at `server`; what the client dialled from is seen there as the
/// address that is given back.
fn connect(
    client: &Namespace,
    server: &Namespace,
    to: (Ipv6Addr, u16),
) -> std::io::Result<([TcpStream; 2], Ipv6Addr)> {
    let any = (Ipv6Addr::UNSPECIFIED, to.1);
    let listener = server.enter(|| TcpListener::bind(any)).expect("a namespace")?;
    let end = SocketAddr::from((to.0, listener.local_addr()?.port()));
    let client =
        client.enter(|| TcpStream::connect_timeout(&end, SILENCE)).expect("a namespace")?;
    client.set_read_timeout(Some(LIMIT))?;
    let server = session::accept(&listener).expect("the other end");
    let seen = server.peer_addr()?;
    let mut ends = [client, server];
    exchange(&mut ends).expect("bytes both ways");
    let SocketAddr::V6(seen) = seen else { panic!("{seen}") };
    Ok((ends, *seen.ip()))
}

fn hops(from: &Namespace, to: Ipv6Addr, options: &[&str]) -> Vec<String> {
    let mut command = from.command("traceroute");
    command.args(["-6", "-n", "-q", "1", "-w", "1", "-m", "8"]).args(options);
    let finished = process::run(command.arg(to.to_string()), LIMIT).expect("traceroute");
    let text = finished.checked("traceroute").expect("traceroute ends well").stdout;
    let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    text.lines().skip(1).filter_map(hop).collect()
}

#[test]
fn the_outside_knows_the_inside_by_its_public_prefix_alone() {
    let tools = ["traceroute", "tcpdump", "ping"];
    let Some(binary) = requirements::met_with_tools("translated prefixes", &tools) else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure(PAIRS).expect("a configuration");
    gateway.run(&[]).expect("a start");
    let folder = lab.folder("capture").expect("a folder");
    let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "ip6", &folder).expect("a capture");

    // From inside: TCP, UDP in one and in several packets, echo.
    let (ends, seen) = connect(deep, far, (FAR6, 0)).expect("a connection to the outside");
    assert_eq!(seen, DEEP_OUTSIDE, "{}", gateway.diagnosis());
    let (here, there) = (udp_socket(deep, DEEP6, 0), udp_socket(far, FAR6, 0));
    let (here, there) = (here.expect("a socket"), there.expect("a socket"));
    for size in [1, 1452, 4000] {
        let source = datagram(&here, &there, size).expect("a datagram to the outside");
        assert_eq!(source.ip(), DEEP_OUTSIDE);
        there.send_to(&vec![8; size], source).expect("an answer");
        let (length, from) = here.recv_from(&mut vec![0; size + 1]).expect("the answer");
        assert_eq!((length, from.ip()), (size, FAR6.into()), "{}", gateway.diagnosis());
    }
    six::echo(deep, FAR6).expect("an echo");

    // From outside, where a rule says so.
    assert!(connect(far, deep, (DEEP_OUTSIDE, 8080)).is_err(), "no rule lets it in");
    let rule = |name: &str, public: Ipv6Addr| {
        let (public, to) = (public.to_string(), DEEP6.to_string());
        let words = ["forward", "add", "--name", name, "--protocol", "tcp+udp"];
        gateway.call(&[&words[..], &["--public", &public, "--to", &to]].concat()).expect("a call")
    };
    let wrong = rule("wrong", INSIDE_OUTSIDE);
    assert_eq!(wrong.code(), 2, "{wrong:?}");
    assert!(wrong.stderr.contains(&format!("known outside as {DEEP_OUTSIDE}")), "{wrong:?}");
    rule("all", DEEP_OUTSIDE).checked("forward add").expect("a rule");
    let (_in, seen) = connect(far, deep, (DEEP_OUTSIDE, 8080)).expect("a connection from outside");
    assert_eq!(seen, FAR6);

    // What is shown: what arrives at the gateway, from either side.
    let port = ends[0].local_addr().expect("an end").port();
    let list = gateway.json(&["flows", "list", "--sport", &port.to_string()]).expect("a list");
    let shown = |flow: &serde_json::Value| {
        ["original", "reply"].map(|way| [&flow[way]["src"], &flow[way]["dst"]].map(Clone::clone))
    };
    let wanted = [[DEEP6, FAR6], [FAR6, DEEP_OUTSIDE]].map(|ends| ends.map(|end| json!(end)));
    assert_eq!(shown(&list[0]), wanted, "{list:#}");
    let list = gateway.json(&["flows", "list", "--rule", "all", "--proto", "tcp"]).expect("a list");
    let wanted = [[FAR6, DEEP_OUTSIDE], [DEEP6, FAR6]].map(|ends| ends.map(|end| json!(end)));
    assert_eq!(shown(&list[0]), wanted, "{list:#}");
    for (src, dst, leaves, told) in [
        (DEEP6, FAR6, [DEEP_OUTSIDE, FAR6], "is known outside as 2001:db8:e:fff3::2"),
        (FAR6, DEEP_OUTSIDE, [FAR6, DEEP6], "2001:db8:e:fff3::2 is 2001:db8:2::2 inside"),
    ] {
        let [src, dst] = [src, dst].map(|end| format!("[{end}]:9"));
        let told_of = gateway.json(&["explain", "--protocol", "udp", &src, &dst]).expect("words");
        assert_eq!(told_of["verdict"], "forwarded", "{told_of:#}");
        let view = &told_of["leaves"];
        assert_eq!([&view["src"], &view["dst"]], [&json!(leaves[0]), &json!(leaves[1])]);
        assert!(told_of["because"].to_string().contains(told), "{told_of:#}");
    }

    // Every hop, from either side, and the widest packet that the way takes.
    let wanted = [OUTSIDE6, FAR6].map(|hop| hop.to_string());
    for options in [&["-f", "3"][..], &["-f", "3", "-I"]] {
        assert_eq!(hops(deep, FAR6, options), wanted, "{}", gateway.diagnosis());
    }
    let wanted = [OUTER_ROUTER6, WAN6, INSIDE_OUTSIDE, DEEP_OUTSIDE].map(|hop| hop.to_string());
    for options in [&[][..], &["-T", "-p", "8080"]] {
        assert_eq!(hops(far, DEEP_OUTSIDE, options), wanted, "{}", gateway.diagnosis());
    }
    let narrow = "a narrow link";
    chain.narrow_outside(1300).expect(narrow);
    assert_eq!(path_mtu(deep, FAR6.into(), 1400, [0, 8081]).expect("a discovery"), "1300");
    chain.narrow_outside(1500).expect("a wide link");
    chain.narrow_inside(1280).expect(narrow);
    assert_eq!(path_mtu(far, DEEP_OUTSIDE.into(), 1400, [0, 8090]).expect("a discovery"), "1280");

    // An inside host dials another one by its public address, and is known by its own there.
    let (_turned, seen) =
        connect(&lab.inside, deep, (DEEP_OUTSIDE, 8081)).expect("a connection that turns back");
    assert_eq!(seen, INSIDE_OUTSIDE);

    let frames = capture.finish().expect("a capture");
    let inside = |frame: &[u8]| {
        let networks = [[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0], [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0]];
        frame.windows(8).any(|part| networks.iter().any(|network| part == network))
    };
    assert!(frames.len() > 50, "{} frames", frames.len());
    let leaks: Vec<_> = frames.iter().filter(|frame| inside(&frame.bytes)).collect();
    assert!(leaks.is_empty(), "{} frames with an inside address: {:02x?}", leaks.len(), leaks[0]);
    gateway.stop().expect("an end");
}

#[test]
fn ftp_announces_the_public_address_and_its_numbers_are_shifted() {
    let Some(binary) = requirements::met_with_binary("FTP behind a translated prefix") else {
        return;
    };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure(PAIRS).expect("a configuration");
    gateway.run(&["--persist"]).expect("a start");

    let [mut client, mut server] = log_in(deep, far, FAR6);
    // The text grows with every announcement, and both ends go on as if it had not; under the next
    // agent, too.
    for round in 0..3 {
        let port = 5001 + round;
        let said = format!("EPRT |2|{DEEP6}|{port}|\r\n");
        says(&mut client, &mut server, &said, &format!("EPRT |2|{DEEP_OUTSIDE}|{port}|\r\n"));
        says(&mut server, &mut client, "200 fine\r\n", "200 fine\r\n");
        let (_data, seen) = connect(far, deep, (DEEP_OUTSIDE, port)).expect("a data connection");
        assert_eq!(seen, FAR6, "{}", gateway.diagnosis());
        if round == 1 {
            gateway.end(nix::sys::signal::Signal::SIGKILL).expect("a kill");
            gateway.run(&[]).expect("a take-over");
        }
    }
    // Its end counts, whose number is off by what the text has grown.
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect("an end"), 0, "{}", gateway.diagnosis());
    drop(server);
    assert_eq!(gateway.dropped("tcp-window").expect("drops"), 0, "{}", gateway.diagnosis());
    // A server inside is known by its public address, and says no other.
    let (public, to) = (DEEP_OUTSIDE.to_string(), DEEP6.to_string());
    let rule = ["forward", "add", "--name", "ftp", "--service", "ftp", "--public", &public];
    let added = gateway.call(&[&rule[..], &["--to", &to]].concat()).expect("a call");
    added.checked("forward add").expect("a rule");
    let [mut client, mut server] = log_in(far, deep, DEEP_OUTSIDE);
    says(&mut client, &mut server, "EPSV\r\n", "EPSV\r\n");
    let said = "229 fine (|||6001|)\r\n";
    says(&mut server, &mut client, said, said);
    let (_data, seen) = connect(far, deep, (DEEP_OUTSIDE, 6001)).expect("a data connection");
    assert_eq!(seen, FAR6, "{}", gateway.diagnosis());
    assert!(connect(far, deep, (DEEP_OUTSIDE, 6001)).is_err(), "it was for one connection");

    let session = gateway.json(&["ftp", "sessions"]).expect("a list")[0].clone();
    assert_eq!(session["user"], "anna", "{session:#}");
    gateway.stop().expect("an end");
}

/// Both ends of a control connection of a user who has logged in: the client's, then the server's.
fn log_in(client: &Namespace, server: &Namespace, to: Ipv6Addr) -> [TcpStream; 2] {
    let listener = server.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 21)));
    let listener = listener.expect("a namespace").expect("a listener");
    let end = SocketAddr::from((to, 21));
    let client = client.enter(|| TcpStream::connect_timeout(&end, LIMIT)).expect("a namespace");
    let mut client = client.expect("a control connection");
    let mut server = session::accept(&listener).expect("the other end");
    for end in [&client, &server] {
        end.set_nodelay(true).expect("no delay");
        end.set_read_timeout(Some(LIMIT)).expect("a limit");
    }
    for line in ["220 hello\r\n", "230 welcome\r\n"] {
        says(&mut server, &mut client, line, line);
        says(&mut client, &mut server, "USER anna\r\n", "USER anna\r\n");
    }
    [client, server]
}

fn says(from: &mut TcpStream, to: &mut TcpStream, line: &str, heard: &str) {
    from.write_all(line.as_bytes()).expect("a line");
    let mut got = vec![0; heard.len()];
    to.read_exact(&mut got).expect("the line");
    assert_eq!(String::from_utf8_lossy(&got), heard);
}

/// Check and severity of each finding of `doctor`.
fn found(gateway: &NatCtl) -> Vec<(String, String)> {
    let finished = gateway.call(&["doctor", "-o", "json"]).expect("a call");
    let findings: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let one = |finding: &Value| (word(finding, "check"), word(finding, "severity"));
    findings.as_array().into_iter().flatten().map(one).collect()
}

fn finding(check: &str, severity: &str) -> Vec<(String, String)> {
    vec![(check.to_owned(), severity.to_owned())]
}

#[test]
fn a_pair_that_doctor_names_does_not_work() {
    let Some(binary) = requirements::met_with_tools("doctor of prefixes", &["ping"]) else {
        return;
    };
    let chain = chain();
    let Chain { deep, lab, .. } = &chain;
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure(PAIRS).expect("a configuration");
    gateway.run(&["--persist"]).expect("a start");
    let reaches = || six::echo(deep, FAR6).is_ok();
    assert_eq!((found(&gateway), reaches()), (vec![], true), "{}", gateway.diagnosis());

    let inside = format!("2001:db8:2::/64 via {INSIDE6}");
    lab.gateway.ip(&format!("-6 route del {inside}")).expect("one route less");
    assert_eq!((found(&gateway), reaches()), (finding("prefix", "broken"), false));
    lab.gateway.ip(&format!("-6 route add {inside}")).expect("a route");

    lab.gateway.ip(&format!("-6 route del default via {OUTSIDE6}")).expect("one route less");
    assert_eq!(
        (found(&gateway)[0].clone(), reaches()),
        (("prefix".into(), "warning".into()), false)
    );
    lab.gateway.ip(&format!("-6 route add default via {OUTSIDE6}")).expect("a route");

    lab.gateway.sysctl("net.ipv6.conf.all.forwarding", "0").expect("a sysctl");
    assert_eq!((found(&gateway), reaches()), (finding("ip-forward", "broken"), false));
    lab.gateway.sysctl("net.ipv6.conf.all.forwarding", "1").expect("a sysctl");
    assert_eq!((found(&gateway), reaches()), (vec![], true), "{}", gateway.diagnosis());
    gateway.end(nix::sys::signal::Signal::SIGKILL).expect("a kill");
    gateway.call(&["down"]).expect("a call").checked("down").expect("an end");

    // Where the network of the WAN is the public prefix, nobody there hears who has its addresses.
    let pair = "[[prefix]]\nwan = \"wan0\"\n\
                inside = \"2001:db8:2::/64\"\npublic = \"2001:db8:f::/64\"\n";
    gateway.configure(pair).expect("a configuration");
    gateway.run(&[]).expect("a start");
    assert_eq!((found(&gateway), reaches()), (finding("prefix", "warning"), false));
    let public = "2001:db8:f:0:fff2::2";
    lab.gateway.sysctl("net.ipv6.conf.wan0.proxy_ndp", "1").expect("a sysctl");
    lab.gateway.ip(&format!("-6 neighbour add proxy {public} dev wan0")).expect("a proxy");
    lab.outside.ip("-6 neighbour flush dev out0").expect("a flush");
    assert!(reaches(), "{}", gateway.diagnosis());
    gateway.stop().expect("an end");
}
