//! What becomes of FTP sessions when something fails: the table of docs/ftp.md, row by row.
//!
//! At the moment of the fault there are four sessions: one that is about to announce, one whose
//! announcement is under way, one whose announcement was rewritten (so that its numbers are shifted),
//! and an open data connection. Afterwards every line is compared byte for byte at the end that reads
//! it, each session announces once more, and its data connection has to carry bytes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    dialogue::{Dialogue, End, announced, port},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, INSIDE_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN, WAN_DEVICE},
    link::Offloads,
    netns::Lifetime,
    process, requirements,
    session::{accept, connect},
    traffic, wait,
};
use nix::sys::signal::Signal;

/// A sender repeats after 0.2 s, then twice as late each time: past 30 s of silence, within 60 s.
const LIMIT: Duration = Duration::from_secs(70);
/// For what nothing is in the way of.
const SHORT: Duration = Duration::from_secs(10);
/// A beat older than 4 seconds counts as no agent.
const STALE: Duration = Duration::from_secs(5);

/// A session of which one end is inside, that announces.
struct Announcing<'lab> {
    dialogue: Dialogue<'lab>,
    inside: End,
    listener: Option<TcpListener>,
}

impl<'lab> Announcing<'lab> {
    fn open(lab: &'lab Lab, inside: End) -> Self {
        let mut dialogue = Dialogue::open(lab, inside).expect("a dialogue");
        dialogue.log_in().expect("a login");
        Self { dialogue, inside, listener: None }
    }

    fn outside(&self) -> End {
        self.inside.other()
    }

    /// Everything before the line that announces.
    fn ask(&mut self) {
        if self.inside == End::Server {
            self.dialogue.write(End::Client, b"PASV\r\n").expect("a line");
            self.reads(End::Server, "PASV\r\n", LIMIT);
        }
    }

    fn line(&self, address: Ipv4Addr, port: u16) -> String {
        let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
        match self.inside {
            End::Client => format!("PORT {a},{b},{c},{d},{high},{low}\r\n"),
            End::Server => format!("227 Passive ({a},{b},{c},{d},{high},{low}).\r\n"),
        }
    }

    /// Writes the line that announces.
    fn announce(&mut self) {
        let listener = self.dialogue.listen(self.inside).expect("a listener");
        let line = self.line(INSIDE, port(&listener).expect("a port"));
        self.dialogue.write(self.inside, line.as_bytes()).expect("a line");
        self.listener = Some(listener);
    }

    /// The other end reads the whole line with the public address, and nothing else.
    fn is_announced(&mut self, limit: Duration) -> SocketAddrV4 {
        let seen = self.dialogue.line(self.outside(), limit).expect("the line that announces");
        let seen = String::from_utf8_lossy(&seen).into_owned();
        let to = announced(&seen, WAN).expect("an address");
        assert_eq!(seen, self.line(WAN, to.port()));
        to
    }

    /// The data connection that was announced.
    fn data(&mut self, lab: &Lab, to: SocketAddrV4) -> Data {
        let one = connect(&lab.outside, to).expect("a data connection");
        let listener = self.listener.take().expect("a listener");
        Data { one, other: accept(&listener).expect("its other end") }
    }

    /// The line has its reply, and both ends read on.
    fn settle(&mut self) {
        let reply = "200 fine\r\n";
        if self.inside == End::Client {
            self.dialogue.write(End::Server, reply.as_bytes()).expect("a reply");
            self.reads(End::Client, reply, LIMIT);
        }
    }

    /// Another announcement, from its beginning to its data connection.
    fn announces_again(&mut self, lab: &Lab) {
        self.ask();
        self.announce();
        let to = self.is_announced(LIMIT);
        self.data(lab, to).carries("again");
        self.settle();
    }

    fn reads(&mut self, end: End, wanted: &str, limit: Duration) {
        let seen = self.dialogue.line(end, limit).expect(wanted);
        assert_eq!(String::from_utf8_lossy(&seen), wanted);
    }
}

/// Lines that both ends write while something is wrong: those that pass with a copy, and others.
const TALK: [(End, &str); 6] = [
    (End::Client, "NOOP\r\n"),
    (End::Server, "200 zzz\r\n"),
    (End::Client, "STAT some file\r\n"),
    (End::Server, "211 nothing to say\r\n"),
    (End::Client, "RETR x\r\n"),
    (End::Server, "150 here it comes\r\n"),
];

/// A data connection.
struct Data {
    one: TcpStream,
    other: TcpStream,
}

impl Data {
    /// Both ways.
    fn carries(&mut self, text: &str) {
        let Self { one, other } = self;
        for _ in 0..2 {
            one.write_all(text.as_bytes()).expect("a write");
            let mut heard = vec![0; text.len()];
            other.set_read_timeout(Some(LIMIT)).expect("a limit");
            other.read_exact(&mut heard).expect("data");
            assert_eq!(String::from_utf8_lossy(&heard), text);
            std::mem::swap(one, other);
        }
    }
}

