//! Who may begin a flow over IPv6: where sources belong, and what routers are set to beside the gateway.

use std::{
    net::{Ipv6Addr, UdpSocket},
    time::Duration,
};

use nat_tests::{
    chain::Chain,
    gateway::{Mode, NatCtl},
    netns::Namespace,
    process, requirements,
    six::{self, DEEP6, FAR6, LAN6, OUTER_ROUTER6, WAN6, connection, datagram, udp_socket},
    wait,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);
/// The port of a service inside that a rule opens.
const SERVICE: u16 = 5300;
/// An address of the network between the gateway and the router inside.
const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66);
/// One of no network here.
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

fn chain() -> Chain {
    let chain = Chain::new().expect("a chain");
    six::turn_on(&chain).expect("IPv6");
    chain
}

/// A socket of a host that gives itself one more address.
fn posing(host: &Namespace, device: &str, address: Ipv6Addr) -> UdpSocket {
    host.ip(&format!("address add {address}/128 dev {device} nodad")).expect("an address");
    udp_socket(host, address, 0).expect("a socket")
}

fn open(gateway: &NatCtl<'_>) {
    let end = format!("[{DEEP6}]:{SERVICE}");
    let words = ["forward", "add", "--name", "open", "--protocol", "udp"];
    let added = gateway.call(&[&words[..], &["--public", &end, "--to", &end]].concat());
    added.expect("a call").checked("forward add").expect("a rule");
}

/// One drop more for that reason.
fn dropped(gateway: &NatCtl<'_>, reason: &str, by: impl FnOnce()) {
    let before = gateway.dropped(reason).expect("drops");
    by();
    wait::until_true(LIMIT, "a drop", || Ok(gateway.dropped(reason)? == before + 1))
        .unwrap_or_else(|error| panic!("{reason}: {error:#}\n{}", gateway.diagnosis()));
}

#[test]
fn who_says_to_be_of_the_other_side_begins_nothing() {
    let Some(binary) = requirements::met_with_binary("sources of IPv6") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = chain();
        let Chain { deep, far, lab } = &chain;
        let gateway = NatCtl::start(lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        open(&gateway);
        let service = udp_socket(deep, DEEP6, SERVICE).expect("a socket");
        for address in [STRANGER6, OUTER_ROUTER6, WAN6, LAN6] {
            let liar = posing(deep, "deep0", address);
            dropped(&gateway, "foreign-source", || {
                liar.send_to(b"from nowhere", (FAR6, 7)).map(drop).expect("a datagram");
            });
            deep.ip(&format!("address del {address}/128 dev deep0")).expect("one address less");
        }
        for address in [NEIGHBOUR6, WAN6, LAN6] {
            let liar = posing(far, "far0", address);
            dropped(&gateway, "not-allowed", || {
                liar.send_to(b"let me in", (DEEP6, SERVICE)).map(drop).expect("a datagram");
            });
            far.ip(&format!("address del {address}/128 dev far0")).expect("one address less");
        }
        let list = gateway.json(&["flows", "count"]).expect("a count");
        assert_eq!(list["count"], 0, "{}", gateway.diagnosis());

        // Who is where it says to be goes on as ever: behind a router inside, and anywhere outside.
        connection(deep, far, FAR6, 0).expect("a connection to the outside");
        let stranger = posing(far, "far0", STRANGER6);
        datagram(&stranger, &service, 8).expect("a datagram from outside");
        gateway.stop().expect("an end");
    }
}

