//! The flow table grows under traffic, on a real kernel: a host asks a server through the gateway all
//! the time, and each of its flows has to go on.
//!
//! Host, gateway and server have a network namespace each, that ends with the thread that made it.
//! Without root nothing can be tested; the tests say so and pass.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    env, fs,
    future::Future,
    io::{BufRead as _, BufReader, ErrorKind},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya::maps::{MapData, MapInfo, loaded_maps};
use nat_common::{
    counter::Counter,
    flow::{FlowKey, UDP, Zone},
    port::Port,
    reason::Reason,
};
use nat_ctl::{
    config::Config,
    options::{Instance, Mode, RunOptions},
    plane::{self, Plane, clock},
    rules::RuleStore,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{geteuid, gettid},
};

const HOST: [u8; 4] = [10, 9, 0, 2];
const SERVER: [u8; 4] = [203, 0, 113, 9];
/// Ports of the host and of the server; each two of them are a flow.
const FROM: u16 = 20_000;
const TO: u16 = 7000;
const SERVICES: usize = 16;

/// A network namespace, in which a thread does what it is told.
struct Place {
    thread: i32,
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Place {
    fn new() -> Self {
        let (jobs, orders) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid().as_raw()).unwrap();
            orders.into_iter().for_each(|job| job());
        });
        Self { thread: told.recv().unwrap(), jobs }
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.jobs.send(Box::new(move || tell.send(job()).unwrap())).unwrap();
        told.recv().unwrap()
    }

    fn ip(&self, arguments: &'static str) {
        self.run(move || ip(arguments));
    }
}

fn ip(arguments: &str) {
    command("ip", arguments);
}

fn command(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "{program} {arguments}");
}

/// The links of a gateway, in the namespace of this thread.
fn links() {
    for (side, address) in [("lan", "10.9.0.1/24"), ("wan", "203.0.113.1/24")] {
        ip(&format!("link add {side}0 type veth peer name {side}1"));
        ip(&format!("addr add {address} dev {side}0"));
        ip(&format!("link set {side}0 up"));
    }
}

/// A gateway to be.
struct Lab {
    instance: Instance,
}

impl Lab {
    fn new(name: &str) -> Self {
        Self { instance: format!("{name}-{}", std::process::id()).parse().unwrap() }
    }

    async fn start(&self, mode: Mode, first: u32) -> Plane {
        let file = |kind| std::env::temp_dir().join(format!("{}.{kind}", self.instance));
        let path: PathBuf = file("toml");
        fs::write(&path, "[limits]\nflows = 65536\nexpectations = 256\n").unwrap();
        let config = Config::load(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let options = RunOptions {
            instance: self.instance.clone(),
            wan: vec!["wan0".to_owned()],
            lan: vec!["lan0".to_owned()],
            mode,
            config,
            config_file: None,
            rules: RuleStore::open(file("rules.json"), &[], &[], &|_| None).unwrap(),
            persist: false,
            metrics: None,
            verbose: 0,
        };
        Plane::start_with(&options, first).await.unwrap()
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.instance.pins().join(name)
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.pin(from), self.pin(to)).unwrap();
    }

