//! Interfaces that are deleted and made again while the gateway runs, as a modem that is plugged in anew,
//! a VLAN or a bridge that somebody sets up again.

use std::{net::TcpStream, time::Duration};

use nat_tests::{
    gateway::{Mode, NatCtl, Rule},
    lab::{
        INSIDE, INSIDE_DEVICE, LAN, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE,
        WAN_SECOND,
    },
    link::{self, End},
    netns::{Lifetime, Namespace},
    requirements,
    server::{FILE, Kind, Server, Settings},
    session, traffic, wait,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
/// Where interfaces go meanwhile.
const ELSEWHERE: &str = "elsewhere";

/// What becomes of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Deleted, and made again: with another number.
    Remade,
    /// Moved to another namespace and back: with the same number, and nothing that was attached.
    Moved,
}

/// The cable of one side.
struct Side<'a> {
    device: &'static str,
    addresses: &'a [&'a str],
    far: End<'a>,
}

impl Side<'_> {
    fn number(&self, gateway: &Namespace) -> String {
        let shown = gateway.ip(&format!("-o link show {}", self.device)).expect("a device");
        shown.split(':').next().expect("a number").to_owned()
    }

    fn goes(&self, gateway: &Namespace, change: Change, elsewhere: &Namespace) {
        let words = match change {
            Change::Remade => format!("link del {}", self.device),
            Change::Moved => format!("link set {} netns {}", self.device, elsewhere.name()),
        };
        gateway.ip(&words).expect("a change");
    }

    fn comes(&self, gateway: &Namespace, change: Change, elsewhere: &Namespace) {
        match change {
            Change::Remade => {
                let near = End { namespace: gateway, name: self.device, addresses: self.addresses };
                link::connect(near, self.far).expect("a cable");
                link::receive_redirected(self.far.namespace, self.far.name).expect("NAPI");
            }
            Change::Moved => {
                let words = format!("link set {} netns {}", self.device, gateway.name());
                elsewhere.ip(&words).expect("back");
                for address in self.addresses {
                    let words = format!("address add {address} dev {}", self.device);
                    gateway.ip(&words).expect("an address");
                }
                gateway.ip(&format!("link set {} up", self.device)).expect("up");
            }
        }
    }
}

fn interface(gateway: &NatCtl<'_>, name: &str) -> Value {
    let status = gateway.json(&["status"]).expect("a status");
    let mut all = status["interfaces"].as_array().into_iter().flatten();
    all.find(|interface| interface["name"] == name).expect("the interface").clone()
}

fn logged(gateway: &NatCtl<'_>, text: &str) {
    wait::until_true(LIMIT, text, || Ok(gateway.output().contains(text)))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

fn both_ways([near, far]: &mut [TcpStream; 2], gateway: &NatCtl<'_>) {
    session::say(near, far, b"there")
        .and_then(|()| session::say(far, near, b"and back"))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

fn fetch(lab: &Lab, client: &Namespace, server: std::net::Ipv4Addr, gateway: &NatCtl<'_>) {
    session::fetch_both_ways(client, server, FILE, &lab.payload.sha256)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
}

fn comes_back(mode: Mode, change: Change, outside: bool) {
    let Some(binary) = requirements::met_with_binary("an interface made again") else { return };
    println!("mode {mode}, {change:?}, outside: {outside}");
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let elsewhere = Namespace::new(lab.name(), ELSEWHERE, Lifetime::Run).expect("a namespace");
    let [lan, inside, wan, second, out] =
        [LAN, INSIDE, WAN, WAN_SECOND, OUTSIDE].map(|address| format!("{address}/24"));
    let side = match outside {
        false => Side {
            device: LAN_DEVICE,
            addresses: &[&lan],
            far: End { namespace: &lab.inside, name: INSIDE_DEVICE, addresses: &[&inside] },
        },
        true => Side {
            device: WAN_DEVICE,
            addresses: &[&wan, &second],
            far: End { namespace: &lab.outside, name: OUTSIDE_DEVICE, addresses: &[&out] },
        },
    };
    let settings = Settings::new(Kind::Vsftpd);
    let folders = ["inside", "outside"].map(|name| lab.folder(name).expect("a folder"));
    let _servers =
        [(&lab.inside, &folders[0]), (&lab.outside, &folders[1])].map(|(host, folder)| {
            Server::start(host, &settings, &lab.payload, folder).expect("a server")
        });
    let mut gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
    let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a rule");
    let mut talk = session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    both_ways(&mut talk, &gateway);

    let before = side.number(&lab.gateway);
    side.goes(&lab.gateway, change, &elsewhere);
    logged(&gateway, &format!("interface {} is gone", side.device));
    let shown = interface(&gateway, side.device);
    assert_eq!(shown["gone"], true, "{shown}");
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.starts_with("gone")), "{shown}");
    // Longer than between two rounds of upkeep, to which what is gone is no error.
    let errors = |output: &str| output.lines().filter(|line| line.contains("ERROR")).count();
    let quiet = errors(&gateway.output());
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(errors(&gateway.output()), quiet, "{}", gateway.output());

    side.comes(&lab.gateway, change, &elsewhere);
    if !outside && change == Change::Remade {
        lab.inside.ip(&format!("route add default via {LAN}")).expect("a route");
    }
    let after = side.number(&lab.gateway);
    assert_eq!(before == after, change == Change::Moved, "the case that is meant");
    logged(&gateway, &format!("interface {} is back as number {after}", side.device));
    let shown = interface(&gateway, side.device);
    assert!(shown["gone"].is_null() && shown["mode"] == mode.to_string(), "{shown}");

    // What was there goes on, and everything else is as before.
    both_ways(&mut talk, &gateway);
    assert_eq!(talk[1].peer_addr().expect("an end").ip(), WAN);
    traffic::echo(&lab.inside, OUTSIDE).expect("an echo");
    fetch(&lab, &lab.inside, OUTSIDE, &gateway);
    fetch(&lab, &lab.outside, WAN, &gateway);
    let was = gateway.packets().expect("counters");
    let [mut near, mut far] =
        session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
    session::say(&mut near, &mut far, &[7; 200_000]).expect("it arrives");
    session::say(&mut far, &mut near, &[8; 200_000]).expect("it comes back");
    // In XDP the agent has to see first that the new veth takes redirected frames.
    if mode == Mode::Xdp {
        wait::until_true(LIMIT, "packets in XDP", || {
            session::say(&mut near, &mut far, &[9; 20_000])?;
            Ok(gateway.packets()?.since(was).xdp > 0)
        })
        .expect("XDP works again");
    }
    gateway.stop().expect("an end that leaves nothing");
}