#[test]
fn the_outside_pings_the_inside_where_the_configuration_says_so() {
    let Some(binary) = requirements::met_with_tools("echo of IPv6", &["ping"]) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = chain();
        let Chain { far, lab, .. } = &chain;
        let mut gateway = NatCtl::prepare(lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        let ends = [FAR6, DEEP6].map(|end| format!("[{end}]:7"));
        let explained = |gateway: &NatCtl<'_>| {
            let words = ["explain", "--protocol", "icmp", &ends[0], &ends[1]];
            let told = gateway.json(&words).expect("words");
            (told["verdict"].clone(), told.to_string())
        };
        gateway.configure("").expect("a configuration");
        gateway.run(&["--persist"]).expect("a start");
        let (verdict, told) = explained(&gateway);
        assert_eq!(verdict, "dropped", "{told}");
        assert!(told.contains("'echo = true' in [ipv6]"), "{told}");
        dropped(&gateway, "unsolicited", || {
            six::echo(far, DEEP6).expect_err("no echo from outside");
        });
        // It waits for the next start, which the log says.
        gateway.configure("[ipv6]\necho = true\n").expect("a configuration");
        gateway.signal(Signal::SIGHUP).expect("a signal");
        wait::until_true(LIMIT, "a line of the log", || {
            Ok(gateway.output().contains("changes of ipv6 come into force with the next start"))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
        six::echo(far, DEEP6).expect_err("no echo before that");
        gateway.end(Signal::SIGTERM).expect("an end");
        gateway.run(&[]).expect("a take-over");

        let (verdict, told) = explained(&gateway);
        assert_eq!(verdict, "forwarded", "{told}");
        assert!(told.contains("[ipv6] echo lets echo requests in"), "{told}");
        six::echo(far, DEEP6).expect("an echo from outside");
        six::echo(far, six::INSIDE6).expect("an echo of another host");
        let mut long = far.command("ping");
        long.args(["-6", "-n", "-c", "1", "-W", "2", "-s", "4000", &DEEP6.to_string()]);
        process::must(&mut long).expect("an echo in fragments");
        let list = gateway.json(&["flows", "list", "--proto", "icmpv6"]).expect("a list");
        let flows = list.as_array().expect("a list");
        assert_eq!(flows.len(), 3, "{list:#}");
        assert!(flows.iter().all(|flow| flow["original"]["src"] == FAR6.to_string()), "{list:#}");
        dropped(&gateway, "unsolicited", || {
            let client = udp_socket(far, FAR6, 0).expect("a socket");
            client.send_to(b"let me in", (DEEP6, SERVICE)).map(drop).expect("a datagram");
        });
        dropped(&gateway, "not-allowed", || {
            let _liar = posing(far, "far0", NEIGHBOUR6);
            let mut forged = far.command("ping");
            forged.args(["-6", "-n", "-c", "1", "-W", "1", "-I", &NEIGHBOUR6.to_string()]);
            process::must(forged.arg(DEEP6.to_string())).expect_err("no echo of a liar");
        });
        gateway.stop().expect("an end");
    }
}

#[test]
fn unique_local_addresses_leave_where_the_configuration_says_so() {
    const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
    let Some(binary) = requirements::met_with_binary("unique local addresses") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    for (namespace, router) in [(&lab.gateway, six::INSIDE6), (&lab.outside, WAN6)] {
        namespace.ip(&format!("-6 route add fd01::/64 via {router}")).expect("a route");
    }
    lab.inside.ip(&format!("-6 route add fd01::/64 via {DEEP6}")).expect("a route");
    let here = posing(deep, "deep0", LOCAL);
    let there = udp_socket(far, FAR6, 0).expect("a socket");
    let mut gateway = NatCtl::prepare(lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("").expect("a configuration");
    gateway.run(&[]).expect("a start");
    dropped(&gateway, "unique-local", || {
        let at = there.local_addr().expect("an end");
        here.send_to(b"let me out", at).map(drop).expect("a datagram");
    });
    connection(deep, far, FAR6, 0).expect("a connection with another address");
    gateway.end(Signal::SIGTERM).expect("an end");
    gateway.configure("[ipv6]\nunique_local = true\n").expect("a configuration");
    gateway.run(&[]).expect("a start");
    datagram(&here, &there, 8).expect("a datagram to the outside");
    datagram(&there, &here, 8).expect("its answer");
    gateway.stop().expect("an end");
}

#[test]
fn an_answer_is_led_as_it_would_arrive() {
    let Some(binary) = requirements::met_with_binary("rules of IPv6 routing") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    // The inside has a table of its own, with a way out and none back; the others have no way out.
    lab.gateway.ip(&format!("-6 route del default via {}", six::OUTSIDE6)).expect("no default");
    let default = format!("-6 route add default via {} table 200", six::OUTSIDE6);
    lab.gateway.ip(&default).expect("a table");
    lab.gateway.ip("-6 rule add iif lan0 lookup 200").expect("a rule");
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    connection(deep, far, FAR6, 0).expect("a connection to the outside");
    open(&gateway);
    let service = udp_socket(deep, DEEP6, SERVICE).expect("a socket");
    let client = udp_socket(far, FAR6, 0).expect("a socket");
    datagram(&client, &service, 8).expect("a datagram from outside");
    datagram(&service, &client, 8).expect("its answer");
    gateway.stop().expect("an end");
}

#[test]
fn a_router_whose_wan_listens_to_advertisements_filters_all_the_same() {
    let Some(binary) = requirements::met_with_binary("forwarding by interface") else { return };
    let chain = chain();
    let Chain { deep, far, lab } = &chain;
    // Linux forwards by `all` alone: that of an interface says only whether it is a router there.
    lab.gateway.sysctl("net.ipv6.conf.all.forwarding", "1").expect("forwarding");
    lab.gateway.sysctl("net.ipv6.conf.wan0.forwarding", "0").expect("a host outside");
    let service = udp_socket(deep, DEEP6, SERVICE).expect("a socket");
    let client = udp_socket(far, FAR6, 0).expect("a socket");
    datagram(&client, &service, 8).expect("a way in without the gateway");
    let gateway = NatCtl::start(lab, Mode::Tc, &binary).expect("a gateway");
    dropped(&gateway, "unsolicited", || {
        client.send_to(b"let me in", (DEEP6, SERVICE)).map(drop).expect("a datagram");
    });
    connection(deep, far, FAR6, 0).expect("a connection to the outside");
    six::echo(far, WAN6).expect("an echo of the gateway");
    gateway.stop().expect("an end");
}
