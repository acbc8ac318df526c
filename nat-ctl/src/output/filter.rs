//! Which flows a command means.
//!
//! Invariant: an empty filter matches every flow; each condition narrows it.

use serde::{Deserialize, Serialize};

use super::{flow_line::FlowLine, view::End};
use crate::rules::{Cidr, FlowProtocol};

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct FlowFilter {
    /// Protocol: tcp, udp, icmp, icmpv6 or a number
    #[arg(long, value_name = "PROTO")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<FlowProtocol>,
    /// Address or prefix of the initiator
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Cidr>,
    /// Address or prefix that the initiator sends to
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Cidr>,
    /// Port of the initiator
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Port that the initiator sends to
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Address or prefix at either end, before or after translation
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Cidr>,
    /// State, such as established
    #[arg(long, value_name = "STATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Name of the rule that let the flow in
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl FlowFilter {
    /// The flows of a rule.
    pub fn of_rule(name: &str) -> Self {
        Self { rule: Some(name.to_owned()), ..Self::default() }
    }

    /// Whether every condition holds. `src`, `dst` and ports are those of the original direction,
    /// as in conntrack.
    pub fn matches(&self, flow: &FlowLine<'_>) -> bool {
        let End { src, sport, dst, dport, .. } = flow.original;
        let anywhere = [src, dst, flow.reply.src, flow.reply.dst];
        self.proto.is_none_or(|proto| proto == flow.protocol)
            && self.src.is_none_or(|cidr| cidr.contains(src))
            && self.dst.is_none_or(|cidr| cidr.contains(dst))
            && self.sport.is_none_or(|port| port == sport)
            && self.dport.is_none_or(|port| port == dport)
            && self.host.is_none_or(|cidr| anywhere.iter().any(|&a| cidr.contains(a)))
            && self.state.as_ref().is_none_or(|state| state == flow.state)
            && self.rule.as_ref().is_none_or(|rule| flow.rule == Some(rule))
    }
}
