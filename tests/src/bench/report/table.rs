//! A run on one screen: the goals with what was reached, then every median.

use std::collections::BTreeSet;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::{
    super::{names, sample::Sample, stats},
    goals::{Figure, GOALS, Goal, Side},
    number::short,
    run::Run,
};

/// The whole text.
#[must_use]
pub fn text(run: &Run, samples: &[Sample]) -> String {
    let (goals, medians) = (goals(samples), medians(samples));
    let parts = [run.line(), goals.unwrap_or_default(), medians.unwrap_or_default()];
    parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| format!("{part}\n"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What was asked for, what was reached. Goals whose measure was not taken are left out.
fn goals(samples: &[Sample]) -> Option<String> {
    let mut table = table(&[
        ("goal", CellAlignment::Left),
        ("", CellAlignment::Left),
        ("medians", CellAlignment::Right),
        ("", CellAlignment::Left),
        ("figure", CellAlignment::Right),
        ("95 %", CellAlignment::Left),
        ("must", CellAlignment::Right),
        ("aim", CellAlignment::Right),
        ("", CellAlignment::Left),
    ]);
    for goal in GOALS {
        let Some(estimate) = goal.estimate(samples) else { continue };
        let (who, measured) = medians_behind(goal, samples);
        let sign = match goal.side {
            Side::AtMost => "≤",
            Side::AtLeast => "≥",
        };
        table.add_row([
            title(goal.measure, goal.case),
            who,
            measured,
            unit(samples, goal.measure).to_owned(),
            short(estimate.median),
            format!("{} – {}", short(estimate.low), short(estimate.high)),
            format!("{sign} {}", limit(goal.must)),
            limit(goal.aim),
            goal.verdict(Some(estimate)).word().to_owned(),
        ]);
    }
    lines(&table)
}

/// Names and medians of those who are compared, in the order of the division.
fn medians_behind(goal: &Goal, samples: &[Sample]) -> (String, String) {
    let of = |contender| {
        let rounds = stats::by_round(samples, goal.measure, goal.case, contender);
        let values: Vec<f64> = rounds.into_values().collect();
        stats::median(&values).map(short).unwrap_or_default()
    };
    let (over, under) = match goal.figure {
        Figure::Value => return (goal.contender.to_owned(), of(goal.contender)),
        Figure::Against(other) => (goal.contender, other),
        Figure::TimesLess(other) => (other, goal.contender),
    };
    (format!("{over} / {under}"), format!("{} / {}", of(over), of(under)))
}

/// Everything that was measured: a line a case, a column a contender.
fn medians(samples: &[Sample]) -> Option<String> {
    let mut contenders: Vec<&str> = Vec::new();
    for sample in samples {
        if !contenders.contains(&sample.contender.as_str()) {
            contenders.push(&sample.contender);
        }
    }
    let mut heads = vec![("medians", CellAlignment::Left)];
    heads.extend(contenders.iter().map(|name| (*name, CellAlignment::Right)));
    heads.push(("", CellAlignment::Left));
    let mut table = table(&heads);
    for (measure, case) in cases(samples) {
        let mut row = vec![title(measure, case)];
        row.extend(contenders.iter().map(|contender| {
            let rounds = stats::by_round(samples, measure, case, contender);
            let values: Vec<f64> = rounds.into_values().collect();
            stats::median(&values).map(short).unwrap_or_default()
        }));
        row.push(unit(samples, measure).to_owned());
        table.add_row(row);
    }
    lines(&table)
}

/// Every measure and case there is: measures in the order of [`names::ALL`], then unknown ones, the
/// cases of each in the order in which they were taken.
fn cases(samples: &[Sample]) -> Vec<(&'static str, &str)> {
    let place = |measure: &str| names::ALL.iter().position(|name| *name == measure);
    let mut seen = BTreeSet::new();
    let mut cases: Vec<_> = samples
        .iter()
        .map(|sample| (sample.measure, sample.case.as_str()))
        .filter(|case| seen.insert(*case))
        .collect();
    cases.sort_by_key(|(measure, _)| place(measure).unwrap_or(names::ALL.len()));
    cases
}

fn title(measure: &str, case: &str) -> String {
    format!("{}, {case}", measure.replace('-', " "))
}

fn unit(samples: &[Sample], measure: &str) -> &'static str {
    samples.iter().find(|sample| sample.measure == measure).map_or("", |sample| sample.unit)
}

/// A limit as it was set: no digit that nobody asked for.
fn limit(value: f64) -> String {
    format!("{value}")
}

/// Without the blanks that fill the last column; nothing where there are only heads.
fn lines(table: &Table) -> Option<String> {
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    (!table.is_empty()).then(|| lines.collect::<Vec<_>>().join("\n"))
}

fn table(heads: &[(&str, CellAlignment)]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    table.set_header(heads.iter().map(|(head, _)| Cell::new(head)));
    for (column, (_, alignment)) in table.column_iter_mut().zip(heads) {
        column.set_cell_alignment(*alignment);
        column.set_padding((0, 2));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(
        measure: &'static str,
        case: &str,
        contender: &str,
        round: u32,
        value: f64,
    ) -> Sample {
        let (case, contender) = (case.into(), contender.into());
        Sample { measure, case, contender, round, value, unit: "Gbit/s" }
    }

    fn words(text: &str, start: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(start)).expect("the line");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_goal_shows_both_medians_their_ratio_its_limits_and_the_verdict() {
        let mut samples = Vec::new();
        for round in 0..3 {
            samples.push(sample(names::BULK_TCP, "1 stream", "tc", round, 16.4));
            samples.push(sample(names::BULK_TCP, "1 stream", "forward", round, 16.8));
        }
        assert_eq!(
            words(&goals(&samples).unwrap(), "bulk tcp, 1 stream"),
            "bulk tcp, 1 stream tc / forward 16.4 / 16.8 Gbit/s 0.98 0.98 – 0.98 ≥ 0.97 1 must"
        );
    }

    #[test]
    fn a_run_of_nothing_has_no_tables() {
        let run = Run::here(true);
        assert_eq!(text(&run, &[]), format!("{}\n", run.line()));
    }

    #[test]
    fn measures_come_in_one_order_and_a_missing_value_leaves_a_hole() {
        let samples = [
            sample("of-my-own", "x", "tc", 0, 1.0),
            sample(names::BULK_TCP, "16 streams", "tc", 0, 16.0),
            sample(names::BULK_TCP, "1 stream", "tc", 0, 2.0),
            sample(names::GATEWAY_COST, "1M uniform", "nft", 0, 2582.0),
        ];
        let text = medians(&samples).unwrap();
        let starts: Vec<&str> = text.lines().skip(1).map(|line| &line[..10]).collect();
        assert_eq!(starts, ["gateway co", "bulk tcp, ", "bulk tcp, ", "of my own,"]);
        assert_eq!(words(&text, "gateway"), "gateway cost, 1M uniform 2582 Gbit/s");
    }
}
