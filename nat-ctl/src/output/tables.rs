//! The views as people read them.
//!
//! Invariant: a cell that has nothing to say is `-`, so that columns stay countable.

use std::{io, io::Write, net::Ipv4Addr};

use nat_common::reason::Reason;
use serde::Serialize;

use super::{
    flow_line::FlowLine,
    printer::{Format, Printer, Tabular},
    units::{bytes, seconds},
    view::{
        DropsView, ExpectationView, ForwardView, FtpMode, FtpSessionView, InboundView,
        InterfaceMode, OneToOneView, PortsView, Role, RuleView, StatusView, Usage,
    },
};
use crate::rules::{Alg, Cidr, Origin, RuleKind};

impl Printer {
    /// `flows count`, `flows delete`.
    ///
    /// # Errors
    /// Where stdout can't be written; a closed pipe is fine. The same goes for all of these.
    pub fn count(&self, count: u64) -> io::Result<()> {
        #[derive(Serialize)]
        struct Count {
            count: u64,
        }
        self.object(&Count { count }, |out| writeln!(out, "{count}"))
    }

    /// `expectations list`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn expectations(&self, expectations: &[ExpectationView]) -> io::Result<()> {
        self.rows(expectations)
    }

    /// `ftp sessions`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn ftp_sessions(&self, sessions: &[FtpSessionView]) -> io::Result<()> {
        self.rows(sessions)
    }

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

    /// `drops`: for people the reasons that have occurred, most frequent first.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn drops(&self, drops: &DropsView) -> io::Result<()> {
        self.object(drops, |out| {
            let mut seen: Vec<_> = drops.0.iter().filter(|(_, count)| **count > 0).collect();
            seen.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            if seen.is_empty() {
                return writeln!(out, "no packet was dropped");
            }
            let row = |(name, count): (&String, &u64)| {
                let meaning = Reason::by_name(name).map_or("", Reason::meaning);
                vec![count.to_string(), name.clone(), meaning.trim().to_owned()]
            };
            self.table(out, &[">PACKETS", "REASON", "MEANING"], seen.into_iter().map(row))
        })
    }

    /// `drops explain`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn reason(&self, reason: Reason, packets: Option<u64>) -> io::Result<()> {
        #[derive(Serialize)]
        struct Explained {
            reason: &'static str,
            meaning: &'static str,
            advice: &'static str,
            packets: Option<u64>,
        }
        let (meaning, advice) = (reason.meaning().trim(), reason.advice());
        self.object(&Explained { reason: reason.name(), meaning, advice, packets }, |out| {
            let packets = packets.map_or_else(|| "-".to_owned(), |count| count.to_string());
            self.lines(
                out,
                &[
                    ("reason", reason.name().to_owned()),
                    ("packets", packets),
                    ("meaning", meaning.to_owned()),
                    ("advice", advice.to_owned()),
                ],
            )
        })
    }

    /// `status`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn status(&self, status: &StatusView) -> io::Result<()> {
        self.object(status, |out| {
            let ready = if status.ready { "ready" } else { "starting" };
            let up = seconds(status.uptime_s);
            self.lines(
                out,
                &[
                    ("instance", format!("{}, {ready}, up {up}", status.instance)),
                    ("flows", usage(status.flows)),
                    ("ports", usage(status.ports)),
                    ("expectations", usage(status.expectations)),
                    ("ftp sessions", status.ftp_sessions.to_string()),
                    ("packets", {
                        let by = status.packets;
                        format!(
                            "{} xdp, {} tc, {} stack, {} agent",
                            by.xdp, by.tc, by.stack, by.punted
                        )
                    }),
                    (
                        "drops",
                        match status.drops {
                            0 => "0".to_owned(),
                            drops => format!("{drops} ('nat-ctl drops' says why)"),
                        },
                    ),
                ],
            )?;
            writeln!(out)?;
            let rows = status.interfaces.iter().map(|interface| {
                vec![
                    interface.name.clone(),
                    match interface.role {
                        Role::Wan => "wan".to_owned(),
                        Role::Lan => "lan".to_owned(),
                    },
                    match interface.mode {
                        InterfaceMode::Xdp => "xdp".to_owned(),
                        InterfaceMode::Tc => "tc".to_owned(),
                    },
                    interface.reason.clone(),
                ]
            });
            self.table(out, &["INTERFACE", "ROLE", "MODE", "REASON"], rows)
        })
    }

    /// Text for people; nothing in the formats for scripts, whose answer is the exit status.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn note(&self, text: &str) -> io::Result<()> {
        match self.format() {
            Format::Table => self.object(&(), |out| writeln!(out, "{text}")),
            Format::Json | Format::Jsonl => Ok(()),
        }
    }

    fn lines(&self, out: &mut dyn Write, lines: &[(&str, String)]) -> io::Result<()> {
        let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 2;
        lines.iter().try_for_each(|(key, value)| {
            let padding = " ".repeat(width - key.len());
            writeln!(out, "{}{padding}{value}", self.bold(key))
        })
    }
}

