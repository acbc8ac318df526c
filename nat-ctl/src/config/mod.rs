//! The configuration file: TOML, parsed once into types that cannot be wrong.
//!
//! Invariant: a key that is not known, and a choice that the data plane does not have, is refused
//! with its line and column; nothing of the file is ignored.

mod addresses;
mod choice;
mod duration;
mod pool;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use addresses::PublicAddresses;
pub use choice::{ClampMss, Filtering, ForeignAddress, Mapping};
pub use pool::Pool;

use crate::{
    error::{Exit, reason},
    options::Mode,
    rules::{Cidr, FTP_CONTROL_PORT, Forward, OneToOne, Prefix, Rule, RuleError, RuleSet, clash},
};

/// A configuration file, with defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Interfaces and hook.
    pub gateway: Gateway,
    /// Outbound of every inside host.
    pub masquerade: Masquerade,
    /// Ports that lead to a host inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Forward>,
    /// Addresses that belong to a host inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_to_one: Vec<OneToOne>,
    /// Prefixes of IPv6 that are translated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<Prefix>,
    /// IPv6.
    pub ipv6: Ipv6,
    /// The FTP engine.
    pub ftp: Ftp,
    /// Lifetimes of flows.
    pub timeouts: Timeouts,
    /// Sizes of tables.
    pub limits: Limits,
}

/// Section `[gateway]`; the command line goes before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Interfaces to the outside.
    pub wan: Vec<String>,
    /// Interfaces to the inside.
    pub lan: Vec<String>,
    /// Which hook.
    pub mode: Mode,
    /// Networks whose hosts are inside, where one interface is WAN and LAN.
    #[serde(deserialize_with = "choice::inside")]
    pub inside: Vec<Cidr>,
    /// Whether a WAN gets the public addresses of rules that lie in its network and that nobody has.
    pub add_addresses: bool,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            wan: vec![],
            lan: vec![],
            mode: Mode::default(),
            inside: choice::private(),
            add_addresses: true,
        }
    }
}

/// Section `[masquerade]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masquerade {
    /// Whether inside hosts without an address of their own reach the outside.
    pub enabled: bool,
    /// Public addresses that hosts are shared out among; none is that of each WAN.
    #[serde(skip_serializing_if = "PublicAddresses::is_empty")]
    pub addresses: PublicAddresses,
    /// Public ports that may be handed out.
    pub ports: Pool,
    /// Whether public ports of UDP are odd or even as inside ports are, while there are such (RFC 4787,
    /// REQ-4).
    pub parity: bool,
    /// When a host keeps its public port (RFC 4787, 4.1).
    pub mapping: Mapping,
    /// Who may answer on it (RFC 4787, 5).
    pub filtering: Filtering,
    /// Which MSS TCP connections through the gateway may announce.
    pub clamp_mss: ClampMss,
    /// Networks to which packets leave as they are, and from which they come in so.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "choice::exempt")]
    pub exempt: Vec<Cidr>,
}

impl Default for Masquerade {
    fn default() -> Self {
        Self {
            enabled: true,
            addresses: PublicAddresses::default(),
            ports: Pool::default(),
            parity: false,
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            clamp_mss: ClampMss::Auto,
            exempt: vec![],
        }
    }
}

/// Section `[ipv6]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ipv6 {
    /// Whether it is forwarded and filtered; else it passes as the kernel routes it.
    pub enabled: bool,
    /// Whether the outside may send echo requests to inside hosts (RFC 4890, 4.3.1).
    pub echo: bool,
    /// Whether addresses of `fc00::/7` pass a WAN as they are (RFC 6092, REC-7).
    pub unique_local: bool,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Self { enabled: true, echo: false, unique_local: false }
    }
}

