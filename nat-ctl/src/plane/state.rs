//! What an instance has to know of itself after a crash: the file beside its socket, and the lock.
//!
//! Invariant: the file says what was changed before it is changed, so that `down` can put back
//! everything after a `kill -9` at any moment. It is replaced as a whole. It lives in /run: a reboot
//! removes what it describes together with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::aliases::{Alias, Given};
use super::error::{PlaneError, Result};
use super::forwarding::Forwarding;
use super::lifetimes::Lifetimes;
use super::netns::Namespace;
use super::numbers::Numbers;
use super::six;
use crate::options::Instance;
use crate::output::{InterfaceMode, Role};

/// The layout of the file.
const VERSION: u32 = 1;

/// The side of an interface, as the data plane has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Outside.
    Wan,
    /// Inside.
    Lan,
    /// Both, of a gateway with one arm.
    Both,
}

impl Side {
    /// Whether it is on that side.
    pub const fn is(self, role: Role) -> bool {
        match self {
            Self::Wan => matches!(role, Role::Wan),
            Self::Lan => matches!(role, Role::Lan),
            Self::Both => true,
        }
    }

    /// What users see: one or two.
    pub fn roles(self) -> impl Iterator<Item = Role> {
        [Role::Wan, Role::Lan].into_iter().filter(move |role| self.is(*role))
    }
}

impl From<Role> for Side {
    fn from(role: Role) -> Self {
        match role {
            Role::Wan => Self::Wan,
            Role::Lan => Self::Lan,
        }
    }
}

/// An interface of an instance, and what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its name when it was attached.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// What it is for.
    #[serde(rename = "role")]
    pub side: Side,
    /// The hook that carries the fast path.
    pub mode: InterfaceMode,
    /// Why that one, in one sentence.
    pub reason: String,
    /// Whether its packets have no Ethernet header.
    #[serde(default)]
    pub bare: bool,
    /// Whether it is gone, or back without its programs.
    #[serde(default)]
    pub lost: bool,
}

impl Attached {
    /// One that nothing is attached to yet.
    pub fn planned(name: &str, index: u32, side: impl Into<Side>) -> Self {
        let (mode, reason) = (InterfaceMode::Tc, "not attached yet".to_owned());
        let (name, side) = (name.to_owned(), side.into());
        Self { name, index, side, mode, reason, bare: false, lost: false }
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Name of the instance.
    pub instance: String,
    /// Where its interfaces are.
    pub namespace: Namespace,
    /// Forwarding as it was found, if it has to be put back.
    pub forwarding: Option<Forwarding>,
    /// What was found of IPv6 forwarding, if it has to be put back.
    #[serde(default)]
    pub ipv6: Option<six::Found>,
    /// Addresses that the gateway has given to them.
    #[serde(default)]
    pub aliases: BTreeSet<Alias>,
    /// What else they have, and what was taken off them.
    #[serde(default)]
    pub given: Given,
    /// Its interfaces.
    pub interfaces: Vec<Attached>,
    /// Seconds of the monotonic clock at the start of the agent.
    pub started: u32,
    /// Names of rules by their number in maps.
    pub rules: BTreeMap<u32, String>,
    /// Numbers of public addresses in the map `ports`.
    #[serde(default)]
    pub numbers: Numbers,
    /// Most flows.
    pub flows: u32,
    /// Lifetimes of flows, in seconds.
    pub timeouts: Lifetimes,
}

impl State {
    /// Of an instance that has changed nothing yet.
    pub fn new(instance: &Instance, namespace: Namespace, started: u32) -> Self {
        Self {
            version: VERSION,
            instance: instance.as_str().to_owned(),
            namespace,
            forwarding: None,
            ipv6: None,
            aliases: BTreeSet::new(),
            given: Given::default(),
            interfaces: vec![],
            started,
            rules: BTreeMap::new(),
            numbers: Numbers::default(),
            flows: 0,
            timeouts: Lifetimes::default(),
        }
    }

    /// The file of an instance.
    pub fn path(instance: &Instance) -> PathBuf {
        instance.socket().with_extension("state")
    }

    /// Reads the file of an instance; `None` where there is none, or one that says nothing.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read(instance: &Instance) -> Result<Option<Self>> {
        read(&Self::path(instance))
    }

    /// Every file of every instance on this machine.
    ///
    /// # Errors
    /// Where one can't be read.
    pub fn all() -> Result<Vec<Self>> {
        let path = Self::path(&Instance::default());
        let Some(folder) = path.parent() else { return Ok(vec![]) };
        let mut all = vec![];
        for name in super::pins::list(folder)? {
            if name.ends_with(".state") {
                all.extend(read(&folder.join(name))?);
            }
        }
        Ok(all)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, instance: &Instance) -> Result<()> {
        let path = Self::path(instance);
        let failed = |error| PlaneError::file("write", &path)(error);
        make_folder(&path)?;
        let temporary = path.with_extension("state.new");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from).map_err(failed)?;
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(&text).and_then(|()| fs::rename(&temporary, &path)).map_err(failed)
    }

    /// Removes the file; no error where it is gone.
    ///
    /// # Errors
    /// Where it can't be removed.
    pub fn remove(instance: &Instance) -> Result<()> {
        remove(&Self::path(instance))
    }
}

fn read(path: &Path) -> Result<Option<State>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PlaneError::file("read", path)(error)),
    };
    // A file of another version, or one cut off, tells nothing that could be relied on.
    Ok(serde_json::from_slice::<State>(&text).ok().filter(|state| state.version == VERSION))
}

fn make_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(PlaneError::file("make the folder", folder))
}

/// Held by the one agent of an instance, and by `down`; released by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of an instance.
    ///
    /// # Errors
    /// [`PlaneError::Conflict`] names the process that holds it.
    pub fn take(instance: &Instance) -> Result<Self> {
        let path = instance.socket().with_extension("lock");
        make_folder(&path)?;
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(PlaneError::file("open the lock", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(instance, &mut file)),
                Err(TryLockError::Error(error)) => {
                    return Err(PlaneError::file("lock", &path)(error));
                }
            }
            // Its last holder may have removed the file that was just opened: then it is nobody's.
            if !is_at(&file, &path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(PlaneError::file("write the lock", &path))?;
            return Ok(Self { _file: file, path });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still held here, so nobody else's file goes; one that stays is in nobody's way.
        let _gone = remove(&self.path);
    }
}

fn held(instance: &Instance, file: &mut File) -> PlaneError {
    let mut holder = String::new();
    // Without the number the message is still true.
    let _unread = file.read_to_string(&mut holder);
    let process = holder.trim().parse::<u32>();
    let process = process.map(|number| format!(" as process {number}")).unwrap_or_default();
    PlaneError::Conflict(format!(
        "instance '{instance}' is running already{process}: stop it with SIGTERM, or name another \
         one with --instance"
    ))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes a file; no error where it is gone.
///
/// # Errors
/// Where it can't be removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PlaneError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
