//! The objects that commands print and the API carries.
//!
//! Invariant: names and types of these fields are fixed for version 1; fields may be added, none
//! may change. Times are seconds, addresses text, ports and counters numbers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use nat_common::reason::Reason;
use serde::{Deserialize, Serialize};

use super::FtpResult;
use crate::{
    options::Mode,
    rules::{
        Alg, Cidr, FlowProtocol, InboundProtocol, Origin, PortRange, Protocol, Protocols, Rule,
        RuleKind, RuleStore, Uplink,
    },
};

/// `status`: the gateway on one screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Which gateway.
    pub instance: String,
    /// Whether packets flow.
    pub ready: bool,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Every interface, WANs first.
    pub interfaces: Vec<InterfaceView>,
    /// Flow records.
    pub flows: Usage,
    /// Flows of IPv6.
    #[serde(default)]
    pub flows6: Usage,
    /// Public ports.
    pub ports: Usage,
    /// Expectations.
    pub expectations: Usage,
    /// FTP control connections.
    pub ftp_sessions: u64,
    /// Packets dropped, all reasons together.
    pub drops: u64,
    /// Packets by the hook that finished them.
    pub packets: PacketsView,
    /// Why new flows are refused now, if they are.
    #[serde(default)]
    pub overload: Vec<OverloadView>,
}

/// A state in which new flows are refused, or unanswered ones ended; that of no other flow changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverloadView {
    /// Its name, which is the drop reason, or [`OverloadView::PRESSURE`].
    pub state: String,
    /// Packets refused since it began.
    pub refused: u64,
    /// Flows ended since it began, that nobody had answered, to make room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ended: u64,
    /// Seconds since it began.
    pub for_s: u64,
    /// The hosts that it is about, where it is about some alone: at most [`OverloadView::HOSTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<IpAddr>,
}

impl OverloadView {
    /// Most hosts that are named; `hosts list` has them all.
    pub const HOSTS: usize = 5;
    /// Unanswered flows are ended to make room.
    pub const PRESSURE: &str = "table-pressure";
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An element of `hosts list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its address.
    pub host: IpAddr,
    /// Flows that it has opened and that are there still.
    pub flows: u64,
    /// How many it may have; none where there is no limit.
    pub limit: Option<u32>,
    /// Public ports that masquerade has given it; none of IPv6.
    pub ports: Option<u64>,
    /// How many it may have; none where there is no limit.
    pub ports_limit: Option<u32>,
    /// Packets refused because of the limits.
    pub refused: u64,
}

impl HostView {
    /// Whether it may open no other flow, or none that needs another port.
    pub fn is_at_limit(&self) -> bool {
        let is_at = |limit: Option<u32>, has| limit.is_some_and(|limit| has >= u64::from(limit));
        is_at(self.limit, self.flows) || is_at(self.ports_limit, self.ports.unwrap_or(0))
    }
}

/// How full a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Entries in use.
    pub used: u64,
    /// Entries that there is room for.
    pub max: u64,
}

/// Packets by the hook that finished them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketsView {
    /// Translated and redirected by XDP.
    pub xdp: u64,
    /// Translated and redirected by TC.
    pub tc: u64,
    /// Left to the kernel as they came.
    pub stack: u64,
    /// Handed to the agent, and sent on by it.
    pub punted: u64,
    /// Sent on at once, with a copy for the agent.
    #[serde(default)]
    pub copied: u64,
    /// Of IPv6, left to the kernel to forward because they have a flow.
    #[serde(default)]
    pub ipv6: u64,
}

/// An interface of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Which side it is on.
    pub role: Role,
    /// The hook that carries its packets.
    pub mode: InterfaceMode,
    /// Why that hook.
    pub reason: String,
    /// Whether there is no such interface now, or one without programs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// The side of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Outside.
    Wan,
    /// Inside.
    Lan,
}

/// The hook of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceMode {
    /// XDP, with TC behind it.
    Xdp,
    /// TC alone.
    Tc,
}

impl InterfaceMode {
    /// The same as a mode to ask for.
    pub fn asked(self) -> Mode {
        match self {
            Self::Xdp => Mode::Xdp,
            Self::Tc => Mode::Tc,
        }
    }
}

/// An element of `flows list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// State in one word, such as `established`.
    pub state: String,
    /// What the initiator sends.
    pub original: End,
    /// What the answer looks like on the other side; of IPv6, where no prefix is translated, the same
    /// turned round.
    pub reply: End,
    /// Seconds since the first packet.
    pub age_s: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Seconds until it is removed if it stays idle.
    pub expires_s: u64,
    /// `ftp` for a control connection.
    pub alg: Option<Alg>,
    /// The rule that let it in.
    pub rule: Option<String>,
    /// The FTP session whose data connection this is.
    pub related_to: Option<u64>,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Source address.
    pub src: IpAddr,
    /// Source port; the identifier for ICMP, 0 for what has no ports.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port; the identifier for ICMP, 0 for what has no ports.
    pub dport: u16,
    /// Packets of this direction.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An element of `expectations list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectationView {
    /// Protocol.
    pub protocol: Protocol,
    /// The only address that may open the connection.
    pub src: IpAddr,
    /// The address that it will dial.
    pub dst: IpAddr,
    /// The port that it will dial.
    pub dport: u16,
    /// The host that it is led to.
    pub to: IpAddr,
    /// The port there.
    pub to_port: u16,
    /// Seconds until it is removed unused.
    pub expires_s: u64,
    /// The FTP session that announced it.
    pub session: u64,
}