/// Section `[ftp]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ftp {
    /// Destination ports of outbound connections that are FTP control connections.
    #[serde(deserialize_with = "choice::control_ports")]
    pub control_ports: Vec<std::num::NonZeroU16>,
    /// What becomes of a PORT or 227 that names a third host.
    pub foreign_address: ForeignAddress,
    /// Other addresses of servers, from which data connections may come, by that of their control
    /// connections.
    #[serde(deserialize_with = "choice::data_addresses")]
    pub data_addresses: BTreeMap<IpAddr, Vec<IpAddr>>,
    /// Whether a session that leaves the rules of FTP is ended.
    pub strict: bool,
    /// Commands that end a session in strict mode.
    #[serde(deserialize_with = "choice::denied_commands")]
    pub denied_commands: Vec<String>,
}

impl Default for Ftp {
    fn default() -> Self {
        Self {
            control_ports: std::num::NonZeroU16::new(FTP_CONTROL_PORT).into_iter().collect(),
            foreign_address: ForeignAddress::Refuse,
            data_addresses: BTreeMap::new(),
            strict: false,
            denied_commands: vec![],
        }
    }
}

/// Section `[timeouts]`: how long a flow may be idle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// An open TCP connection (RFC 5382, REQ-5).
    #[serde(deserialize_with = "duration::lifetime", serialize_with = "duration::written")]
    pub tcp_established: Duration,
    /// A TCP connection that opens or closes (RFC 5382, REQ-5).
    #[serde(deserialize_with = "duration::lifetime", serialize_with = "duration::written")]
    pub tcp_transitory: Duration,
    /// UDP (RFC 4787, REQ-5).
    #[serde(deserialize_with = "duration::lifetime", serialize_with = "duration::written")]
    pub udp: Duration,
    /// ICMP queries (RFC 5508, REQ-2).
    #[serde(deserialize_with = "duration::lifetime", serialize_with = "duration::written")]
    pub icmp: Duration,
    /// An expectation that nobody has used.
    #[serde(deserialize_with = "duration::lifetime", serialize_with = "duration::written")]
    pub expectation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            udp: Duration::from_secs(5 * 60),
            icmp: Duration::from_secs(60),
            expectation: Duration::from_secs(30),
        }
    }
}

/// Section `[limits]`: how much the tables hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Flows of all hosts.
    pub flows: std::num::NonZeroU32,
    /// Flows of IPv6, of all hosts.
    pub flows6: std::num::NonZeroU32,
    /// Flows of IPv4, and as many of IPv6, that one inside host may open by each address; 0 is no limit.
    pub flows_per_host: u32,
    /// Public ports that masquerade may give one inside host, of all protocols; 0 is no limit.
    pub ports_per_host: u32,
    /// Expectations of all sessions.
    pub expectations: std::num::NonZeroU32,
    /// Announced data connections of one FTP session at a time.
    #[serde(deserialize_with = "choice::pinholes_per_session")]
    pub pinholes_per_session: std::num::NonZeroU8,
    /// Announced data connections of one FTP client at a time, in all of its sessions.
    pub pinholes_per_client: std::num::NonZeroU32,
    /// Data connections that one FTP client may announce a second.
    pub pinholes_per_second: std::num::NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let entries = |n: u32| std::num::NonZeroU32::MIN.saturating_add(n - 1);
        let quota = crate::alg::Quota::default();
        let per_session = u8::try_from(quota.per_session).unwrap_or(u8::MAX);
        Self {
            flows: entries(1 << 20),
            flows6: entries(1 << 17),
            flows_per_host: 1 << 16,
            ports_per_host: 0,
            expectations: entries(1 << 16),
            pinholes_per_session: std::num::NonZeroU8::MIN.saturating_add(per_session - 1),
            pinholes_per_client: entries(quota.per_client),
            pinholes_per_second: entries(quota.per_second),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("read configuration {path}: {}", reason(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It isn't a configuration.
    #[error("configuration {path}, line {line}, column {column}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake, from 1, in characters.
        column: usize,
        /// The mistake.
        why: String,
    },
    /// Its rules contradict each other.
    #[error("configuration {path}: {source}")]
    Rules {
        /// The file.
        path: PathBuf,
        /// Which rules, and why.
        source: RuleError,
    },
}

impl ConfigError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Exit::NotFound,
                io::ErrorKind::PermissionDenied => Exit::Refused,
                _ => Exit::Error,
            },
            // Usage is the command line; a file that is wrong is an error, as with `nft -f`.
            Self::Content { .. } => Exit::Error,
            Self::Rules { source, .. } => source.exit(),
        }
    }
}

