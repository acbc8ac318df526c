//! What the gateway has to reach, and whether this run's samples say that it did.
//!
//! Invariant: a goal is judged by the figure that the table shows beside it, a median, never by a
//! better one; a goal without samples is open, never reached.

use super::super::{
    names,
    sample::Sample,
    stats::{Estimate, by_round, paired_ratios},
};

/// One line of the goals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Which measure, see [`names`].
    pub measure: &'static str,
    /// In which case.
    pub case: &'static str,
    /// Whose value.
    pub contender: &'static str,
    /// The value itself, or its ratio to somebody else's.
    pub figure: Figure,
    /// Which side of a limit is the good one.
    pub side: Side,
    /// What it must be.
    pub must: f64,
    /// What it should be.
    pub aim: f64,
}

/// What is held against the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The measured value.
    Value,
    /// Its ratio to that of another contender, round by round.
    Against(&'static str),
    /// How many times less it is than that of another contender, round by round.
    TimesLess(&'static str),
}

/// The good side of a limit, the limit itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Less is better.
    AtMost,
    /// More is better.
    AtLeast,
}

/// What the samples say of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As good as it should be.
    Aim,
    /// As good as it must be.
    Must,
    /// Not good enough.
    Missed,
    /// Not measured.
    Open,
}

impl Verdict {
    /// The word for it in tables and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Aim => "aim",
            Self::Must => "must",
            Self::Missed => "missed",
            Self::Open => "open",
        }
    }
}

impl Goal {
    /// The figure that this goal is about; nothing where it was not measured.
    #[must_use]
    pub fn estimate(&self, samples: &[Sample]) -> Option<Estimate> {
        let of = |contender| by_round(samples, self.measure, self.case, contender);
        let own = of(self.contender);
        let values = match self.figure {
            Figure::Value => own.into_values().collect(),
            Figure::Against(other) => paired_ratios(&own, &of(other)),
            Figure::TimesLess(other) => paired_ratios(&of(other), &own),
        };
        Estimate::of(&values)
    }

    /// Whether that figure is good enough.
    #[must_use]
    pub fn verdict(&self, estimate: Option<Estimate>) -> Verdict {
        let Some(Estimate { median, .. }) = estimate else { return Verdict::Open };
        let reaches = |limit: f64| match self.side {
            Side::AtMost => median <= limit,
            Side::AtLeast => median >= limit,
        };
        match (reaches(self.aim), reaches(self.must)) {
            (true, _) => Verdict::Aim,
            (false, true) => Verdict::Must,
            (false, false) => Verdict::Missed,
        }
    }
}

/// The goals on a machine with two cores, over veth.
pub const GOALS: &[Goal] = &[
    xdp_cost("1 uniform", Figure::Against("ceiling"), Side::AtMost, 1.0, 0.9),
    xdp_cost("1k uniform", Figure::Against("ceiling"), Side::AtMost, 1.0, 0.92),
    xdp_cost("50k uniform", Figure::Against("ceiling"), Side::AtMost, 1.3, 1.1),
    xdp_cost("1M uniform", Figure::Against("ceiling"), Side::AtMost, 1.9, 1.5),
    xdp_cost("1 uniform", Figure::TimesLess("nft"), Side::AtLeast, 5.5, 6.0),
    xdp_cost("50k uniform", Figure::TimesLess("nft"), Side::AtLeast, 7.0, 9.0),
    tc_cost("1 uniform", 2.0, 2.2),
    tc_cost("50k uniform", 2.5, 3.0),
    value(names::PROGRAM_COST, "1k uniform", "xdp", 40.0, 30.0),
    value(names::PROGRAM_COST, "100k uniform", "xdp", 110.0, 85.0),
    value(names::PROGRAM_COST, "1M uniform", "xdp", 265.0, 180.0),
    value(names::PROGRAM_COST, "4M uniform", "xdp", 300.0, 220.0),
    value(names::INSERT_COST, "1M", "tc", 300.0, 200.0),
    // In the hook that a NIC gets; the other one is in the table too.
    xdp(names::UDP_FLOWS, "flat out", "nft", Side::AtLeast, 3.0, 4.0),
    tc(names::TCP_CONNECTION, "open to close", "nft", Side::AtMost, 0.85, 0.8),
    tc(names::BULK_TCP, "1 stream", "forward", Side::AtLeast, 0.97, 1.0),
    tc(names::BULK_TCP, "16 streams", "forward", Side::AtLeast, 0.97, 1.0),
    tc(names::REQUEST_RESPONSE, "p50", "forward", Side::AtMost, 1.03, 1.0),
    tc(names::REQUEST_RESPONSE, "p99", "forward", Side::AtMost, 1.03, 1.0),
    value(names::SESSION_MEMORY, "1M", "tc", 256.0, 171.0),
    value(names::SWEEP, "1M", "tc", 2.0, 1.0),
    value(names::DUMP, "1M", "tc", 1.0, 0.5),
    Goal { side: Side::AtLeast, ..value(names::FLOOD, "flat out", "tc", 95.0, 100.0) },
    value(names::FLOOD_LOST, "flat out", "tc", 0.0, 0.0),
    value(names::FTP_HELD, "p50", "tc", 100.0, 25.0),
    value(names::FTP_HELD, "p99", "tc", 500.0, 120.0),
    tc(names::FTP_TRANSFERS, "passive", "nft", Side::AtLeast, 0.95, 1.0),
    tc(names::FTP_TRANSFERS, "active", "nft", Side::AtLeast, 0.95, 1.0),
];

