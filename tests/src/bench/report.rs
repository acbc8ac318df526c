//! What a run leaves: a table for the screen, JSON lines for machines, curves to look at.
//!
//! ```text
//!   samples --+-- goals ----+-- table      bench.txt, and the screen
//!             |             +-- json       bench.jsonl
//!             +-- curves ------ svg        MEASURE-POPULARITY.svg
//! ```
//!
//! Invariant: all of them show the same figures, those of [`super::stats`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::sample::Sample;

pub mod curves;
pub mod goals;
mod json;
mod number;
mod run;
mod scale;
mod svg;
mod table;

pub use run::Run;

/// The table, as it goes to the screen.
#[must_use]
pub fn table(run: &Run, samples: &[Sample]) -> String {
    table::text(run, samples)
}

/// Writes table, JSON lines and curves into a folder, made where it isn't there; gives back the
/// files.
pub fn write(run: &Run, samples: &[Sample], folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let lines = json::lines(run, samples).context("put the samples into JSON")?;
    let mut files =
        vec![("bench.txt".to_owned(), table(run, samples)), ("bench.jsonl".to_owned(), lines)];
    for chart in curves::charts(samples) {
        if let Some(drawing) = svg::draw(&chart) {
            files.push((format!("{}.svg", chart.name), drawing));
        }
    }
    let mut written = Vec::new();
    for (name, text) in files {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        written.push(file);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::names;

    #[test]
    fn a_run_leaves_a_table_lines_and_a_curve() {
        let folder = tempfile::tempdir().expect("a folder");
        let sample = |case: &str, value| Sample {
            measure: names::GATEWAY_COST,
            case: case.into(),
            contender: "xdp".into(),
            round: 0,
            value,
            unit: "ns/packet",
        };
        let samples = [sample("1 uniform", 270.0), sample("1M uniform", 510.0)];
        let files = write(&Run::here(true), &samples, &folder.path().join("out")).expect("written");
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        assert_eq!(names, ["bench.txt", "bench.jsonl", "gateway-cost-uniform.svg"]);
        let text = fs::read_to_string(&files[0]).expect("a table");
        assert!(text.contains("510") && text.contains("gateway cost, 1M uniform"), "{text}");
    }
}
