//! `doctor`: a block a finding.

use std::io;

use super::printer::Printer;
use crate::doctor::{Finding, Severity};

impl Printer {
    /// `doctor`: for people a block a finding and how many there are.
    ///
    /// # Errors
    /// Where stdout can't be written; a closed pipe is fine.
    pub fn findings(&self, findings: &[Finding]) -> io::Result<()> {
        self.list(findings, |out| {
            for finding in findings {
                writeln!(out, "{}", self.bold(finding.severity.word()))?;
                self.lines(
                    out,
                    &[
                        ("  check", finding.check.to_owned()),
                        ("  found", finding.found.clone()),
                        ("  why", finding.why.clone()),
                        ("  do", finding.advice.clone()),
                    ],
                )?;
                writeln!(out)?;
            }
            if findings.is_empty() {
                return writeln!(out, "nothing was found that is in the way");
            }
            let count = |severity: Severity| {
                findings.iter().filter(|finding| finding.severity == severity).count()
            };
            writeln!(
                out,
                "{} broken, {} to look at, {} that could be simpler",
                count(Severity::Broken),
                count(Severity::Warning),
                count(Severity::Note)
            )
        })
    }
}
