//! How many flows there are, and how often each of them is asked for.

use std::fmt::{self, Display};

use super::kit::FAVOURITES;

/// How often flows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// The n-th most popular one 1/n as often as the first (Zipf's law with exponent 1).
    Zipf,
}

/// Flows and their popularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// How many.
    pub flows: u32,
    /// How popular.
    pub popularity: Popularity,
}

impl Display for Population {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let popularity = match self.popularity {
            Popularity::Uniform => "uniform",
            Popularity::Zipf => "zipf",
        };
        write!(formatter, "{} {popularity}", short(self.flows))
    }
}

/// A round number as one says it: `50k`, `4M`.
#[must_use]
pub fn short(number: u32) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// The flows that are asked for one after the other, by Zipf's law.
///
/// Ranks come from the inverse of the continuous law with the same density, `flows ^ u`: far from
/// exact only for the first few ranks, which are in every cache anyway. Neighbours in rank are spread
/// over the whole population, so that favourites share nothing but their popularity.
pub fn favourites(flows: u32) -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..FAVOURITES).map(move |_| {
        // xorshift64* (Vigna 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        // 53 bits make an exact fraction.
        #[expect(clippy::cast_precision_loss)]
        let fraction = random as f64 / (1_u64 << 53) as f64;
        // At least 1, below flows + 1.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (f64::from(flows) + 1.0).powf(fraction) as u32 - 1;
        spread(rank.min(flows - 1), flows)
    })
}

/// A permutation of `0..flows`: steps of a stride that has no divisor in common with it.
fn spread(rank: u32, flows: u32) -> u32 {
    let stride = (0..).map(|more| u64::from(flows) * 5 / 8 + 1 + more).find(|stride| {
        let (mut a, mut b) = (*stride, u64::from(flows));
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    });
    // One is found before the stride has doubled.
    let place = u64::from(rank) * stride.unwrap_or(1) % u64::from(flows);
    u32::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_rank_has_a_flow_of_its_own() {
        for flows in [1, 2, 1000, 50_000] {
            let mut seen: Vec<_> = (0..flows).map(|rank| spread(rank, flows)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..flows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn tenfold_ranks_have_equal_shares() {
        let flows = 1_000_000;
        let mut counts = HashMap::<u32, u32>::new();
        for flow in favourites(flows) {
            assert!(flow < flows);
            *counts.entry(flow).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // By Zipf's law ranks 11-100 are asked for as often as 101-1000, ln(10) / ln(1e6) = 1/6.
        for (from, to) in [(10, 100), (100, 1000)] {
            let share = counts[from..to].iter().sum::<u32>() as f64 / f64::from(FAVOURITES);
            assert!((0.15..0.19).contains(&share), "ranks from {from}: {share}");
        }
    }

    #[test]
    fn numbers_are_said_short() {
        assert_eq!([1, 1000, 50_000, 4_000_000].map(short), ["1", "1k", "50k", "4M"]);
    }
}