const fn xdp_cost(case: &'static str, figure: Figure, side: Side, must: f64, aim: f64) -> Goal {
    Goal { measure: names::GATEWAY_COST, case, contender: "xdp", figure, side, must, aim }
}

const fn tc_cost(case: &'static str, must: f64, aim: f64) -> Goal {
    Goal { contender: "tc", ..xdp_cost(case, Figure::TimesLess("nft"), Side::AtLeast, must, aim) }
}

const fn tc(
    measure: &'static str,
    case: &'static str,
    against: &'static str,
    side: Side,
    must: f64,
    aim: f64,
) -> Goal {
    Goal { measure, case, contender: "tc", figure: Figure::Against(against), side, must, aim }
}

const fn xdp(
    measure: &'static str,
    case: &'static str,
    against: &'static str,
    side: Side,
    must: f64,
    aim: f64,
) -> Goal {
    Goal { measure, case, contender: "xdp", figure: Figure::Against(against), side, must, aim }
}

const fn value(
    measure: &'static str,
    case: &'static str,
    contender: &'static str,
    must: f64,
    aim: f64,
) -> Goal {
    Goal { measure, case, contender, figure: Figure::Value, side: Side::AtMost, must, aim }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(contender: &str, values: [f64; 3]) -> Vec<Sample> {
        (0..)
            .zip(values)
            .map(|(round, value)| Sample {
                measure: names::GATEWAY_COST,
                case: "1 uniform".into(),
                contender: contender.into(),
                round,
                value,
                unit: "ns/packet",
            })
            .collect()
    }

    #[test]
    fn cost_is_judged_by_the_median_of_ratios_in_a_round() {
        let mut all = samples("xdp", [190.0, 400.0, 210.0]);
        all.extend(samples("ceiling", [200.0, 200.0, 200.0]));
        all.extend(samples("nft", [1190.0, 2240.0, 1150.0]));
        let [ceiling, nft] =
            [GOALS[0], GOALS[4]].map(|goal| (goal, goal.estimate(&all).expect("samples of both")));
        assert!((ceiling.1.median - 1.05).abs() < 1e-9);
        assert_eq!(ceiling.0.verdict(Some(ceiling.1)), Verdict::Missed);
        assert!((nft.1.median - 5.6).abs() < 1e-9);
        assert_eq!(nft.0.verdict(Some(nft.1)), Verdict::Must);
    }

    #[test]
    fn a_limit_belongs_to_its_good_side() {
        let at = |median| Some(Estimate { median, low: 0.0, high: 9.0, rounds: 3 });
        let [less, more] = [GOALS[0], GOALS[4]];
        let words = |goal: Goal, medians: [f64; 4]| medians.map(|m| goal.verdict(at(m)).word());
        assert_eq!(words(less, [0.9, 0.91, 1.0, 1.01]), ["aim", "must", "must", "missed"]);
        assert_eq!(words(more, [6.0, 5.99, 5.5, 5.49]), ["aim", "must", "must", "missed"]);
    }

    #[test]
    fn what_was_not_measured_is_open() {
        let only_one = samples("xdp", [1.0; 3]);
        assert_eq!(GOALS[0].verdict(GOALS[0].estimate(&only_one)), Verdict::Open);
    }

    #[test]
    fn every_aim_is_at_least_as_good_as_its_must() {
        for goal in GOALS {
            assert!(names::ALL.contains(&goal.measure), "{goal:?}");
            let at_aim = Estimate { median: goal.aim, low: 0.0, high: 0.0, rounds: 1 };
            assert_eq!(goal.verdict(Some(at_aim)), Verdict::Aim, "{goal:?}");
            let better = match goal.side {
                Side::AtMost => goal.aim <= goal.must,
                Side::AtLeast => goal.aim >= goal.must,
            };
            assert!(better, "{goal:?}");
        }
    }
}