/// An element of `ftp sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FtpSessionView {
    /// Number of the session.
    pub id: u64,
    /// Address and port of the client.
    pub client: String,
    /// Address and port of the server.
    pub server: String,
    /// Address and port that the gateway shows to the outside.
    pub public: String,
    /// Who has logged in.
    pub user: Option<String>,
    /// Where the dialogue is, in one word.
    pub state: String,
    /// Whether the control connection is beyond reading.
    pub encrypted: bool,
    /// What that means for its data connections, in a sentence; the log has the same.
    #[serde(default)]
    pub note: Option<String>,
    /// How the last data connection was announced.
    pub mode: Option<FtpMode>,
    /// The last command; arguments of PASS and ACCT are masked.
    pub command: Option<String>,
    /// The file of the last transfer.
    pub file: Option<String>,
    /// Bytes over its data connections.
    pub bytes: u64,
    /// Bytes a second of the transfer under way, or of the last one.
    #[serde(default)]
    pub rate: u64,
    /// What became of that transfer.
    #[serde(default)]
    pub result: Option<FtpResult>,
    /// Seconds since the control connection opened.
    pub age_s: u64,
    /// The rule that let it in.
    pub rule: Option<String>,
}

/// Who opens the data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FtpMode {
    /// The server: PORT, EPRT.
    Active,
    /// The client: PASV, EPSV.
    Passive,
}

/// `drops`: packets by reason; every reason is there, those at 0 too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DropsView(pub BTreeMap<String, u64>);

impl DropsView {
    /// From the counter of each reason.
    pub fn new(count: impl Fn(Reason) -> u64) -> Self {
        Self(Reason::ALL.iter().map(|&reason| (reason.name().to_owned(), count(reason))).collect())
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// An element of `forward list` or `one-to-one list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RuleView {
    /// A forward.
    Forward(ForwardView),
    /// A one-to-one address.
    OneToOne(OneToOneView),
}

/// A forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardView {
    /// Its name.
    pub name: String,
    /// `tcp`, `udp` or `tcp+udp`.
    pub protocol: Protocols,
    /// Public address or interface.
    pub public: String,
    /// Public ports; null: all of the protocol.
    pub public_ports: Option<PortsView>,
    /// Host inside.
    pub to: IpAddr,
    /// Its ports, one to one.
    pub to_ports: Option<PortsView>,
    /// Who may use it.
    pub allow: Vec<Cidr>,
    /// `ftp` where control connections are followed.
    pub alg: Option<Alg>,
    /// Strict mode of FTP; null: as `[ftp]` says.
    #[serde(default)]
    pub strict: Option<bool>,
    /// Ports that are open to those that hold an encrypted control session.
    #[serde(default)]
    pub passive_range: Option<PortsView>,
    /// The WAN that its packets leave by; null: that of the public address.
    #[serde(default)]
    pub uplink: Option<Uplink>,
    /// What the operator wrote beside it.
    pub comment: Option<String>,
    /// Where the rule came from.
    pub origin: Origin,
    /// Its number in maps.
    pub number: u32,
}

