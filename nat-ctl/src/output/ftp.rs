//! What `ftp transfers`, `ftp refusals`, `ftp watch` and `trace` print.
//!
//! Invariant: as in `view.rs`; lines are those that the engine has masked.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    FtpMode, Printer,
    printer::Tabular,
    tables::optional,
    units::{bytes, seconds},
};

/// An element of `ftp transfers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FtpTransferView {
    /// Number of the session.
    pub session: u64,
    /// Address and port of the client.
    pub client: String,
    /// Address and port of the server.
    pub server: String,
    /// How its data connection was announced; null where it was not seen.
    pub mode: Option<FtpMode>,
    /// Which way the file goes; listings are downloads.
    pub direction: FtpDirection,
    /// The command: `RETR`, `STOR`, `LIST`, ...
    pub command: String,
    /// The file or folder, where the command names one.
    pub file: Option<String>,
    /// Bytes of the packets in the direction of the file, headers included.
    pub bytes: u64,
    /// These bytes a second.
    pub rate: u64,
    /// From the 125 or 150 to the last reply, or to now.
    pub seconds: f64,
    /// What became of it.
    pub result: FtpResult,
    /// The server's last reply to it.
    pub reply: Option<u16>,
    /// Seconds since its end.
    pub age_s: u64,
}

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FtpDirection {
    /// From the server.
    Download,
    /// To the server.
    Upload,
}

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FtpResult {
    /// The server has not answered yet.
    Asked,
    /// It is under way.
    Running,
    /// The server says that all of it has passed (2yz).
    Complete,
    /// It was under way, and the server says that it has failed (4yz, 5yz).
    Failed,
    /// It was under way, and was aborted (426).
    Aborted,
    /// It never began (4yz, 5yz).
    Refused,
    /// The session ended first.
    CutOff,
}

impl FtpResult {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::CutOff => "cut-off",
        }
    }
}

impl fmt::Display for FtpResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `ftp refusals`: the last ones, oldest first, and how many there were of each reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FtpRefusalsView {
    /// Refused lines by reason, since the agent began; those at 0 too.
    pub counts: BTreeMap<String, u64>,
    /// The last hundred.
    pub last: Vec<FtpRefusalView>,
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FtpRefusalView {
    /// Number of the session.
    pub session: u64,
    /// Address and port of the client.
    pub client: String,
    /// Address and port of the server.
    pub server: String,
    /// Who said it.
    pub side: FtpSide,
    /// Why, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub text: String,
    /// The line, secrets masked.
    pub line: String,
    /// Seconds since then.
    pub age_s: u64,
}

/// An end of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FtpSide {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// What `ftp watch` is told, in parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FtpEventsView {
    /// Oldest first.
    pub events: Vec<FtpEventView>,
    /// How many before them are no longer known.
    pub missed: u64,
    /// Number to go on behind.
    pub next: u64,
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FtpEventView {
    /// Counts from 1 since the agent began.
    pub number: u64,
    /// Seconds of the monotonic clock.
    pub time_s: f64,
    /// Number of the session.
    pub session: u64,
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Address and port of the server.
    pub server: SocketAddr,
    /// Address and port that the gateway shows to the outside.
    pub public: SocketAddr,
    /// What has happened.
    pub event: FtpEventKind,
    /// The line, transfer or sentence that belongs to it; secrets masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The line as it left, where it was rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FtpEventKind {
    /// The first segment of a session.
    SessionBegins,
    /// Its end.
    SessionEnds,
    /// The client has given a command.
    Command,
    /// A line left with another address or port.
    Rewritten,
    /// A line opened nothing.
    Refused,
    /// A line opened nothing, and its inside address was replaced.
    LeakPrevented,
    /// Lines are no longer read, and why.
    Unread,
    /// They are again.
    ReadAgain,
    /// 125 or 150.
    TransferBegins,
    /// The last reply to it, or the end of its session.
    TransferEnds,
}

impl FtpEventView {
    /// Whether it is of a session with this address at either end.
    pub fn is_of(&self, host: std::net::Ipv4Addr) -> bool {
        [self.client, self.server, self.public].iter().any(|end| end.ip() == host)
    }

