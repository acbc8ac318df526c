//! Interfaces whose packets have no Ethernet header, to the outside and to the inside: TUN here, and what
//! looks like it, WireGuard and PPP.
//!
//! ```text
//!   inside --- lan0          wan0 --- outside
//!                   gateway
//!     road ~~~ road0         tun0 ~~~ far 192.0.2.2, lo 198.51.100.9
//!   10.8.0.2
//! ```

use std::net::{IpAddr, Ipv4Addr};

use nat_tests::{
    capture::Capture,
    gateway::{Mode, NatCtl},
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, WAN},
    link::End,
    netns::{Lifetime, Namespace},
    process, requirements,
    server::{FILE, Kind, Server, Settings},
    session,
    traffic::{self, path_mtu},
    tun,
};
use nix::sys::signal::Signal;

const TUN_DEVICE: &str = "tun0";
const FAR_DEVICE: &str = "far0";
const ROAD_DEVICE: &str = "road0";
const TUN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const ROAD: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const INSIDE6: &str = "2001:db8:1::2";
const REMOTE6: &str = "2001:db8:9::9";

/// What is behind the WAN, and what is behind the LAN.
fn more_links(lab: &Lab) -> [Namespace; 2] {
    let [far, road] =
        ["far", "road"].map(|role| Namespace::new(lab.name(), role, Lifetime::Run).expect("it"));
    for namespace in [&lab.inside, &lab.gateway, &far] {
        for name in ["all", "default"] {
            let setting = format!("net.ipv6.conf.{name}.disable_ipv6");
            namespace.sysctl(&setting, "0").expect("IPv6");
        }
    }
    let near = ["192.0.2.1 peer 192.0.2.2/32", "2001:db8:2::1/64 nodad"];
    let end = ["192.0.2.2 peer 192.0.2.1/32", "2001:db8:2::2/64 nodad"];
    tun::connect(
        End { namespace: &lab.gateway, name: TUN_DEVICE, addresses: &near },
        End { namespace: &far, name: FAR_DEVICE, addresses: &end },
    )
    .expect("a link to the outside");
    tun::connect(
        End {
            namespace: &lab.gateway,
            name: ROAD_DEVICE,
            addresses: &["10.8.0.1 peer 10.8.0.2/32"],
        },
        End { namespace: &road, name: "tun0", addresses: &["10.8.0.2 peer 10.8.0.1/32"] },
    )
    .expect("a link to the inside");
    let both = |namespace: &Namespace, words: &[&str]| {
        for words in words {
            namespace.ip(words).expect("set up");
        }
    };
    both(
        &lab.gateway,
        &[
            "route add 198.51.100.0/24 dev tun0",
            "address add 2001:db8:1::1/64 dev lan0 nodad",
            "-6 route add 2001:db8:9::/64 via 2001:db8:2::2 dev tun0",
        ],
    );
    both(
        &lab.inside,
        &[
            "address add 2001:db8:1::2/64 dev in0 nodad",
            "-6 route add default via 2001:db8:1::1 dev in0",
        ],
    );
    both(
        &far,
        &[
            "link set lo up",
            "address add 198.51.100.9/32 dev lo",
            "address add 2001:db8:9::9/128 dev lo nodad",
            "-6 route add default via 2001:db8:2::1 dev far0",
        ],
    );
    both(&road, &["route add default dev tun0"]);
    [far, road]
}

fn forward(gateway: &NatCtl<'_>, protocol: &str, to: Ipv4Addr) {
    let to = to.to_string();
    let words = ["forward", "add", "--name", protocol, "--protocol", protocol, "--public"];
    let all = [&words[..], &[TUN_DEVICE, "--to", &to]].concat();
    gateway.call(&all).expect("a call").checked("add").expect("a rule");
}

/// Both ways of a connection, and the address that its far end sees.
fn talk(client: &Namespace, server: &Namespace, at: Ipv4Addr, gateway: &NatCtl<'_>) -> IpAddr {
    let [mut near, mut far] = session::pair(client, server, at)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    session::say(&mut near, &mut far, b"a question").expect("it arrives");
    session::say(&mut far, &mut near, &[7; 100_000]).expect("the answer does");
    far.peer_addr().expect("an end").ip()
}

#[test]
fn interfaces_without_an_ethernet_header_are_ways_out_and_in() {
    let Some(binary) = requirements::met_with_binary("TUN devices") else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let [far, road] = more_links(&lab);
    let folder = lab.folder("server").expect("a folder");
    let settings = Settings::new(Kind::Vsftpd);
    let _server = Server::start(&far, &settings, &lab.payload, &folder).expect("a server");
    let mut gateway = NatCtl::prepare(&lab, Mode::Xdp, &binary).expect("a gateway");
    gateway.run(&["--wan", TUN_DEVICE, "--lan", ROAD_DEVICE]).expect("a start");
    let captures = lab.folder("capture").expect("a folder");
    let untranslated =
        Capture::start(&far, FAR_DEVICE, "src net 10.0.0.0/8", &captures).expect("a capture");

    for host in [&lab.inside, &road] {
        assert_eq!(talk(host, &far, REMOTE, &gateway), TUN, "by the way without headers");
        assert_eq!(talk(host, &lab.outside, OUTSIDE, &gateway), WAN, "by the other one");
        traffic::echo(host, REMOTE).expect("an echo");
        session::fetch_both_ways(host, REMOTE, FILE, &lab.payload.sha256)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    }
    // The gateway itself.
    assert_eq!(talk(&lab.gateway, &far, REMOTE, &gateway), TUN);
    talk(&far, &lab.gateway, TUN, &gateway);
    // From outside to each inside, and what the gateway has to say of it.
    forward(&gateway, "tcp", ROAD);
    talk(&far, &road, TUN, &gateway);
    forward(&gateway, "udp", INSIDE);
    for (namespace, device) in [(&lab.gateway, LAN_DEVICE), (&lab.inside, INSIDE_DEVICE)] {
        namespace.ip(&format!("link set {device} mtu 1300")).expect("a narrow inside");
    }
    assert_eq!(path_mtu(&far, TUN.into(), 1400, [8090; 2]).expect("a discovery").trim(), "1300");
    // IPv6 is filtered on the way.
    let ping = |from: &Namespace, to: &str| {
        let mut ping = from.command("ping");
        let done = process::run(ping.args(["-6", "-c", "1", "-W", "2", to]), session::PATIENCE);
        done.expect("ping").code() == 0
    };
    assert!(ping(&lab.inside, REMOTE6), "{}", gateway.diagnosis());
    assert!(!ping(&far, INSIDE6), "nobody asked for it");

    let status = gateway.json(&["status"]).expect("a status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let bare = |name: &str| {
        let interface = interfaces.iter().find(|interface| interface["name"] == name);
        interface.expect("it")["reason"].to_string()
    };
    assert!([TUN_DEVICE, ROAD_DEVICE].iter().all(|name| bare(name).contains("no Ethernet")));
    let seen = untranslated.finish().expect("the capture");
    assert!(seen.is_empty(), "{} packets have left with an inside address", seen.len());
    gateway.end(Signal::SIGTERM).expect("an end");
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}
