//! The data plane on a real kernel: start, takeover, sweep, removal.
//!
//! Every test has a network namespace of its own, that ends with the thread that made it, and an
//! instance of its own, that is removed at its end. Without root nothing can be tested; the tests
//! say so and pass.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    fs,
    future::Future,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use aya::programs::links::{FdLink, PinnedLink};
use nat_common::{
    flow::{Direction, Flow, FlowKey, Origin as Made, Rewrite, TCP, Zone},
    flow_table::{self, Hashed, Memory, Refused},
    layout::{self, Geometry},
    port::{Endpoint, Owner, Port, PortOwner},
    record::REACH,
    rule::RuleId,
    session::{Session, SessionId},
};
use nat_ctl::{
    config::Config,
    error::Exit,
    options::{Instance, Mode, RunOptions},
    output::{FlowFilter, InterfaceMode},
    plane::{self, Inspector, Mapped, Plane, PlaneError, clock},
    rules::{ForwardDraft, Origin, Rule, RuleStore},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: [u8; 4] = [10, 9, 0, 2];

/// A gateway to be, in a namespace of its own.
struct Lab {
    instance: Instance,
}

impl Lab {
    fn options(&self, mode: Mode) -> RunOptions {
        RunOptions {
            instance: self.instance.clone(),
            wan: vec!["wan0".to_owned()],
            lan: vec!["lan0".to_owned()],
            mode,
            config: config("[limits]\nflows = 4096\nexpectations = 256\n"),
            config_file: None,
            rules: self.rules(&[]),
            persist: false,
            metrics: None,
            verbose: 0,
        }
    }

    fn rules(&self, rules: &[Rule]) -> RuleStore {
        let path = std::env::temp_dir().join(format!("{}.rules.json", self.instance));
        let mut store = RuleStore::open(path, &[], &[], &|_| None).unwrap();
        for rule in rules {
            store.add(rule.clone(), Origin::Runtime, &|_| None).unwrap();
        }
        store
    }

    async fn start(&self, mode: Mode) -> Plane {
        Plane::start(&self.options(mode)).await.unwrap()
    }

    fn links(&self) -> Vec<String> {
        let folder = fs::read_dir(self.instance.pins().join("links")).unwrap();
        let mut names: Vec<String> =
            folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// Number of the link and of the program in it.
    fn link(&self, name: &str) -> (u32, u32) {
        let path = self.instance.pins().join("links").join(name);
        let info = FdLink::from(PinnedLink::from_pin(path).unwrap()).info().unwrap();
        (info.id(), info.program_id())
    }

    /// Makes a flow as a packet would.
    fn insert(&self, plane: &Plane, key: &FlowKey, flow: &Flow) {
        let lines = Mapped::open(&self.instance.pins(), "flows").unwrap();
        let geometry = plane.maps().geometry.get(&0, 0).unwrap();
        assert_eq!(geometry.homes, flow_table::homes(lines.entries()));
        let packet = Packet { lines, geometry };
        let made = flow_table::insert(&packet, &Hashed::new(&packet, key), flow);
        assert!(matches!(made, Ok(_) | Err(Refused::Exists)), "{made:?}");
    }

    fn is_gone(&self) -> bool {
        let files =
            ["state", "sock", "lock"].map(|kind| self.instance.socket().with_extension(kind));
        !self.instance.pins().exists() && files.iter().all(|path| !path.exists())
    }
}

/// The flow table as the data plane works on it, alone.
struct Packet {
    lines: Mapped,
    geometry: Geometry,
}

impl Memory for Packet {
    type Place = u32;

    fn place(&self, index: u32) -> Option<u32> {
        (index < self.lines.entries()).then_some(index)
    }

    fn homes(&self) -> u32 {
        self.geometry.homes
    }

    fn seeds(&self) -> [u64; 2] {
        self.geometry.seeds
    }

    fn load(&self, place: u32, word: usize) -> u64 {
        self.lines.load(place, word).unwrap()
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        self.lines.word(place, word).unwrap().store(value, Ordering::SeqCst);
    }

    fn store_created(&self, place: u32, created: u32) {
        let reach = self.load(place, REACH) & 0xffff;
        self.store(place, REACH, reach | u64::from(created) << 32);
    }

    fn swap(&self, place: u32, word: usize, old: u64, new: u64) -> bool {
        let word = self.lines.word(place, word).unwrap();
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn set_bits(&self, place: u32, word: usize, bits: u64) {
        self.lines.word(place, word).unwrap().fetch_or(bits, Ordering::SeqCst);
    }

    fn clear_bits(&self, place: u32, word: usize, bits: u64) {
        self.lines.word(place, word).unwrap().fetch_and(!bits, Ordering::SeqCst);
    }

    fn lock(&self, _stripe: u32) -> bool {
        true
    }

    fn unlock(&self, _stripe: u32) {}
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _removed = plane::down(&self.instance);
    }
}

fn config(text: &str) -> Config {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("plane-{}-{}.toml", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path: PathBuf = std::env::temp_dir().join(name);
    fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    fs::remove_file(&path).unwrap();
    config
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn forwarding() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

/// Runs a test in a namespace with `lan0` (10.9.0.1) and `wan0` (203.0.113.1), whose peers are
/// `lan1` and `wan1` in the same namespace.
fn within<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Lab) -> F + Send) {
    if !geteuid().is_root() {
        eprintln!("SKIPPED {name}: needs root");
        return;
    }
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for (side, address) in [("lan", "10.9.0.1/24"), ("wan", "203.0.113.1/24")] {
                ip(&format!("link add {side}0 type veth peer name {side}1"));
                ip(&format!("addr add {address} dev {side}0"));
                ip(&format!("link set {side}0 up"));
                ip(&format!("link set {side}1 up"));
            }
            let instance = format!("{name}-{}", std::process::id()).parse().unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(Lab { instance }));
        };
        scope.spawn(run).join().unwrap();
    });
}

