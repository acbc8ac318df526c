//! What a change of the network costs a steady stream, in datagrams: with the agent at work, stopped
//! and killed.
//!
//! At work it follows at once. Stopped or killed, what it has last said of next hops is believed
//! until its heartbeat is stale; from then on the kernel is asked again.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    gateway::{Mode, NatCtl},
    lab::{INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN_DEVICE},
    netns::Lifetime,
    process, requirements,
    routers::{self, REMOTE},
    stream::{Outcome, PER_SECOND, Stream},
    traffic::{udp_socket, udp_socket_at},
    wait,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7777;
const SMALL: usize = 100;
/// Until the heartbeat of an agent that is gone is stale (layout::HEARTBEAT_STALE, and the second
/// that a clock of seconds may be off).
const STALE: u64 = 5 * PER_SECOND;
/// What a busy machine may lose, or be late by, without anybody's fault.
const NOISE: u64 = 60;

/// What the agent does while the network changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    AtWork,
    Stopped,
    Killed,
}

/// One run of a test.
struct Case<'a> {
    mode: Mode,
    agent: Agent,
    binary: &'a Path,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "mode {}, agent {:?}", self.mode, self.agent)
    }
}

impl Case<'_> {
    /// One after the other: the verifier takes a processor to itself.
    fn start<'lab>(&self, lab: &'lab Lab) -> NatCtl<'lab> {
        static STARTS: Mutex<()> = Mutex::new(());
        let _turn = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gateway = NatCtl::prepare(lab, self.mode, self.binary).expect("a gateway");
        gateway.run(&["--persist"]).expect("a start");
        gateway
    }

    fn signal(&self, gateway: &NatCtl) {
        match self.agent {
            Agent::AtWork => {}
            Agent::Stopped => gateway.signal(Signal::SIGSTOP).expect("a signal"),
            Agent::Killed => gateway.signal(Signal::SIGKILL).expect("a signal"),
        }
    }

    /// The most that may be lost, where an agent at work may lose `at_work`.
    fn bound(&self, at_work: u64) -> u64 {
        match self.agent {
            Agent::AtWork => at_work,
            Agent::Stopped | Agent::Killed => at_work + STALE,
        }
    }

    fn check(&self, what: &str, outcome: Outcome, bound: u64, gateway: &NatCtl) {
        let Outcome { sent, lost, gap } = outcome;
        println!("{self}: {what}: {lost} of {sent} lost, {gap} in a row; {bound} is the most");
        assert!(lost <= bound, "{self}: {what}: {lost} lost: {}", gateway.output());
    }
}

/// Runs a test in both modes, with the agent in each state; the three at once, since most of their
/// time is waiting.
fn in_each_case(name: &str, test: impl Fn(&Case) + Sync) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        thread::scope(|scope| {
            for agent in [Agent::AtWork, Agent::Stopped, Agent::Killed] {
                let (test, binary) = (&test, &binary);
                scope.spawn(move || test(&Case { mode, agent, binary }));
            }
        });
    }
}

fn lab() -> Lab {
    Lab::with(Lifetime::Run, 1000).expect("a lab")
}

/// A stream from inside to `to`, which has flowed for so long that everybody knows of it.
fn outward(lab: &Lab, to: Ipv4Addr, size: usize) -> Stream {
    let to = SocketAddrV4::new(to, PORT);
    let receiver = udp_socket_at(&lab.outside, to).expect("a socket outside");
    let sender = udp_socket(&lab.inside, 0).expect("a socket inside");
    let stream = Stream::start(sender, to, receiver, size).expect("a stream");
    stream.flows(3 * PER_SECOND / 2, LIMIT).expect("a stream that flows");
    stream
}

