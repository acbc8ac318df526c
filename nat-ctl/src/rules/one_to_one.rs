//! One public address for one host inside, in both directions.
//!
//! Invariant: outbound packets of the host use the address whatever `inbound` says; nothing comes
//! in but what an [`Inbound`] names.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    Alg, Cidr, FTP_CONTROL_PORT, FlowProtocol, InboundProtocol, PortRange, Protocol, RuleError,
    RuleName, Uplink, address::deserialize_host, text::serde_by_text,
};

/// A one-to-one rule that holds together; made by [`OneToOneDraft::finish`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneToOneDraft", into = "OneToOneDraft")]
pub struct OneToOne {
    name: RuleName,
    public: Ipv4Addr,
    to: Ipv4Addr,
    inbound: Vec<Inbound>,
    alg: Option<Alg>,
    strict: Option<bool>,
    uplink: Option<Uplink>,
    comment: Option<String>,
}

impl OneToOne {
    /// What it is called.
    pub fn name(&self) -> &RuleName {
        &self.name
    }

    /// The address outside.
    pub fn public(&self) -> Ipv4Addr {
        self.public
    }

    /// The host inside.
    pub fn to(&self) -> Ipv4Addr {
        self.to
    }

    /// What may come in unasked; empty: nothing.
    pub fn inbound(&self) -> &[Inbound] {
        &self.inbound
    }

    /// The WAN that its packets leave by, where one is named.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.uplink.as_ref()
    }

    /// Whether sessions that come by it are held to strict mode; `None`: as `[ftp]` says.
    pub fn strict(&self) -> Option<bool> {
        self.strict
    }

    /// What the operator wrote beside it.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The ALG on the control port of the host.
    pub fn alg(&self) -> Alg {
        self.alg.unwrap_or(Alg::Ftp)
    }

    /// Whether connections to this port are FTP control connections.
    pub(super) fn alg_on(&self, protocol: FlowProtocol, port: u16) -> bool {
        self.alg() == Alg::Ftp && protocol == Protocol::Tcp.into() && port == FTP_CONTROL_PORT
    }
}

/// `PROTO[:PORTS][@CIDR,...]`: packets that a one-to-one address lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    protocol: InboundProtocol,
    ports: Option<PortRange>,
    allow: Vec<Cidr>,
}

impl Inbound {
    /// Puts the parts together; `allow` empty means everybody.
    ///
    /// # Errors
    /// [`RuleError::Inconsistent`] where ports are named for a protocol without ports.
    pub fn new(
        protocol: InboundProtocol,
        ports: Option<PortRange>,
        allow: Vec<Cidr>,
    ) -> Result<Self, RuleError> {
        if let Some(ports) = ports
            && !matches!(
                protocol.key().and_then(FlowProtocol::with_ports),
                Some(Protocol::Tcp | Protocol::Udp)
            )
        {
            return Err(RuleError::Inconsistent(format!(
                "inbound '{protocol}:{ports}': only tcp and udp have ports"
            )));
        }
        if let Some(six) = allow.iter().find(|cidr| cidr.network().is_ipv6()) {
            return Err(RuleError::Inconsistent(format!(
                "inbound '{protocol}@{six}': a one-to-one address is of IPv4: name prefixes of that"
            )));
        }
        let allow = if allow.is_empty() { vec![Cidr::ALL] } else { Cidr::reduce(allow) };
        Ok(Self { protocol, ports, allow })
    }

    /// The protocol that comes in.
    pub fn protocol(&self) -> InboundProtocol {
        self.protocol
    }

    /// The ports; `None`: all of the protocol.
    pub fn ports(&self) -> Option<PortRange> {
        self.ports
    }

    /// From where; never empty.
    pub fn allow(&self) -> &[Cidr] {
        &self.allow
    }
}