    /// Whether it is a line that left with other bytes than it came with.
    pub fn is_change(&self) -> bool {
        matches!(self.event, FtpEventKind::Rewritten | FtpEventKind::LeakPrevented)
    }
}

impl Printer {
    /// `ftp transfers`.
    ///
    /// # Errors
    /// Where stdout can't be written; the same goes for all of these.
    pub fn ftp_transfers(&self, transfers: &[FtpTransferView]) -> io::Result<()> {
        self.rows(transfers)
    }

    /// `ftp refusals`.
    ///
    /// # Errors
    /// See [`Printer::ftp_transfers`].
    pub fn ftp_refusals(&self, refusals: &FtpRefusalsView) -> io::Result<()> {
        self.rows(&refusals.last)
    }

    /// `ftp refusals --count`: for people the reasons that have occurred.
    ///
    /// # Errors
    /// See [`Printer::ftp_transfers`].
    pub fn ftp_refusal_counts(&self, refusals: &FtpRefusalsView) -> io::Result<()> {
        self.object(&refusals.counts, |out| {
            let seen = refusals.counts.iter().filter(|(_, count)| **count > 0);
            let rows = seen.map(|(reason, count)| vec![count.to_string(), reason.clone()]);
            self.table(out, &[">LINES", "REASON"], rows)
        })
    }

    /// `ftp watch` and `trace`: one event.
    ///
    /// # Errors
    /// See [`Printer::ftp_transfers`].
    pub fn ftp_event(&self, event: &FtpEventView) -> io::Result<()> {
        self.line(event, |out| {
            let FtpEventView { time_s, session, client, server, .. } = event;
            write!(out, "{time_s:.3} session {session} {client} {server} {}", word(&event.event))?;
            let reason = event.reason.iter().map(|reason| format!(" ({reason})"));
            let line = event.line.iter().map(|line| format!(" '{line}'"));
            let after = event.after.iter().map(|after| format!(" -> '{after}'"));
            reason.chain(line).chain(after).try_for_each(|text| write!(out, "{text}"))?;
            writeln!(out)
        })
    }
}

impl Tabular for FtpTransferView {
    const COLUMNS: &'static [&'static str] = &[
        ">SESSION",
        "CLIENT",
        "SERVER",
        "MODE",
        "DIRECTION",
        "COMMAND",
        "FILE",
        ">BYTES",
        ">RATE",
        ">SECONDS",
        "RESULT",
        "REPLY",
        ">AGE",
    ];

    fn row(&self) -> Vec<String> {
        vec![
            self.session.to_string(),
            self.client.clone(),
            self.server.clone(),
            self.mode.map_or_else(|| "-".to_owned(), |mode| word(&mode)),
            word(&self.direction),
            self.command.clone(),
            optional(self.file.as_ref()),
            bytes(self.bytes),
            format!("{}/s", bytes(self.rate)),
            format!("{:.3}", self.seconds),
            self.result.to_string(),
            optional(self.reply.as_ref()),
            seconds(self.age_s),
        ]
    }
}

impl Tabular for FtpRefusalView {
    const COLUMNS: &'static [&'static str] =
        &[">SESSION", "CLIENT", "SERVER", "SIDE", "REASON", ">AGE", "LINE"];

    fn row(&self) -> Vec<String> {
        vec![
            self.session.to_string(),
            self.client.clone(),
            self.server.clone(),
            word(&self.side),
            self.reason.clone(),
            seconds(self.age_s),
            self.line.clone(),
        ]
    }
}

/// The word of a choice in JSON.
fn word(choice: &impl Serialize) -> String {
    let value = serde_json::to_value(choice).unwrap_or_default();
    value.as_str().unwrap_or("-").to_owned()
}
