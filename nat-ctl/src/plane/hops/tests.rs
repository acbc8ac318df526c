//! The kernel's own messages, in a namespace of each test's own. Without root nothing can be tested;
//! the tests say so and pass.

use super::*;
use crate::plane::neighbours::{Key, LinkAddress};
use nat_common::{
    hop::{EPOCH, HOPS, Hop, Link, WHO},
    record::FlowRecord,
};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
    unistd::geteuid,
};
use std::{io::Write as _, process::Command, sync::atomic::Ordering, thread};

const INDEX: u32 = 17;
const FIRST: LinkAddress = [2, 0, 0, 0, 0, 1];
const SECOND: LinkAddress = [2, 0, 0, 0, 0, 2];
const OWN: LinkAddress = [2, 0, 0, 0, 0, 9];
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `test` on a thread in a namespace with a device `one`, and a hop to a host behind it.
fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F + Send) {
    if !geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "SKIPPED next hops: missing root");
        return;
    }
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        ip("link add one address 02:00:00:00:00:09 type veth peer name one-far");
        ip("link add two type veth peer name two-far");
        ip("link set one-far up");
        ip("link set two-far up");
        ip("address add 203.0.113.1/24 dev one");
        ip("link set one up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let map = Mapped::anonymous(HOPS, size_of::<Hop>() as u32);
            let key = Key { ifindex: index_of("one"), address: [203, 0, 113, 10] };
            let place = map.entry(INDEX).unwrap();
            place[WHO].store(Hop::who(key.address, key.ifindex), Ordering::Release);
            let flows = Mapped::anonymous(64, size_of::<FlowRecord>() as u32);
            let hops = Hops::of(map, flows, 0).unwrap();
            test(Bench { hops, key, moves: 0 }).await;
        });
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

struct Bench {
    hops: Hops,
    key: Key,
    moves: u32,
}

impl Bench {
    fn hop(&self) -> Hop {
        let place = self.hops.keeper.memory().entry(INDEX).unwrap();
        Hop::from_words([0, 1, 2, 3].map(|word: usize| place[word].load(Ordering::Acquire)))
    }

    fn link(&self) -> Option<Link> {
        self.hop().link()
    }

    /// What the agent's loop does, once.
    async fn turn(&mut self) {
        self.hops.ready().await;
        if self.hops.work().unwrap() {
            self.moves += 1;
            self.hops.moved();
        }
    }

    /// Works until something is true.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = clock::moment();
        while !condition(self) {
            let rest = LIMIT.saturating_sub(clock::moment() - start);
            assert!(tokio::time::timeout(rest, self.turn()).await.is_ok(), "in vain: {what}");
        }
    }

    /// Works until the epoch has moved on for the sake of what `words` change, and until what
    /// follows from it has come as well.
    async fn moves_for(&mut self, words: &str) {
        let before = self.moves;
        ip(words);
        self.until(words, |this| this.moves > before).await;
        self.settle().await;
    }

    /// Works until there is nothing to do for a while.
    async fn settle(&mut self) {
        while tokio::time::timeout(Duration::from_millis(30), self.turn()).await.is_ok() {}
    }

    fn neighbour(&self, address: [u8; 4], link: LinkAddress) -> Vec<u8> {
        message::set_neighbour(&Key { address, ..self.key }, link)
    }

    fn send(&mut self, requests: impl IntoIterator<Item = Vec<u8>>) {
        self.hops.requests.send(requests.into_iter()).unwrap();
    }
}

#[test]
fn what_the_kernel_says_is_in_the_map() {
    in_a_namespace(async |mut bench| {
        assert_eq!((bench.link(), bench.hop().mtu()), (None, 1500), "written at the start");
        assert!(bench.hops.work().unwrap(), "whatever a predecessor has left is void");
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:01 dev one");
        bench.until("a neighbour", |this| this.link() == Some(Link::new(FIRST, OWN))).await;
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:02 dev one nud stale");
        bench.until("another address", |this| this.link() == Some(Link::new(SECOND, OWN))).await;
        ip("neighbour del 203.0.113.10 dev one");
        bench.until("no address", |this| this.link().is_none()).await;
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:01 dev one");
        bench.until("a neighbour again", |this| this.link() == Some(Link::new(FIRST, OWN))).await;
        bench.settle().await;

        bench.moves_for("link set one mtu 1400").await;
        assert_eq!((bench.link(), bench.hop().mtu()), (Some(Link::new(FIRST, OWN)), 1400));
        bench.moves_for("link set one address 02:00:00:00:00:08").await;
        assert_ne!(bench.link(), Some(Link::new(FIRST, OWN)));
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:01 dev one");
        let changed = Some(Link::new(FIRST, [2, 0, 0, 0, 0, 8]));
        bench.until("the new own address", |this| this.link() == changed).await;
        bench.moves_for("link set one down").await;
        assert_eq!(bench.link(), None);
        bench.moves_for("link set one up").await;
        bench.moves_for("link del one").await;
        assert_eq!((bench.link(), bench.hop().mtu()), (None, 0));
    });
}

