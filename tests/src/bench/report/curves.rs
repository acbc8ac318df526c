//! Which curves a run has: every measure that was taken at several numbers of flows.

use super::{
    super::{
        names,
        sample::Sample,
        stats::{Estimate, by_round},
    },
    number::parse_count,
};

/// One drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Name of its file, without an ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// In which unit, and how sure.
    pub subtitle: String,
    /// The curves, in the order in which they were measured.
    pub curves: Vec<Curve>,
}

/// One contender over growing numbers of flows.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The contender.
    pub name: String,
    /// Numbers of flows, growing, and what was measured there.
    pub points: Vec<(f64, Estimate)>,
}

/// A chart for each measure and popularity with at least two numbers of flows.
#[must_use]
pub fn charts(samples: &[Sample]) -> Vec<Chart> {
    let mut kinds: Vec<(&str, &str, &str)> = Vec::new();
    for sample in samples {
        if let Some((_, popularity)) = flows(&sample.case) {
            let kind = (sample.measure, popularity, sample.unit);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds.into_iter().filter_map(|kind| chart(samples, kind)).collect()
}

fn chart(samples: &[Sample], (measure, popularity, unit): (&str, &str, &str)) -> Option<Chart> {
    let belongs = |sample: &&Sample| {
        sample.measure == measure
            && flows(&sample.case).is_some_and(|(_, popular)| popular == popularity)
    };
    let mut curves: Vec<Curve> = Vec::new();
    for sample in samples.iter().filter(belongs) {
        if !curves.iter().any(|curve| curve.name == sample.contender) {
            let points = points(samples, measure, popularity, &sample.contender);
            curves.push(Curve { name: sample.contender.clone(), points });
        }
    }
    if curves.iter().all(|curve| curve.points.len() < 2) {
        return None;
    }
    let rounds =
        curves.iter().flat_map(|curve| &curve.points).map(|(_, point)| point.rounds).max()?;
    Some(Chart {
        name: [measure, popularity].join("-").trim_end_matches('-').to_owned(),
        title: title(measure),
        subtitle: format!(
            "{unit} over the number of flows{}; medians of {rounds} rounds with 95 % intervals",
            if popularity.is_empty() { String::new() } else { format!(", {popularity}") },
        ),
        curves,
    })
}

fn points(
    samples: &[Sample],
    measure: &str,
    popularity: &str,
    contender: &str,
) -> Vec<(f64, Estimate)> {
    let mut cases: Vec<(f64, &str)> = Vec::new();
    for sample in samples {
        let Some((count, popular)) = flows(&sample.case) else { continue };
        let is_new = !cases.iter().any(|(_, case)| *case == sample.case);
        if sample.measure == measure && popular == popularity && is_new {
            cases.push((count, &sample.case));
        }
    }
    cases.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let estimate = |case| {
        let values: Vec<f64> = by_round(samples, measure, case, contender).into_values().collect();
        Estimate::of(&values)
    };
    cases.into_iter().filter_map(|(count, case)| Some((count, estimate(case)?))).collect()
}

/// How many flows a case has, and their popularity: `1M uniform`, `4M`.
fn flows(case: &str) -> Option<(f64, &str)> {
    let (count, popularity) = case.split_once(' ').unwrap_or((case, ""));
    let is_popularity = ["", "uniform", "zipf"].contains(&popularity);
    Some((parse_count(count)?, popularity)).filter(|(count, _)| is_popularity && *count > 0.0)
}

fn title(measure: &str) -> String {
    match measure {
        names::GATEWAY_COST => "What a packet costs the gateway".to_owned(),
        names::GATEWAY_RATE => "Packets a second, flat out".to_owned(),
        names::PROGRAM_COST => "What the program costs by itself".to_owned(),
        other => other.replace('-', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(case: &str, contender: &str, value: f64) -> Sample {
        Sample {
            measure: names::GATEWAY_COST,
            case: case.into(),
            contender: contender.into(),
            round: 0,
            value,
            unit: "ns/packet",
        }
    }

    #[test]
    fn curves_grow_from_few_flows_to_many_and_popularities_stand_apart() {
        let samples = [
            sample("1M uniform", "xdp", 500.0),
            sample("1k uniform", "xdp", 260.0),
            sample("50k zipf", "xdp", 300.0),
            sample("1k uniform", "nft", 1600.0),
            sample("50k zipf", "nft", 1700.0),
        ];
        let charts = charts(&samples);
        let [chart] = &charts[..] else { panic!("Zipf has one number of flows only: {charts:?}") };
        assert_eq!(chart.name, "gateway-cost-uniform");
        let curves: Vec<_> = chart
            .curves
            .iter()
            .map(|curve| {
                let points = curve.points.iter().map(|(flows, point)| (*flows, point.median));
                (curve.name.as_str(), points.collect::<Vec<_>>())
            })
            .collect();
        let expected = [("xdp", vec![(1e3, 260.0), (1e6, 500.0)]), ("nft", vec![(1e3, 1600.0)])];
        assert_eq!(curves, expected);
    }

    #[test]
    fn only_cases_with_a_number_of_flows_make_curves() {
        assert_eq!(flows("4M"), Some((4e6, "")));
        assert_eq!(flows("50k zipf"), Some((5e4, "zipf")));
        for case in ["p50", "16 streams", "open to close", "0 uniform", ""] {
            assert_eq!(flows(case), None, "{case}");
        }
    }
}