impl Config {
    /// Reads and checks a file, its rules included.
    ///
    /// # Errors
    /// One line with the place of the first mistake.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::of_text(path, &text)
    }

    /// The same of the text that was read from `path`.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn of_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config = Self::parse(text).map_err(|mistake| ConfigError::Content {
            path: path.to_owned(),
            line: mistake.line,
            column: mistake.column,
            why: mistake.why,
        })?;
        let mut set = RuleSet::behind(&config.prefix);
        for rule in config.rules() {
            set.insert(rule, &|_| None)
                .map_err(|source| ConfigError::Rules { path: path.to_owned(), source })?;
        }
        Ok(config)
    }

    /// It as a file would say it, defaults written out: read again it is the same.
    ///
    /// # Errors
    /// Where something of it has no place in a file, which is a mistake of this program.
    pub fn text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The rules of the file, forwards first.
    pub fn rules(&self) -> Vec<Rule> {
        let forwards = self.forward.iter().cloned().map(Rule::Forward);
        forwards.chain(self.one_to_one.iter().cloned().map(Rule::OneToOne)).collect()
    }

    fn parse(text: &str) -> Result<Self, Mistake> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count();
            // The parser names the type that it wanted, seldom the key that it is for.
            let shown = text.lines().nth(line).unwrap_or_default().trim();
            let why = error
                .message()
                .replace('\n', " ")
                .replace("nonzero u8", "whole number above 0")
                .replace("nonzero u32", "whole number above 0")
                .replace("nonzero u16", "port number from 1 to 65535");
            Mistake {
                line: line + 1,
                column: before.chars().rev().take_while(|&c| c != '\n').count() + 1,
                why: format!("`{shown}`: {why}"),
            }
        })?;
        let held = config.forward.iter().map(Forward::strict);
        let held = held.chain(config.one_to_one.iter().map(OneToOne::strict));
        let is_strict = config.ftp.strict || held.flatten().any(|strict| strict);
        if !is_strict && !config.ftp.denied_commands.is_empty() {
            let why = "denied_commands are those of strict mode: say 'strict = true' too, here or in a \
                       rule";
            return Err(Mistake::at(text, "denied_commands", why));
        }
        if let Some(why) = clash(&config.prefix) {
            return Err(Mistake::at(text, "[[prefix]]", &why));
        }
        if !config.ipv6.enabled && !config.prefix.is_empty() {
            let why = "prefixes are translated where IPv6 is filtered: say '[ipv6] enabled = true'";
            return Err(Mistake::at(text, "[[prefix]]", why));
        }
        let Masquerade { mapping, filtering, .. } = &config.masquerade;
        if *mapping == Mapping::AddressAndPortDependent
            && *filtering != Filtering::AddressAndPortDependent
        {
            let why = "filtering by less than address and port needs mapping \
                       'endpoint-independent': a port that is shared by remote end leads nobody \
                       else in";
            return Err(Mistake::at(text, "filtering", why));
        }
        let shared = |host: &&OneToOne| config.masquerade.addresses.contains(&host.public());
        if let Some(host) = config.one_to_one.iter().find(shared) {
            let why = format!(
                "one-to-one '{}' has {} for itself: name another address, or give the host a \
                 forward",
                host.name(),
                host.public()
            );
            return Err(Mistake::at(text, "addresses", &why));
        }
        Ok(config)
    }
}

/// A place in the text and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    line: usize,
    column: usize,
    why: String,
}

impl Mistake {
    /// A mistake that only shows beside another key.
    fn at(text: &str, key: &str, why: &str) -> Self {
        let is_it = |line: &str| line.trim_start().starts_with(key);
        let line = text.lines().position(is_it).map_or(1, |line| line + 1);
        Self { line, column: 1, why: why.to_owned() }
    }
}
