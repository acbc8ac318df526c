//! How long it takes to print all flows as JSON.

use std::{
    fs::File,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bench::{field::Field, names, population::short, sample::Sample},
    process,
};

const LIMIT: Duration = Duration::from_secs(120);
/// No further round after so long: one that takes longer is far from its goal anyway.
const ENOUGH: Duration = Duration::from_secs(10);

/// `nat-ctl flows list -o jsonl`, read to its end by a program that only counts lines.
pub(super) fn time(field: &Field<'_>, rounds: u32) -> Result<Vec<Sample>> {
    let agent = field.running.agent().context("only ours lists flows so")?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    for round in 0..rounds {
        let mut list = agent.command(&["flows", "list", "-o", "jsonl"]);
        let log = field.topology.file("dump.log");
        let log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut list =
            list.stdout(Stdio::piped()).stderr(log).spawn().context("start nat-ctl flows list")?;
        let pipe = list.stdout.take().context("no pipe from nat-ctl flows list")?;
        let counted = {
            let mut count = Command::new("wc");
            process::run_on(count.arg("-l"), Stdio::from(pipe), LIMIT)
        };
        if counted.is_err() {
            let _ = list.kill();
        }
        let status = list.wait().context("wait for nat-ctl flows list")?;
        let counted = counted?.checked("wc -l")?;
        ensure!(status.success(), "nat-ctl flows list ended with {status}");
        let lines: u32 = counted.stdout.trim().parse().context("a number of lines")?;
        ensure!(lines >= field.flows(), "{lines} of {} flows were listed", field.flows());
        samples.push(Sample {
            measure: names::DUMP,
            case: short(field.flows()),
            contender: field.contender.name().to_owned(),
            round,
            value: counted.elapsed.as_secs_f64(),
            unit: "s",
        });
        if begun.elapsed() > ENOUGH {
            break;
        }
    }
    Ok(samples)
}
