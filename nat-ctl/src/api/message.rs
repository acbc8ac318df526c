//! What goes over the socket.
//!
//! Invariant: every object carries the version; one of another version is refused with both
//! numbers named.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::VERSION;
use crate::{
    error::{Exit, Failure},
    output::{
        DropsView, ExpectationView, ExplainView, FlowFilter, FlowView, FtpEventsView,
        FtpRefusalsView, FtpSessionView, FtpTransferView, HostView, MetricsView, PlanView,
        Question, RuleView, StatusView,
    },
    rules::{Rule, RuleKind},
};

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the gateway is; answered by [`Response::Status`].
    Status,
    /// The rules of a kind; answered by [`Response::Rules`].
    Rules {
        /// Which kind.
        kind: RuleKind,
    },
    /// Puts a rule in force; answered by [`Response::Done`].
    AddRule {
        /// The rule.
        rule: Rule,
        /// Whether it ends with the agent.
        #[serde(default)]
        runtime: bool,
    },
    /// Takes a rule out of force; answered by [`Response::Done`].
    RemoveRule {
        /// Which kind.
        kind: RuleKind,
        /// Which rule.
        name: String,
        /// Whether its flows end with it.
        #[serde(default)]
        kill_flows: bool,
    },
    /// The flows that match; answered by [`Response::Flows`].
    Flows {
        /// Which flows.
        #[serde(default)]
        filter: FlowFilter,
    },
    /// Ends the flows that match; answered by [`Response::Count`].
    DeleteFlows {
        /// Which flows.
        #[serde(default)]
        filter: FlowFilter,
    },
    /// The expectations; answered by [`Response::Expectations`].
    Expectations,
    /// The inside hosts; answered by [`Response::Hosts`].
    Hosts,
    /// The FTP sessions; answered by [`Response::FtpSessions`].
    FtpSessions,
    /// The transfers of FTP sessions; answered by [`Response::FtpTransfers`].
    FtpTransfers,
    /// The lines that were refused; answered by [`Response::FtpRefusals`].
    FtpRefusals,
    /// What has happened in FTP sessions; answered by [`Response::FtpEvents`].
    FtpEvents {
        /// Behind the event with this number; none, but where to go on, without one.
        #[serde(default)]
        after: Option<u64>,
    },
    /// The drops by reason; answered by [`Response::Drops`].
    Drops,
    /// The configuration in force; answered by [`Response::Config`].
    Config,
    /// What a configuration would change; answered by [`Response::Plan`].
    PlanConfig {
        /// The file, its whole path.
        file: PathBuf,
    },
    /// Puts a configuration in force; answered by [`Response::Done`].
    ApplyConfig {
        /// The file, its whole path.
        file: PathBuf,
        /// Seconds after which it is taken back unless it is confirmed.
        #[serde(default)]
        confirm: Option<u32>,
    },
    /// Keeps the configuration that is on trial; answered by [`Response::Done`].
    ConfirmConfig,
    /// Goes back to the configuration of before; answered by [`Response::Done`].
    RollbackConfig,
    /// Everything that is measured; answered by [`Response::Metrics`].
    Metrics,
    /// What would become of a packet; answered by [`Response::Explain`].
    Explain {
        /// Which packet.
        question: Question,
    },
}

impl Request {
    /// Whether it changes something, which is root's alone.
    pub fn changes(&self) -> bool {
        match self {
            Self::AddRule { .. }
            | Self::RemoveRule { .. }
            | Self::DeleteFlows { .. }
            | Self::ApplyConfig { .. }
            | Self::ConfirmConfig
            | Self::RollbackConfig => true,
            // It changes nothing, but reads any file that is named.
            Self::PlanConfig { .. } => true,
            Self::Status
            | Self::Rules { .. }
            | Self::Flows { .. }
            | Self::Expectations
            | Self::Hosts
            | Self::FtpSessions
            | Self::FtpTransfers
            | Self::FtpRefusals
            | Self::FtpEvents { .. }
            | Self::Drops
            | Self::Config
            | Self::Metrics
            | Self::Explain { .. } => false,
        }
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "data", rename_all = "kebab-case")]
pub enum Response {
    /// It is done.
    Done,
    /// How the gateway is.
    Status(Box<StatusView>),
    /// Rules, oldest first.
    Rules(Vec<RuleView>),
    /// Flows.
    Flows(Vec<FlowView>),
    /// How many were meant.
    Count(u64),
    /// Expectations.
    Expectations(Vec<ExpectationView>),
    /// Inside hosts.
    Hosts(Vec<HostView>),
    /// FTP sessions.
    FtpSessions(Vec<FtpSessionView>),
    /// Transfers, oldest first.
    FtpTransfers(Vec<FtpTransferView>),
    /// Lines that were refused.
    FtpRefusals(FtpRefusalsView),
    /// What has happened.
    FtpEvents(FtpEventsView),
    /// Drops by reason.
    Drops(DropsView),
    /// A configuration, as its file would say it.
    Config(String),
    /// What a configuration would change.
    Plan(PlanView),
    /// Everything that is measured.
    Metrics(Box<MetricsView>),
    /// What would become of a packet.
    Explain(Box<ExplainView>),
    /// It is not done.
    Error {
        /// The status to exit with.
        exit: Exit,
        /// One line for the operator.
        message: String,
    },
}

impl<E: Into<Failure>> From<Result<Response, E>> for Response {
    fn from(result: Result<Response, E>) -> Self {
        result.unwrap_or_else(|error| {
            let Failure { exit, message } = error.into();
            Self::Error { exit, message }
        })
    }
}

/// An object with the version in front.
#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    message: &'a T,
}

/// A message as a line, line break included.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    let versioned = Versioned { version: VERSION, message };
    let mut line = serde_json::to_vec(&versioned).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(line)
}

/// The message of a line.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let mut object: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
    match object.remove("version") {
        Some(version) if version == VERSION => {}
        Some(version) => {
            return Err(format!("version {version} is not known here: this is version {VERSION}"));
        }
        None => return Err(format!("the object lacks \"version\": {VERSION}")),
    }
    serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())
}