/// Waits for a condition, with the upkeep of an agent in between.
async fn until(plane: &mut Plane, what: &str, mut done: impl FnMut(&mut Plane) -> bool) {
    for _ in 0..400 {
        if done(plane) {
            return;
        }
        let wait = tokio::time::timeout(Duration::from_millis(25), plane.event());
        if let Ok(event) = wait.await {
            plane.handle(event).await.unwrap();
        }
        plane.sweep_step(clock::now()).unwrap();
    }
    panic!("{what}: not within 10 s");
}

#[test]
fn a_start_attaches_then_forwards_and_a_stop_leaves_nothing() {
    within("start", |lab| async move {
        assert_eq!(forwarding(), "0");
        let plane = lab.start(Mode::Auto).await;
        let links = lab.links();
        let programs: Vec<&str> =
            links.iter().map(|name| name.split_once('_').unwrap().1).collect();
        let mut programs = programs;
        programs.sort_unstable();
        assert_eq!(programs, ["tc_inside", "tc_outside", "tc_outside_egress"]);
        assert!(plane.interfaces().iter().all(|interface| {
            interface.mode == InterfaceMode::Tc && interface.reason.starts_with("veth")
        }));
        assert_eq!(forwarding(), "1");
        assert_eq!(plane.address_of("wan0"), Some(PUBLIC));
        assert_eq!(plane.maps().layout.get(&0, 0).unwrap(), layout::VERSION);
        // In the high half the number of the address, plus one.
        assert_eq!(plane.maps().addresses.get(&PUBLIC.octets(), 0).unwrap(), 0x1_0002);
        assert_eq!(plane.maps().addresses.get(&[10, 9, 0, 1], 0).unwrap(), 1);
        plane.stop(false).unwrap();
        assert!(lab.is_gone());
        assert_eq!(forwarding(), "0");
    });
}

#[test]
fn a_dead_agent_changes_nothing_and_down_removes_all_of_it_once() {
    within("dead", |lab| async move {
        drop(lab.start(Mode::Tc).await);
        assert_eq!(lab.links().len(), 3);
        assert_eq!(forwarding(), "1");
        let removed = plane::down(&lab.instance).unwrap();
        assert_eq!(removed.links, 3);
        assert!(lab.is_gone());
        assert_eq!(forwarding(), "0");
        assert_eq!(plane::down(&lab.instance).unwrap(), plane::Removed::default());
    });
}