/// The sessions at the moment of a fault.
struct Phases<'lab> {
    lab: &'lab Lab,
    before: Announcing<'lab>,
    at: Announcing<'lab>,
    after: Announcing<'lab>,
    data: Data,
}

impl<'lab> Phases<'lab> {
    fn new(lab: &'lab Lab, gateway: &NatCtl<'_>, inside: End) -> Self {
        let [mut before, mut at, mut after] = [(); 3].map(|()| Announcing::open(lab, inside));
        before.ask();
        at.ask();
        after.ask();
        after.announce();
        let to = after.is_announced(SHORT);
        let mut data = after.data(lab, to);
        data.carries("before");
        after.settle();
        // Before it answers, the agent has read and kept what was said so far.
        gateway.json(&["ftp", "sessions"]).expect("sessions");
        Self { lab, before, at, after, data }
    }

    /// The one that was rewritten talks on.
    fn talk(&mut self) {
        for (end, line) in TALK {
            self.after.dialogue.write(end, line.as_bytes()).expect("a line");
        }
    }

    /// All bytes are there, each once, and all sessions go on.
    fn go_on(mut self, gateway: &NatCtl<'_>) {
        // What was in the ring comes first, and its expectation waits for 30 s.
        for announcing in [&mut self.at, &mut self.before] {
            let to = announcing.is_announced(LIMIT);
            let data = connect(&self.lab.outside, to);
            let one = data.unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
            let listener = announcing.listener.take().expect("a listener");
            Data { one, other: accept(&listener).expect("its other end") }.carries("there");
            announcing.settle();
        }
        for (end, line) in TALK {
            self.after.reads(end.other(), line, LIMIT);
        }
        self.after.dialogue.write(End::Server, b"226 done\r\n").expect("a reply");
        self.after.reads(End::Client, "226 done\r\n", LIMIT);
        self.data.carries("after");
        for announcing in [&mut self.before, &mut self.at, &mut self.after] {
            announcing.announces_again(self.lab);
        }
    }
}

/// The log is written by a thread of its own.
fn is_logged(gateway: &NatCtl<'_>, text: &str) {
    wait::until_true(SHORT, text, || Ok(gateway.output().contains(text)))
        .unwrap_or_else(|error| panic!("{error:#}: {}", gateway.output()));
}

fn start<'lab>(
    lab: &'lab Lab,
    mode: Mode,
    binary: &Path,
    inside: End,
    tables: &str,
) -> NatCtl<'lab> {
    let mut gateway = NatCtl::prepare(lab, mode, binary).expect("a gateway");
    gateway.configure(tables).expect("a configuration");
    gateway.run(&["--persist"]).expect("a start");
    if inside == End::Server {
        let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
        gateway.add(&rule).expect("a forward");
    }
    gateway
}

/// The same for a client and for a server inside; nothing of the inside leaves meanwhile.
fn with_each_end(name: &str, modes: &[Mode], check: impl Fn(&Lab, &mut NatCtl<'_>, Phases<'_>)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for &mode in modes {
        for inside in [End::Client, End::Server] {
            println!("{name}, {mode}, the {inside:?} inside");
            let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
            let mut gateway = start(&lab, mode, &binary, inside, "");
            let folder = lab.folder("capture").expect("a folder");
            let capture =
                Capture::start(&lab.outside, OUTSIDE_DEVICE, "tcp", &folder).expect("a capture");
            let phases = Phases::new(&lab, &gateway, inside);
            check(&lab, &mut gateway, phases);
            let [a, b, c, d] = INSIDE.octets();
            let private = format!("{a},{b},{c},{d}");
            let frames = capture.finish().expect("a capture");
            assert!(!frames.iter().any(|frame| frame.says(&private)), "an inside address outside");
        }
    }
}

#[test]
fn agent_that_is_killed_costs_no_byte_in_any_phase() {
    with_each_end("agent killed", &[Mode::Tc, Mode::Xdp], |_, gateway, mut phases| {
        // What is under way is in the ring, and dies with who would have read it; so do copies.
        gateway.signal(Signal::SIGSTOP).expect("a stop");
        phases.at.announce();
        phases.talk();
        thread::sleep(Duration::from_millis(300));
        gateway.end(Signal::SIGKILL).expect("a kill");
        phases.before.announce();
        phases.data.carries("dead");
        thread::sleep(STALE);
        phases.data.carries("long dead");
        gateway.run(&["--persist"]).expect("a successor");
        phases.go_on(gateway);
    });
}

