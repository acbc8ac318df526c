//! Where and when a run was made: what one has to know to compare it with another.

use std::{fs, process::Command, time::SystemTime};

use serde::Serialize;

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the processor.
    pub cpu: String,
    /// How many cores this run could use.
    pub cores: usize,
    /// Load average of the last minute when the run began: what else the machine was doing.
    pub load: f64,
    /// Commit of the tree, with `-dirty` where it had changes.
    pub commit: String,
    /// `quick` or `full`.
    pub extent: &'static str,
    /// When it began, in seconds since 1970.
    pub started: u64,
}

impl Run {
    /// Of this machine, now. What can't be found out is said to be unknown; no run fails by it.
    #[must_use]
    pub fn here(is_quick: bool) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            kernel: known(read("/proc/sys/kernel/osrelease").trim()),
            cpu: known(&processor(&read("/proc/cpuinfo"))),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: first_number(&read("/proc/loadavg")).unwrap_or(f64::NAN),
            commit: known(&commit()),
            extent: if is_quick { "quick" } else { "full" },
            started: since_1970.map_or(0, |time| time.as_secs()),
        }
    }

    /// All of it in one line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { kernel, cpu, cores, load, commit, extent, .. } = self;
        format!("{extent} run of {commit} on Linux {kernel}, {cpu}, {cores} cores, load {load:.2}")
    }
}

fn known(text: &str) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}

fn processor(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = named.into_iter().find(|(key, _)| key.trim() == "model name");
    name.map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Of the tree that this program was built from, if it is still there.
fn commit() -> String {
    let words = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let described =
        Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(words).output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_once() {
        let text = "processor\t: 0\nmodel name\t: Chip 7: fast\n\nmodel name\t: Chip 7: fast\n";
        assert_eq!(processor(text), "Chip 7: fast");
        assert_eq!(known(&processor("nothing")), "unknown");
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_load() {
        let run = Run::here(true);
        assert!(run.kernel.starts_with(|first: char| first.is_ascii_digit()), "{run:?}");
        assert!(run.load >= 0.0 && run.cores > 0 && run.extent == "quick", "{run:?}");
    }
}
