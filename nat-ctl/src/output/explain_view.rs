//! `explain`: what would become of a packet.

use std::{fmt, io, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{printer::Printer, tables::endpoint};
use crate::rules::{FlowProtocol, Protocol};

/// The packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// Source.
    pub src: IpAddr,
    /// Source port; the identifier of an ICMP echo request.
    pub sport: u16,
    /// Destination.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
    /// The interface that it comes in by; that which leads to its source where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it is of a connection that is open, and no SYN.
    #[serde(default)]
    pub ack: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictView {
    /// Translated, and sent on; one of IPv6 as it is.
    Forwarded,
    /// Taken by the gateway itself.
    Gateway,
    /// Left to the kernel, which routes it as if there were no gateway.
    Kernel,
    /// Handed to the agent.
    Agent,
    /// Dropped.
    Dropped,
}

impl VerdictView {
    /// In words, of a packet that is translated where it is forwarded, or that never is.
    fn sentence(self, is_translated: bool) -> &'static str {
        match self {
            Self::Forwarded if is_translated => "translated and forwarded",
            Self::Forwarded => "forwarded",
            Self::Gateway => "taken by the gateway itself, untranslated",
            Self::Kernel => "left to the kernel, untranslated",
            Self::Agent => "handed to the agent, which sends it on",
            Self::Dropped => "dropped",
        }
    }
}

/// A packet and where it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketView {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// Source.
    pub src: IpAddr,
    /// Source port, or the identifier of an echo request.
    pub sport: u16,
    /// Destination.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
    /// The interface.
    pub interface: Option<String>,
}

impl fmt::Display for PacketView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, src, sport, dst, dport, interface } = self;
        if *protocol == FlowProtocol::ICMPV6 || *protocol == Protocol::Icmp.into() {
            write!(f, "{protocol} {src} to {dst}, echo request {sport}")?;
        } else {
            let (src, dst) = (endpoint(*src, *sport), endpoint(*dst, *dport));
            write!(f, "{protocol} {src} to {dst}")?;
        }
        interface.as_ref().map_or(Ok(()), |name| write!(f, ", {name}"))
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The packet as it comes in.
    pub packet: PacketView,
    /// What becomes of it.
    pub verdict: VerdictView,
    /// The drop reason, where it is dropped.
    pub reason: Option<String>,
    /// The rule that decides, where one does.
    pub rule: Option<String>,
    /// The packet as it leaves, where it does.
    pub leaves: Option<PacketView>,
    /// Why, in the order in which the data plane came to it.
    pub because: Vec<String>,
    /// What would change that.
    pub change: Vec<String>,
    /// What is not read of an FTP session, in the words of `ftp sessions`.
    pub note: Option<String>,
}

impl Printer {
    /// `explain`.
    ///
    /// # Errors
    /// Where stdout can't be written; a closed pipe is fine.
    pub fn explained(&self, view: &ExplainView) -> io::Result<()> {
        self.object(view, |out| {
            let sentence = view.verdict.sentence(view.packet.src.is_ipv4());
            let verdict = match &view.reason {
                Some(reason) => format!("{sentence} ({reason})"),
                None => sentence.to_owned(),
            };
            let mut lines = vec![("packet", view.packet.to_string()), ("verdict", verdict)];
            if let Some(leaves) = &view.leaves {
                lines.push(("leaves as", leaves.to_string()));
            }
            for (title, sentences) in [("because", &view.because), ("change", &view.change)] {
                let titles = std::iter::once(title).chain(std::iter::repeat(""));
                lines.extend(titles.zip(sentences.iter().cloned()));
            }
            if let Some(note) = &view.note {
                lines.push(("ftp", note.clone()));
            }
            self.lines(out, &lines)
        })
    }
}