#[test]
fn agent_that_is_stopped_for_three_seconds_costs_no_byte_in_any_phase() {
    with_each_end("agent stopped for 3 s", &[Mode::Tc], |_, gateway, mut phases| {
        gateway.signal(Signal::SIGSTOP).expect("a stop");
        phases.at.announce();
        phases.before.announce();
        phases.talk();
        phases.data.carries("stopped");
        thread::sleep(Duration::from_secs(3));
        gateway.signal(Signal::SIGCONT).expect("an end of the stop");
        phases.go_on(gateway);
        assert_eq!(gateway.dropped("alg-no-agent").expect("drops"), 0, "{}", gateway.diagnosis());
    });
}

#[test]
fn agent_that_is_stopped_for_thirty_seconds_costs_no_byte_in_any_phase() {
    with_each_end("agent stopped for 30 s", &[Mode::Tc], |_, gateway, mut phases| {
        gateway.signal(Signal::SIGSTOP).expect("a stop");
        phases.at.announce();
        thread::sleep(STALE);
        phases.before.announce();
        phases.talk();
        phases.data.carries("stopped");
        thread::sleep(Duration::from_secs(30) - STALE);
        phases.data.carries("still stopped");
        gateway.signal(Signal::SIGCONT).expect("an end of the stop");
        phases.go_on(gateway);
        assert!(gateway.dropped("alg-no-agent").expect("drops") > 0, "{}", gateway.diagnosis());
    });
}

/// Ends what goes on beside a test, however that ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// It works for 5 ms of each 255, so that senders repeat what it has not read.
#[test]
fn agent_that_is_slow_costs_no_byte_in_any_phase() {
    with_each_end("agent slow", &[Mode::Tc], |_, gateway, mut phases| {
        let (gateway, over) = (&*gateway, &AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    gateway.signal(Signal::SIGSTOP).expect("a stop");
                    thread::sleep(Duration::from_millis(250));
                    gateway.signal(Signal::SIGCONT).expect("an end of the stop");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let _over = Over(over);
            phases.at.announce();
            phases.before.announce();
            phases.talk();
            phases.data.carries("slow");
            phases.go_on(gateway);
        });
    });
}

#[test]
fn interface_that_flaps_costs_no_byte_in_any_phase() {
    with_each_end("flap", &[Mode::Tc, Mode::Xdp], |lab, gateway, mut phases| {
        lab.gateway.ip(&format!("link set {WAN_DEVICE} down")).expect("down");
        phases.at.announce();
        phases.before.announce();
        phases.talk();
        thread::sleep(Duration::from_secs(1));
        lab.gateway.ip(&format!("link set {WAN_DEVICE} up")).expect("up");
        phases.go_on(gateway);
    });
}

#[test]
fn address_that_is_gone_and_comes_again_costs_no_byte_in_any_phase() {
    with_each_end("address", &[Mode::Tc], |lab, gateway, mut phases| {
        lab.gateway.ip(&format!("address del {WAN}/24 dev {WAN_DEVICE}")).expect("no address");
        phases.at.announce();
        phases.before.announce();
        phases.talk();
        thread::sleep(Duration::from_secs(3));
        lab.gateway.ip(&format!("address add {WAN}/24 dev {WAN_DEVICE}")).expect("an address");
        phases.go_on(gateway);
    });
}

#[test]
fn ring_that_is_full_costs_no_byte_in_any_phase() {
    with_each_end("full ring", &[Mode::Tc], |lab, gateway, mut phases| {
        // What is replayed has to carry its whole checksum.
        lab.set_offloads(Offloads::Off).expect("offloads off");
        let folder = lab.folder("capture").expect("a folder");
        let (host, device) = match phases.at.inside {
            End::Client => (&lab.inside, INSIDE_DEVICE),
            End::Server => (&lab.outside, OUTSIDE_DEVICE),
        };
        let capture = Capture::start(host, device, "tcp port 21", &folder).expect("a capture");
        let mut flooding = Announcing::open(lab, phases.at.inside);
        let long = format!("STAT {}\r\n", "x".repeat(380));
        flooding.dialogue.write(End::Client, long.as_bytes()).expect("a line");
        flooding.reads(End::Server, &long, SHORT);
        let line = || Ok(capture.so_far()?.into_iter().find(|frame| frame.says("STAT xxx")));
        let frame = wait::until(SHORT, "the line", line).expect("the line");

        gateway.signal(Signal::SIGSTOP).expect("a stop");
        // The ring of a mebibyte holds 2,260 of them.
        traffic::send_frames(host, device, &frame.bytes, 3000).expect("a flood");
        // Asked once: past four seconds the agent counts as dead, and the ring no more.
        let before = gateway.dropped("alg-ring-full").expect("drops");
        assert!(before > 100, "{}", gateway.diagnosis());
        phases.at.announce();
        phases.before.announce();
        phases.talk();
        phases.data.carries("full");
        thread::sleep(Duration::from_millis(700));
        assert!(
            gateway.dropped("alg-ring-full").expect("drops") > before,
            "{}",
            gateway.diagnosis()
        );
        gateway.signal(Signal::SIGCONT).expect("an end of the stop");
        phases.go_on(gateway);
    });
}

