//! Rules as people read them.
//!
//! Invariant: a list has one row a rule; all ports of a protocol are no ports.

use std::io;

use serde::Serialize;

use super::{
    printer::{Printer, Tabular},
    tables::optional,
    view::{ForwardView, InboundView, OneToOneView, PortsView, RuleView},
};
use crate::rules::{Alg, Cidr, Origin, RuleKind};

impl Printer {
    /// `forward list` and `one-to-one list`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn rules(&self, kind: RuleKind, rules: &[RuleView]) -> io::Result<()> {
        match kind {
            RuleKind::Forward => self.rows(&rules.iter().map(ForwardRow).collect::<Vec<_>>()),
            RuleKind::OneToOne => self.rows(&rules.iter().map(Host).collect::<Vec<_>>()),
        }
    }

    /// `forward show`, `one-to-one show`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn rule(&self, rule: &RuleView) -> io::Result<()> {
        self.object(rule, |out| {
            let lines = match rule {
                RuleView::Forward(view) => forward_lines(view),
                RuleView::OneToOne(view) => one_to_one_lines(view),
            };
            self.lines(out, &lines)
        })
    }
}

/// A forward as a row.
#[derive(Serialize)]
#[serde(transparent)]
struct ForwardRow<'a>(&'a RuleView);

impl Tabular for ForwardRow<'_> {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "PROTO", "PUBLIC", "TO", "ALLOW", "ALG", "ORIGIN", "COMMENT"];

    fn row(&self) -> Vec<String> {
        let RuleView::Forward(view) = self.0 else { return vec![self.0.name().to_owned()] };
        vec![
            view.name.clone(),
            view.protocol.to_string(),
            with_ports(&view.public, view.public_ports),
            with_ports(&view.to.to_string(), view.to_ports),
            prefixes(&view.allow),
            optional(view.alg.as_ref()),
            origin(view.origin),
            optional(view.comment.as_ref()),
        ]
    }
}

/// A one-to-one address as a row.
#[derive(Serialize)]
#[serde(transparent)]
struct Host<'a>(&'a RuleView);

impl Tabular for Host<'_> {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "PUBLIC", "TO", "INBOUND", "ALG", "ORIGIN", "COMMENT"];

    fn row(&self) -> Vec<String> {
        let RuleView::OneToOne(view) = self.0 else { return vec![self.0.name().to_owned()] };
        vec![
            view.name.clone(),
            view.public.to_string(),
            view.to.to_string(),
            inbound(&view.inbound),
            optional(view.alg.as_ref()),
            origin(view.origin),
            optional(view.comment.as_ref()),
        ]
    }
}

fn forward_lines(view: &ForwardView) -> Vec<(&'static str, String)> {
    vec![
        ("name", view.name.clone()),
        ("protocol", view.protocol.to_string()),
        ("public", with_ports(&view.public, view.public_ports)),
        ("to", with_ports(&view.to.to_string(), view.to_ports)),
        ("allow", prefixes(&view.allow)),
        ("alg", view.alg.unwrap_or(Alg::None).to_string()),
        ("strict", optional(view.strict.as_ref())),
        ("passive range", view.passive_range.map_or("-".to_owned(), ports)),
        ("uplink", optional(view.uplink.as_ref())),
        ("origin", origin(view.origin)),
        ("comment", optional(view.comment.as_ref())),
    ]
}

fn one_to_one_lines(view: &OneToOneView) -> Vec<(&'static str, String)> {
    vec![
        ("name", view.name.clone()),
        ("public", view.public.to_string()),
        ("to", view.to.to_string()),
        ("inbound", inbound(&view.inbound)),
        ("alg", view.alg.unwrap_or(Alg::None).to_string()),
        ("strict", optional(view.strict.as_ref())),
        ("uplink", optional(view.uplink.as_ref())),
        ("origin", origin(view.origin)),
        ("comment", optional(view.comment.as_ref())),
    ]
}

fn with_ports(address: &str, ports: Option<PortsView>) -> String {
    match ports {
        None => address.to_owned(),
        Some(range) => format!("{address}:{}", self::ports(range)),
    }
}

fn ports(PortsView { first, last }: PortsView) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn prefixes(list: &[Cidr]) -> String {
    if list == [Cidr::ALL] {
        return "any".to_owned();
    }
    list.iter().map(Cidr::to_string).collect::<Vec<_>>().join(",")
}

fn inbound(list: &[InboundView]) -> String {
    if list.is_empty() {
        return "-".to_owned();
    }
    let one = |view: &InboundView| {
        let what = with_ports(&view.protocol.to_string(), view.ports);
        if view.allow == [Cidr::ALL] { what } else { format!("{what}@{}", prefixes(&view.allow)) }
    };
    list.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::File => "file",
        Origin::Command => "command",
        Origin::Runtime => "runtime",
    }
    .to_owned()
}
