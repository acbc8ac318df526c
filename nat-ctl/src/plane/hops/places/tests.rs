use super::*;
use nat_common::hop::{HOP_PROBES, HOPS, Link};

const KEY: Key = Key { ifindex: 3, address: [203, 0, 113, 10] };
const ROUTER: LinkAddress = [2, 0, 0, 0, 0, 1];
const DEVICE: Device = Device { link: Some([2, 0, 0, 0, 0, 9]), mtu: 1500, flags: 0, master: 0 };

const fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn places() -> Places {
    Places::new(Mapped::anonymous(HOPS, size_of::<Hop>() as u32))
}

/// What a packet does for a new hop; the probes begin at `from`.
fn take(places: &Places, key: &Key, from: u32, epoch: u32) -> Option<u32> {
    let who = Hop::who(key.address, key.ifindex);
    let index = (from..from + HOP_PROBES).find(|index| {
        let word = places.map.word(*index, WHO).unwrap();
        let before = word.compare_exchange(0, who, Ordering::AcqRel, Ordering::Acquire);
        matches!(before, Ok(0)) || before == Err(who)
    })?;
    store(places.map.entry(index).unwrap(), EPOCH / 8, u64::from(epoch));
    Some(index)
}

fn hop(places: &Places, index: u32) -> Hop {
    let words = places.map.entry(index).unwrap();
    Hop::from_words([0, 1, 2, 3].map(|word| load(words, word)))
}

fn epoch_at(number: u32) -> Epoch {
    Epoch::after(number - 1)
}

#[test]
fn a_place_is_seen_once_and_filled_in() {
    let mut places = places();
    let index = take(&places, &KEY, 17, 1).unwrap();
    assert_eq!(places.look(second(1)), [KEY]);
    assert_eq!(places.look(second(2)), []);
    assert!(places.has(&KEY));
    places.write(&KEY, None, Some(&DEVICE));
    assert_eq!((hop(&places, index).link(), hop(&places, index).mtu()), (None, 1500));
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    assert_eq!(hop(&places, index).link(), Some(Link::new(ROUTER, [2, 0, 0, 0, 0, 9])));
    places.write(&KEY, Some(ROUTER), None);
    assert_eq!((hop(&places, index).link(), hop(&places, index).mtu()), (None, 0));
    assert_eq!(hop(&places, index).epoch(), 1);
}

#[test]
fn two_places_of_one_hop_say_the_same() {
    let mut places = places();
    let pair = [17, 900].map(|from| take(&places, &KEY, from, 1).unwrap());
    assert_eq!(places.look(second(1)), [KEY, KEY]);
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    for index in pair {
        assert_eq!(hop(&places, index).link(), Some(Link::new(ROUTER, [2, 0, 0, 0, 0, 9])));
    }
}

#[test]
fn a_device_without_an_ethernet_address_gives_its_mtu_alone() {
    let loopback = Device { link: None, mtu: 65536, ..DEVICE };
    let [link, own] = words(Some(ROUTER), Some(&loopback));
    let hop = Hop::from_words([1 << 32, link, own, 0]);
    assert_eq!((hop.link(), hop.mtu()), (None, u16::MAX));
}

#[test]
fn no_packet_finds_a_valid_link_with_an_older_own_address() {
    let links = [0, Hop::CLOSED, Hop::resolved(ROUTER), Hop::resolved([2, 0, 0, 0, 0, 2])];
    let owns = [0, Hop::own([2, 0, 0, 0, 0, 9], 1500), Hop::own([2, 0, 0, 0, 0, 8], 1400)];
    let all = || links.into_iter().flat_map(|link| owns.map(|own| [link, own]));
    for before in all() {
        for wanted in all() {
            // Each state that a packet may meet, in the order in which they are written.
            let mut states = vec![before];
            for (word, value) in steps(before, wanted) {
                let mut next = states[states.len() - 1];
                next[word - LINK] = value;
                states.push(next);
            }
            assert_eq!(states.last(), Some(&wanted));
            for (at, [link, _]) in states.iter().enumerate() {
                for [_, own] in &states[at..] {
                    let is_valid = *link != 0 && *link != Hop::CLOSED;
                    let is_new_link = is_valid && *link == wanted[0] && before[0] != wanted[0];
                    assert!(!is_new_link || *own == wanted[1], "{before:x?} to {wanted:x?}");
                }
            }
            // Whoever meets the new own address while the link is valid meets no older one after.
            let valid = states.iter().filter(|[link, _]| *link != 0);
            let owns: Vec<u64> = valid.map(|[_, own]| *own).collect();
            assert!(owns.windows(2).all(|pair| pair[0] == pair[1] || pair[1] == wanted[1]));
            assert!(
                states.windows(2).all(|pair| {
                    let [link, own] = pair[0];
                    own == pair[1][1] || link == 0
                }),
                "the own address changes only while the link is not valid"
            );
        }
    }
}

