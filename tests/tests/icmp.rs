//! Errors that routers send: traceroute shows every hop, and hosts learn the MTU of the path, from
//! both sides, by the tools that people use.

use std::{net::Ipv4Addr, time::Duration};

use nat_tests::{
    capture::Capture,
    chain::{Chain, DEEP, FAR, INNER_ROUTER, OUTER_ROUTER},
    frame::is_inside,
    gateway::{Mode, NatCtl},
    lab::{INSIDE_DEVICE, LAN, LAN_DEVICE, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE, WAN_SECOND},
    netns::Namespace,
    process, requirements,
    traffic::path_mtu,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The gateway in each mode, with a public address for the host behind the router inside.
fn in_each_mode(name: &str, tools: &[&str], test: impl Fn(&Chain, &NatCtl)) {
    let Some(binary) = requirements::met_with_tools(name, tools) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = Chain::new().expect("a chain");
        let gateway = NatCtl::start(&chain.lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        test(&chain, &gateway);
        gateway.stop().expect("an end");
    }
}

/// Gives the host inside the second address, for everything.
fn open(gateway: &NatCtl) {
    let (public, to) = (WAN_SECOND.to_string(), DEEP.to_string());
    let words = ["one-to-one", "add", "--name", "deep", "--public", &public, "--to", &to];
    let inbound = ["--inbound", "any"];
    let added = gateway.call(&[&words[..], &inbound].concat()).expect("a call");
    added.checked("one-to-one add").expect("a rule");
}

/// The hops that traceroute shows.
fn hops(from: &Namespace, to: Ipv4Addr, options: &[&str]) -> Vec<String> {
    let mut command = from.command("traceroute");
    command.args(["-n", "-q", "1", "-w", "2", "-m", "8", "-N", "1"]).args(options);
    let finished = process::run(command.arg(to.to_string()), LIMIT).expect("traceroute");
    let text = finished.checked("traceroute").expect("traceroute ends well").stdout;
    println!("{text}");
    let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    text.lines().skip(1).filter_map(hop).collect()
}

fn addresses(hops: &[Ipv4Addr]) -> Vec<String> {
    hops.iter().map(ToString::to_string).collect()
}

const PROBES: [&[&str]; 3] = [&[], &["-I"], &["-T", "-p", "8080"]];

#[test]
fn traceroute_from_inside_shows_every_hop() {
    in_each_mode("traceroute from inside", &["traceroute"], |chain, gateway| {
        for options in PROBES {
            let shown = hops(&chain.deep, FAR, options);
            let wanted = addresses(&[INNER_ROUTER, LAN, OUTSIDE, FAR]);
            assert_eq!(shown, wanted, "{options:?}: {}", gateway.diagnosis());
        }
    });
}

#[test]
fn traceroute_from_outside_shows_every_hop_and_no_inside_address() {
    in_each_mode("traceroute from outside", &["traceroute"], |chain, gateway| {
        open(gateway);
        let folder = chain.lab.folder("capture").expect("a folder");
        let capture = Capture::start(&chain.lab.outside, OUTSIDE_DEVICE, "", &folder);
        let capture = capture.expect("a capture");
        for options in PROBES {
            let shown = hops(&chain.far, WAN_SECOND, options);
            // The router inside has no address that anybody outside knows: it has the host's.
            let wanted = addresses(&[OUTER_ROUTER, WAN, WAN_SECOND, WAN_SECOND]);
            assert_eq!(shown, wanted, "{options:?}: {}", gateway.diagnosis());
        }
        let frames = capture.finish().expect("frames");
        // Neither in the header nor in what is quoted.
        let prefix = [[10, 0, 1], [10, 0, 2]];
        for frame in frames {
            assert!(!frame.names(is_inside), "{frame:?}");
            let quoted = frame.bytes.get(42..74).unwrap_or_default();
            let named = quoted.windows(3).any(|part| prefix.iter().any(|it| part == it));
            assert!(!named, "an inside address in a quote: {frame:?}");
        }
    });
}

#[test]
fn hosts_on_both_sides_learn_the_mtu_beyond_the_gateway() {
    in_each_mode("path MTU beyond", &[], |chain, gateway| {
        open(gateway);
        chain.narrow_outside(1300).expect("a narrow link outside");
        assert_eq!(
            path_mtu(&chain.deep, FAR.into(), 1400, [0, 8080]).expect("a discovery"),
            "1300",
            "{}",
            gateway.diagnosis()
        );
        chain.narrow_outside(1500).expect("a wide link outside");
        chain.narrow_inside(1280).expect("a narrow link inside");
        assert_eq!(
            path_mtu(&chain.far, WAN_SECOND.into(), 1400, [0, 8080]).expect("a discovery"),
            "1280",
            "{}",
            gateway.diagnosis()
        );
    });
}

#[test]
fn hosts_on_both_sides_learn_the_mtu_of_the_gateway_itself() {
    in_each_mode("path MTU of the gateway", &[], |chain, gateway| {
        open(gateway);
        let Chain { deep, far, lab } = chain;
        for (namespace, device) in [(&lab.gateway, LAN_DEVICE), (&lab.inside, INSIDE_DEVICE)] {
            namespace.ip(&format!("link set {device} mtu 1400")).expect("a narrow link");
        }
        assert_eq!(
            path_mtu(far, WAN_SECOND.into(), 1450, [0, 8080]).expect("a discovery"),
            "1400",
            "{}",
            gateway.diagnosis()
        );
        for (namespace, device) in [(&lab.gateway, LAN_DEVICE), (&lab.inside, INSIDE_DEVICE)] {
            namespace.ip(&format!("link set {device} mtu 1500")).expect("a wide link");
        }
        for (namespace, device) in [(&lab.gateway, WAN_DEVICE), (&lab.outside, OUTSIDE_DEVICE)] {
            namespace.ip(&format!("link set {device} mtu 1350")).expect("a narrow link");
        }
        assert_eq!(
            path_mtu(deep, FAR.into(), 1450, [0, 8080]).expect("a discovery"),
            "1350",
            "{}",
            gateway.diagnosis()
        );
    });
}

#[test]
fn a_closed_port_is_refused_at_once_on_both_sides() {
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.settimeout(5)\n\
                  s.connect((sys.argv[1], 9999))\n\
                  s.send(b'anybody there?')\n\
                  try:\n\
                  \x20   s.recv(100)\n\
                  except ConnectionRefusedError:\n\
                  \x20   print('refused')\n";
    in_each_mode("closed port", &[], |chain, gateway| {
        open(gateway);
        for (from, to) in [(&chain.deep, FAR), (&chain.far, WAN_SECOND)] {
            let mut command = from.command("python3");
            command.args(["-c", script, &to.to_string()]);
            let said = process::must(&mut command).expect("a datagram");
            assert_eq!(said.trim(), "refused", "to {to}: {}", gateway.diagnosis());
        }
    });
}
