//! What nft says of the rules of this namespace, as far as it touches a gateway.
//!
//! Invariant: a rule that is not understood is none; what is kept is quoted as nft prints it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde_json::Value;

use super::facts::said;
use crate::rules::Cidr;

/// The rules and chains that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Rules that translate.
    pub nat: Vec<NatRule>,
    /// Filters of forwarded or own packets that drop what they don't know: hook and quotation.
    pub drops: Vec<(String, String)>,
    /// Helpers of connection tracking for FTP.
    pub helpers: Vec<String>,
    /// Chains that Docker makes.
    pub docker: Option<String>,
}

/// A rule that translates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRule {
    /// As it is printed, with its place.
    pub text: String,
    /// What it changes.
    pub kind: NatKind,
    /// Interfaces that it is about; empty: all.
    pub interfaces: Vec<String>,
    /// The destination port that it is about, where it is about one.
    pub port: Option<u16>,
    /// The sources that it is about, where it is about some.
    pub sources: Option<Cidr>,
}

/// What a rule of nft or iptables changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// The source: to the address of the interface, or to what stands here.
    Source(Option<Ipv4Addr>),
    /// The destination.
    Destination,
}

impl NatRule {
    /// Whether it is about packets of this interface.
    pub fn is_on(&self, interface: &str) -> bool {
        let named = |name: &String| match name.strip_suffix(['*', '+']) {
            Some(start) => interface.starts_with(start),
            None => name == interface,
        };
        self.interfaces.is_empty() || self.interfaces.iter().any(named)
    }

    /// Whether it is about packets from this address.
    pub fn is_from(&self, address: Ipv4Addr) -> bool {
        self.sources.is_none_or(|sources| sources.contains(address))
    }
}

impl Ruleset {
    /// Asks nft; `None` where it isn't there.
    pub fn read() -> Option<Self> {
        let objects = said("nft", &["-j", "list", "ruleset"])?;
        let texts = said("nft", &["-a", "list", "ruleset"]).unwrap_or_default();
        Some(Self::parse(&objects, &texts))
    }

    /// From both forms in which nft lists rules.
    pub fn parse(objects: &str, texts: &str) -> Self {
        let texts = quotations(texts);
        let objects: Value = serde_json::from_str(objects).unwrap_or_default();
        let mut ruleset = Self::default();
        for object in objects["nftables"].as_array().into_iter().flatten() {
            if let Some(rule) = object.get("rule") {
                ruleset.nat.extend(nat_rule(rule, &texts));
            }
            if let Some(chain) = object.get("chain") {
                let place = place(chain, "name");
                let hook = chain["hook"].as_str().unwrap_or_default();
                if chain["type"] == "filter" && chain["policy"] == "drop" {
                    ruleset.drops.push((hook.to_owned(), format!("{place}: policy drop")));
                }
                if chain["name"].as_str().is_some_and(|name| name.starts_with("DOCKER")) {
                    ruleset.docker.get_or_insert(place);
                }
            }
            if let Some(helper) = object.get("ct helper")
                && helper["type"] == "ftp"
            {
                ruleset.helpers.push(format!("{}: type \"ftp\"", place(helper, "name")));
            }
        }
        ruleset
    }
}

/// `table inet filter chain forward`.
fn place(object: &Value, chain: &str) -> String {
    let word = |key: &str| object[key].as_str().unwrap_or("?").to_owned();
    format!("table {} {} {}", word("family"), word("table"), word(chain))
}

/// Family, table and handle of a rule.
type Handle = (String, String, u64);

/// The lines of rules, by their handles.
fn quotations(texts: &str) -> BTreeMap<Handle, String> {
    let mut table = (String::new(), String::new());
    let mut lines = BTreeMap::new();
    for line in texts.lines() {
        let Some((text, handle)) = line.rsplit_once("# handle ") else { continue };
        let words: Vec<&str> = text.split_whitespace().collect();
        if let ["table", family, name, ..] = words[..] {
            table = (family.to_owned(), name.to_owned());
            continue;
        }
        if let Ok(handle) = handle.trim().parse() {
            lines.insert((table.0.clone(), table.1.clone(), handle), text.trim().to_owned());
        }
    }
    lines
}

fn nat_rule(rule: &Value, texts: &BTreeMap<Handle, String>) -> Option<NatRule> {
    let parts = rule["expr"].as_array()?;
    let has =
        |words: &[&str]| parts.iter().any(|part| words.iter().any(|word| part.get(word).is_some()));
    let to = parts.iter().find_map(|part| part["snat"]["addr"].as_str()?.parse().ok());
    let kind = if has(&["masquerade", "snat"]) {
        NatKind::Source(to)
    } else if has(&["dnat", "redirect"]) {
        NatKind::Destination
    } else {
        return None;
    };
    let mut interfaces = vec![];
    let (mut port, mut sources) = (None, None);
    for part in parts {
        let matching = &part["match"];
        if matching["op"] != "==" && matching["op"] != "in" {
            continue;
        }
        let (left, right) = (&matching["left"], &matching["right"]);
        if let Some("iif" | "oif" | "iifname" | "oifname") = left["meta"]["key"].as_str() {
            let names = right["set"].as_array().cloned().unwrap_or_else(|| vec![right.clone()]);
            interfaces.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if left["payload"]["field"] == "dport" {
            port = right.as_u64().and_then(|port| u16::try_from(port).ok());
        }
        if left["payload"]["field"] == "saddr" {
            sources = sources.or_else(|| prefix(right));
        }
    }
    let word = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    let handle = (word("family"), word("table"), rule["handle"].as_u64()?);
    let quoted = texts.get(&handle).cloned().unwrap_or_else(|| rule["expr"].to_string());
    let text = format!("{}: {quoted}", place(rule, "chain"));
    Some(NatRule { text, kind, interfaces, port, sources })
}

/// An address, or a prefix of addresses.
fn prefix(value: &Value) -> Option<Cidr> {
    let (address, length) = match value.as_str() {
        Some(address) => (address, 32),
        None => (value["prefix"]["addr"].as_str()?, value["prefix"]["len"].as_u64()?),
    };
    format!("{address}/{length}").parse().ok()
}

/// A line of iptables-save of the table nat.
pub fn legacy_rule(line: &str) -> Option<NatRule> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    let kind = match after("-j")? {
        "MASQUERADE" => NatKind::Source(None),
        "SNAT" => NatKind::Source(after("--to-source").and_then(|to| to.parse().ok())),
        "DNAT" | "REDIRECT" => NatKind::Destination,
        _ => return None,
    };
    let interfaces = ["-i", "-o"].iter().filter_map(|flag| after(flag)).map(str::to_owned);
    Some(NatRule {
        text: format!("iptables-legacy -t nat: {line}"),
        kind,
        interfaces: interfaces.collect(),
        port: after("--dport").and_then(|port| port.parse().ok()),
        sources: after("-s").and_then(|source| source.parse().ok()),
    })
}
