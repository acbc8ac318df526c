//! What the guest says of its checks, between everything else on its console.
//!
//! Invariant: passed is only what was said to have passed: a check that is not named, because the
//! guest died before it, has failed.
//!
//! ```text
//! @@ kernel 6.1.0-56-cloud-amd64
//! @@ passed lab 31.2          or: @@ failed lab 31.2
//! ```

use std::fmt;

/// First word of the lines that are for us.
const SIGN: &str = "@@";

/// Checks that a guest makes, and what each of them is (`guest/init.sh`).
const CHECKS: [(&str, &str); 2] = [
    ("lab", "transfers between veth pairs: TC filters, native XDP"),
    ("nics", "virtio NICs, VLANs, tunnels, a bond: auto mode, takeover, removal"),
];

/// What is known so far.
#[derive(Default)]
pub struct Report {
    kernel: Option<String>,
    verdicts: Vec<Verdict>,
}

struct Verdict {
    check: String,
    has_passed: bool,
    seconds: String,
}

impl Report {
    /// Takes a line of the console.
    pub fn read(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some(SIGN) {
            return;
        }
        match (words.next(), words.next(), words.next()) {
            (Some("kernel"), Some(release), _) => self.kernel = Some(release.to_owned()),
            (Some(verdict @ ("passed" | "failed")), Some(check), Some(seconds)) => {
                self.verdicts.push(Verdict {
                    check: check.to_owned(),
                    has_passed: verdict == "passed",
                    seconds: seconds.to_owned(),
                });
            }
            _ => {}
        }
    }

    /// Whether every check was made and passed.
    pub fn has_passed(&self) -> bool {
        CHECKS.iter().all(|(check, _)| self.verdict(check).is_some_and(|found| found.has_passed))
    }

    fn verdict(&self, check: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.check == check)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.kernel.as_deref().unwrap_or("that did not boot");
        writeln!(f, "kernel {kernel}")?;
        writeln!(f, "{:<6} {:<8} {:>8}  what", "check", "result", "seconds")?;
        for (check, what) in CHECKS {
            let (result, seconds) = match self.verdict(check) {
                Some(Verdict { has_passed: true, seconds, .. }) => ("passed", seconds.as_str()),
                Some(Verdict { seconds, .. }) => ("FAILED", seconds.as_str()),
                None => ("NOT RUN", "-"),
            };
            writeln!(f, "{check:<6} {result:<8} {seconds:>8}  {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn only_a_guest_that_said_so_has_passed() {
        let lines = ["noise", "@@ kernel 6.1", "@@ passed lab 3.1", "@@ passed nics 2.0"];
        assert!(report(&lines).has_passed());
        assert!(!report(&lines[..3]).has_passed());
        assert!(!report(&["@@ passed lab 3.1", "@@ failed nics 2.0"]).has_passed());
        assert!(!report(&[]).has_passed());
    }

    #[test]
    fn a_check_that_was_not_made_is_in_the_table() {
        let table = report(&["@@ failed lab 3.1"]).to_string();
        assert!(table.contains("FAILED") && table.contains("NOT RUN"));
    }
}