/// A stream is followed by a change, of which at most `at_work` datagrams may be lost.
fn costs(
    case: &Case,
    at_work: u64,
    to: Ipv4Addr,
    prepare: impl FnOnce(&Lab) -> anyhow::Result<()>,
    change: impl FnOnce(&Lab) -> anyhow::Result<()>,
) {
    let lab = lab();
    prepare(&lab).expect("a preparation");
    let gateway = case.start(&lab);
    let stream = outward(&lab, to, SMALL);
    case.signal(&gateway);
    change(&lab).expect("a change");
    stream.flows(PER_SECOND, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    // Long enough to see that it stays so when the heartbeat is stale.
    if case.agent != Agent::AtWork {
        stream.sends(STALE, LIMIT).expect("a sender");
    }
    stream.flows(PER_SECOND / 2, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    let outcome = stream.finish().expect("an outcome");
    case.check("outward", outcome, case.bound(at_work), &gateway);
}

/// Answers find their way when a host inside gets another link address and says so.
#[test]
fn host_inside_that_announces_another_address_is_followed() {
    in_each_case("neighbour change inside", |case| {
        let lab = lab();
        let name = format!("net.ipv4.conf.{INSIDE_DEVICE}.arp_notify");
        lab.inside.sysctl(&name, "1").expect("a sysctl");
        let gateway = case.start(&lab);
        let to = SocketAddrV4::new(OUTSIDE, PORT);
        let outside = udp_socket_at(&lab.outside, to).expect("a socket outside");
        let inside = udp_socket(&lab.inside, 0).expect("a socket inside");
        // The stream inward answers a datagram.
        inside.send_to(b"hello", to).expect("a datagram");
        let (_, peer) = outside.recv_from(&mut [0; 64]).expect("a datagram through the gateway");
        let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
        let stream = Stream::start(outside, peer, inside, SMALL).expect("a stream");
        stream.flows(3 * PER_SECOND / 2, LIMIT).expect("a stream that flows");
        case.signal(&gateway);
        lab.inside.ip(&format!("link set {INSIDE_DEVICE} address 02:00:5e:10:00:03")).expect("it");
        stream.flows(PER_SECOND, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
        let outcome = stream.finish().expect("an outcome");
        case.check("inward", outcome, case.bound(NOISE), &gateway);
    });
}

#[test]
fn route_that_changes_is_followed_within_a_few_datagrams() {
    in_each_case("route change", |case| {
        costs(case, NOISE, REMOTE, routers::two_routers, |lab| {
            routers::take_the_second(lab)?;
            // The way that was taken so far is dead from here on, and says nothing.
            lab.outside
                .ip(&format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:02"))
                .map(drop)
        });
    });
}

#[test]
fn neighbour_that_announces_another_address_is_followed_at_once() {
    in_each_case("announced neighbour change", |case| {
        costs(case, NOISE, OUTSIDE, routers::announce_changes, |lab| {
            lab.outside
                .ip(&format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:01"))
                .map(drop)
        });
    });
}

/// Neighbours age fast: reachable for 0.5 to 1.5 s, then 1 s of patience, then three questions to
/// the address that is known, then a question to all.
fn short_ages(lab: &Lab) -> anyhow::Result<()> {
    for (name, value) in [
        ("base_reachable_time_ms", "1000"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "200"),
    ] {
        lab.gateway.sysctl(&format!("net.ipv4.neigh.{WAN_DEVICE}.{name}"), value)?;
    }
    Ok(())
}

#[test]
fn neighbour_that_changes_its_address_in_silence_is_noticed_by_ageing() {
    in_each_case("silent neighbour change", |case| {
        // 1.5 + 1 + 0.6 s and the agent's beat, within which it has the kernel ask.
        let at_work = 41 * PER_SECOND / 10 + NOISE;
        costs(case, at_work, OUTSIDE, short_ages, |lab| {
            lab.outside
                .ip(&format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:04"))
                .map(drop)
        });
    });
}

/// The host outside never answers, so nothing but the gateway's own questions confirms it.
#[test]
fn neighbour_that_only_receives_is_asked_again_and_again() {
    in_each_case("ageing", |case| {
        let lab = lab();
        short_ages(&lab).expect("sysctls");
        let gateway = case.start(&lab);
        let stream = outward(&lab, OUTSIDE, SMALL);
        case.signal(&gateway);
        let show = format!("neighbour show {OUTSIDE} dev {WAN_DEVICE}");
        // STALE, DELAY, and PROBE for a moment that is too short to be seen.
        for _ in 0..2 {
            for confirmed in [false, true] {
                let what = format!("a neighbour, confirmed or not: {confirmed}");
                wait::until_true(LIMIT, &what, || {
                    Ok(lab.gateway.ip(&show)?.contains("REACHABLE") == confirmed)
                })
                .unwrap_or_else(|error| panic!("{case}: {error:#}"));
            }
        }
        stream.flows(PER_SECOND / 2, LIMIT).expect("a stream that flows");
        let outcome = stream.finish().expect("an outcome");
        case.check("one way", outcome, NOISE, &gateway);
    });
}

#[test]
fn link_that_goes_down_and_up_again_costs_that_time() {
    in_each_case("link down and up", |case| {
        // What is down loses everything; the carrier may be noticed a second later
        // (net/core/link_watch.c).
        costs(
            case,
            2 * PER_SECOND,
            OUTSIDE,
            |_| Ok(()),
            |lab| {
                let script = format!("ip link set {WAN_DEVICE} down; ip link set {WAN_DEVICE} up");
                process::must(lab.gateway.command("sh").args(["-c", &script])).map(drop)
            },
        );
    });
}

/// Frames carry the device's own address, whatever it is now.
#[test]
fn device_that_gets_another_address_sends_by_it() {
    in_each_case("device address", |case| {
        let lab = lab();
        let gateway = case.start(&lab);
        let stream = outward(&lab, OUTSIDE, SMALL);
        let shown = lab.gateway.ip(&format!("-br link show dev {WAN_DEVICE}")).expect("a link");
        let before = shown.split_whitespace().nth(2).expect("an address").to_owned();
        let own = "02:00:5e:10:00:05";
        case.signal(&gateway);
        lab.gateway.ip(&format!("link set {WAN_DEVICE} address {own}")).expect("an address");
        stream.sends(case.bound(NOISE), LIMIT).expect("a sender");
        let folder = lab.folder("capture").expect("a folder");
        let filter = format!("udp port {PORT} and ether src {before}");
        let old =
            Capture::start(&lab.outside, OUTSIDE_DEVICE, &filter, &folder).expect("a capture");
        let folder = lab.folder("capture").expect("a folder");
        let filter = format!("udp port {PORT} and ether src {own}");
        let new =
            Capture::start(&lab.outside, OUTSIDE_DEVICE, &filter, &folder).expect("a capture");
        stream.flows(PER_SECOND / 2, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
        let outcome = stream.finish().expect("an outcome");
        case.check("outward", outcome, case.bound(NOISE), &gateway);
        assert_eq!(old.finish().expect("a capture").len(), 0, "{case}: from {before}");
        assert!(new.finish().expect("a capture").len() as u64 >= PER_SECOND / 2, "{case}");
    });
}

/// Datagrams that must not be cut, and are too long now, go no further; others are not hurt.
#[test]
fn mtu_that_shrinks_holds_at_once() {
    in_each_case("lower MTU", |case| {
        const LONG: usize = 1400;
        let lab = lab();
        let gateway = case.start(&lab);
        // The sender is not to learn that its datagrams are too long.
        for words in [
            "add table ip lab",
            "add chain ip lab input { type filter hook input priority 0; }",
            "add rule ip lab input icmp type destination-unreachable drop",
        ] {
            process::must(lab.inside.command("nft").arg(words)).expect("a rule");
        }
        let long = outward(&lab, OUTSIDE, LONG);
        let to = SocketAddrV4::new(OUTSIDE, PORT + 1);
        let receiver = udp_socket_at(&lab.outside, to).expect("a socket outside");
        let sender = udp_socket(&lab.inside, 0).expect("a socket inside");
        let short = Stream::start(sender, to, receiver, SMALL).expect("a stream");
        short.flows(3 * PER_SECOND / 2, LIMIT).expect("a stream that flows");

        case.signal(&gateway);
        lab.gateway.ip(&format!("link set {WAN_DEVICE} mtu 1300")).expect("a lower MTU");
        let before = long.sent();
        short.sends(case.bound(PER_SECOND), LIMIT).expect("a sender");
        short.flows(PER_SECOND / 2, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
        case.check("short", short.finish().expect("an outcome"), case.bound(NOISE), &gateway);
        let Outcome { sent, lost, .. } = long.finish().expect("an outcome");
        let passed = (sent - before).saturating_sub(lost);
        let bound = case.bound(NOISE);
        println!("{case}: long: {passed} passed after the change; {bound} is the most");
        assert!(passed <= bound, "{case}: {passed} datagrams were longer than the MTU");
        assert!(lost > 0, "{case}: the MTU came into force");
    });
}

/// What changed while it was stopped is in the maps before its heartbeat is.
#[test]
fn agent_that_goes_on_after_a_stop_vouches_for_nothing_old() {
    in_each_case("a stop", |case| {
        if case.agent != Agent::Stopped {
            return;
        }
        let lab = lab();
        routers::two_routers(&lab).expect("two routers");
        let gateway = case.start(&lab);
        let stream = outward(&lab, REMOTE, SMALL);
        case.signal(&gateway);
        stream.sends(STALE + PER_SECOND, LIMIT).expect("a sender");
        routers::take_the_second(&lab).expect("a new route");
        let dead = format!("link set {OUTSIDE_DEVICE} address 02:00:5e:10:00:06");
        lab.outside.ip(&dead).expect("a dead way");
        stream.flows(PER_SECOND / 2, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
        gateway.signal(Signal::SIGCONT).expect("a signal");
        stream.flows(3 * PER_SECOND, LIMIT).unwrap_or_else(|error| panic!("{case}: {error:#}"));
        let outcome = stream.finish().expect("an outcome");
        case.check("outward", outcome, NOISE, &gateway);
    });
}

/// The test itself, at a gateway that has nothing to do with ours.
#[test]
fn stream_counts_what_is_lost() {
    if !requirements::met("stream") {
        return;
    }
    let lab = lab();
    let kind = nat_tests::gateway::Kind::Linux;
    let _gateway = nat_tests::gateway::Gateway::start(&lab, kind, "".as_ref()).expect("a gateway");
    let stream = outward(&lab, OUTSIDE, SMALL);
    lab.gateway.ip(&format!("link set {LAN_DEVICE} down")).expect("a dead link");
    // More than the sender's host keeps while it asks for a neighbour.
    stream.sends(PER_SECOND, LIMIT).expect("a sender");
    lab.gateway.ip(&format!("link set {LAN_DEVICE} up")).expect("a link");
    stream.flows(100, LIMIT).expect("a stream that flows");
    let Outcome { sent, lost, gap } = stream.finish().expect("an outcome");
    let half = PER_SECOND / 2;
    assert!((half..sent).contains(&lost) && gap >= half, "{lost} of {sent}, {gap} in a row");
}
