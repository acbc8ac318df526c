use super::*;
use crate::plane::{mapped::Mapped, neighbours::LinkAddress};
use nat_common::hop::{HOPS, Hop, Link, WHO, WORDS};
use nix::libc;
use std::sync::atomic::Ordering;

const KEY: Key = Key { ifindex: 3, address: [203, 0, 113, 10] };
const ROUTER: LinkAddress = [2, 0, 0, 0, 0, 1];
const OTHER: LinkAddress = [2, 0, 0, 0, 0, 2];
const OWN: LinkAddress = [2, 0, 0, 0, 0, 9];
const UP: u32 = Device::FLAGS;
const DEVICE: Device = Device { link: Some(OWN), mtu: 1500, flags: UP, master: 0 };
const INDEX: u32 = 17;

const fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn message(state: u16, link: LinkAddress) -> Message {
    Message::Neighbour(KEY, Neighbour { state, link: Some(link) })
}

/// A keeper, and its memory as packets see it.
struct Bench {
    keeper: Keeper,
}

impl Bench {
    /// With a device and, at `INDEX`, a hop whose neighbour is known.
    fn new() -> Self {
        let mapped = Mapped::anonymous(HOPS, size_of::<Hop>() as u32);
        let mut this = Self { keeper: Keeper::new(Places::new(mapped), 0) };
        this.keeper.replace(
            BTreeMap::from([(3, DEVICE)]),
            BTreeMap::from([(KEY, Neighbour { state: libc::NUD_REACHABLE, link: Some(ROUTER) })]),
            at(0),
        );
        assert!(this.keeper.work(at(0)));
        this.take(INDEX, KEY);
        this.keeper.beat(at(100_000));
        assert_eq!(this.link(), Some(Link::new(ROUTER, OWN)));
        assert_eq!(this.keeper.epoch().due(at(100_000)), None);
        this
    }

    fn take(&self, index: u32, key: Key) {
        let place = self.keeper.memory().entry(index).unwrap();
        place[WHO].store(Hop::who(key.address, key.ifindex), Ordering::Release);
        place[3].store(u64::from(self.keeper.epoch().number()), Ordering::Release);
    }

    fn hop(&self) -> Hop {
        self.hop_at(INDEX)
    }

    fn hop_at(&self, index: u32) -> Hop {
        let place = self.keeper.memory().entry(index).unwrap();
        Hop::from_words([0, 1, 2, 3].map(|word: usize| place[word].load(Ordering::Acquire)))
    }

    fn link(&self) -> Option<Link> {
        self.hop().link()
    }

    /// Follows a message; whether it voids the epoch.
    fn voids(&mut self, message: &Message) -> bool {
        self.keeper.follow(message, at(200_000));
        let voids = self.keeper.epoch().due(at(200_000)).is_some();
        assert_eq!(self.keeper.work(at(200_000)), voids);
        voids
    }
}

#[test]
fn a_neighbour_that_moves_is_followed_within_the_epoch() {
    let mut bench = Bench::new();
    for state in [libc::NUD_STALE, libc::NUD_DELAY, libc::NUD_PROBE, libc::NUD_REACHABLE] {
        assert!(!bench.voids(&message(state, ROUTER)));
        assert_eq!(bench.link(), Some(Link::new(ROUTER, OWN)));
    }
    assert!(!bench.voids(&message(libc::NUD_REACHABLE, OTHER)));
    assert_eq!(bench.link(), Some(Link::new(OTHER, OWN)));
    assert!(!bench.voids(&Message::NeighbourGone(KEY)));
    assert_eq!((bench.link(), bench.hop().mtu()), (None, 1500));
    assert!(!bench.voids(&message(libc::NUD_INCOMPLETE, OTHER)));
    assert_eq!(bench.link(), None);
    assert!(!bench.voids(&message(libc::NUD_REACHABLE, ROUTER)));
    assert_eq!(bench.link(), Some(Link::new(ROUTER, OWN)));
}

#[test]
fn a_neighbour_that_does_not_answer_lets_the_kernel_choose_another() {
    let mut bench = Bench::new();
    assert!(bench.voids(&message(libc::NUD_FAILED, ROUTER)));
    assert_eq!(bench.link(), None);
    let stranger = Key { address: [203, 0, 113, 99], ..KEY };
    let failed = Neighbour { state: libc::NUD_FAILED, link: Some(OTHER) };
    let mut bench = Bench::new();
    bench.keeper.neighbours.note(stranger, Neighbour { state: libc::NUD_STALE, ..failed });
    assert!(!bench.voids(&Message::Neighbour(stranger, failed)), "no flow goes there");
}

