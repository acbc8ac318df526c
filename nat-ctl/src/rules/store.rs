//! The rules of the command line, kept beside the configuration.
//!
//! Invariant: the file is replaced as a whole or not at all (temporary file, fsync, rename), and
//! what is in memory is what the file says once a call has returned.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Prefix, Rule, RuleError, RuleKind, RuleSet, set::Resolve};
use crate::{
    error::{Exit, reason},
    options::Instance,
};

/// The layout of the file.
const VERSION: u32 = 1;

/// Where a rule came from, which says who may remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The configuration file: changed there.
    File,
    /// The command line: kept in the state file.
    Command,
    /// The command line with `--runtime`: gone when the agent ends.
    Runtime,
}

/// Why the rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The rule does not fit.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// There is no such rule.
    #[error("no {kind} rule is called '{name}': '{kind} list' shows what there is")]
    NotFound {
        /// Kind that was asked for.
        kind: RuleKind,
        /// Name that was asked for.
        name: String,
    },
    /// The rule is the configuration file's.
    #[error("rule '{0}' stands in the configuration file: remove it there")]
    InFile(String),
    /// The state file could not be read or written.
    #[error("{what} rules in {path}: {}", reason(.source))]
    File {
        /// `read` or `keep`.
        what: &'static str,
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state file does not hold rules.
    #[error("read rules in {path}: {why}: repair the file or remove it")]
    Content {
        /// The state file.
        path: PathBuf,
        /// Line, column and reason.
        why: String,
    },
}

impl StoreError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Rule(error) => error.exit(),
            Self::NotFound { .. } => Exit::NotFound,
            Self::InFile(_) => Exit::Conflict,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            Self::File { .. } | Self::Content { .. } => Exit::Error,
        }
    }
}

/// Every rule in force, where each came from, and the file of those that last.
#[derive(Debug)]
pub struct RuleStore {
    path: PathBuf,
    set: RuleSet,
    origins: BTreeMap<String, Origin>,
}

/// The state file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    rules: Vec<Rule>,
}

impl RuleStore {
    /// `<folder>/<stem>.rules.json` beside a configuration file, else under /etc/nat-ctl.
    pub fn path_for(config: Option<&Path>, instance: &Instance) -> PathBuf {
        let named = |stem: &str| format!("{stem}.rules.json");
        match config {
            Some(config) => config
                .with_file_name(named(&config.file_stem().unwrap_or_default().to_string_lossy())),
            None => Path::new("/etc/nat-ctl").join(named(instance.as_str())),
        }
    }

    /// Rules of the configuration, then those of the state file, which need not exist, where these
    /// prefixes are translated.
    ///
    /// # Errors
    /// Where the file can't be read, or its rules clash with those of the configuration.
    pub fn open(
        path: PathBuf,
        configured: &[Rule],
        prefixes: &[Prefix],
        resolve: Resolve<'_>,
    ) -> Result<Self, StoreError> {
        let mut store = Self { path, set: RuleSet::behind(prefixes), origins: BTreeMap::new() };
        for rule in configured {
            store.admit(rule.clone(), Origin::File, resolve)?;
        }
        for rule in read(&store.path)? {
            store.admit(rule, Origin::Command, resolve)?;
        }
        Ok(store)
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleSet {
        &self.set
    }

    /// The rules of a kind, with their origin, oldest first.
    pub fn list(&self, kind: RuleKind) -> impl Iterator<Item = (&Rule, Origin)> {
        self.set.iter().filter(move |rule| rule.kind() == kind).map(|rule| {
            let origin = self.origins.get(rule.name().as_str());
            (rule, origin.copied().unwrap_or(Origin::Command))
        })
    }

    /// Adds a rule, and keeps it unless it is for this run only.
    ///
    /// # Errors
    /// Where the rule clashes with another or the file can't be written; nothing changes then.
    pub fn add(
        &mut self,
        rule: Rule,
        origin: Origin,
        resolve: Resolve<'_>,
    ) -> Result<(), StoreError> {
        let name = rule.name().as_str().to_owned();
        self.admit(rule, origin, resolve)?;
        if origin == Origin::Command {
            self.save().inspect_err(|_| {
                self.set.remove(&name);
                self.origins.remove(&name);
            })?;
        }
        Ok(())
    }

    /// Removes a rule of a kind and gives it back.
    ///
    /// # Errors
    /// Where there is none, it stands in the configuration file, or the file can't be written;
    /// nothing changes then.
    pub fn remove(&mut self, kind: RuleKind, name: &str) -> Result<Rule, StoreError> {
        let not_found = || StoreError::NotFound { kind, name: name.to_owned() };
        self.set.find(name).filter(|rule| rule.kind() == kind).ok_or_else(not_found)?;
        if self.origins.get(name) == Some(&Origin::File) {
            return Err(StoreError::InFile(name.to_owned()));
        }
        let before = self.set.clone();
        let rule = self.set.remove(name).ok_or_else(not_found)?;
        let origin = self.origins.remove(name);
        if origin == Some(Origin::Command)
            && let Err(error) = self.save()
        {
            self.set = before;
            self.origins.insert(name.to_owned(), Origin::Command);
            return Err(error);
        }
        Ok(rule)
    }

    /// The state file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn admit(&mut self, rule: Rule, origin: Origin, at: Resolve<'_>) -> Result<(), StoreError> {
        let name = rule.name().as_str().to_owned();
        self.set.insert(rule, at)?;
        self.origins.insert(name, origin);
        Ok(())
    }

    fn save(&mut self) -> Result<(), StoreError> {
        let kept = |rule: &&Rule| self.origins.get(rule.name().as_str()) == Some(&Origin::Command);
        let rules = self.set.iter().filter(kept).cloned().collect();
        let write = || {
            let mut text = serde_json::to_vec_pretty(&Kept { version: VERSION, rules })?;
            text.push(b'\n');
            replace(&self.path, &text)
        };
        write().map_err(|source| StoreError::File { what: "keep", path: self.path.clone(), source })
    }
}

/// Holds off other commands that edit the same file while no agent is there to do it for them.
#[derive(Debug)]
pub struct EditLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl EditLock {
    /// Waits for the others; released when dropped.
    ///
    /// # Errors
    /// Where the folder can't be made or opened.
    pub fn acquire(path: &Path) -> Result<Self, StoreError> {
        let lock = || {
            let folder = folder(path);
            fs::create_dir_all(folder)?;
            let folder = File::open(folder)?;
            folder.lock()?;
            Ok(Self(folder))
        };
        lock().map_err(|source| StoreError::File { what: "keep", path: path.to_owned(), source })
    }
}

fn read(path: &Path) -> Result<Vec<Rule>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => {
            return Err(StoreError::File { what: "read", path: path.to_owned(), source });
        }
    };
    let content = |why: String| StoreError::Content { path: path.to_owned(), why };
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
    if kept.version != VERSION {
        return Err(content(format!("version {} is not known", kept.version)));
    }
    Ok(kept.rules)
}

/// Puts `text` at `path` such that a crash leaves the old file or the new one.
///
/// # Errors
/// Where the folder can't be written to.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
