//! A flow as it passes by on its way to the output: the fields of a [`FlowView`], borrowed.
//!
//! Invariant: it has the fields of a [`FlowView`] and no others, in the same order.

use serde::Serialize;

use super::view::{End, FlowView};
use crate::rules::{Alg, FlowProtocol};

/// An element of `flows list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FlowLine<'a> {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// State in one word, such as `established`.
    pub state: &'a str,
    /// What the initiator sends.
    pub original: End,
    /// What the answer looks like on the other side.
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
    pub rule: Option<&'a str>,
    /// The FTP session whose data connection this is.
    pub related_to: Option<u64>,
}

impl FlowView {
    /// The same, borrowed.
    pub fn line(&self) -> FlowLine<'_> {
        FlowLine {
            protocol: self.protocol,
            state: &self.state,
            original: self.original,
            reply: self.reply,
            age_s: self.age_s,
            idle_s: self.idle_s,
            expires_s: self.expires_s,
            alg: self.alg,
            rule: self.rule.as_deref(),
            related_to: self.related_to,
        }
    }
}

impl From<&FlowLine<'_>> for FlowView {
    fn from(line: &FlowLine<'_>) -> Self {
        Self {
            protocol: line.protocol,
            state: line.state.to_owned(),
            original: line.original,
            reply: line.reply,
            age_s: line.age_s,
            idle_s: line.idle_s,
            expires_s: line.expires_s,
            alg: line.alg,
            rule: line.rule.map(str::to_owned),
            related_to: line.related_to,
        }
    }
}
