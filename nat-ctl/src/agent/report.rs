//! What the log says of control connections: one line an event, lines of the dialogue as the engine
//! has masked them.

use std::fmt::{self, Display};

use nat_common::session::SessionId;

use super::send::SendError;
use crate::{
    alg,
    output::{FtpMode, FtpTransferView},
    plane::PlaneError,
};

/// How a session is named in every line; written where the line is.
pub fn name(flow: &alg::ControlFlow) -> impl Display {
    let alg::ControlFlow { session, client, server, .. } = *flow;
    fmt::from_fn(move |f| write!(f, "ftp session {session} ({client} to {server})"))
}

/// What is said of a session once the segment that it is about has left: a line of the log costs as
/// much as all that is done for the segment.
#[derive(Debug)]
pub enum Said {
    /// Something that a line of the dialogue has done.
    Event(alg::Event),
    /// A data connection is let in or out.
    Expected(alg::Expectation),
    /// Lines are no longer read.
    Ended(alg::End),
    /// Lines are read again.
    Resumed,
    /// It has been seen for the first time.
    Begun,
    /// It is over.
    Over,
}

impl Said {
    /// Says it.
    pub fn of(&self, flow: &alg::ControlFlow) {
        match self {
            Self::Event(event) => self::event(flow, event),
            Self::Expected(expectation) => expected(flow, expectation),
            Self::Ended(end) => ended(flow, *end),
            Self::Resumed => resumed(flow),
            Self::Begun => tracing::debug!("{}: begins", name(flow)),
            Self::Over => tracing::debug!("{}: ends", name(flow)),
        }
    }
}

fn event(flow: &alg::ControlFlow, event: &alg::Event) {
    let name = name(flow);
    match event {
        alg::Event::Rewritten { side, before, after } => {
            tracing::debug!("{name}: {} said '{before}', passed on as '{after}'", word(*side));
        }
        alg::Event::Refused { side, reason, line } => tracing::info!(
            "{name}: {} said '{line}', refused ({}): {}",
            word(*side),
            reason.name(),
            reason.text()
        ),
        alg::Event::Command { line, .. } => tracing::debug!("{name}: the client said '{line}'"),
        alg::Event::TransferAsked { command, file } => {
            let file = file.as_deref().unwrap_or("-");
            tracing::debug!("{name}: {command} of '{file}' is asked for");
        }
        alg::Event::TransferBegun => tracing::debug!("{name}: a transfer begins"),
        alg::Event::TransferEnded { code } => tracing::debug!("{name}: a transfer ends ({code})"),
        alg::Event::LeakPrevented { side, line } => {
            tracing::info!("{name}: {} said '{line}', its inside address was replaced", word(*side))
        }
    }
}

fn expected(flow: &alg::ControlFlow, expectation: &alg::Expectation) {
    let alg::Expectation { key: alg::ExpectationKey { from, to }, translation } = expectation;
    match translation {
        alg::Translation::Inbound(inside) => {
            tracing::debug!("{}: expects {from} to {to}, for {inside}", name(flow));
        }
        alg::Translation::Outbound(public) => {
            tracing::debug!("{}: expects {from} to {to}, as {public}", name(flow));
        }
        alg::Translation::Turned { dials: _, to: inside, public } => {
            tracing::debug!("{}: expects {from} to {to}, for {inside}, as {public}", name(flow));
        }
    }
}

fn ended(flow: &alg::ControlFlow, end: alg::End) {
    let name = name(flow);
    tracing::info!("{name}: {}", end.text());
}

/// Lines are read again.
fn resumed(flow: &alg::ControlFlow) {
    tracing::info!("{}: is in clear text again", name(flow));
}

/// A transfer is complete, with all that is known of it.
pub fn transferred(transfer: &FtpTransferView) {
    let FtpTransferView { session, client, server, command, bytes, seconds, result, .. } = transfer;
    let mode = match transfer.mode {
        Some(FtpMode::Active) => "active",
        Some(FtpMode::Passive) => "passive",
        None => "unannounced",
    };
    let file = transfer.file.as_deref().unwrap_or("-");
    let reply = transfer.reply.map(|code| format!(" ({code})")).unwrap_or_default();
    tracing::info!(
        "ftp session {session} ({client} to {server}): {command} '{file}', {mode}: {result}{reply}, \
         {bytes} bytes in {seconds:.3} s"
    );
}

/// A write to the data plane failed.
pub fn failed(error: &PlaneError) {
    tracing::warn!("{error}");
}

/// A session has to end, for nobody knows its rewritten lines any more.
pub fn lost(id: SessionId) {
    tracing::warn!(
        "ftp session {}: what was rewritten in it is not known any more: both its ends are reset",
        id.number()
    );
}

/// A segment could not be sent.
pub fn not_sent(id: SessionId, error: &SendError) {
    tracing::warn!("ftp session {}: send a segment: {error}", id.number());
}

fn word(side: alg::Side) -> &'static str {
    match side {
        alg::Side::Client => "the client",
        alg::Side::Server => "the server",
    }
}