fn usage(usage: Usage) -> String {
    match usage.max {
        0 => usage.used.to_string(),
        max => {
            let percent = usage.used.saturating_mul(100) / max;
            format!("{} of {max} ({percent} %)", usage.used)
        }
    }
}

fn endpoint(address: Ipv4Addr, port: u16) -> String {
    format!("{address}:{port}")
}

pub(super) fn optional(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

impl Tabular for FlowLine<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "PROTO",
        "STATE",
        "SOURCE",
        "DESTINATION",
        "ANSWER FROM",
        "ANSWER TO",
        ">PACKETS",
        ">BYTES",
        ">IDLE",
        ">EXPIRES",
        "ALG",
        "RULE",
        "SESSION",
    ];

    fn row(&self) -> Vec<String> {
        let (there, back) = (&self.original, &self.reply);
        vec![
            self.protocol.to_string(),
            self.state.to_owned(),
            endpoint(there.src, there.sport),
            endpoint(there.dst, there.dport),
            endpoint(back.src, back.sport),
            endpoint(back.dst, back.dport),
            there.packets.saturating_add(back.packets).to_string(),
            bytes(there.bytes.saturating_add(back.bytes)),
            seconds(self.idle_s),
            seconds(self.expires_s),
            optional(self.alg.as_ref()),
            optional(self.rule.as_ref()),
            optional(self.related_to.as_ref()),
        ]
    }
}

impl Tabular for ExpectationView {
    const COLUMNS: &'static [&'static str] =
        &["PROTO", "FROM", "DIALS", "LED TO", ">EXPIRES", ">SESSION"];

    fn row(&self) -> Vec<String> {
        vec![
            self.protocol.to_string(),
            self.src.to_string(),
            endpoint(self.dst, self.dport),
            endpoint(self.to, self.to_port),
            seconds(self.expires_s),
            self.session.to_string(),
        ]
    }
}

impl Tabular for FtpSessionView {
    const COLUMNS: &'static [&'static str] = &[
        ">ID", "CLIENT", "SERVER", "PUBLIC", "USER", "STATE", "TLS", "MODE", "COMMAND", "FILE",
        ">BYTES", ">RATE", "RESULT", ">AGE", "RULE",
    ];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.client.clone(),
            self.server.clone(),
            self.public.clone(),
            optional(self.user.as_ref()),
            self.state.clone(),
            if self.encrypted { "yes" } else { "no" }.to_owned(),
            match self.mode {
                Some(FtpMode::Active) => "active".to_owned(),
                Some(FtpMode::Passive) => "passive".to_owned(),
                None => "-".to_owned(),
            },
            optional(self.command.as_ref()),
            optional(self.file.as_ref()),
            bytes(self.bytes),
            format!("{}/s", bytes(self.rate)),
            optional(self.result.as_ref()),
            seconds(self.age_s),
            optional(self.rule.as_ref()),
        ]
    }

    fn note(&self) -> Option<String> {
        self.note.as_ref().map(|note| format!("session {}: {note}", self.id))
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
        ("passive range", view.passive_range.map_or("-".to_owned(), ports)),
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