#[test]
fn a_place_of_an_old_epoch_is_closed_and_then_freed() {
    let mut places = places();
    let index = take(&places, &KEY, 17, 5).unwrap();
    places.look(second(1));
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    assert_eq!(places.retire(second(9), &epoch_at(6)), []);
    assert!(hop(&places, index).link().is_some(), "a packet of the last epoch may refer to it");
    assert_eq!(places.retire(second(9), &epoch_at(7)), []);
    let closed = hop(&places, index);
    assert!(closed.is_closed() && closed.is_taken() && !places.has(&KEY));
    assert_eq!((closed.link(), closed.mtu()), (None, 0));
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    places.retire(second(10), &epoch_at(7));
    assert_eq!(hop(&places, index), closed, "it stays closed");
    assert_eq!(places.retire(second(11), &epoch_at(7)), []);
    assert_eq!(hop(&places, index), Hop::from_words([0, 0, 0, 5]));
    assert_eq!(places.look(second(12)), []);
    assert_eq!(take(&places, &Key { ifindex: 4, ..KEY }, index, 7), Some(index));
    assert_eq!(places.look(second(13)), [Key { ifindex: 4, ..KEY }]);
}

#[test]
fn a_place_that_was_just_taken_is_kept_whatever_its_epoch_says() {
    let mut places = places();
    // The packet has not written the epoch yet.
    let index = take(&places, &KEY, 17, 0).unwrap();
    places.look(second(8));
    places.retire(second(9), &epoch_at(7));
    assert!(!hop(&places, index).is_closed());
    places.retire(second(10), &epoch_at(7));
    assert!(hop(&places, index).is_closed());
}

#[test]
fn a_place_that_was_used_while_it_was_closed_is_given_back() {
    let mut places = places();
    let index = take(&places, &KEY, 17, 5).unwrap();
    places.look(second(1));
    places.retire(second(9), &epoch_at(7));
    // A packet had found the hop before, and writes the epoch now.
    store(places.map.entry(index).unwrap(), EPOCH / 8, 7);
    assert_eq!(places.retire(second(11), &epoch_at(7)), [KEY]);
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    assert_eq!(hop(&places, index).link(), Some(Link::new(ROUTER, [2, 0, 0, 0, 0, 9])));
    assert_eq!(places.look(second(12)), [], "it is known");
}

#[test]
fn what_a_predecessor_has_closed_is_opened_and_what_it_was_freeing_is_freed() {
    let mut places = places();
    let closed = take(&places, &KEY, 17, 5).unwrap();
    let freeing = take(&places, &Key { ifindex: 4, ..KEY }, 99, 5).unwrap();
    store(places.map.entry(closed).unwrap(), LINK, Hop::CLOSED);
    store(places.map.entry(freeing).unwrap(), LINK, Hop::CLOSED);
    store(places.map.entry(freeing).unwrap(), WHO, FREEING);
    assert_eq!(places.look(second(1)), [KEY]);
    places.write(&KEY, Some(ROUTER), Some(&DEVICE));
    assert_eq!(hop(&places, closed).link(), Some(Link::new(ROUTER, [2, 0, 0, 0, 0, 9])));
    assert_eq!(hop(&places, freeing), Hop::from_words([0, 0, 0, 5]));
    assert_eq!(places.look(second(2)), []);
}

/// The states of a place that is freed, one store after the other, as a packet may meet them.
#[test]
fn a_place_that_is_freed_is_never_open_to_a_packet() {
    let mut places = places();
    let index = take(&places, &KEY, 17, 5).unwrap();
    places.look(second(1));
    places.retire(second(9), &epoch_at(7));
    let who = Hop::who(KEY.address, KEY.ifindex);
    places.mark(index, who, FREEING);
    let freeing = hop(&places, index);
    assert!(
        !freeing.is_taken() && freeing.mtu() == 0,
        "no hop, and none that could be referred to"
    );
    assert_eq!(take(&places, &KEY, index, 7), Some(index + 1), "nobody takes it");
    places.free(index);
    assert_eq!(take(&places, &Key { ifindex: 4, ..KEY }, index, 7), Some(index));
    assert_eq!((hop(&places, index).link(), hop(&places, index).is_closed()), (None, false));
}

#[test]
fn three_quarters_are_a_crowd() {
    let mut places = places();
    let key = |number: u32| Key { ifindex: 3, address: number.to_be_bytes() };
    for number in 1..=HOPS / 4 * 3 {
        take(&places, &key(number), number, 1).unwrap();
    }
    places.look(second(1));
    assert!(!places.is_crowded());
    take(&places, &key(HOPS), HOPS - HOP_PROBES, 1).unwrap();
    places.look(second(1));
    assert!(places.is_crowded());
    assert_eq!(places.keys(3..=3).len(), places.keys(0..=u32::MAX).len());
    assert_eq!(places.keys(4..=9), []);
}
