//! Rules as the map `forwards` wants them: one entry a public port.
//!
//! Invariant: no two entries have one key, and the most exact entry of a packet allows whatever
//! any inbound rule of the same address allows: the lookup never has to look further.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    Cidr, FTP_CONTROL_PORT, FlowProtocol, Forward, OneToOne, Protocol, Rule, RuleError, RuleId,
    RuleName,
    conflict::{Key, address},
    set::{Numbers, Resolve},
};

/// Room in the map `forwards`.
pub const MAX_ENTRIES: usize = 65_536;

/// One entry of the map `forwards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardEntry {
    /// Destination of a packet from outside.
    pub public: Ipv4Addr,
    /// Its protocol; `None`: any.
    pub protocol: Option<FlowProtocol>,
    /// Its destination port; `None`: any.
    pub port: Option<u16>,
    /// The host inside.
    pub to: Ipv4Addr,
    /// The port inside; `None`: the port stays.
    pub to_port: Option<u16>,
    /// What its connections are.
    pub kind: EntryKind,
    /// The rule that this came from.
    pub rule: RuleId,
    /// Remote prefixes that may use it; never empty.
    pub allow: Vec<Cidr>,
}

/// What the connections by an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Any.
    Plain,
    /// FTP control connections.
    Control,
    /// Data connections of those that hold an encrypted control session through the rule.
    Range,
}

impl EntryKind {
    fn of(alg: bool) -> Self {
        if alg { Self::Control } else { Self::Plain }
    }
}

/// A host inside whose outbound packets use an address of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The host's own address.
    pub inside: Ipv4Addr,
    /// The address it has outside.
    pub public: Ipv4Addr,
    /// The rule that this came from.
    pub rule: RuleId,
}

/// One entry of the map `forwards6`: what a forward of IPv6 lets in, untranslated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpeningEntry {
    /// The host inside.
    pub host: Ipv6Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port; `None`: any.
    pub port: Option<u16>,
    /// Whether its connections are FTP control connections.
    pub control: bool,
    /// The rule that this came from.
    pub rule: RuleId,
    /// Remote prefixes that may use it; never empty.
    pub allow: Vec<Cidr>,
}

/// See [`super::RuleSet::openings`].
pub(super) fn openings(rules: &[Rule], numbers: &Numbers) -> Vec<OpeningEntry> {
    let mut openings: Vec<OpeningEntry> = vec![];
    let mut implied = vec![];
    for rule in rules {
        let (Rule::Forward(forward), Some(number)) = (rule, numbers.get(rule.name())) else {
            continue;
        };
        let IpAddr::V6(host) = forward.to().address else { continue };
        for &protocol in forward.protocols().each() {
            let entry = |port: Option<u16>| OpeningEntry {
                host,
                protocol,
                port,
                control: port.is_some_and(|port| forward.alg_on(protocol, port)),
                rule: *number,
                allow: forward.allow().to_vec(),
            };
            match forward.port_map() {
                Some(ports) => openings.extend(ports.to.ports().map(|port| entry(Some(port)))),
                None => {
                    openings.push(entry(None));
                    implied.push(entry(Some(FTP_CONTROL_PORT)));
                }
            }
        }
    }
    // As for IPv4: the control port of a rule that names none, unless another rule names it.
    for entry in implied.into_iter().filter(|entry| entry.control) {
        let is_same = |it: &OpeningEntry| {
            (it.host, it.protocol, it.port) == (entry.host, entry.protocol, entry.port)
        };
        if !openings.iter().any(is_same) {
            openings.push(entry);
        }
    }
    openings
}

/// At most how many entries a rule makes.
pub(super) fn size(rule: &Rule) -> usize {
    // A rule without ports makes one entry for the protocol and one for the control port.
    match rule {
        Rule::Forward(forward) => {
            let ports = forward.port_map().map_or(2, |ports| ports.public.count());
            let range = forward.passive_range().map_or(0, |range| range.count());
            ports * forward.protocols().each().len() + range
        }
        Rule::OneToOne(host) => {
            let ports = |range: super::PortRange| range.count();
            host.inbound().iter().map(|inbound| inbound.ports().map_or(2, ports)).sum()
        }
    }
}

/// See [`super::RuleSet::entries`].
pub(super) fn entries(
    rules: &[Rule],
    numbers: &Numbers,
    resolve: Resolve<'_>,
) -> Result<Vec<ForwardEntry>, RuleError> {
    let mut table = Table::default();
    for rule in rules {
        // Every rule of a set has one.
        let Some(number) = numbers.get(rule.name()).copied() else { continue };
        match rule {
            Rule::Forward(forward) => {
                if let Some(public) = address(&forward.public().address, resolve)
                    && let IpAddr::V4(to) = forward.to().address
                {
                    table.forward(forward, number, public, to)?;
                }
            }
            Rule::OneToOne(host) => table.host(host, number)?,
        }
    }
    // What no rule names but a wider one implies comes last: an exact rule keeps its key.
    for entry in std::mem::take(&mut table.implied) {
        table.named.entry(key(&entry)).or_insert((entry, None));
    }
    Ok(table.named.into_values().map(|(entry, _)| entry).collect())
}

