//! The hash spreads the keys that gateways see, whatever they have in common.

use super::super::{Hashed, SPAN, STRIPES, hash, host::HostMemory};
use crate::{
    flow::{FlowKey, TCP, UDP, Zone},
    port::Port,
};

const BINS: u32 = 9973;

/// Seeds with which every test must pass; the first is what no gateway should ever have.
const SEEDS: [[u64; 2]; 5] = [
    [0, 0],
    [1, 2],
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9],
    [0xffff_ffff_ffff_ffff, 0x8000_0000_0000_0001],
    [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
];

fn inside(src: u32, sport: u16, dst: u32, dport: u16) -> FlowKey {
    let (src, dst) = (src.to_be_bytes(), dst.to_be_bytes());
    FlowKey::new(Zone::Inside, UDP, src, Port::new(sport), dst, Port::new(dport))
}

const HOST: u32 = 0x0a00_0102;
const SERVER: u32 = 0xc633_6401;

/// Keys that differ in little, in the ways that flows of a gateway do.
fn populations() -> Vec<(&'static str, Vec<FlowKey>)> {
    let n = 1u32 << 17;
    vec![
        (
            "ports of two hosts in order",
            (0..n).map(|i| inside(HOST + (i >> 16), i as u16, SERVER, 53)).collect(),
        ),
        ("addresses in order", (0..n).map(|i| inside(HOST + i, 5000, SERVER, 53)).collect()),
        ("one host to many", (0..n).map(|i| inside(HOST, 5000, SERVER + i, 443)).collect()),
        (
            "destination ports",
            (0..n).map(|i| inside(HOST, 5000, SERVER + (i >> 16), i as u16)).collect(),
        ),
        (
            "hosts and ports together",
            (0..n).map(|i| inside(HOST + i % 251, 1024 + (i / 251) as u16, SERVER, 80)).collect(),
        ),
        (
            "networks in order",
            (0..n).map(|i| inside(HOST, 5000, i.wrapping_mul(256) + 1, 443)).collect(),
        ),
        (
            "answers",
            (0..n)
                .map(|i| {
                    FlowKey::new(
                        Zone::Outside,
                        TCP,
                        (SERVER + i % 64).to_be_bytes(),
                        Port::new(443),
                        [203, 0, 113, 1],
                        Port::new((i / 64) as u16),
                    )
                })
                .collect(),
        ),
    ]
}

/// By how many standard deviations the spread of `values` over `bins` differs from chance.
fn excess(values: impl Iterator<Item = u32>, bins: u32) -> f64 {
    let mut counts = vec![0u32; bins as usize];
    let mut total = 0.0;
    for value in values {
        counts[value as usize] += 1;
        total += 1.0;
    }
    let mean = total / f64::from(bins);
    let square: f64 = counts.iter().map(|n| (f64::from(*n) - mean).powi(2) / mean).sum();
    let freedom = f64::from(bins - 1);
    (square - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn homes_and_stripes_of_like_keys_are_spread_as_by_chance() {
    for seeds in SEEDS {
        // A number of homes, near and not, that no power of two divides.
        let memory = HostMemory::new(2 * BINS + SPAN, seeds);
        for (name, keys) in populations() {
            let hashed: Vec<Hashed> = keys.iter().map(|key| Hashed::new(&memory, key)).collect();
            let homes =
                |choice| excess(hashed.iter().map(|k| k.home(&memory, choice) % BINS), BINS);
            let stripes = excess(hashed.iter().map(Hashed::stripe), STRIPES);
            // The homes of a key know nothing of each other.
            let pairs = |one, other| {
                let pair =
                    |k: &Hashed| k.home(&memory, one) % 97 * 97 + k.home(&memory, other) % 97;
                excess(hashed.iter().map(pair), 97 * 97)
            };
            for (of, excess) in [
                ("first home", homes(0)),
                ("second home", homes(1)),
                ("third home", homes(2)),
                ("fourth home", homes(3)),
                ("stripe", stripes),
                ("first and second", pairs(0, 1)),
                ("first and third", pairs(0, 2)),
                ("first and fourth", pairs(0, 3)),
                ("second and third", pairs(1, 2)),
                ("second and fourth", pairs(1, 3)),
                ("third and fourth", pairs(2, 3)),
            ] {
                assert!(excess < 5.0, "{of} of {name} with {seeds:x?}: {excess:.1} sigma");
            }
        }
    }
}

#[test]
fn every_bit_of_a_key_flips_every_bit_of_its_hash_half_the_time() {
    const KEYS: u32 = 4096;
    for seeds in &SEEDS[1..] {
        for bit in 0..112 {
            let mut flips = [0u32; 64];
            for i in 0..KEYS {
                let words = inside(HOST + i, i as u16, SERVER, 443).words();
                let mut other = words;
                other[bit / 64] ^= 1 << (bit % 64);
                let changed = hash(words, *seeds) ^ hash(other, *seeds);
                for (at, count) in flips.iter_mut().enumerate() {
                    *count += (changed >> at) as u32 & 1;
                }
            }
            for (at, count) in flips.iter().enumerate() {
                let share = f64::from(*count) / f64::from(KEYS);
                assert!(
                    (0.45..0.55).contains(&share),
                    "bit {bit} flips bit {at} in {share:.3} with {seeds:x?}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_of_the_key_does_not_change_its_hash() {
    let [first, second] = inside(HOST, 5000, SERVER, 443).words();
    let origin = 0xabcd << 48;
    assert_eq!(hash([first, second], SEEDS[2]), hash([first, second | origin], SEEDS[2]));
}

#[test]
fn different_keys_have_different_hashes() {
    for seeds in SEEDS {
        for (name, keys) in populations() {
            let mut hashes: Vec<u64> = keys.iter().map(|key| hash(key.words(), seeds)).collect();
            hashes.sort_unstable();
            hashes.dedup();
            assert!(keys.len() - hashes.len() < 4, "{name} with {seeds:x?}: {}", hashes.len());
        }
    }
}
