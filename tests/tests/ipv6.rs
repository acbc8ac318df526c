//! IPv6 through the gateway: the inside dials, answers come back, and nobody else comes in.

use std::{net::Ipv6Addr, time::Duration};

use nat_tests::{
    chain::{Chain, FAR},
    gateway::{Mode, NatCtl},
    lab::{LAN_DEVICE, WAN_DEVICE},
    netns::Namespace,
    process, requirements,
    six::{
        self, DEEP6, FAR6, INNER_ROUTER6, INSIDE6, LAN6, OUTER_ROUTER6, OUTSIDE6, WAN6, connection,
        datagram, exchange, is_shut, udp_socket,
    },
    traffic::{self, path_mtu},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const MODES: [Mode; 2] = [Mode::Tc, Mode::Xdp];

fn chain() -> Chain {
    let chain = Chain::new().expect("a chain");
    six::turn_on(&chain).expect("IPv6");
    chain
}

/// The gateway in each mode.
fn in_each_mode(name: &str, tools: &[&str], test: impl Fn(&Chain, &NatCtl)) {
    let Some(binary) = requirements::met_with_tools(name, tools) else { return };
    for mode in MODES {
        let chain = chain();
        let gateway = NatCtl::start(&chain.lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        test(&chain, &gateway);
        gateway.stop().expect("an end");
    }
}

fn flows6(gateway: &NatCtl) -> u64 {
    gateway.json(&["status"]).expect("a status")["flows6"]["used"].as_u64().expect("a number")
}

/// The drops for this reason go up by what is done.
fn drops(gateway: &NatCtl, reason: &str, done: impl FnOnce()) {
    let before = gateway.dropped(reason).expect("drops");
    done();
    let after = gateway.dropped(reason).expect("drops");
    assert!(after > before, "{reason}: {after}: {}", gateway.diagnosis());
}

#[test]
fn the_inside_dials_and_nobody_outside_does() {
    in_each_mode("IPv6", &["ping"], |chain, gateway| {
        let Chain { deep, far, .. } = chain;
        connection(deep, far, FAR6, 0).expect("a connection to the outside");
        let (here, there) = (udp_socket(deep, DEEP6, 0), udp_socket(far, FAR6, 0));
        let (here, there) = (here.expect("a socket"), there.expect("a socket"));
        drops(gateway, "unsolicited", || {
            let at = here.local_addr().expect("an end");
            there.send_to(b"unasked", at).expect("a datagram");
        });
        // What is longer than a packet comes in fragments.
        for size in [1, 1452, 4000, 20_000] {
            let source = datagram(&here, &there, size).expect("a datagram to the outside");
            assert_eq!(source, here.local_addr().expect("an end"), "not translated");
            datagram(&there, &here, size).expect("an answer");
        }
        six::echo(deep, FAR6).expect("an echo");
        assert_eq!(flows6(gateway), 3, "{}", gateway.diagnosis());
        drops(gateway, "unsolicited", || {
            assert!(is_shut(far, deep, DEEP6, 0).expect("an attempt"), "{}", gateway.diagnosis());
        });
        drops(gateway, "unsolicited", || {
            six::echo(far, DEEP6).expect_err("no echo from outside");
        });
        assert_eq!(flows6(gateway), 3, "{}", gateway.diagnosis());
    });
}

#[test]
fn the_gateway_itself_and_its_links_are_left_alone() {
    in_each_mode("IPv6 of the gateway", &["ping"], |chain, gateway| {
        let Chain { deep, far, lab } = chain;
        // Nothing knows anybody's link address yet: neighbour discovery works, on both sides.
        for (namespace, device) in [(&lab.gateway, LAN_DEVICE), (&lab.gateway, WAN_DEVICE)] {
            namespace.ip(&format!("-6 neighbour flush dev {device}")).expect("a flush");
        }
        for (from, to, at) in [
            (far, &lab.gateway, WAN6),
            (deep, &lab.gateway, LAN6),
            (deep, &lab.gateway, WAN6),
            (&lab.gateway, far, FAR6),
            (&lab.gateway, deep, DEEP6),
            (&lab.outside, &lab.gateway, WAN6),
        ] {
            connection(from, to, at, 0).expect("a connection of the gateway");
            six::echo(from, at).expect("an echo");
        }
        // Between inside networks and along the links, too.
        connection(deep, &lab.inside, INSIDE6, 0).expect("a connection inside");
        let group =
            process::must(lab.gateway.command("ping").args(["-6", "-c", "1", "ff02::1%lan0"]));
        group.expect("an echo along the link");
        assert_eq!(flows6(gateway), 0, "{}", gateway.diagnosis());
        let drops = gateway.json(&["status"]).expect("a status")["drops"].clone();
        assert_eq!(drops, 0, "{}", gateway.diagnosis());
    });
}

/// Adds a forward of IPv6, which only lets in.
fn open(gateway: &NatCtl, name: &str, protocol: &str, end: &str, more: &[&str]) {
    let words = ["forward", "add", "--name", name, "--protocol", protocol];
    let ends = ["--public", end, "--to", end];
    let added = gateway.call(&[&words[..], &ends, more].concat()).expect("a call");
    added.checked("forward add").expect("a rule");
}

#[test]
fn a_forward_lets_in_whom_it_allows_and_lasts() {
    in_each_mode("forwards of IPv6", &[], |chain, gateway| {
        let Chain { deep, far, lab } = chain;
        let web = format!("[{DEEP6}]:8080");
        assert!(is_shut(far, deep, DEEP6, 8080).expect("an attempt"));
        open(gateway, "web", "tcp", &web, &[]);
        open(
            gateway,
            "dns",
            "udp",
            &format!("[{DEEP6}]:5300-5301"),
            &["--allow", "2001:db8:99::/64"],
        );
        let mut ends = connection(far, deep, DEEP6, 8080).expect("a connection from outside");
        assert!(is_shut(far, deep, DEEP6, 8081).expect("an attempt"));
        let inside = udp_socket(deep, DEEP6, 5301).expect("a socket");
        let allowed = udp_socket(far, FAR6, 0).expect("a socket");
        datagram(&allowed, &inside, 100).expect("a datagram from outside");
        datagram(&inside, &allowed, 100).expect("its answer");
        drops(gateway, "not-allowed", || {
            let stranger = udp_socket(&lab.outside, OUTSIDE6, 0).expect("a socket");
            stranger.send_to(b"let me in", (DEEP6, 5301)).expect("a datagram");
        });
        let listed = gateway.json(&["forward", "show", "web"]).expect("a rule").to_string();
        assert!(listed.contains(&DEEP6.to_string()), "{listed}");
        // What a rule has let in goes on without it; nobody else comes.
        gateway
            .call(&["forward", "remove", "web"])
            .expect("a call")
            .checked("remove")
            .expect("done");
        exchange(&mut ends).expect("an exchange");
        drop(ends);
        assert!(is_shut(far, deep, DEEP6, 8080).expect("an attempt"));
        let refused = gateway
            .call(&[
                "forward",
                "add",
                "--name",
                "x",
                "--protocol",
                "tcp",
                "--public",
                &web,
                "--to",
                "[2001:db8::9]:8080",
            ])
            .expect("a call");
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains("known outside as 2001:db8::9"), "{refused:?}");
    });
}

#[test]
fn flows_of_both_families_are_listed_counted_and_ended_alike() {
    let Some(binary) = requirements::met_with_tools("flows of IPv6", &["ping"]) else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    let count = |words: &[&str]| {
        let counted = gateway.json(&[&["flows", "count"], words].concat()).expect("a count");
        counted["count"].as_u64().expect("a number")
    };
    traffic::echo(deep, FAR).expect("an echo of IPv4");
    six::echo(deep, FAR6).expect("an echo");
    let mut ends = connection(deep, far, FAR6, 0).expect("a connection");
    let [here, there] = [0, 1].map(|end| ends[end].local_addr().expect("an end").port());
    let list = gateway.json(&["flows", "list", "--proto", "tcp"]).expect("a list");
    let flow = &list[0];
    assert_eq!((&flow["protocol"], &flow["state"]), (&json!("tcp"), &json!("established")));
    for (way, src, sport, dst, dport) in
        [("original", DEEP6, here, FAR6, there), ("reply", FAR6, there, DEEP6, here)]
    {
        let way = &flow[way];
        assert_eq!((&way["src"], &way["dst"]), (&json!(src), &json!(dst)), "{flow:#}");
        assert_eq!((&way["sport"], &way["dport"]), (&json!(sport), &json!(dport)), "{flow:#}");
        // SYN, ACK, payload; 40 bytes of IPv6 and 20 of TCP at least.
        let (packets, bytes) = (way["packets"].as_u64(), way["bytes"].as_u64());
        assert!(packets >= Some(2) && bytes > packets.map(|packets| packets * 60), "{flow:#}");
    }
    assert_eq!((&flow["rule"], &flow["alg"]), (&json!(null), &json!(null)), "{flow:#}");
    let lifetime = flow["expires_s"].as_u64().zip(flow["idle_s"].as_u64()).map(|(a, b)| a + b);
    assert_eq!(lifetime, Some(2 * 3600 + 4 * 60), "{flow:#}");
    let echo = &gateway.json(&["flows", "list", "--proto", "icmpv6"]).expect("a list")[0];
    assert_eq!(echo["state"], "replied", "{echo:#}");
    assert_eq!((&echo["original"]["dport"], &echo["reply"]["sport"]), (&json!(0), &json!(0)));
    for (words, wanted) in [
        (&[][..], 3),
        (&["--proto", "icmp"], 1),
        (&["--proto", "58"], 1),
        (&["--src", "2001:db8:2::/64"], 2),
        (&["--dst", "2001:db8:2::/64"], 0),
        (&["--host", "2001:db8:99::7"], 2),
        (&["--host", "10.0.0.0/8"], 1),
        (&["--state", "established", "--sport", &here.to_string()], 1),
        (&["--rule", "web"], 0),
    ] {
        assert_eq!(count(words), wanted, "{words:?}");
    }
    let table = gateway.call(&["flows", "list"]).expect("a call").checked("list").expect("a table");
    assert!(table.stdout.contains(&format!("[{DEEP6}]:{here}")), "{}", table.stdout);

    // What a rule has let in goes with it, if that is asked for; the others stay.
    open(&gateway, "web", "tcp", &format!("[{DEEP6}]:8080"), &[]);
    let _in = connection(far, deep, DEEP6, 8080).expect("a connection from outside");
    let flow = gateway.json(&["flows", "list", "--rule", "web"]).expect("a list")[0].clone();
    assert_eq!(flow["original"]["src"], json!(FAR6), "{flow:#}");
    assert_eq!(count(&[]), 4);
    let removed = gateway.call(&["forward", "remove", "web", "--kill-flows"]).expect("a call");
    removed.checked("remove").expect("done");
    wait::until_true(LIMIT, "the end of the flow of a rule", || Ok(count(&[]) == 3))
        .unwrap_or_else(|error| panic!("{error:#}"));
    exchange(&mut ends).expect("another flow goes on");
    for (words, ended) in
        [(&["delete", "--dst", "2001:db8:99::7/128", "--proto", "tcp"][..], 1), (&["flush"], 2)]
    {
        let said = gateway.json(&[&["flows"], words].concat()).expect("an answer");
        assert_eq!(said["count"], ended, "{words:?}");
    }
    assert_eq!((count(&[]), flows6(&gateway)), (0, 0));
    drops(&gateway, "no-syn", || {
        std::io::Write::write_all(&mut ends[0], b"late").expect("bytes");
        std::thread::sleep(Duration::from_millis(50));
    });
    gateway.stop().expect("an end");
}

#[test]
fn the_data_plane_does_what_explain_says_of_ipv6() {
    let Some(binary) = requirements::met_with_binary("explain of IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    let explain = |protocol: &str, src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16), more: &[&str]| {
        let [src, dst] = [src, dst].map(|(address, port)| format!("[{address}]:{port}"));
        let words = ["explain", "--protocol", protocol, &src, &dst];
        gateway.json(&[&words[..], more].concat()).expect("an answer")
    };
    let holds = |answer: &Value, verdict: &str, by: &str| {
        assert_eq!(answer["verdict"], verdict, "{answer:#}");
        assert!(answer["because"].to_string().contains(by), "{by}: {answer:#}");
    };
    let (outer, web) = ((FAR6, 5000), (DEEP6, 8080));

    let answer = explain("tcp", (DEEP6, 5000), (FAR6, 80), &[]);
    holds(&answer, "forwarded", "inside hosts may dial");
    let leaves = &answer["leaves"];
    assert_eq!((&leaves["src"], &leaves["sport"]), (&json!(DEEP6), &json!(5000)), "{answer:#}");
    assert_eq!(leaves["interface"], WAN_DEVICE, "{answer:#}");
    let lone = explain("tcp", (DEEP6, 5000), (FAR6, 80), &["--ack"]);
    holds(&lone, "dropped", "no-syn");
    holds(&explain("icmp", (DEEP6, 5), (FAR6, 0), &[]), "forwarded", "inside hosts may dial");
    holds(&explain("tcp", (DEEP6, 5000), (LAN6, 22), &[]), "gateway", "an address of the gateway");
    holds(
        &explain("tcp", (DEEP6, 5000), (INSIDE6, 22), &[]),
        "kernel",
        "does not lead it to a WAN",
    );
    assert_eq!(flows6(&gateway), 0, "to explain changes nothing");

    let answer = explain("tcp", outer, web, &[]);
    holds(&answer, "dropped", "no rule or expectation waits for it");
    assert_eq!(answer["reason"], "unsolicited", "{answer:#}");
    let advice = format!("--protocol tcp --public [{DEEP6}]:8080 --to [{DEEP6}]:8080");
    assert!(answer["change"].to_string().contains(&advice), "{answer:#}");
    assert!(is_shut(far, deep, DEEP6, 8080).expect("an attempt"));
    open(&gateway, "web", "tcp", &format!("[{DEEP6}]:8080"), &["--allow", "2001:db8:99::/64"]);
    let answer = explain("tcp", outer, web, &[]);
    holds(&answer, "forwarded", "rule 'web' opens tcp [2001:db8:2::2]:8080");
    assert_eq!(answer["rule"], "web", "{answer:#}");
    let stranger = explain("tcp", (OUTSIDE6, 5000), web, &[]);
    holds(&stranger, "dropped", "rule 'web'");
    assert_eq!(stranger["reason"], "not-allowed", "{stranger:#}");

    let ends = connection(far, deep, DEEP6, 8080).expect("a connection as it was explained");
    let dialled = ends[0].local_addr().expect("an end").port();
    for (src, dst) in [((FAR6, dialled), web), (web, (FAR6, dialled))] {
        let answer = explain("tcp", src, dst, &["--ack"]);
        holds(&answer, "forwarded", "a flow has this tuple");
        holds(&answer, "forwarded", "it came in by rule 'web'");
        let change = answer["change"].to_string();
        assert!(change.contains(&format!("--src {FAR6} --sport {dialled}")), "{change}");
    }
    for (words, code) in [
        (["explain", "--protocol", "tcp", "2001:db8::1", "[2001:db8::2]:1"], 2),
        (["explain", "--protocol", "tcp", "[2001:db8::1]:1", "10.0.0.1:1"], 2),
        (["explain", "--protocol", "50", "[2001:db8:2::2]:1", "[2001:db8:99::7]:1"], 3),
    ] {
        assert_eq!(gateway.call(&words).expect("a call").code(), code, "{words:?}");
    }
    gateway.stop().expect("an end");
}

#[test]
fn traceroute_and_the_path_mtu_work_from_outside_through_a_forward() {
    in_each_mode("traceroute6 from outside", &["traceroute"], |chain, gateway| {
        open(gateway, "all", "tcp+udp", &DEEP6.to_string(), &[]);
        let wanted = [OUTER_ROUTER6, WAN6, INSIDE6, DEEP6].map(|hop| hop.to_string());
        for options in [&[][..], &["-T", "-p", "8080"]] {
            let shown = hops(&chain.far, DEEP6, options);
            assert_eq!(shown, wanted, "{options:?}: {}", gateway.diagnosis());
        }
        chain.narrow_inside(1280).expect("a narrow link inside");
        assert_eq!(
            path_mtu(&chain.far, DEEP6.into(), 1400, [8090; 2]).expect("a discovery"),
            "1280",
            "{}",
            gateway.diagnosis()
        );
    });
}

/// The hops that traceroute shows.
fn hops(from: &Namespace, to: Ipv6Addr, options: &[&str]) -> Vec<String> {
    let mut command = from.command("traceroute");
    command.args(["-6", "-n", "-q", "1", "-w", "2", "-m", "8", "-N", "1"]).args(options);
    let finished = process::run(command.arg(to.to_string()), LIMIT).expect("traceroute");
    let text = finished.checked("traceroute").expect("traceroute ends well").stdout;
    println!("{text}");
    let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    text.lines().skip(1).filter_map(hop).collect()
}

#[test]
fn traceroute_shows_every_hop_to_the_outside_and_the_gateway_from_there() {
    in_each_mode("traceroute6", &["traceroute"], |chain, gateway| {
        let wanted = [INNER_ROUTER6, LAN6, OUTSIDE6, FAR6].map(|hop| hop.to_string());
        for options in [&[][..], &["-I"], &["-T", "-p", "8080"]] {
            let shown = hops(&chain.deep, FAR6, options);
            assert_eq!(shown, wanted, "{options:?}: {}", gateway.diagnosis());
        }
        let wanted = [OUTER_ROUTER6, WAN6].map(|hop| hop.to_string());
        assert_eq!(hops(&chain.far, WAN6, &[]), wanted, "{}", gateway.diagnosis());
    });
}

#[test]
fn hosts_on_both_sides_learn_the_mtu_of_the_path() {
    in_each_mode("path MTU of IPv6", &[], |chain, gateway| {
        let Chain { deep, far, lab } = chain;
        chain.narrow_outside(1300).expect("a narrow link outside");
        assert_eq!(
            path_mtu(deep, FAR6.into(), 1400, [8081; 2]).expect("a discovery"),
            "1300",
            "{}",
            gateway.diagnosis()
        );
        chain.narrow_outside(1500).expect("a wide link outside");
        // The other way by a flow that the inside has begun.
        let opening = udp_socket(deep, DEEP6, 8082).expect("a socket");
        opening.send_to(b"hello", (FAR6, 8082)).expect("a datagram");
        drop(opening);
        chain.narrow_inside(1280).expect("a narrow link inside");
        assert_eq!(
            path_mtu(far, DEEP6.into(), 1400, [8082; 2]).expect("a discovery"),
            "1280",
            "{}",
            gateway.diagnosis()
        );
        chain.narrow_inside(1500).expect("a wide link inside");
        // That of the gateway's own interface, which the kernel reports.
        for (namespace, device) in [(&lab.gateway, WAN_DEVICE), (&lab.outside, "out0")] {
            namespace.ip(&format!("link set {device} mtu 1350")).expect("a narrow link");
        }
        deep.ip("-6 route flush cache").expect("a flush");
        assert_eq!(
            path_mtu(deep, OUTSIDE6.into(), 1450, [8083; 2]).expect("a discovery"),
            "1350",
            "{}",
            gateway.diagnosis()
        );
    });
}

#[test]
fn flows_go_on_and_begin_while_the_agent_is_dead_and_under_the_next_one() {
    let Some(binary) = requirements::met_with_binary("IPv6 without an agent") else { return };
    for mode in MODES {
        let chain = chain();
        let Chain { deep, far, .. } = &chain;
        let mut gateway = NatCtl::prepare(&chain.lab, mode, &binary).expect("a gateway");
        gateway.run(&["--persist"]).expect("a start");
        let mut ends = connection(deep, far, FAR6, 0).expect("a connection");
        gateway.end(Signal::SIGKILL).expect("a kill");
        exchange(&mut ends).expect("an exchange without an agent");
        let mut others = connection(deep, far, FAR6, 0).expect("a connection without an agent");
        assert!(is_shut(far, deep, DEEP6, 0).expect("an attempt"));
        gateway.run(&[]).expect("a take-over");
        exchange(&mut ends).expect("an exchange under the next agent");
        exchange(&mut others).expect("another");
        assert_eq!(flows6(&gateway), 2, "{}", gateway.diagnosis());
        gateway.stop().expect("an end");
    }
}

#[test]
fn a_thousand_flows_expire_and_one_that_is_used_does_not() {
    let Some(binary) = requirements::met_with_binary("expiry of IPv6") else { return };
    let chain = chain();
    let Chain { deep, far, .. } = &chain;
    let mut gateway = NatCtl::prepare(&chain.lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("[timeouts]\nudp = \"3s\"\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    let socket = udp_socket(deep, DEEP6, 0).expect("a socket");
    let there = udp_socket(far, FAR6, 7777).expect("a socket");
    let mut most = 0;
    for port in 0..1000 {
        socket.send_to(b"one of many", (FAR6, 20_000 + port)).expect("a datagram");
        most = most.max(if port % 100 == 99 { flows6(&gateway) } else { 0 });
    }
    assert!(most > 500, "{most} flows at a time\n{}", gateway.diagnosis());
    datagram(&socket, &there, 8).expect("a datagram");
    wait::until_true(LIMIT, "the end of a thousand flows", || {
        datagram(&there, &socket, 8)?;
        Ok(flows6(&gateway) == 1)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    gateway.stop().expect("an end");
}

#[test]
fn forwarding_is_turned_on_and_put_back_and_advertisements_are_listened_to() {
    let Some(binary) = requirements::met_with_binary("IPv6 forwarding") else { return };
    let chain = chain();
    let sysctl = |name: &str| {
        chain.lab.gateway.read_sysctl(&format!("net.ipv6.conf.{name}")).expect("a sysctl")
    };
    let all =
        || ["all.forwarding", "lan0.forwarding", "wan0.forwarding", "wan0.accept_ra"].map(sysctl);
    let before = all();
    assert_eq!(before, ["0", "0", "0", "1"]);
    let mut gateway = NatCtl::prepare(&chain.lab, Mode::Tc, &binary).expect("a gateway");
    gateway.run(&["--persist"]).expect("a start");
    assert_eq!(all(), ["1", "1", "1", "2"]);
    gateway.end(Signal::SIGKILL).expect("a kill");
    gateway.run(&[]).expect("a take-over");
    assert_eq!(all(), ["1", "1", "1", "2"]);
    gateway.end(Signal::SIGTERM).expect("an end");
    assert_eq!(all(), before);

    // Turned off in the configuration, nothing is touched, and nothing is kept out.
    gateway.configure("[ipv6]\nenabled = false\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    assert_eq!(all(), before);
    chain.lab.gateway.sysctl("net.ipv6.conf.all.forwarding", "1").expect("forwarding");
    connection(&chain.far, &chain.deep, DEEP6, 0).expect("a connection from outside");
    gateway.end(Signal::SIGTERM).expect("an end");

    // A router that forwarded before goes on to do so.
    gateway.configure("").expect("a configuration");
    gateway.run(&[]).expect("a start");
    assert!(is_shut(&chain.far, &chain.deep, DEEP6, 0).expect("an attempt"));
    gateway.stop().expect("an end");
    assert_eq!(all(), ["1", "1", "1", "1"]);
}
