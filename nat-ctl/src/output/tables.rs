//! The views as people read them.
//!
//! Invariant: a cell that has nothing to say is `-`, so that columns stay countable.

use std::{
    io,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use nat_common::reason::Reason;
use serde::Serialize;

use super::{
    flow_line::FlowLine,
    printer::{Format, Printer, Tabular},
    units::{bytes, seconds},
    view::{DropsView, ExpectationView, FtpMode, FtpSessionView, HostView},
};

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

    /// `hosts list`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn hosts(&self, hosts: &[HostView]) -> io::Result<()> {
        self.rows(hosts)
    }

    /// `ftp sessions`.
    ///
    /// # Errors
    /// See [`Printer::count`].
    pub fn ftp_sessions(&self, sessions: &[FtpSessionView]) -> io::Result<()> {
        self.rows(sessions)
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

    /// A word and what it says, a line each.
    pub(super) fn lines(&self, out: &mut dyn Write, lines: &[(&str, String)]) -> io::Result<()> {
        let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 2;
        lines.iter().try_for_each(|(key, value)| {
            let padding = " ".repeat(width - key.len());
            writeln!(out, "{}{padding}{value}", self.bold(key))
        })
    }
}

/// An address and a port; brackets stand around one of IPv6.
pub(super) fn endpoint(address: impl Into<IpAddr>, port: u16) -> String {
    SocketAddr::new(address.into(), port).to_string()
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

impl Tabular for HostView {
    const COLUMNS: &'static [&'static str] =
        &["HOST", ">FLOWS", ">LIMIT", ">PORTS", ">LIMIT", ">REFUSED"];

    fn row(&self) -> Vec<String> {
        vec![
            self.host.to_string(),
            self.flows.to_string(),
            optional(self.limit.as_ref()),
            optional(self.ports.as_ref()),
            optional(self.ports_limit.as_ref()),
            self.refused.to_string(),
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