    /// Pins an empty table for so many flows under this name: that of another gateway.
    fn pin_table(&self, flows: u32, name: &str) {
        let other = Lab::new(&format!("{}-other", self.instance));
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            links();
            runtime().block_on(async { drop(other.start(Mode::Tc, flows).await) });
            MapData::from_pin(other.pin("flows")).unwrap().pin(self.pin(name)).unwrap();
            plane::down(&other.instance).unwrap();
        };
        thread::scope(|scope| scope.spawn(make).join().unwrap());
    }

    fn tables(&self) -> Vec<&str> {
        let names = ["flows", "flows_before", "flows_new"];
        names.into_iter().filter(|name| self.pin(name).exists()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _removed = plane::down(&self.instance);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A host that asks without end, and sees whether its flows go on.
struct Traffic {
    wanted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    rounds: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    host: Option<JoinHandle<()>>,
    /// These end with their threads.
    _places: [Place; 2],
}

impl Traffic {
    fn start(host: Place, server: Place) -> Self {
        let counter = || Arc::new(AtomicUsize::new(0));
        let (wanted, open, rounds, lost) = (counter(), counter(), counter(), counter());
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        server.run(move || {
            for service in 0..SERVICES {
                let socket = UdpSocket::bind(("0.0.0.0", TO + service as u16)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let ended = ended.clone();
                thread::spawn(move || serve(&socket, &ended));
            }
        });
        let asker = Asker {
            wanted: wanted.clone(),
            open: open.clone(),
            rounds: rounds.clone(),
            lost: lost.clone(),
            stop: stop.clone(),
            sockets: vec![],
            ports: vec![],
        };
        let thread = host.run(move || thread::spawn(move || asker.ask_on()));
        Self { wanted, open, rounds, lost, stop, host: Some(thread), _places: [host, server] }
    }

    /// Opens flows up to so many, and waits until all of them have been answered after that.
    async fn grow_to(&self, plane: &mut Plane, lines: &mut Vec<String>, flows: usize) {
        self.wanted.store(flows, SeqCst);
        until(plane, lines, "the flows", |_| self.open.load(SeqCst) == flows).await;
        self.see_all(plane, lines).await;
    }

    async fn see_all(&self, plane: &mut Plane, lines: &mut Vec<String>) {
        let seen = self.rounds.load(SeqCst);
        until(plane, lines, "two rounds", |_| self.rounds.load(SeqCst) > seen + 1).await;
    }

    /// Ends it; a flow that did not go on fails here.
    fn end(mut self) -> usize {
        self.stop.store(true, SeqCst);
        self.host.take().unwrap().join().unwrap();
        self.lost.load(SeqCst)
    }
}

/// Answers with the port from which the question came.
fn serve(socket: &UdpSocket, ended: &AtomicBool) {
    let mut buffer = [0; 16];
    while !ended.load(SeqCst) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&peer.port().to_be_bytes(), peer).unwrap();
        }
    }
}

struct Asker {
    wanted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    rounds: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    sockets: Vec<UdpSocket>,
    /// The public port of each flow.
    ports: Vec<u16>,
}

impl Asker {
    fn ask_on(mut self) {
        let mut next = 0;
        while !self.stop.load(SeqCst) {
            let number = self.ports.len();
            if number < self.wanted.load(SeqCst) {
                let port = self.ask(number);
                self.ports.push(port);
                self.open.store(number + 1, SeqCst);
                // Old ones go on while new ones are opened.
            }
            if !self.ports.is_empty() {
                let port = self.ask(next);
                assert_eq!(port, self.ports[next], "flow {next} has got another public port");
                next = (next + 1) % self.ports.len();
                self.rounds.fetch_add(usize::from(next == 0), SeqCst);
            } else {
                thread::yield_now();
            }
        }
    }

