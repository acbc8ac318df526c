//! Another configuration while the agent runs: by SIGHUP, or by `config apply`, on trial perhaps.
//!
//! Invariant: rules change as a whole or not at all. On trial nothing is written: an agent that dies, or
//! a time that runs out, leaves the configuration of before.
//!
//! ```text
//!   FILE --apply--> in force --------------------------> the agent's file, the old one kept beside it
//!        --apply --confirm S--> on trial --confirm----> the same
//!                                  |--- S seconds, rollback, SIGHUP: the rules of before
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::gateway::Agent;
use crate::{
    config::Config,
    error::{Exit, Failure, reason},
    output::{Change, PlanView, Role, RuleChange},
    rules::{Origin, Rule, RuleKind, RuleStore, replace_file},
};

/// A configuration that waits to be confirmed.
#[derive(Debug)]
pub struct Trial {
    /// The text that is to become the file.
    text: String,
    /// What was in force before.
    before: Config,
    /// Second of the clock at which it ends.
    until: u32,
}

impl Agent {
    /// Reads the configuration file again. Its rules come into force at once; what is only read at
    /// the start is named in the log. A file with a mistake changes nothing.
    ///
    /// # Errors
    /// What is wrong with the file, or what the kernel says.
    pub fn reload(&mut self) -> Result<(), Failure> {
        let Some(file) = &self.config_file else {
            tracing::info!("reload: no configuration file was named: nothing to read");
            return Ok(());
        };
        let config = Config::load(file)?;
        self.put_rules_in_force(&config)?;
        self.trial = None;
        let waits = next_start(&self.config, &config);
        if !waits.is_empty() {
            tracing::warn!(
                "reload: changes of {} come into force with the next start; --persist carries \
                 connections over it",
                waits.join(", ")
            );
        }
        self.config = config;
        tracing::info!("reload: {} rules are in force", self.rules.rules().iter().count());
        Ok(())
    }

    /// What is in force as a file would say it, with the rules of the command line.
    ///
    /// # Errors
    /// Where it can't be written as one.
    pub fn config_text(&self) -> Result<String, Failure> {
        let mut config = self.config.clone();
        let plane = &self.world.plane;
        let named = |role| {
            let side = plane.interfaces().iter().filter(move |interface| interface.side.is(role));
            side.map(|interface| interface.name.clone()).collect()
        };
        (config.gateway.wan, config.gateway.lan) = (named(Role::Wan), named(Role::Lan));
        config.gateway.mode = plane.mode();
        (config.forward, config.one_to_one) = (vec![], vec![]);
        for rule in self.rules.rules().iter() {
            match rule {
                Rule::Forward(forward) => config.forward.push(forward.clone()),
                Rule::OneToOne(host) => config.one_to_one.push(host.clone()),
            }
        }
        config.text().map_err(|error| {
            Failure::new(Exit::Error, format_args!("write the configuration as text: {error}"))
        })
    }

    /// What a file would change. How many flows came in by each rule is not known here.
    ///
    /// # Errors
    /// What is wrong with the file, or what its rules clash with.
    pub fn plan(&self, file: &Path) -> Result<PlanView, Failure> {
        let config = Config::load(file)?;
        // Rules of the command line stay, and may be in the way.
        self.rules_with(&config)?;
        let now: Vec<&Rule> = [RuleKind::Forward, RuleKind::OneToOne]
            .into_iter()
            .flat_map(|kind| self.rules.list(kind))
            .filter(|(_, origin)| *origin == Origin::File)
            .map(|(rule, _)| rule)
            .collect();
        let then = config.rules();
        let change = |change, rule: &Rule| RuleChange {
            change,
            kind: rule.kind(),
            name: rule.name().to_string(),
            flows: 0,
        };
        let mut rules = vec![];
        for rule in &now {
            match then.iter().find(|other| other.name() == rule.name()) {
                None => rules.push(change(Change::Remove, rule)),
                Some(other) if other != *rule => rules.push(change(Change::Replace, other)),
                Some(_) => {}
            }
        }
        let is_new = |rule: &&Rule| now.iter().all(|other| other.name() != rule.name());
        rules.extend(then.iter().filter(is_new).map(|rule| change(Change::Add, rule)));
        Ok(PlanView { rules, next_start: next_start(&self.config, &config) })
    }

    /// Puts a file in force, for good or until it is confirmed.
    ///
    /// # Errors
    /// What is wrong with the file; where another one is on trial, or the agent has no file.
    pub fn apply(&mut self, file: &Path, confirm: Option<u32>, now: u32) -> Result<(), Failure> {
        self.own_file()?;
        if self.trial.is_some() {
            return Err(Failure::new(
                Exit::Conflict,
                "apply a configuration: another one waits to be confirmed: 'nat-ctl config confirm' \
                 or 'nat-ctl config rollback' first",
            ));
        }
        let text = read(file)?;
        let config = Config::of_text(file, &text)?;
        self.put_rules_in_force(&config)?;
        let before = std::mem::replace(&mut self.config, config);
        match confirm {
            Some(seconds) => {
                let until = now.saturating_add(seconds);
                self.trial = Some(Trial { text, before, until });
                tracing::info!("{} is on trial for {seconds} s", file.display());
                Ok(())
            }
            None => self.keep(&text).inspect_err(|_| self.take_back(before)),
        }
    }

