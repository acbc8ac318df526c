//! IPv6 on the agent's side: its flows, and what the kernel is told so that it forwards.

mod announced;
mod ending;
mod flows;
mod forwarding;
mod prefixes;
mod rules;

pub use announced::sweep;
pub use flows::Flows6;
pub(super) use flows::expires;
pub use forwarding::{Found, accept_routers, forwards, put_back, turn_on};
pub use prefixes::Prefixes;
pub use rules::Openings;
