//! The outcome in words: by which flow, rule or expectation, and what would change it.
//!
//! Invariant: told from what the packet path found and left behind, never decided anew.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nat_common::{
    flow::{Direction, Flow, FlowKey, Origin, TCP, Zone},
    port::Endpoint,
    reason::Reason,
    rule::{self, Forward},
    session::{SessionId, Side},
    watch,
};
use nat_ebpf::host::{State, Verdict};

use crate::alg;
use crate::plane::route::Way;
use crate::rules::{FlowProtocol, Protocol};

/// What there is to tell from.
pub struct Story<'a> {
    /// The maps as they are.
    pub before: &'a State,
    /// The maps as the packet would leave them.
    pub after: &'a State,
    /// The tuple of the packet on arrival.
    pub key: FlowKey,
    /// Where the kernel would send it as it is.
    pub way: Way,
    /// Names of rules by their number.
    pub names: &'a BTreeMap<u32, String>,
}

/// What was told.
#[derive(Default)]
pub struct Told {
    /// The rule that decides.
    pub rule: Option<String>,
    /// Why.
    pub because: Vec<String>,
    /// What would change it.
    pub change: Vec<String>,
    /// What is not read of an FTP session.
    pub note: Option<String>,
}

impl Story<'_> {
    /// Tells it.
    pub fn tell(&self, verdict: Verdict) -> Told {
        let known = self.before.flow(&self.key).map(|record| record.flow());
        let made = self.after.flow(&self.key).map(|record| record.flow());
        let mut told = Told::default();
        told.because.push(match known {
            Some(_) => "a flow has this tuple".to_owned(),
            None => "no flow has this tuple".to_owned(),
        });
        if let Some(flow) = known.or(made) {
            self.flow(&flow, known.is_some(), &mut told);
        }
        match verdict {
            Verdict::Forward(_) | Verdict::Punted => {}
            Verdict::Pass => self.passed(&mut told),
            Verdict::Drop(reason) => self.dropped(reason, &mut told),
        }
        told.note = self.encrypted().then(|| alg::End::Encrypted.text().to_owned());
        told
    }

    /// The flow that it belongs to, or begins.
    fn flow(&self, flow: &Flow, is_known: bool, told: &mut Told) {
        let number = match flow.origin() {
            Origin::Rule(rule) => rule.number(),
            Origin::Control(id) | Origin::Related(id) => self.session_rule(id),
        };
        told.rule = self.names.get(&number).cloned();
        let rule = told.rule.as_deref();
        let by = match (is_known, rule, self.key.zone()) {
            (true, Some(rule), _) => format!("it came in by rule '{rule}'"),
            (true, None, _) if leaves_as_it_is(&self.key, flow) => {
                "nothing of it is translated: its remote network is exempt".to_owned()
            }
            (false, None, _) if leaves_as_it_is(&self.key, flow) => {
                "its remote network is exempt from NAT: it begins a flow".to_owned()
            }
            (true, None, _) => "no rule made it: it is masqueraded, or was announced".to_owned(),
            (false, Some(rule), Zone::Outside) => {
                let public = self.leads();
                format!("rule '{rule}'{public}: it begins a flow")
            }
            (false, Some(rule), Zone::Inside) if self.key.turns_back(flow.rewrite()) => {
                let public = self.leads();
                let address = Ipv4Addr::from(flow.rewrite().src());
                format!(
                    "rule '{rule}'{public}, and inside hosts dial it as {address}: it begins a flow"
                )
            }
            (false, Some(rule), Zone::Inside) => {
                format!("rule '{rule}' gives the host its public address: it begins a flow")
            }
            (false, None, Zone::Outside) => {
                "its destination is the public port of an inside endpoint, and filtering lets its \
                 sender in: it begins a flow"
                    .to_owned()
            }
            (false, None, Zone::Inside) => "masquerade takes it: it begins a flow".to_owned(),
        };
        match flow.origin() {
            Origin::Related(id) if is_known => {
                told.because.push(format!("it is a data connection of FTP session {}", id.number()))
            }
            Origin::Related(id) => told.because.push(format!(
                "FTP session {} has announced it, for one connection: it begins a flow",
                id.number()
            )),
            Origin::Control(_) | Origin::Rule(_) => told.because.push(by),
        }
        if flow.control_session().is_some() {
            told.because.push(
                "it is an FTP control connection: lines that matter go through the agent"
                    .to_owned(),
            );
        }
        told.change.push(match (is_known, rule) {
            (true, _) => {
                let (src, sport) = match flow.direction() {
                    Direction::Original => (self.key.src(), self.key.sport()),
                    Direction::Reply => {
                        let original = self.key.answer(flow.rewrite());
                        (original.src(), original.sport())
                    }
                };
                format!(
                    "'nat-ctl flows delete --src {} --sport {}' ends the flow; rules that change do \
                     not touch it",
                    Ipv4Addr::from(src),
                    sport.number()
                )
            }
            (false, Some(rule)) => format!("a change of rule '{rule}'"),
            (false, None) if leaves_as_it_is(&self.key, flow) => {
                "[masquerade] exempt of the configuration".to_owned()
            }
            (false, None) if self.key.zone() == Zone::Inside => {
                "a one-to-one rule for the host; [masquerade] of the configuration".to_owned()
            }
            (false, None) => "[masquerade] filtering of the configuration".to_owned(),
        });
    }

    /// It is left as it is.
    fn passed(&self, told: &mut Told) {
        match (self.way, self.key.zone()) {
            (Way::Local, Zone::Outside) => {
                told.because.push(
                    "no rule leads it anywhere, and a socket of the gateway, or the kernel itself, \
                     waits for it"
                        .to_owned(),
                );
                told.change.push("a forward for that port, which comes first".to_owned());
            }
            (Way::Local, Zone::Inside) => told.because.push(
                "it is for an address of the gateway, and no rule leads that to an inside host"
                    .to_owned(),
            ),
            (Way::Forward { .. }, _) => told.because.push(
                "the kernel's routing does not lead it to a WAN: it goes its way untranslated"
                    .to_owned(),
            ),
            (Way::None, _) => told.because.push(
                "the kernel has no route to its destination and tells the sender so".to_owned(),
            ),
        }
    }

    fn dropped(&self, reason: Reason, told: &mut Told) {
        let dst = Ipv4Addr::from(self.key.dst());
        let protocol = Protocol::from_number(self.key.protocol());
        if let Some((at, forward)) = self.forward() {
            let number = forward.rule().number();
            told.rule = self.names.get(&number).cloned();
            let name = told.rule.clone().unwrap_or_else(|| format!("#{number}"));
            told.because.push(format!("rule '{name}' leads {at} to {}", self.target(&forward)));
        } else if reason == Reason::Unsolicited {
            told.because.push("no rule, expectation or socket waits for it".to_owned());
        }
        by_reason(reason, told);
        if let (Reason::Unsolicited, Zone::Outside, Some(Protocol::Tcp | Protocol::Udp)) =
            (reason, self.key.zone(), protocol)
        {
            let port = self.key.dport().number();
            let protocol = protocol.map_or("tcp", Protocol::name);
            told.change.push(format!(
                "'nat-ctl forward add --name NAME --protocol {protocol} --public {dst}:{port} --to \
                 HOST' leads it to a host inside"
            ));
        }
    }

    /// The forward that is found for it, and its public place in words.
    fn forward(&self) -> Option<(String, Forward)> {
        let keys = rule::forward_keys(&self.key.destination());
        let found = keys.iter().find_map(|key| Some((key, self.before.forwards.get(key)?)));
        found.map(|(key, forward)| (place(key), *forward))
    }

    /// ` leads tcp 203.0.113.1:21 to 10.0.1.2:21`, where a forward is found.
    fn leads(&self) -> String {
        self.forward().map_or(String::new(), |(at, forward)| {
            format!(" leads {at} to {}", self.target(&forward))
        })
    }

    fn target(&self, forward: &Forward) -> String {
        let port = forward.port_for(self.key.dport()).number();
        format!("{}:{port}", Ipv4Addr::from(forward.to()))
    }

    fn session_rule(&self, id: SessionId) -> u32 {
        let session = id.index().and_then(|place| self.after.sessions.get(place as usize));
        session.map_or(0, |session| session.rule().number())
    }

    /// Whether one of its ends holds an FTP control connection whose lines can't be read: the packet
    /// belongs to it, or could be of a data connection that it has announced.
    fn encrypted(&self) -> bool {
        if self.key.protocol() != TCP {
            return false;
        }
        let ends = [self.key.src(), self.key.dst()];
        (0..).zip(&self.before.sessions).any(|(place, session)| {
            let watched = |side| {
                let watch = self.before.watches.get(watch::index(place, side) as usize);
                watch.is_some_and(|watch| watch.next_record().is_some())
            };
            let hosts = |key: &FlowKey| ends.contains(&key.src()) && ends.contains(&key.dst());
            session.claimed != 0
                && [Side::Originator, Side::Responder].into_iter().any(watched)
                && (hosts(session.original()) || hosts(session.reply()))
        })
    }
}

/// Whether nothing of the packets with this key is translated.
fn leaves_as_it_is(key: &FlowKey, flow: &Flow) -> bool {
    let rewrite = flow.rewrite();
    (rewrite.src(), rewrite.dst()) == (key.src(), key.dst())
}

/// What every packet that is dropped for it is told.
pub fn by_reason(reason: Reason, told: &mut Told) {
    told.because.push(format!("{reason}: {}", lower(reason.meaning().trim())));
    told.change.push(reason.advice().to_owned());
}

/// `tcp 203.0.113.1:21`, `all of tcp on 203.0.113.1`.
fn place(key: &Endpoint) -> String {
    let address = Ipv4Addr::from(key.address());
    match (key.protocol(), key.port().number()) {
        (0, _) => format!("all of {address}"),
        (number, 0) => format!("all of {} on {address}", FlowProtocol::from_number(number)),
        (number, port) => format!("{} {address}:{port}", FlowProtocol::from_number(number)),
    }
}

/// A sentence that goes on another one.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !text.starts_with("IP") && !text.starts_with("FTP") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