#[test]
fn expectations_that_are_full_cost_a_data_connection_and_no_byte() {
    let Some(binary) = requirements::met_with_binary("full expectations") else { return };
    for inside in [End::Client, End::Server] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let gateway = start(&lab, Mode::Tc, &binary, inside, "[limits]\nexpectations = 2\n");
        let mut sessions = [(); 3].map(|()| Announcing::open(&lab, inside));
        let places = sessions.each_mut().map(|session| {
            session.ask();
            session.announce();
            let to = session.is_announced(SHORT);
            session.settle();
            to
        });
        let [first, _second, third] = &mut sessions;
        is_logged(&gateway, "write an expectation");
        let refused = lab
            .outside
            .enter(|| TcpStream::connect_timeout(&places[2].into(), Duration::from_secs(2)))
            .expect("the namespace");
        assert!(refused.is_err(), "there was no room for it");
        assert!(gateway.dropped("unsolicited").expect("drops") > 0, "{}", gateway.diagnosis());
        // One is used: there is room for one.
        first.data(&lab, places[0]).carries("room");
        third.announces_again(&lab);
    }
}

#[test]
fn state_that_is_lost_ends_a_shifted_session_at_both_ends_and_no_other() {
    let Some(binary) = requirements::met_with_binary("lost state") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let mut gateway = start(&lab, mode, &binary, End::Client, "");
        let mut phases = Phases::new(&lab, &gateway, End::Client);
        let sessions = gateway.json(&["ftp", "sessions"]).expect("sessions");
        gateway.end(Signal::SIGKILL).expect("a kill");
        let ids = sessions.as_array().expect("a list").iter().map(|it| it["id"].as_u64());
        for id in ids.map(|id| id.expect("a number") as u32) {
            let mut bpftool = lab.gateway.command("bpftool");
            bpftool.args(["map", "delete", "pinned"]).arg(gateway.pins().join("journal"));
            bpftool.arg("key").args((id - 1).to_ne_bytes().map(|byte| byte.to_string()));
            process::must(&mut bpftool).expect("a state to lose");
        }
        gateway.run(&["--persist"]).expect("a successor");
        phases.after.dialogue.write(End::Client, b"STAT a\r\n").expect("a line");
        for end in [End::Server, End::Client] {
            let error = phases.after.dialogue.line(end, SHORT).expect_err("no byte");
            assert!(format!("{error:#}").contains("reset by peer"), "the {end:?}: {error:#}");
        }
        assert!(gateway.dropped("alg-reset").expect("drops") > 0, "{}", gateway.diagnosis());
        is_logged(&gateway, "both its ends are reset");
        phases.data.carries("after");
        // Of this one nothing was rewritten: it is read from its next line on.
        phases.before.dialogue.write(End::Client, b"STAT b\r\n").expect("a line");
        phases.before.reads(End::Server, "STAT b\r\n", SHORT);
        is_logged(&gateway, "read again from the next line on");
        phases.before.announces_again(&lab);
    }
}

#[test]
fn another_address_ends_what_it_cannot_carry_and_corrupts_nothing() {
    let Some(binary) = requirements::met_with_binary("another address") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let gateway = start(&lab, Mode::Tc, &binary, End::Client, "");
    let mut phases = Phases::new(&lab, &gateway, End::Client);
    let other = Ipv4Addr::new(203, 0, 113, 77);
    lab.gateway.ip(&format!("address del {WAN}/24 dev {WAN_DEVICE}")).expect("no address");
    lab.gateway.ip(&format!("address add {other}/24 dev {WAN_DEVICE}")).expect("another");
    phases.after.dialogue.write(End::Client, b"STAT a\r\n").expect("a line");
    // What arrives at all arrives as it was written.
    if let Ok(seen) = phases.after.dialogue.line(End::Server, Duration::from_secs(3)) {
        assert_eq!(String::from_utf8_lossy(&seen), "STAT a\r\n");
    }
    is_logged(&gateway, &format!("public address of {WAN_DEVICE}: {other}"));
    let mut fresh = Announcing::open(&lab, End::Client);
    fresh.announce();
    let seen = fresh.dialogue.line(End::Server, SHORT).expect("the line");
    let to = announced(&String::from_utf8_lossy(&seen), OUTSIDE).expect("an address");
    assert_eq!(*to.ip(), other, "{}", gateway.diagnosis());
    fresh.data(&lab, to).carries("new");
}
