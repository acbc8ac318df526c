//! One forward: a public address and ports that lead to a host inside.
//!
//! Invariant: where ports are named, both sides have as many; the ALG is asked for on TCP alone.

use std::net::IpAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    Alg, Cidr, FTP_CONTROL_PORT, InsideEndpoint, PortRange, Protocol, Protocols, PublicAddress,
    PublicEndpoint, RuleError, RuleName, Uplink,
};

/// No data connection goes to a port of the system's (RFC 2577, section 3).
const FIRST_PASSIVE_PORT: u16 = 1024;

/// A forward that holds together; made by [`ForwardDraft::finish`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ForwardDraft", into = "ForwardDraft")]
pub struct Forward {
    name: RuleName,
    protocols: Protocols,
    public: PublicAddress,
    to: IpAddr,
    ports: Option<PortMap>,
    allow: Vec<Cidr>,
    alg: Option<Alg>,
    strict: Option<bool>,
    passive_range: Option<PortRange>,
    uplink: Option<Uplink>,
    comment: Option<String>,
}

/// Public ports and, one to one, the ports inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortMap {
    pub(super) public: PortRange,
    pub(super) to: PortRange,
}

impl Forward {
    /// What it is called.
    pub fn name(&self) -> &RuleName {
        &self.name
    }

    /// The protocols that are forwarded.
    pub fn protocols(&self) -> Protocols {
        self.protocols
    }

    /// Where it is reached from outside.
    pub fn public(&self) -> PublicEndpoint {
        PublicEndpoint { address: self.public.clone(), ports: self.ports.map(|ports| ports.public) }
    }

    /// The host inside.
    pub fn to(&self) -> InsideEndpoint {
        InsideEndpoint { address: self.to, ports: self.ports.map(|ports| ports.to) }
    }

    /// Who may use it; never empty.
    pub fn allow(&self) -> &[Cidr] {
        &self.allow
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

    /// Ports of passive data connections, open to those that hold an encrypted control session.
    pub fn passive_range(&self) -> Option<PortRange> {
        self.passive_range
    }

    pub(super) fn port_map(&self) -> Option<PortMap> {
        self.ports
    }

    /// Whether connections to this public port are FTP control connections. Asked for by name, the
    /// ALG is on for every named port; else, and without ports, on the control port alone.
    pub(super) fn alg_on(&self, protocol: Protocol, port: u16) -> bool {
        let asked = match self.alg {
            Some(Alg::Ftp) => self.ports.is_some() || port == FTP_CONTROL_PORT,
            Some(Alg::None) => false,
            None => port == FTP_CONTROL_PORT,
        };
        asked && protocol == Protocol::Tcp
    }

    /// The ALG that some connection through this forward gets.
    pub fn alg(&self) -> Alg {
        let first = self.ports.map_or(FTP_CONTROL_PORT, |ports| ports.public.first());
        let port = match self.ports {
            Some(ports) if ports.public.contains(FTP_CONTROL_PORT) => FTP_CONTROL_PORT,
            _ => first,
        };
        let on = self.protocols.each().iter().any(|&protocol| self.alg_on(protocol, port));
        if on { Alg::Ftp } else { Alg::None }
    }
}

/// A service whose ports and ALG are known, for `--service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The control port of FTP; the gateway opens data connections as the dialogue asks for them.
    Ftp,
}

