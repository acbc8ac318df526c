//! What a session takes of the kernel's memory.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    bench::{
        agent,
        field::{Field, count},
        names,
        population::short,
        sample::Sample,
    },
    process,
};

/// Of a bucket of the kernel's connection table.
const BUCKET: f64 = 8.0;

/// All maps of a gateway that was made for so many flows, by the kernel's own account, shared among the
/// sessions that it takes (`limits.flows`).
pub(super) fn of_maps(field: &Field<'_>, flows: u32) -> Result<Vec<Sample>> {
    let pins = field.running.agent().context("only ours has maps")?.pins();
    let mut sum = 0;
    for entry in fs::read_dir(&pins).with_context(|| format!("list {}", pins.display()))? {
        let path = entry.context("list pins")?.path();
        if path.is_dir() {
            continue;
        }
        let mut show = Command::new("bpftool");
        let shown = process::run(
            show.args(["-j", "map", "show", "pinned"]).arg(&path),
            std::time::Duration::from_secs(20),
        )?;
        // Programs are pinned there too.
        let Ok(map) = serde_json::from_str::<serde_json::Value>(&shown.stdout) else { continue };
        sum += map.get("bytes_memlock").and_then(serde_json::Value::as_u64).unwrap_or(0);
    }
    Ok(vec![sample(field, count(sum) / f64::from(agent::limit(flows)))])
}

/// What the kernel's own objects grow by as connections open, and a bucket for each.
pub(super) fn of_connections(field: &mut Field<'_>, flows: u32) -> Result<Vec<Sample>> {
    let before = kernel_objects()?;
    field.open(flows)?;
    let bytes = count(kernel_objects()?.saturating_sub(before)) * 1024.0;
    Ok(vec![sample(field, bytes / f64::from(flows) + BUCKET)])
}

fn sample(field: &Field<'_>, value: f64) -> Sample {
    Sample {
        measure: names::SESSION_MEMORY,
        case: short(1_000_000),
        contender: field.contender.name().to_owned(),
        round: 0,
        value,
        unit: "bytes",
    }
}

/// KiB of objects that the kernel can't give back on demand.
fn kernel_objects() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no SUnreclaim")?;
    number.parse().context("a number of KiB")
}