    /// The public port that the server sees for a flow.
    fn ask(&mut self, flow: usize) -> u16 {
        let (from, to) = (flow / SERVICES, TO + (flow % SERVICES) as u16);
        while self.sockets.len() <= from {
            let port = FROM + self.sockets.len() as u16;
            let socket = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            self.sockets.push(socket);
        }
        let socket = &self.sockets[from];
        let server = (std::net::Ipv4Addr::from(SERVER), to);
        for _ in 0..100 {
            socket.send_to(b"which?", server).unwrap();
            let mut answer = [0; 2];
            let end = clock::moment() + Duration::from_millis(100);
            while clock::moment() < end {
                match socket.recv_from(&mut answer) {
                    Ok((2, peer)) if peer.port() == to => return u16::from_be_bytes(answer),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            self.lost.fetch_add(1, SeqCst);
        }
        panic!("flow {flow} has had no answer for 10 s");
    }
}

/// Waits for a condition, with the upkeep of an agent in between.
async fn until(
    plane: &mut Plane,
    lines: &mut Vec<String>,
    what: &str,
    mut done: impl FnMut(&mut Plane) -> bool,
) {
    let end = clock::moment() + Duration::from_secs(60);
    while clock::moment() < end {
        if done(plane) {
            return;
        }
        let wait = tokio::time::timeout(Duration::from_millis(25), plane.event());
        if let Ok(event) = wait.await {
            plane.handle(event).await.unwrap();
        }
        plane.beat(clock::now()).unwrap();
        lines.extend(plane.grow_step(clock::now()).unwrap());
        plane.sweep_step(clock::now()).unwrap();
    }
    panic!("{what}: not within 60 s");
}

/// All flows are in the table, each once and with its counters.
fn check(plane: &Plane, flows: usize) {
    let table = &plane.maps().flows;
    for flow in 0..flows {
        let (from, to) = (FROM + (flow / SERVICES) as u16, TO + (flow % SERVICES) as u16);
        let key = FlowKey::new(Zone::Inside, UDP, HOST, Port::new(from), SERVER, Port::new(to));
        let pair = table.pair(table.find(&key).unwrap()).unwrap();
        let answer = pair.answer.unwrap();
        assert!(pair.first.packets() > 2 && answer.packets() > 2, "{pair:?}");
        assert_eq!(pair.first.bytes() / pair.first.packets(), 34);
    }
    assert_eq!(table.used(), 2 * flows as u64);
}

fn drops(plane: &Plane) -> [u64; 2] {
    [Reason::FlowBusy, Reason::TableFull].map(|reason| plane.maps().dropped(reason).unwrap())
}

/// Runs a test in the namespace of a gateway between a host and a server.
fn within<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Lab, Traffic) -> F + Send) {
    if !geteuid().is_root() {
        eprintln!("SKIPPED {name}: needs root");
        return;
    }
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            links();
            let (host, server) = (Place::new(), Place::new());
            ip(&format!("link set lan1 netns {}", host.thread));
            ip(&format!("link set wan1 netns {}", server.thread));
            host.ip("addr add 10.9.0.2/24 dev lan1");
            host.ip("link set lan1 up");
            host.ip("route add default via 10.9.0.1");
            server.ip("addr add 203.0.113.9/24 dev wan1");
            server.ip("link set wan1 up");
            // XDP redirects to a veth only while its peer polls.
            host.run(|| command("ethtool", "-K lan1 gro on"));
            server.run(|| command("ethtool", "-K wan1 gro on"));
            let lab = Lab::new(name);
            runtime().block_on(test(lab, Traffic::start(host, server)));
        };
        scope.spawn(run).join().unwrap();
    });
}

async fn grow_under_traffic(lab: Lab, traffic: Traffic, mode: Mode) {
    let mut plane = lab.start(mode, 512).await;
    let mut lines = vec![];
    traffic.grow_to(&mut plane, &mut lines, 180).await;
    assert!(lines.is_empty(), "{lines:?}");
    for (flows, grown) in [(240, "from 512 to 8192 "), (3400, "from 8192 to 65536 ")] {
        lines.clear();
        let old = MapInfo::from_pin(lab.pin("flows")).unwrap().id();
        let places = plane.maps().flows.places();
        traffic.grow_to(&mut plane, &mut lines, flows).await;
        until(&mut plane, &mut lines, "the growth", |plane| {
            plane.maps().flows.places() > places && lab.tables() == ["flows"]
        })
        .await;
        assert!(lines.len() == 1 && lines[0].contains(grown), "{lines:?}");
        // Its memory is given back.
        until(&mut plane, &mut lines, "the end of the smaller table", |_| {
            loaded_maps().flatten().all(|map| map.id() != old)
        })
        .await;
        traffic.see_all(&mut plane, &mut lines).await;
        println!("{mode:?}: {} flow-busy, table-full: {:?}", lines[0], drops(&plane));
    }
    check(&plane, 3400);
    assert_eq!(drops(&plane)[1], 0);
    let hooks = [Counter::Xdp, Counter::Tc].map(|hook| plane.maps().counted(hook).unwrap());
    assert_eq!(hooks[0] > hooks[1], mode == Mode::Xdp, "packets by XDP and TC: {hooks:?}");
    println!("{mode:?}: by XDP and TC: {hooks:?}");
    println!("{mode:?}: {} questions had no answer", traffic.end());
    plane.stop(false).unwrap();
    assert!(!lab.instance.pins().exists());
}