impl FromStr for Inbound {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (what, from) = match text.split_once('@') {
            Some((what, from)) => (what, Some(from)),
            None => (text, None),
        };
        let (protocol, ports) = match what.split_once(':') {
            Some((protocol, ports)) => (protocol, Some(ports.parse()?)),
            None => (what, None),
        };
        let allow = from.map_or(Ok(vec![]), |from| from.split(',').map(str::parse).collect())?;
        Self::new(protocol.parse()?, ports, allow)
    }
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.protocol)?;
        if let Some(ports) = self.ports {
            write!(f, ":{ports}")?;
        }
        if self.allow != [Cidr::ALL] {
            for (index, cidr) in self.allow.iter().enumerate() {
                write!(f, "{}{cidr}", if index == 0 { '@' } else { ',' })?;
            }
        }
        Ok(())
    }
}

serde_by_text!(Inbound);

/// One element of `inbound` in a file: our text, or the dashboard's table.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "an inbound rule is text like \"tcp:20-21@198.51.100.0/24\", or a table of \
                 protocol, destinationPorts and allowedIps"
)]
enum InboundWritten {
    Text(String),
    Table(InboundTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundTable {
    protocol: InboundProtocol,
    #[serde(default, alias = "destinationPorts")]
    ports: Vec<PortRange>,
    #[serde(default, alias = "allowedIps")]
    allow: Vec<Cidr>,
}

fn inbound_list<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Inbound>, D::Error> {
    let mut list = vec![];
    for written in Vec::<InboundWritten>::deserialize(d)? {
        match written {
            InboundWritten::Text(text) => {
                list.push(text.parse().map_err(serde::de::Error::custom)?);
            }
            InboundWritten::Table(table) => {
                list.extend(table.flatten().map_err(serde::de::Error::custom)?);
            }
        }
    }
    Ok(list)
}

impl InboundTable {
    /// The dashboard lists ports side by side; we have one range in each rule.
    fn flatten(self) -> Result<Vec<Inbound>, RuleError> {
        if self.ports.is_empty() {
            return Ok(vec![Inbound::new(self.protocol, None, self.allow)?]);
        }
        self.ports
            .into_iter()
            .map(|ports| Inbound::new(self.protocol, Some(ports), self.allow.clone()))
            .collect()
    }
}

/// A one-to-one rule as it is written, on the command line or in a file.
///
/// The second names are those of the Meraki dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneToOneDraft {
    /// What it is called.
    pub name: RuleName,
    /// The address outside.
    #[serde(alias = "publicIp", deserialize_with = "deserialize_host")]
    pub public: Ipv4Addr,
    /// The host inside.
    #[serde(alias = "lanIp", deserialize_with = "deserialize_host")]
    pub to: Ipv4Addr,
    /// What may come in unasked.
    #[serde(
        default,
        alias = "allowedInbound",
        deserialize_with = "inbound_list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub inbound: Vec<Inbound>,
    /// The ALG on the control port; FTP where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<Alg>,
    /// Strict mode of FTP for sessions by this rule; as `[ftp]` says where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// The WAN that its packets leave by; that of the public address where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Uplink>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl OneToOneDraft {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`RuleError::Inconsistent`] names the parts that contradict each other.
    pub fn finish(self) -> Result<OneToOne, RuleError> {
        let name = &self.name;
        let refuse = |why: &str| RuleError::Inconsistent(format!("one-to-one '{name}': {why}"));
        if self.public == self.to {
            return Err(refuse("the public address is the inside address too"));
        }
        if self.strict.is_some() && self.alg == Some(Alg::None) {
            return Err(refuse("strict mode needs the ALG: leave 'alg' out"));
        }
        Ok(OneToOne {
            name: self.name,
            public: self.public,
            to: self.to,
            inbound: self.inbound,
            alg: self.alg,
            strict: self.strict,
            uplink: self.uplink,
            comment: self.comment,
        })
    }
}

impl TryFrom<OneToOneDraft> for OneToOne {
    type Error = RuleError;

    fn try_from(draft: OneToOneDraft) -> Result<Self, RuleError> {
        draft.finish()
    }
}

impl From<OneToOne> for OneToOneDraft {
    fn from(rule: OneToOne) -> Self {
        Self {
            name: rule.name,
            public: rule.public,
            to: rule.to,
            inbound: rule.inbound,
            alg: rule.alg,
            strict: rule.strict,
            uplink: rule.uplink,
            comment: rule.comment,
        }
    }
}