#[test]
fn whatever_changes_on_a_device_voids_the_epoch_and_is_written() {
    for changed in [
        Device { link: Some(OTHER), ..DEVICE },
        Device { mtu: 1400, ..DEVICE },
        Device { flags: UP & !(libc::IFF_RUNNING as u32), ..DEVICE },
        Device { master: 7, ..DEVICE },
    ] {
        let mut bench = Bench::new();
        assert!(!bench.voids(&Message::Device(3, DEVICE)), "nothing new");
        assert!(bench.voids(&Message::Device(3, changed)));
        let own = changed.link.unwrap();
        assert_eq!(bench.link(), Some(Link::new(ROUTER, own)));
        assert_eq!(u32::from(bench.hop().mtu()), changed.mtu);
    }
}

#[test]
fn a_device_that_goes_takes_its_neighbours_along_and_one_that_comes_changes_nothing() {
    let mut bench = Bench::new();
    assert!(bench.voids(&Message::DeviceGone(3)));
    assert_eq!((bench.link(), bench.hop().mtu()), (None, 0));
    assert!(!bench.voids(&Message::DeviceGone(3)));
    assert!(!bench.voids(&Message::Device(3, DEVICE)));
    assert_eq!((bench.link(), bench.hop().mtu()), (None, 1500), "whoever had that number before");
}

#[test]
fn a_new_hop_is_looked_for_when_its_neighbour_is_found() {
    let mut bench = Bench::new();
    let key = Key { address: [203, 0, 113, 20], ..KEY };
    bench.take(99, key);
    let now = at(300_000);
    assert!(bench.keeper.due(now).is_none_or(|due| due < now));
    bench.keeper.work(now);
    let found = Neighbour { state: libc::NUD_REACHABLE, link: Some(OTHER) };
    bench.keeper.follow(&Message::Neighbour(key, found), now);
    let due = bench.keeper.due(now).unwrap();
    assert!(due <= now + at(20));
    assert!(!bench.keeper.work(due));
    assert_eq!(bench.hop_at(99).link(), Some(Link::new(OTHER, OWN)));
}

#[test]
fn lists_replace_what_is_known_and_void_the_epoch() {
    let mut bench = Bench::new();
    bench.keeper.replace(BTreeMap::from([(3, DEVICE)]), BTreeMap::new(), at(200_000));
    assert_eq!(bench.link(), None);
    assert!(bench.keeper.work(at(200_000)));
}

#[test]
fn at_rest_nothing_is_due() {
    let mut bench = Bench::new();
    let mut now = at(100_000);
    while let Some(due) = bench.keeper.due(now) {
        now = now.max(due);
        bench.keeper.work(now);
        assert!(now < at(110_000), "looks end");
    }
    for beat in 0..10 {
        assert!(!bench.keeper.beat(now + at(1000 * beat)));
        assert_eq!(bench.keeper.due(now + at(1000 * beat)), None);
    }
}

#[test]
fn a_crowd_makes_room_by_two_epochs() {
    let mut bench = Bench::new();
    for index in (1..HOPS).filter(|index| *index != INDEX) {
        bench.take(index, Key { ifindex: 3, address: index.to_be_bytes() });
    }
    let mut moves = 0;
    for beat in 0..15 {
        moves += usize::from(bench.keeper.beat(at(200_000 + 1000 * beat)));
    }
    assert_eq!(moves, 2, "the first move at once, and one five seconds later; then there is room");
    let words = bench.keeper.memory().words();
    assert!(words.chunks_exact(WORDS).all(|place| place[WHO].load(Ordering::Acquire) == 0));
}

#[test]
fn only_stale_neighbours_of_hops_are_checked() {
    let mut bench = Bench::new();
    let stranger = Key { address: [203, 0, 113, 99], ..KEY };
    let stale = Neighbour { state: libc::NUD_STALE, link: Some(ROUTER) };
    for key in [KEY, stranger] {
        bench.keeper.follow(&Message::Neighbour(key, stale), at(0));
    }
    assert_eq!(bench.keeper.take_stale(at(200_000)), [KEY]);
}
