//! The words for protocols and for the application-level gateway.
//!
//! Invariant: each place takes only the protocols that make sense there.

use std::{fmt, str::FromStr};

use nat_common::flow;
use serde::{Deserialize, Serialize};

use super::{RuleError, text::serde_by_text};

/// A protocol that the data plane translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// ICMP echo; its identifier takes the place of the port.
    Icmp,
}

impl Protocol {
    /// Every protocol, in the order of [`Protocol::number`]'s registry names.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The number in the IPv4 header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The word in commands and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The protocol of a number, where the data plane translates it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

impl FromStr for Protocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            _ => Err(RuleError::malformed(text, "a protocol (tcp, udp or icmp)")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The protocol of a flow: any, where no ports are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowProtocol(u8);

impl FlowProtocol {
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(nat_common::six::ICMPV6);
    /// Those without ports that have a word.
    const NAMED: [(Self, &str); 4] =
        [(Self(47), "gre"), (Self(50), "esp"), (Self::ICMPV6, "icmpv6"), (Self(132), "sctp")];

    /// The one with this number in the header of IPv4, or at the end of the headers of IPv6.
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// That number (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The word in commands and output, as conntrack has it; a number has none.
    pub fn name(self) -> Option<&'static str> {
        let named = Self::NAMED.iter().find(|(protocol, _)| *protocol == self);
        named.map(|(_, name)| *name).or(self.with_ports().map(Protocol::name))
    }

    /// One whose ports or identifiers are translated.
    pub fn with_ports(self) -> Option<Protocol> {
        Protocol::from_number(self.0)
    }
}

impl From<Protocol> for FlowProtocol {
    fn from(protocol: Protocol) -> Self {
        Self(protocol.number())
    }
}

impl FromStr for FlowProtocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if let Some((named, _)) = Self::NAMED.iter().find(|(_, name)| *name == text) {
            return Ok(*named);
        }
        let by_number = || text.parse().map(Self);
        text.parse::<Protocol>().map(Self::from).or_else(|_| by_number()).map_err(|_| {
            RuleError::malformed(
                text,
                "a protocol (tcp, udp, icmp, icmpv6, gre, esp, sctp, or a number to 255)",
            )
        })
    }
}

impl fmt::Display for FlowProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// The protocols of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// TCP alone.
    Tcp,
    /// UDP alone.
    Udp,
    /// Both.
    TcpAndUdp,
}

impl Protocols {
    /// One by one.
    pub fn each(self) -> &'static [Protocol] {
        match self {
            Self::Tcp => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::TcpAndUdp => &[Protocol::Tcp, Protocol::Udp],
        }
    }
}

impl FromStr for Protocols {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "tcp+udp" => Ok(Self::TcpAndUdp),
            _ => Err(RuleError::malformed(text, "a protocol of a forward (tcp, udp or tcp+udp)")),
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::TcpAndUdp => "tcp+udp",
        })
    }
}

/// What `--inbound` lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundProtocol {
    /// Every protocol.
    Any,
    /// One protocol, with or without ports.
    Only(FlowProtocol),
}

impl InboundProtocol {
    /// The protocol for a map key: `None` for every protocol.
    pub fn key(self) -> Option<FlowProtocol> {
        match self {
            Self::Any => None,
            Self::Only(protocol) => Some(protocol),
        }
    }
}

impl FromStr for InboundProtocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let protocol: FlowProtocol = text.parse().map_err(|_| {
            RuleError::malformed(
                text,
                "an inbound protocol (any, tcp, udp, icmp, gre, esp, sctp, or a number to 255)",
            )
        })?;
        let why = match protocol.number() {
            0 => "is an option of IPv6",
            _ if protocol == FlowProtocol::ICMPV6 => "is not of IPv4",
            number if flow::covers_addresses(number) => "has a checksum over its addresses",
            _ => return Ok(Self::Only(protocol)),
        };
        Err(RuleError::Inconsistent(format!(
            "inbound '{text}': protocol {} {why}, and is not translated",
            protocol.number()
        )))
    }
}

impl fmt::Display for InboundProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any"),
            Self::Only(protocol) => protocol.fmt(f),
        }
    }
}

/// Which engine follows the control flows of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    /// The FTP engine.
    Ftp,
    /// None: the payload is not looked at.
    None,
}

impl FromStr for Alg {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "ftp" => Ok(Self::Ftp),
            "none" => Ok(Self::None),
            _ => Err(RuleError::malformed(text, "an ALG (ftp or none)")),
        }
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ftp => "ftp",
            Self::None => "none",
        })
    }
}

serde_by_text!(FlowProtocol, Protocols, InboundProtocol, Alg);