    /// Makes what is on trial the configuration.
    ///
    /// # Errors
    /// Where nothing is, or the file can't be written: then it stays on trial.
    pub fn confirm(&mut self) -> Result<(), Failure> {
        let Some(trial) = self.trial.take() else {
            return Err(nothing_on_trial());
        };
        self.keep(&trial.text).inspect_err(|_| self.trial = Some(trial))
    }

    /// Goes back to what was in force before the last apply.
    ///
    /// # Errors
    /// Where there was none, or its rules clash with later ones of the command line.
    pub fn roll_back(&mut self, now: u32) -> Result<(), Failure> {
        match self.trial.take() {
            Some(trial) => {
                self.put_rules_in_force(&trial.before)?;
                self.config = trial.before;
                tracing::info!("what was on trial is rolled back");
                Ok(())
            }
            None => {
                let before = previous(&self.own_file()?);
                if !before.exists() {
                    return Err(nothing_on_trial());
                }
                self.apply(&before, None, now)
            }
        }
    }

    /// Ends a trial that nobody has confirmed; once a second.
    pub fn end_trial(&mut self, now: u32) {
        if self.trial.as_ref().is_none_or(|trial| now < trial.until) {
            return;
        }
        if let Some(trial) = self.trial.take() {
            tracing::warn!(
                "nobody has confirmed the configuration: that of before is in force again"
            );
            self.take_back(trial.before);
        }
    }

    fn take_back(&mut self, before: Config) {
        if let Err(error) = self.put_rules_in_force(&before) {
            tracing::error!("put the rules of before in force: {error}");
        }
        self.config = before;
    }

    /// Writes the agent's file anew, the old one beside it.
    fn keep(&self, text: &str) -> Result<(), Failure> {
        let file = self.own_file()?;
        let before = previous(&file);
        let write = || {
            fs::copy(&file, &before)?;
            replace_file(&file, text.as_bytes())
        };
        write().map_err(|error| {
            Failure::new(
                Exit::Error,
                format_args!("write the configuration {}: {}", file.display(), reason(&error)),
            )
        })?;
        tracing::info!("{} is written; the old one is {}", file.display(), before.display());
        Ok(())
    }

    fn own_file(&self) -> Result<PathBuf, Failure> {
        self.config_file.clone().ok_or_else(|| {
            Failure::new(
                Exit::Conflict,
                "apply a configuration: the agent was started without --config, so there is no file \
                 to take its place: start it with one",
            )
        })
    }

    /// The rules of a configuration with those that were added by commands.
    fn rules_with(&self, config: &Config) -> Result<RuleStore, Failure> {
        let path = self.rules.path().to_owned();
        let resolve = |name: &str| self.world.plane.address_of(name);
        let mut rules = RuleStore::open(path, &config.rules(), &config.prefix, &resolve)?;
        for kind in [RuleKind::Forward, RuleKind::OneToOne] {
            for (rule, _) in self.rules.list(kind).filter(|(_, from)| *from == Origin::Runtime) {
                rules.add(rule.clone(), Origin::Runtime, &resolve)?;
            }
        }
        Ok(rules)
    }

    fn put_rules_in_force(&mut self, config: &Config) -> Result<(), Failure> {
        let rules = self.rules_with(config)?;
        let before = std::mem::replace(&mut self.rules, rules);
        if let Err(error) = self.put_in_force() {
            self.rules = before;
            self.put_in_force()?;
            return Err(error);
        }
        Ok(())
    }
}

/// `nat.toml.previous`.
fn previous(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".previous");
    name.into()
}

fn nothing_on_trial() -> Failure {
    Failure::new(
        Exit::NotFound,
        "no configuration waits to be confirmed, and none was applied before: nothing to go back to",
    )
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file)
        .map_err(|source| crate::config::ConfigError::Read { path: file.to_owned(), source }.into())
}

/// Sections that differ and are only read at the start.
fn next_start(before: &Config, after: &Config) -> Vec<String> {
    let sections = [
        ("gateway", before.gateway != after.gateway),
        ("masquerade", before.masquerade != after.masquerade),
        ("prefix", before.prefix != after.prefix),
        ("ipv6", before.ipv6 != after.ipv6),
        ("ftp", before.ftp != after.ftp),
        ("timeouts", before.timeouts != after.timeouts),
        ("limits", before.limits != after.limits),
    ];
    sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}