#[test]
fn an_inside_interface_that_is_made_again_is_attached_to_again() {
    for mode in [Mode::Tc, Mode::Xdp] {
        comes_back(mode, Change::Remade, false);
    }
}

#[test]
fn an_outside_interface_that_is_made_again_is_attached_to_again() {
    for mode in [Mode::Tc, Mode::Xdp] {
        comes_back(mode, Change::Remade, true);
    }
}

#[test]
fn interfaces_that_come_back_with_their_old_number_are_attached_to_again() {
    for mode in [Mode::Tc, Mode::Xdp] {
        for outside in [false, true] {
            comes_back(mode, Change::Moved, outside);
        }
    }
}

/// In XDP a veth refuses a program while its peer may send it more than a page.
#[test]
fn an_interface_that_is_back_and_refuses_is_tried_again() {
    let Some(binary) = requirements::met_with_binary("an interface that refuses") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Xdp, &binary).expect("a gateway");
    lab.gateway.ip(&format!("link del {LAN_DEVICE}")).expect("it goes");
    logged(&gateway, &format!("interface {LAN_DEVICE} is gone"));
    for words in [
        format!(
            "link add {LAN_DEVICE} type veth peer name {INSIDE_DEVICE} mtu 9000 netns {}",
            lab.inside.name()
        ),
        format!("address add {LAN}/24 dev {LAN_DEVICE}"),
        format!("link set {LAN_DEVICE} up"),
    ] {
        lab.gateway.ip(&words).expect("it comes");
    }
    logged(&gateway, "interface lan0 is back: ");
    assert_eq!(interface(&gateway, LAN_DEVICE)["gone"], true, "nothing is translated there");
    for words in [
        format!("link set {INSIDE_DEVICE} mtu 1500 up"),
        format!("address add {INSIDE}/24 dev {INSIDE_DEVICE}"),
        format!("route add default via {LAN}"),
    ] {
        lab.inside.ip(&words).expect("it is as it was");
    }
    logged(&gateway, "interface lan0 is back as number");
    traffic::echo(&lab.inside, OUTSIDE).expect("an echo");
    let told = gateway.output().matches("interface lan0 is back: ").count();
    assert_eq!(told, 1, "a refusal is told of once: {}", gateway.output());
    gateway.stop().expect("an end");
}

/// A bridge says of a port that leaves it that it is gone.
#[test]
fn an_interface_that_leaves_a_bridge_is_not_gone() {
    let Some(binary) = requirements::met_with_binary("a port of a bridge") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    for words in [
        "link add sw0 type bridge",
        "link set lan0 master sw0",
        "link set lan0 nomaster",
        // Of this there is a line, in which all before it was heard.
        "address flush dev wan0",
    ] {
        lab.gateway.ip(words).expect("a change");
    }
    logged(&gateway, "public address of wan0: none");
    assert!(interface(&gateway, LAN_DEVICE)["gone"].is_null());
    assert!(!gateway.output().contains("is gone"), "{}", gateway.output());
    gateway.stop().expect("an end");
}