#[test]
fn whatever_can_lead_packets_elsewhere_moves_the_epoch_on() {
    in_a_namespace(async |mut bench| {
        ip("link set two up");
        bench.settle().await;
        for words in [
            "route add 198.51.100.0/24 via 203.0.113.10",
            "route replace 198.51.100.0/24 via 203.0.113.12",
            "route del 198.51.100.0/24",
            "route add 198.51.100.0/24 via 203.0.113.10 table 7",
            "rule add from 10.0.0.0/8 table 7",
            "rule del from 10.0.0.0/8 table 7",
            "address add 192.0.2.1/24 dev two",
            "address del 192.0.2.1/24 dev two",
            "nexthop add id 9 via 203.0.113.10 dev one",
            "nexthop replace id 9 via 203.0.113.12 dev one",
            "nexthop del id 9",
            "link set two down",
            "link del two",
        ] {
            bench.moves_for(words).await;
        }
        let before = bench.moves;
        let script = "echo 1 > /proc/sys/net/ipv4/conf/one/forwarding";
        let done = Command::new("sh").args(["-c", script]).status().unwrap();
        assert!(done.success());
        bench.until("forwarding", |this| this.moves > before).await;
    });
}

#[test]
fn nothing_moves_the_epoch_at_rest() {
    in_a_namespace(async |mut bench| {
        bench.settle().await;
        let before = bench.moves;
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:01 dev one");
        ip("neighbour replace 203.0.113.10 lladdr 02:00:00:00:00:02 dev one");
        ip("link set one alias something");
        bench.settle().await;
        assert_eq!(bench.link(), Some(Link::new(SECOND, OWN)));
        assert_eq!(bench.moves, before);
        assert!(!bench.hops.beat().unwrap());
    });
}

#[test]
fn a_hop_that_is_taken_later_is_found() {
    in_a_namespace(async |mut bench| {
        bench.settle().await;
        // A packet takes a place, and the kernel looks for the neighbour.
        let key = Key { address: [203, 0, 113, 20], ..bench.key };
        let place = |this: &Bench, word: usize| {
            let place = this.hops.keeper.memory().entry(99).unwrap();
            place[word].load(Ordering::Acquire)
        };
        let entry = bench.hops.keeper.memory().entry(99).unwrap();
        entry[WHO].store(Hop::who(key.address, key.ifindex), Ordering::Release);
        entry[EPOCH / 8].store(u64::from(bench.hops.epoch()), Ordering::Release);
        ip("neighbour replace 203.0.113.20 lladdr 02:00:00:00:00:01 dev one");
        bench.until("its address", |this| place(this, 1) == Hop::resolved(FIRST)).await;
    });
}

#[test]
fn messages_that_were_lost_are_made_good_before_the_beat() {
    const NEIGHBOURS: u32 = 40_000;
    in_a_namespace(async |mut bench| {
        bench.settle().await;
        let mut requests = vec![];
        for number in 0..NEIGHBOURS {
            let [_, b, c, d] = number.to_be_bytes();
            requests.push(bench.neighbour([10, b, c, d], FIRST));
        }
        requests.push(bench.neighbour(bench.key.address, SECOND));
        bench.send(requests);
        assert_eq!(bench.link(), None);
        let before = bench.hops.epoch();
        assert!(bench.hops.beat().unwrap());
        assert_ne!(bench.hops.epoch(), before, "lists were read");
        assert_eq!(bench.link(), Some(Link::new(SECOND, OWN)));
        bench.settle().await;
        assert_eq!(
            bench.link(),
            Some(Link::new(SECOND, OWN)),
            "older messages change nothing for long"
        );
    });
}

#[test]
fn a_full_table_of_routes_is_few_moves() {
    const ROUTES: u32 = 20_000;
    in_a_namespace(async |mut bench| {
        bench.settle().await;
        let lines = (0..ROUTES).map(|number| {
            let [_, b, c, d] = number.to_be_bytes();
            format!("route add 10.{b}.{c}.{d}/32 via 203.0.113.10\n")
        });
        let (start, before, worked) = (clock::moment(), bench.moves, worked());
        let lines: String = lines.collect();
        let mut batch = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = batch.stdin.take().unwrap();
        let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
        while batch.try_wait().unwrap().is_none() {
            let _ = tokio::time::timeout(Duration::from_millis(20), bench.turn()).await;
        }
        writer.join().unwrap().unwrap();
        bench.settle().await;
        let took = clock::moment() - start;
        let (moves, most) = (u128::from(bench.moves - before), took.as_millis() / 10 + 2);
        let worked = self::worked() - worked;
        println!("{ROUTES} routes in {took:?}: {moves} moves, {worked:?} of work");
        assert!((1..=most).contains(&moves), "{moves} moves, {most} is the most");
        assert!(worked < took / 4, "{worked:?} of {took:?}");
    });
}

/// Time that this thread has had a processor.
fn worked() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

#[test]
fn a_message_is_in_the_map_within_a_moment() {
    in_a_namespace(async |mut bench| {
        bench.settle().await;
        let mut times = vec![];
        for number in 0..200 {
            let link = [2, 0, 0, 0, 1, number];
            let request = bench.neighbour(bench.key.address, link);
            let start = clock::moment();
            bench.send([request]);
            bench.until("an address", |this| this.link() == Some(Link::new(link, OWN))).await;
            times.push(clock::moment() - start);
        }
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("from the change to the map: {median:?}, {most:?} at most");
        assert!(median < Duration::from_millis(1), "{median:?}");
    });
}
