//! What many noisy rounds say together: medians, paired ratios, and how sure one may be of them.
//!
//! Two contenders are compared inside a round, where both met the same machine; only then are the
//! rounds put together. A load that slows a whole round down cancels in its ratio.
//!
//! Invariant: the same samples give the same figures, as the resampling draws from a fixed seed.

use std::collections::BTreeMap;

use super::sample::Sample;

/// Resamples behind an interval; more change its third digit only.
const RESAMPLES: usize = 4000;
/// Of the resampled medians this share lies inside the interval.
const CONFIDENCE: f64 = 0.95;
/// Any number does; a fixed one makes a report repeatable.
const SEED: u64 = 0x6e61_7462_656e_6368;

/// A median and where it would be in 95 of 100 repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median of all rounds.
    pub median: f64,
    /// Lower end of the 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// How many rounds it stands on.
    pub rounds: usize,
}

impl Estimate {
    /// Of these values; nothing where there are none. One value is an interval without width.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let mut draw = Draw(SEED);
        let mut resample = vec![0.0; values.len()];
        let mut medians = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            for slot in &mut resample {
                *slot = values[draw.below(values.len())];
            }
            medians.extend(self::median(&resample));
        }
        let tail = (1.0 - CONFIDENCE) / 2.0;
        Some(Self {
            median,
            low: quantile(&medians, tail)?,
            high: quantile(&medians, 1.0 - tail)?,
            rounds: values.len(),
        })
    }
}

/// What one contender did in one case of one measure, by round; the median of a round that has
/// several samples.
#[must_use]
pub fn by_round(
    samples: &[Sample],
    measure: &str,
    case: &str,
    contender: &str,
) -> BTreeMap<u32, f64> {
    let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        if sample.measure == measure && sample.case == case && sample.contender == contender {
            rounds.entry(sample.round).or_default().push(sample.value);
        }
    }
    rounds.into_iter().filter_map(|(round, values)| Some((round, median(&values)?))).collect()
}

/// The ratios `of / against` of the rounds that have both, in their order.
#[must_use]
pub fn paired_ratios(of: &BTreeMap<u32, f64>, against: &BTreeMap<u32, f64>) -> Vec<f64> {
    of.iter()
        .filter_map(|(round, value)| Some(value / against.get(round)?))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// The middle value, or the mean of the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which this share of all lies, between two neighbours in proportion.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    // Positions are far below 2^52, and never negative.
    #[expect(clippy::cast_precision_loss)]
    let position = share.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * position.fract())
}

/// A small generator of random numbers (splitmix64): nothing here needs a better one.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `limit`; the bias of 2^-64 doesn't matter.
    fn below(&mut self, limit: usize) -> usize {
        // The product's upper half is below `limit`.
        #[expect(clippy::cast_possible_truncation)]
        let index = ((u128::from(self.next()) * limit as u128) >> 64) as usize;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contender: &str, round: u32, value: f64) -> Sample {
        Sample {
            measure: "cost",
            case: "1 flow".into(),
            contender: contender.into(),
            round,
            value,
            unit: "ns",
        }
    }

    #[test]
    fn quantiles_lie_between_neighbours_in_proportion() {
        let values = [40.0, 10.0, 30.0, 20.0];
        assert_eq!(median(&values), Some(25.0));
        assert_eq!(median(&values[..3]), Some(30.0));
        assert_eq!(quantile(&values, 0.0), Some(10.0));
        assert_eq!(quantile(&values, 1.0), Some(40.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_round_that_was_slow_for_both_does_not_move_the_ratio() {
        let mut samples = Vec::new();
        for (round, load) in [1.0, 1.0, 9.0, 3.0, 1.0].into_iter().enumerate() {
            let round = u32::try_from(round).unwrap();
            samples.push(sample("xdp", round, 200.0 * load));
            samples.push(sample("nft", round, 1000.0 * load));
        }
        let [xdp, nft] = ["xdp", "nft"].map(|name| by_round(&samples, "cost", "1 flow", name));
        let ratios = Estimate::of(&paired_ratios(&nft, &xdp)).unwrap();
        assert_eq!((ratios.median, ratios.low, ratios.high, ratios.rounds), (5.0, 5.0, 5.0, 5));
    }

    #[test]
    fn only_rounds_that_have_both_are_compared() {
        let samples = [sample("a", 0, 1.0), sample("a", 1, 8.0), sample("b", 1, 4.0)];
        let [a, b] = ["a", "b"].map(|name| by_round(&samples, "cost", "1 flow", name));
        assert_eq!(paired_ratios(&a, &b), [2.0]);
        assert!(Estimate::of(&paired_ratios(&a, &BTreeMap::new())).is_none());
        assert!(by_round(&samples, "cost", "2 flows", "a").is_empty());
    }

    #[test]
    fn a_division_by_zero_is_no_ratio() {
        let [a, b] = [BTreeMap::from([(0, 1.0), (1, 6.0)]), BTreeMap::from([(0, 0.0), (1, 2.0)])];
        assert_eq!(paired_ratios(&a, &b), [3.0]);
    }

    #[test]
    fn the_true_median_is_inside_about_95_of_100_intervals() {
        let mut draw = Draw(1);
        let mut inside = 0;
        for _ in 0..100 {
            // The square of an even distribution on 0..1: skewed, its median is a quarter.
            let values: Vec<f64> = (0..15)
                .map(|_| {
                    #[expect(clippy::cast_precision_loss)]
                    let even = draw.below(1 << 30) as f64 / f64::from(1 << 30);
                    even * even
                })
                .collect();
            let estimate = Estimate::of(&values).unwrap();
            inside += u32::from(estimate.low <= 0.25 && 0.25 <= estimate.high);
        }
        assert!((88..=99).contains(&inside), "{inside} of 100");
    }
}
