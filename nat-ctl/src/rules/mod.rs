//! What the operator wants to be reachable: forwards, one-to-one addresses and who may use them.
//!
//! Invariant: text is parsed once, into types that cannot be wrong; a [`RuleSet`] never holds two
//! rules that contradict each other. Everything here is pure but [`store`], which keeps the rules
//! of the command line in a file beside the configuration.
//!
//! ```text
//! text --parse--> Rule --insert--> RuleSet --entries--> [ForwardEntry]  (map `forwards`)
//!                                     |-----hosts-----> [HostEntry]     (outbound of one-to-one)
//!                  RuleStore = RuleSet + origin of each rule + state file
//! ```

mod address;
mod conflict;
mod expand;
mod forward;
mod name;
mod one_to_one;
mod ports;
mod prefix;
mod protocol;
mod set;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod uplink;

pub use address::{Cidr, InsideEndpoint, PublicAddress, PublicEndpoint, parse_host};
pub use expand::{EntryKind, ForwardEntry, HostEntry, MAX_ENTRIES, OpeningEntry};
pub use forward::{Forward, ForwardDraft, Service};
pub use name::{RuleId, RuleName};
pub use one_to_one::{Inbound, OneToOne, OneToOneDraft};
pub use ports::PortRange;
pub use prefix::{Prefix, clash};
pub use protocol::{Alg, FlowProtocol, InboundProtocol, Protocol, Protocols};
pub use set::{Resolve, Rule, RuleKind, RuleSet};
pub use store::{EditLock, Origin, RuleStore, StoreError, replace as replace_file};
pub use uplink::Uplink;

/// The control port of FTP (RFC 959, 5.2), where the ALG is on unless told otherwise.
pub const FTP_CONTROL_PORT: u16 = 21;

/// Why a text is no rule, or why a rule does not fit beside the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A word, address, port or prefix that does not parse.
    #[error("'{text}' is not {wanted}")]
    Malformed {
        /// What was written.
        text: String,
        /// What belongs there, with an example.
        wanted: &'static str,
    },
    /// Parts that parse one by one but make no rule together.
    #[error("{0}")]
    Inconsistent(String),
    /// Another rule has the name, or the address and port.
    #[error("rule '{rule}' conflicts with rule '{other}': {why}: change or remove one of them")]
    Conflict {
        /// The rule that was refused.
        rule: RuleName,
        /// The rule that stays.
        other: RuleName,
        /// What both of them want.
        why: String,
    },
    /// The rules together need more map entries than there is room for.
    #[error(
        "rule '{rule}' brings the rules to {entries} public ports, and {MAX_ENTRIES} is the \
         most: name fewer ports, or none to forward the whole protocol"
    )]
    TooMany {
        /// The rule that went past the bound.
        rule: RuleName,
        /// Entries that all rules would need.
        entries: usize,
    },
    /// There are more rules than numbers for them.
    #[error("rule '{0}': there are 65535 rules already, and more can't be told apart: remove some")]
    TooManyRules(RuleName),
}

impl RuleError {
    fn malformed(text: &str, wanted: &'static str) -> Self {
        Self::Malformed { text: text.to_owned(), wanted }
    }
}

impl RuleError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> crate::error::Exit {
        use crate::error::Exit;
        match self {
            Self::Malformed { .. } | Self::Inconsistent(_) => Exit::Usage,
            Self::Conflict { .. } => Exit::Conflict,
            Self::TooMany { .. } | Self::TooManyRules(_) => Exit::Error,
        }
    }
}