/// A forward as it is written, on the command line or in a file.
///
/// The second names are those of the Meraki dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardDraft {
    /// What it is called.
    pub name: RuleName,
    /// A known service, in place of protocol, ports and ALG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The protocols; needed without a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocols>,
    /// Public address and ports.
    #[serde(alias = "publicIp")]
    pub public: PublicEndpoint,
    /// The dashboard's public ports, where `public` has none.
    #[serde(default, rename = "publicPort", skip_serializing_if = "Option::is_none")]
    pub public_port: Option<PortRange>,
    /// Host inside and its ports.
    #[serde(alias = "lanIp")]
    pub to: InsideEndpoint,
    /// The dashboard's inside ports, where `to` has none.
    #[serde(default, rename = "localPort", skip_serializing_if = "Option::is_none")]
    pub local_port: Option<PortRange>,
    /// Who may use it; empty: everybody.
    #[serde(default, alias = "allowedIps", skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Cidr>,
    /// The ALG; FTP on public port 21 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<Alg>,
    /// Strict mode of FTP for sessions by this rule; as `[ftp]` says where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Ports of passive data connections, the same outside and inside, for FTP over TLS alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_range: Option<PortRange>,
    /// The WAN that its packets leave by; that of the public address where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Uplink>,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl ForwardDraft {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`RuleError::Inconsistent`] names the parts that contradict each other.
    pub fn finish(self) -> Result<Forward, RuleError> {
        let name = self.name.clone();
        let refuse = |why: &str| RuleError::Inconsistent(format!("forward '{name}': {why}"));
        let mut public = either(self.public.ports, self.public_port)
            .map_err(|()| refuse("the public port is given twice"))?;
        let mut to = either(self.to.ports, self.local_port)
            .map_err(|()| refuse("the inside port is given twice"))?;
        let mut protocols = self.protocol;
        let mut alg = self.alg;
        if let Some(Service::Ftp) = self.service {
            if protocols.is_some_and(|protocols| protocols != Protocols::Tcp) {
                return Err(refuse("service ftp is tcp: leave the protocol out"));
            }
            if alg == Some(Alg::None) {
                return Err(refuse("service ftp needs the ALG: leave 'alg' out"));
            }
            protocols = Some(Protocols::Tcp);
            alg = Some(Alg::Ftp);
            let control = PortRange::single(FTP_CONTROL_PORT);
            public = public.or(control);
            to = to.or(control);
            if public.is_some_and(|ports| ports.count() > 1) {
                return Err(refuse(
                    "service ftp is the control port and nothing else: name one port, or none",
                ));
            }
        }
        let protocols =
            protocols.ok_or_else(|| refuse("needs a protocol (tcp, udp or tcp+udp)"))?;
        let ports = match (public, to) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(refuse("the inside port is named but the public one isn't"));
            }
            (Some(public), None) => Some(PortMap { public, to: public }),
            (Some(public), Some(to)) if public.count() == to.count() => {
                Some(PortMap { public, to })
            }
            (Some(public), Some(to)) => {
                return Err(refuse(&format!(
                    "a range maps one to one, and {public} has {}, {to} has {}: name as many ports \
                     on both sides",
                    count(public),
                    count(to),
                )));
            }
        };
        if alg == Some(Alg::Ftp) && !protocols.each().contains(&Protocol::Tcp) {
            return Err(refuse("the FTP ALG needs tcp"));
        }
        let control = ports.is_none_or(|ports| ports.public.contains(FTP_CONTROL_PORT));
        let is_ftp = match alg {
            Some(alg) => alg == Alg::Ftp,
            None => control && protocols.each().contains(&Protocol::Tcp),
        };
        if self.strict.is_some() && !is_ftp {
            return Err(refuse("strict mode is for FTP: add --service ftp or --alg ftp"));
        }
        if let Some(range) = self.passive_range {
            let Some(ports) = ports else {
                return Err(refuse("all ports are forwarded already: leave the passive range out"));
            };
            if alg == Some(Alg::None) || alg.is_none() && !ports.public.contains(FTP_CONTROL_PORT) {
                return Err(refuse("a passive range is for FTP: add --service ftp or --alg ftp"));
            }
            if range.first() < FIRST_PASSIVE_PORT {
                return Err(refuse("the passive range must lie above port 1023"));
            }
            if range.overlaps(ports.public) {
                return Err(refuse("the passive range holds the port that is forwarded itself"));
            }
        }
        match (&self.public.address, self.to.address) {
            (PublicAddress::Address(IpAddr::V6(_)), IpAddr::V6(_)) => {
                // What the host is known as outside the configuration knows.
                if ports.is_some_and(|ports| ports.public != ports.to) {
                    return Err(refuse(
                        "ports of IPv6 are not translated: name the same in 'public' and 'to'",
                    ));
                }
                if self.uplink.is_some() {
                    return Err(refuse("an uplink is for IPv4: routes lead packets of IPv6"));
                }
                if self.passive_range.is_some() {
                    return Err(refuse(
                        "a passive range needs IPv4: let its ports in by a forward of their own",
                    ));
                }
            }
            (PublicAddress::Address(IpAddr::V4(public)), IpAddr::V4(to)) => {
                if *public == to {
                    return Err(refuse("the public address is the inside address too"));
                }
            }
            (PublicAddress::Interface(_), IpAddr::V4(_)) => {}
            (PublicAddress::Interface(_), IpAddr::V6(_)) => {
                return Err(refuse(
                    "an interface does not stand for a host of IPv6: name the host's address in 'public'",
                ));
            }
            (PublicAddress::Address(_), _) => {
                return Err(refuse("one address is of IPv4 and the other of IPv6"));
            }
        }
        let other = |cidr: &&Cidr| cidr.network().is_ipv6() != self.to.address.is_ipv6();
        if let Some(other) = self.allow.iter().find(|cidr| **cidr != Cidr::ALL && other(cidr)) {
            return Err(refuse(&format!(
                "nobody from {other} comes here: it is of another protocol"
            )));
        }
        let allow = if self.allow.is_empty() { vec![Cidr::ALL] } else { Cidr::reduce(self.allow) };
        Ok(Forward {
            name: self.name,
            protocols,
            public: self.public.address,
            to: self.to.address,
            ports,
            allow,
            alg,
            strict: self.strict,
            passive_range: self.passive_range,
            uplink: self.uplink,
            comment: self.comment,
        })
    }
}

fn either(a: Option<PortRange>, b: Option<PortRange>) -> Result<Option<PortRange>, ()> {
    match (a, b) {
        (Some(_), Some(_)) => Err(()),
        (a, b) => Ok(a.or(b)),
    }
}

fn count(range: PortRange) -> String {
    match range.count() {
        1 => "1 port".to_owned(),
        many => format!("{many} ports"),
    }
}

impl TryFrom<ForwardDraft> for Forward {
    type Error = RuleError;

    fn try_from(draft: ForwardDraft) -> Result<Self, RuleError> {
        draft.finish()
    }
}

impl From<Forward> for ForwardDraft {
    fn from(forward: Forward) -> Self {
        Self {
            public: forward.public(),
            to: forward.to(),
            name: forward.name,
            service: None,
            protocol: Some(forward.protocols),
            public_port: None,
            local_port: None,
            allow: forward.allow,
            alg: forward.alg,
            strict: forward.strict,
            passive_range: forward.passive_range,
            uplink: forward.uplink,
            comment: forward.comment,
        }
    }
}
