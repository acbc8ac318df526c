//! `config plan`: what a file would change.

use std::io;

use serde::{Deserialize, Serialize};

use super::printer::Printer;
use crate::rules::RuleKind;

/// What a configuration would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Rules of the file that come, go or differ.
    pub rules: Vec<RuleChange>,
    /// Sections that differ and wait for the next start.
    pub next_start: Vec<String>,
}

/// A rule that comes, goes or differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// Which of these.
    pub change: Change,
    /// Its kind.
    pub kind: RuleKind,
    /// Its name.
    pub name: String,
    /// Flows that are there by it now; they go on.
    pub flows: u64,
}

/// What becomes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Add,
    /// It is gone.
    Remove,
    /// It is another one.
    Replace,
}

impl Printer {
    /// `config plan`.
    ///
    /// # Errors
    /// Where stdout can't be written; a closed pipe is fine.
    pub fn plan(&self, view: &PlanView) -> io::Result<()> {
        self.object(view, |out| {
            for RuleChange { change, kind, name, flows } in &view.rules {
                let word = match change {
                    Change::Add => "add",
                    Change::Remove => "remove",
                    Change::Replace => "replace",
                };
                let flows = match flows {
                    0 => String::new(),
                    1 => ": 1 flow by it goes on".to_owned(),
                    flows => format!(": {flows} flows by it go on"),
                };
                writeln!(out, "{word:<8} {kind} '{name}'{flows}")?;
            }
            for section in &view.next_start {
                writeln!(out, "waits    [{section}]: for the next start")?;
            }
            if view.rules.is_empty() && view.next_start.is_empty() {
                writeln!(out, "nothing changes")?;
            }
            Ok(())
        })
    }

    /// A configuration: as it is for people, and as an object of its sections for programs.
    ///
    /// # Errors
    /// Where stdout can't be written, or the text is none.
    pub fn config(&self, text: &str) -> io::Result<()> {
        let sections: serde_json::Value = toml::from_str(text).map_err(io::Error::other)?;
        self.object(&sections, |out| out.write_all(text.as_bytes()))
    }
}