/// A one-to-one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneToOneView {
    /// Its name.
    pub name: String,
    /// Public address.
    pub public: Ipv4Addr,
    /// Host inside.
    pub to: Ipv4Addr,
    /// What may come in unasked.
    pub inbound: Vec<InboundView>,
    /// `ftp` where control connections are followed.
    pub alg: Option<Alg>,
    /// Strict mode of FTP; null: as `[ftp]` says.
    #[serde(default)]
    pub strict: Option<bool>,
    /// The WAN that its packets leave by; null: that of the public address.
    #[serde(default)]
    pub uplink: Option<Uplink>,
    /// What the operator wrote beside it.
    pub comment: Option<String>,
    /// Where the rule came from.
    pub origin: Origin,
    /// Its number in maps.
    pub number: u32,
}

/// One `--inbound`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundView {
    /// `any`, or one as in flows.
    pub protocol: InboundProtocol,
    /// Ports; null: all of the protocol.
    pub ports: Option<PortsView>,
    /// From where.
    pub allow: Vec<Cidr>,
}

/// Ports from first to last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsView {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl From<PortRange> for PortsView {
    fn from(range: PortRange) -> Self {
        Self { first: range.first(), last: range.last() }
    }
}

impl RuleView {
    /// The rules of a kind, oldest first.
    pub fn list(store: &RuleStore, kind: RuleKind) -> Vec<Self> {
        let view = |(rule, origin): (&Rule, Origin)| {
            Self::new(rule, origin, store.rules().number(rule.name()))
        };
        store.list(kind).map(view).collect()
    }

    /// The view of a rule with its number in maps.
    pub fn new(rule: &Rule, origin: Origin, number: u32) -> Self {
        match rule {
            Rule::Forward(forward) => Self::Forward(ForwardView {
                name: forward.name().to_string(),
                protocol: forward.protocols(),
                public: forward.public().address.to_string(),
                public_ports: forward.public().ports.map(PortsView::from),
                to: forward.to().address,
                to_ports: forward.to().ports.map(PortsView::from),
                allow: forward.allow().to_vec(),
                alg: shown(forward.alg()),
                strict: forward.strict(),
                passive_range: forward.passive_range().map(PortsView::from),
                uplink: forward.uplink().cloned(),
                comment: forward.comment().map(str::to_owned),
                origin,
                number,
            }),
            Rule::OneToOne(host) => Self::OneToOne(OneToOneView {
                name: host.name().to_string(),
                public: host.public(),
                to: host.to(),
                inbound: host
                    .inbound()
                    .iter()
                    .map(|inbound| InboundView {
                        protocol: inbound.protocol(),
                        ports: inbound.ports().map(PortsView::from),
                        allow: inbound.allow().to_vec(),
                    })
                    .collect(),
                alg: shown(host.alg()),
                strict: host.strict(),
                uplink: host.uplink().cloned(),
                comment: host.comment().map(str::to_owned),
                origin,
                number,
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Forward(view) => &view.name,
            Self::OneToOne(view) => &view.name,
        }
    }
}

fn shown(alg: Alg) -> Option<Alg> {
    match alg {
        Alg::Ftp => Some(Alg::Ftp),
        Alg::None => None,
    }
}
