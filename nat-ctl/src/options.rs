//! What `nat-ctl run` was asked to do, after the command line and the configuration were checked.
//!
//! Invariant: interfaces are named once, and there is at least one of each side.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{config::Config, rules::RuleStore};

/// Everything that the agent needs to know at its start.
#[derive(Debug)]
pub struct RunOptions {
    /// Which gateway of the machine this is.
    pub instance: Instance,
    /// Interfaces to the outside, the first being the one that masquerade prefers; not empty.
    pub wan: Vec<String>,
    /// Interfaces to the inside; not empty.
    pub lan: Vec<String>,
    /// Which hook the operator wants.
    pub mode: Mode,
    /// The configuration, defaults filled in.
    pub config: Config,
    /// Where it came from; read again on SIGHUP.
    pub config_file: Option<PathBuf>,
    /// The rules of configuration and state file.
    pub rules: RuleStore,
    /// Whether the data plane stays at work when the agent ends.
    pub persist: bool,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// Which hook carries the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// XDP where the drivers have it natively, else TC.
    #[default]
    Auto,
    /// XDP, and an error where a driver does not have it.
    Xdp,
    /// TC alone.
    Tc,
}

/// The name of a gateway on this machine: a part of file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(String);

impl Instance {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Folder of the pinned maps and links.
    pub fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/nat-ctl").join(&self.0)
    }

    /// Socket of the API.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from("/run/nat-ctl").join(format!("{}.sock", self.0))
    }

    /// The file that an agent holds locked from its first step to its last.
    pub fn lock(&self) -> PathBuf {
        self.socket().with_extension("lock")
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // bpffs refuses names with a dot; a socket address holds 108 bytes (unix(7)).
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
            return Err("an instance is letters, digits, '-' and '_', at most 64".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}