#[test]
fn no_flow_is_lost_while_the_table_grows_in_tc() {
    within("grow-tc", |lab, traffic| grow_under_traffic(lab, traffic, Mode::Tc));
}

#[test]
fn no_flow_is_lost_while_the_table_grows_in_xdp() {
    within("grow-xdp", |lab, traffic| grow_under_traffic(lab, traffic, Mode::Xdp));
}

#[test]
fn a_successor_undoes_or_ends_a_growth_that_its_predecessor_died_in() {
    within("grow-dead", |lab, traffic| async move {
        let mut lines = vec![];
        let mut plane = lab.start(Mode::Xdp, 512).await;
        traffic.grow_to(&mut plane, &mut lines, 180).await;
        let small = plane.maps().flows.places();
        drop(plane);

        // The larger table was there, in use by nobody.
        lab.pin_table(2048, "flows_new");
        let mut plane = lab.start(Mode::Xdp, 512).await;
        assert_eq!((lab.tables(), plane.maps().flows.places()), (vec!["flows"], small));
        traffic.see_all(&mut plane, &mut lines).await;
        check(&plane, 180);
        drop(plane);

        // Half of the pins were shifted.
        lab.pin_table(2048, "flows_new");
        lab.rename("flows", "flows_before");
        let mut plane = lab.start(Mode::Tc, 512).await;
        assert_eq!((lab.tables(), plane.maps().flows.places()), (vec!["flows"], small));
        traffic.see_all(&mut plane, &mut lines).await;
        check(&plane, 180);
        drop(plane);

        // All of them were; the programs still use the smaller table.
        lab.pin_table(2048, "flows_new");
        lab.rename("flows", "flows_before");
        lab.rename("flows_new", "flows");
        let mut plane = lab.start(Mode::Xdp, 512).await;
        assert_eq!(lab.tables(), ["flows", "flows_before"]);
        until(&mut plane, &mut lines, "the end of the growth", |_| lab.tables() == ["flows"]).await;
        assert!(plane.maps().flows.places() > small);
        traffic.see_all(&mut plane, &mut lines).await;
        check(&plane, 180);

        // It ended in the middle of a growth, wherever that was.
        traffic.grow_to(&mut plane, &mut lines, 1300).await;
        assert_eq!(drops(&plane)[1], 0);
        plane.stop(true).unwrap();
        assert!(!lab.pin("flows_new").exists());
        let mut plane = lab.start(Mode::Xdp, 512).await;
        until(&mut plane, &mut lines, "the end of the growth", |plane| {
            plane.maps().flows.places() > 20_000 && lab.tables() == ["flows"]
        })
        .await;
        traffic.see_all(&mut plane, &mut lines).await;
        check(&plane, 1300);
        println!("{} questions had no answer", traffic.end());
    });
}

#[test]
fn no_flow_is_lost_for_which_the_larger_table_has_no_room() {
    within("grow-full", |lab, traffic| async move {
        let mut lines = vec![];
        let mut plane = lab.start(Mode::Xdp, 512).await;
        traffic.grow_to(&mut plane, &mut lines, 180).await;
        drop(plane);

        // A table that was filled while flows were on their way to it is as one that is too small.
        lab.pin_table(32, "flows_new");
        lab.rename("flows", "flows_before");
        lab.rename("flows_new", "flows");
        let mut plane = lab.start(Mode::Xdp, 512).await;
        let has_moved = |plane: &mut Plane| plane.maps().flows.used() > 32;
        until(&mut plane, &mut lines, "a full table", has_moved).await;
        let busy = drops(&plane)[0];
        for _ in 0..10 {
            traffic.see_all(&mut plane, &mut lines).await;
        }
        let before = plane.maps().before.as_ref().unwrap();
        assert_eq!(before.used() + plane.maps().flows.used(), 2 * 180);
        assert!(before.used() > 0);
        assert_eq!((lab.tables(), lines), (vec!["flows", "flows_before"], Vec::<String>::new()));
        // Packets of these flows meet the mover at times; new ones are refused by a count.
        println!("{} flow-busy in 20 rounds of 180 flows", drops(&plane)[0] - busy);
        let refused = drops(&plane)[1];
        traffic.wanted.store(181, SeqCst);
        until(&mut plane, &mut vec![], "a refusal", |plane| drops(plane)[1] > refused).await;
        plane.stop(false).unwrap();
        drop(traffic);
    });
}