fn key(entry: &ForwardEntry) -> Key {
    (entry.public, entry.protocol, entry.port)
}

#[derive(Default)]
struct Table<'a> {
    /// With the rule that named the key; `None` for an implied entry.
    named: BTreeMap<Key, (ForwardEntry, Option<&'a RuleName>)>,
    implied: Vec<ForwardEntry>,
}

impl<'a> Table<'a> {
    fn forward(
        &mut self,
        forward: &'a Forward,
        number: RuleId,
        public: Ipv4Addr,
        to: Ipv4Addr,
    ) -> Result<(), RuleError> {
        for &protocol in forward.protocols().each() {
            let entry = |port: Option<u16>, to_port: Option<u16>| ForwardEntry {
                public,
                protocol: Some(protocol.into()),
                port,
                to,
                to_port,
                kind: EntryKind::of(port.is_some_and(|port| forward.alg_on(protocol, port))),
                rule: number,
                allow: forward.allow().to_vec(),
            };
            match forward.port_map() {
                Some(ports) => {
                    for (port, to_port) in ports.public.ports().zip(ports.to.ports()) {
                        self.name(forward.name(), entry(Some(port), Some(to_port)))?;
                    }
                }
                None => {
                    self.name(forward.name(), entry(None, None))?;
                    if forward.alg_on(protocol, FTP_CONTROL_PORT) {
                        let port = Some(FTP_CONTROL_PORT);
                        self.implied.push(entry(port, port));
                    }
                }
            }
        }
        for port in forward.passive_range().into_iter().flat_map(|range| range.ports()) {
            self.name(
                forward.name(),
                ForwardEntry {
                    public,
                    protocol: Some(Protocol::Tcp.into()),
                    port: Some(port),
                    to,
                    to_port: Some(port),
                    kind: EntryKind::Range,
                    rule: number,
                    allow: forward.allow().to_vec(),
                },
            )?;
        }
        Ok(())
    }

    fn host(&mut self, host: &'a OneToOne, number: RuleId) -> Result<(), RuleError> {
        let mut keys: Vec<(Option<FlowProtocol>, Option<u16>)> = vec![];
        for inbound in host.inbound() {
            let protocol = inbound.protocol().key();
            match inbound.ports() {
                Some(ports) => keys.extend(ports.ports().map(|port| (protocol, Some(port)))),
                None => keys.push((protocol, None)),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        for (protocol, port) in keys {
            self.name(host.name(), host_entry(host, number, protocol, port))?;
        }
        let control = (Some(Protocol::Tcp.into()), Some(FTP_CONTROL_PORT));
        let entry = host_entry(host, number, control.0, control.1);
        if entry.kind == EntryKind::Control && !entry.allow.is_empty() {
            self.implied.push(entry);
        }
        Ok(())
    }

    fn name(&mut self, name: &'a RuleName, entry: ForwardEntry) -> Result<(), RuleError> {
        match self.named.entry(key(&entry)) {
            Entry::Vacant(slot) => {
                slot.insert((entry, Some(name)));
                Ok(())
            }
            Entry::Occupied(slot) => {
                let other = slot.get().1.unwrap_or(name).clone();
                let why = format!("an interface has taken the address {}", entry.public);
                Err(RuleError::Conflict { rule: name.clone(), other, why })
            }
        }
    }
}

/// The entry of one key, open to all that any inbound rule over that key allows.
fn host_entry(
    host: &OneToOne,
    number: RuleId,
    protocol: Option<FlowProtocol>,
    port: Option<u16>,
) -> ForwardEntry {
    let covers = |inbound: &&super::Inbound| {
        let proto = inbound.protocol().key();
        let ports = inbound.ports();
        (proto.is_none() || proto == protocol)
            && ports.is_none_or(|ports| port.is_some_and(|port| ports.contains(port)))
    };
    let inbound = host.inbound().iter().filter(covers);
    let allow = Cidr::reduce(inbound.flat_map(super::Inbound::allow).copied());
    ForwardEntry {
        public: host.public(),
        protocol,
        port,
        to: host.to(),
        to_port: port,
        kind: EntryKind::of(
            matches!((protocol, port), (Some(p), Some(port)) if host.alg_on(p, port)),
        ),
        rule: number,
        allow,
    }
}
