//! Lifetimes of flows as the configuration gives them, in the seconds of the maps.
//!
//! Invariant: no lifetime is 0: a flow lives at least a second.

use std::time::Duration;

use nat_common::lifetime::Timeouts;
use serde::{Deserialize, Serialize};

use crate::config;

/// Seconds for each class, kept in the state file so that a reader without an agent has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    tcp_established: u32,
    tcp_transitory: u32,
    udp: u32,
    icmp: u32,
    expectation: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self::from(&config::Timeouts::default())
    }
}

impl From<&config::Timeouts> for Lifetimes {
    fn from(timeouts: &config::Timeouts) -> Self {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        Self {
            tcp_established: seconds(timeouts.tcp_established),
            tcp_transitory: seconds(timeouts.tcp_transitory),
            udp: seconds(timeouts.udp),
            icmp: seconds(timeouts.icmp),
            expectation: seconds(timeouts.expectation),
        }
    }
}

impl From<Lifetimes> for Timeouts {
    fn from(lifetimes: Lifetimes) -> Self {
        let Lifetimes { tcp_established, tcp_transitory, udp, icmp, expectation } = lifetimes;
        Self { tcp_established, tcp_transitory, udp, icmp, expectation }
    }
}