/// Names the instance of [`an_agent_that_is_killed`].
const KILLED: &str = "NAT_TEST_KILLED";

/// What it says when packets flow.
const READY: &str = "packets flow";

/// Not a test: the process that [`a_successor_goes_on_after_a_kill_at_any_moment`] kills. Without it
/// there is nothing to do.
#[test]
fn an_agent_that_is_killed() {
    let Ok(name) = env::var(KILLED) else { return };
    let lab = Lab { instance: name.parse().unwrap() };
    runtime().block_on(async {
        let mut plane = lab.start(Mode::Xdp, 512).await;
        println!("{READY}");
        let mut lines = vec![];
        loop {
            // What it is waited for is its end.
            let seconds = clock::now();
            until(&mut plane, &mut lines, "a second", |_| clock::now() > seconds).await;
        }
    });
}

/// Such a process, in the namespace of this thread; killed with this guard.
struct Agent(Child);

impl Agent {
    fn start(lab: &Lab) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--nocapture", "--exact", "an_agent_that_is_killed"]);
        command.env(KILLED, lab.instance.as_str()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with(READY)), "the agent ended");
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // SIGKILL (std::process::Child::kill).
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits for what the traffic and another process do.
fn wait(what: &str, done: impl Fn() -> bool) {
    let end = clock::moment() + Duration::from_secs(60);
    while !done() {
        assert!(clock::moment() < end, "{what}: not within 60 s");
        thread::sleep(Duration::from_micros(100));
    }
}

/// The pin by which a phase is known, and how many milliseconds after it the agent is killed.
type Moment = (&'static str, u64);

#[test]
fn a_successor_goes_on_after_a_kill_in_each_phase() {
    killed(&[("flows_new", 0), ("flows_before", 0), ("flows_before", 100)]);
}

#[test]
#[ignore = "two minutes: `cargo test -p nat-ctl --test growth -- --ignored`"]
fn a_successor_goes_on_after_a_kill_at_any_moment() {
    let begun = [("flows_new", 0), ("flows_new", 200), ("flows_before", 0)];
    let moving = [1, 5, 20, 100, 300, 600].map(|late| ("flows_before", late));
    killed(&[&begun[..], &moving].concat());
}

fn killed(moments: &[Moment]) {
    const FLOWS: usize = 240;
    for (number, &(pin, late)) in moments.iter().enumerate() {
        within(&format!("grow-kill{number}"), |lab, traffic| async move {
            let agent = Agent::start(&lab);
            traffic.wanted.store(FLOWS, SeqCst);
            wait(pin, || lab.pin(pin).exists());
            thread::sleep(Duration::from_millis(late));
            drop(agent);
            let left = lab.tables().join(" ");

            let mut lines = vec![];
            let mut plane = lab.start(Mode::Xdp, 512).await;
            traffic.grow_to(&mut plane, &mut lines, FLOWS).await;
            until(&mut plane, &mut lines, "the growth", |plane| {
                plane.maps().flows.places() > 2000 && lab.tables() == ["flows"]
            })
            .await;
            traffic.see_all(&mut plane, &mut lines).await;
            check(&plane, FLOWS);
            println!("killed {late} ms after {pin}: {left}; {lines:?}");
            println!("{} questions had no answer", traffic.end());
            plane.stop(false).unwrap();
        });
    }
}