#[test]
fn a_successor_keeps_links_and_flows_and_brings_its_own_programs() {
    within("takeover", |lab| async move {
        for mode in [Mode::Xdp, Mode::Xdp, Mode::Tc] {
            let plane = lab.start(mode).await;
            let names = lab.links();
            assert_eq!(names.len(), if mode == Mode::Xdp { 5 } else { 3 });
            let before: Vec<_> = names.iter().map(|name| lab.link(name)).collect();
            let (key, flow) = flow(clock::now().seconds());
            lab.insert(&plane, &key, &flow);
            plane.stop(true).unwrap();
            assert_eq!(forwarding(), "1");
            let plane = lab.start(mode).await;
            for (name, (link, program)) in names.iter().zip(before) {
                let (link_now, program_now) = lab.link(name);
                assert_eq!(link, link_now, "{name}");
                assert_ne!(program, program_now, "{name}");
            }
            let found = plane.maps().flows.find(&key).unwrap();
            assert_eq!((found.key(), found.flow().rewrite()), (key, flow.rewrite()));
        }
        plane::down(&lab.instance).unwrap();
        assert_eq!(forwarding(), "0");
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    within("conflict", |lab| async move {
        let plane = lab.start(Mode::Tc).await;
        let running = Plane::start(&lab.options(Mode::Tc)).await.unwrap_err();
        assert!(running.to_string().contains("is running already"), "{running}");
        assert_eq!(running.exit(), Exit::Conflict);
        let other = Lab { instance: format!("{}-b", lab.instance).parse().unwrap() };
        let taken = Plane::start(&other.options(Mode::Tc)).await.unwrap_err();
        let text = taken.to_string();
        assert!(text.contains(lab.instance.as_str()) && text.contains("wan0"), "{text}");
        assert_eq!(taken.exit(), Exit::Conflict);
        assert!(other.is_gone());
        let running = plane::down(&lab.instance).unwrap_err();
        assert_eq!(running.exit(), Exit::Conflict);

        drop(plane);
        let mut smaller = lab.options(Mode::Tc);
        smaller.config = config("[limits]\nflows = 2048\nexpectations = 256\n");
        let sizes = Plane::start(&smaller).await.unwrap_err();
        assert!(sizes.to_string().contains("flows has 12394 entries"), "{sizes}");
        assert_eq!(lab.links().len(), 3);

        let mut absent = lab.options(Mode::Tc);
        absent.wan = vec!["wan9".to_owned()];
        let absent = Plane::start(&absent).await.unwrap_err();
        assert!(matches!(absent, PlaneError::NotFound(_)), "{absent}");
    });
}

#[test]
fn maps_of_another_layout_are_not_touched() {
    within("layout", |lab| async move {
        let mut plane = lab.start(Mode::Tc).await;
        plane.maps_mut().layout.set(0, layout::VERSION + 1, 0).unwrap();
        drop(plane);
        let other = Plane::start(&lab.options(Mode::Tc)).await.unwrap_err();
        assert!(other.to_string().contains("down"), "{other}");
        assert_eq!(lab.links().len(), 3);
        // Half-made maps have no version yet.
        let path = lab.instance.pins().join("layout");
        fs::remove_file(path).unwrap();
        let plane = lab.start(Mode::Tc).await;
        assert_eq!(plane.maps().layout.get(&0, 0).unwrap(), layout::VERSION);
    });
}

#[test]
fn what_is_over_is_swept_and_what_is_in_use_stays() {
    within("sweep", |lab| async move {
        let mut plane = lab.start(Mode::Tc).await;
        let now = clock::now().seconds();
        let (live, dead) = (flow(now), flow(0));
        let at = |port| Endpoint::new(TCP, PUBLIC.octets(), Port::new(port));
        let routed = Endpoint::new(TCP, [198, 51, 100, 200], Port::new(7002));
        let owner = |kind| PortOwner::new(kind, HOST, Port::new(5000));
        let mut session = Session::default();
        session.claimed = 1;
        session.open(&live.0, &live.0.answer(live.1.rewrite()), RuleId::NONE, 0);
        let place = 77;
        {
            let other = FlowKey::new(Zone::Inside, TCP, HOST, Port::new(9), HOST, Port::new(10));
            lab.insert(&plane, &live.0, &live.1);
            lab.insert(&plane, &other, &dead.1);
            let maps = plane.maps_mut();
            assert!(maps.ports.claim(&live_endpoint(), &owner(Owner::Masquerade)).unwrap());
            assert!(maps.ports.claim(&at(7000), &owner(Owner::Masquerade)).unwrap());
            assert!(maps.ports.claim(&at(7001), &owner(Owner::Expectation)).unwrap());
            assert!(maps.ports.claim(&routed, &owner(Owner::Expectation)).unwrap());
            assert_eq!(maps.ports.owner(&routed).unwrap(), Some(owner(Owner::Expectation)));
            assert_eq!(maps.ports.others().unwrap().len(), 1);
            assert!(!maps.ports.claim(&at(7001), &owner(Owner::Masquerade)).unwrap());
            maps.sessions.set(place, &session);
        }
        let mut ended = vec![];
        for _ in 0..400 {
            if let Some(report) = plane.sweep_step(clock::now()).unwrap() {
                ended.extend(report.ended);
            }
            let count = plane.maps().ports.all().unwrap().len();
            if count == 1 && !ended.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ended, [SessionId::new(place)]);
        let maps = plane.maps();
        assert_eq!(maps.sessions.get(place), None);
        assert_eq!(maps.flows.used(), 1);
        assert!(maps.flows.find(&live.0).is_some());
        // Nobody's note is left at a port that a flow uses.
        let left = maps.ports.all().unwrap();
        assert_eq!(left, [(live_endpoint(), owner(Owner::Masquerade))]);
        let mut inspector = Inspector::open(&lab.instance).unwrap();
        let views = inspector.flows(&FlowFilter::default()).unwrap();
        assert_eq!(views.len(), 1);
        assert_eq!((views[0].original.dport, views[0].state.as_str()), (80, "syn-sent"));
        assert_eq!(inspector.status(0).unwrap().flows.used, 1);
        assert_eq!(inspector.status(0).unwrap().ports.used, 1);
        assert_eq!(inspector.delete_flows(&FlowFilter::of_rule("web")).unwrap(), 0);
        assert_eq!(inspector.delete_flows(&FlowFilter::default()).unwrap(), 1);
        assert_eq!(plane.maps().flows.used(), 0);
    });
}

#[test]
fn addresses_and_interfaces_are_followed() {
    within("follow", |lab| async move {
        let mut plane = lab.start(Mode::Tc).await;
        let before = plane.interfaces()[0].index;
        ip("addr add 192.0.2.9/24 dev wan0");
        ip("addr del 203.0.113.1/24 dev wan0");
        until(&mut plane, "the new address", |plane| {
            plane.address_of("wan0") == Some(Ipv4Addr::new(192, 0, 2, 9))
        })
        .await;
        assert!(plane.maps().addresses.get(&PUBLIC.octets(), 0).is_err());
        ip("link del wan0");
        ip("link add wan0 type veth peer name wan1");
        ip("addr add 203.0.113.1/24 dev wan0");
        ip("link set wan0 up");
        until(&mut plane, "the new interface", |plane| {
            plane.address_of("wan0") == Some(PUBLIC) && plane.interfaces()[0].index != before
        })
        .await;
        let index = plane.interfaces()[0].index;
        assert_eq!(
            plane.maps().interfaces.get(&index, 0).unwrap().public(),
            Some((PUBLIC.octets(), 0))
        );
        assert!(plane.maps().interfaces.get(&before, 0).is_err());
        assert_eq!(lab.links().len(), 3);
    });
}

#[test]
fn rules_are_put_in_force_by_difference() {
    within("rules", |lab| async move {
        let mut plane = lab.start(Mode::Tc).await;
        let rule = |name: &str, port: u16, allow: &str| {
            let draft = format!(
                r#"{{"name":"{name}","protocol":"tcp","public":"wan0:{port}",
                    "to":"10.9.0.2:{port}","allow":["{allow}"]}}"#
            );
            let draft: ForwardDraft = serde_json::from_str(&draft).unwrap();
            Rule::Forward(draft.finish().unwrap())
        };
        let (web, mail) = (rule("web", 80, "any"), rule("mail", 25, "198.51.100.0/24"));
        let at = |port| Endpoint::new(TCP, PUBLIC.octets(), Port::new(port));
        let busy = PortOwner::new(Owner::Masquerade, HOST, Port::new(1));
        assert!(plane.maps_mut().ports.claim(&at(25), &busy).unwrap());
        let both = lab.rules(&[web.clone(), mail]);
        assert_eq!(plane.apply(both.rules()).unwrap(), [at(25)]);
        let maps = plane.maps();
        assert_eq!(maps.forwards.get(&at(80), 0).unwrap().filter(), 0);
        assert_ne!(maps.forwards.get(&at(25), 0).unwrap().filter(), 0);
        assert_eq!(maps.allowed.keys().count(), 1);
        let owner = |plane: &Plane, port| plane.maps().ports.owner(&at(port)).unwrap().unwrap();
        assert_eq!(owner(&plane, 80).owner(), Some(Owner::Forward));
        assert_eq!(owner(&plane, 25), busy);
        assert!(plane.maps_mut().ports.release(&at(25), &busy).unwrap());
        plane.tend().await.unwrap();
        assert_eq!(owner(&plane, 25).owner(), Some(Owner::Forward));
        assert!(plane.apply(lab.rules(&[web]).rules()).unwrap().is_empty());
        let maps = plane.maps();
        assert_eq!(maps.forwards.keys().map(Result::unwrap).collect::<Vec<_>>(), [at(80)]);
        assert_eq!(maps.allowed.keys().count(), 0);
        assert_eq!(maps.ports.all().unwrap().len(), 1);
    });
}

/// The original record of a masqueraded connection, last used at `then`.
fn flow(then: u32) -> (FlowKey, Flow) {
    let remote = [198, 51, 100, 7];
    let key = FlowKey::new(Zone::Inside, TCP, HOST, Port::new(5000), remote, Port::new(80));
    let out = Rewrite::source(&key, PUBLIC.octets(), Port::new(6000));
    (key, Flow::new(Direction::Original, out, Made::Rule(RuleId::NONE), then))
}

fn live_endpoint() -> Endpoint {
    Endpoint::new(TCP, PUBLIC.octets(), Port::new(6000))
}
