//! Samples and goals as JSON lines, each of which stands by itself: runs may be put together with
//! `cat` and asked with `jq`.

use serde::Serialize;

use super::{
    super::{sample::Sample, stats::Estimate},
    goals::{Figure, GOALS, Goal},
    run::Run,
};

/// Of the format below.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct SampleLine<'a> {
    version: u32,
    kind: &'static str,
    #[serde(flatten)]
    sample: &'a Sample,
    run: &'a Run,
}

#[derive(Serialize)]
struct GoalLine<'a> {
    version: u32,
    kind: &'static str,
    measure: &'static str,
    case: &'static str,
    contender: &'static str,
    /// Whose value the figure is a ratio to.
    against: Option<&'static str>,
    /// Whether the figure is the other one's value divided by this one's.
    times_less: bool,
    figure: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    rounds: usize,
    must: f64,
    aim: f64,
    verdict: &'static str,
    run: &'a Run,
}

/// One line a sample, then one line a goal.
pub fn lines(run: &Run, samples: &[Sample]) -> serde_json::Result<String> {
    let mut text = String::new();
    for sample in samples {
        let line = SampleLine { version: VERSION, kind: "sample", sample, run };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    for goal in GOALS {
        text.push_str(&serde_json::to_string(&goal_line(goal, run, samples))?);
        text.push('\n');
    }
    Ok(text)
}

fn goal_line<'a>(goal: &Goal, run: &'a Run, samples: &[Sample]) -> GoalLine<'a> {
    let estimate = goal.estimate(samples);
    let figure = |part: fn(Estimate) -> f64| estimate.map(part);
    GoalLine {
        version: VERSION,
        kind: "goal",
        measure: goal.measure,
        case: goal.case,
        contender: goal.contender,
        against: match goal.figure {
            Figure::Value => None,
            Figure::Against(other) | Figure::TimesLess(other) => Some(other),
        },
        times_less: matches!(goal.figure, Figure::TimesLess(_)),
        figure: figure(|it| it.median),
        low: figure(|it| it.low),
        high: figure(|it| it.high),
        rounds: estimate.map_or(0, |it| it.rounds),
        must: goal.must,
        aim: goal.aim,
        verdict: goal.verdict(estimate).word(),
        run,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_line_stands_by_itself_and_says_where_it_was_measured() {
        let sample = Sample {
            measure: "dump",
            case: "1M".into(),
            contender: "tc".into(),
            round: 0,
            value: 0.75,
            unit: "s",
        };
        let run = Run { kernel: "6.18".into(), ..Run::here(false) };
        let text = lines(&run, &[sample]).expect("no map has other keys than text");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 1 + GOALS.len());
        assert!(lines.iter().all(|line| line["run"]["kernel"] == "6.18" && line["version"] == 1));
        assert_eq!(lines[0]["kind"], "sample");
        assert_eq!((&lines[0]["value"], &lines[0]["unit"]), (&0.75.into(), &"s".into()));
        let dump = lines.iter().find(|line| line["kind"] == "goal" && line["measure"] == "dump");
        let dump = dump.expect("a goal for the dump");
        assert_eq!((&dump["figure"], &dump["verdict"]), (&0.75.into(), &"must".into()));
        let open = lines.iter().find(|line| line["measure"] == "sweep").expect("a goal");
        assert_eq!((&open["figure"], &open["verdict"]), (&Value::Null, &"open".into()));
    }
}
