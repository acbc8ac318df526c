//! How long a flow lives without traffic (RFC 4787 section 4.3, RFC 5382 section 5, RFC 5508
//! section 3.2).

use crate::{flow, tcp};

/// Class of lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// TCP that is not established, or closing: RFC 5382 REQ-5, 4 minutes at least.
    TcpTransitory,
    /// Established TCP: RFC 5382 REQ-5, 2 hours and 4 minutes at least.
    TcpEstablished,
    /// UDP: RFC 4787 REQ-5, 5 minutes recommended.
    Udp,
    /// ICMP query: RFC 5508 REQ-2, 1 minute at least.
    Icmp,
}

/// Seconds for each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// [`Lifetime::TcpEstablished`].
    pub tcp_established: u32,
    /// [`Lifetime::TcpTransitory`].
    pub tcp_transitory: u32,
    /// [`Lifetime::Udp`].
    pub udp: u32,
    /// [`Lifetime::Icmp`].
    pub icmp: u32,
    /// Expectations, until the first SYN.
    pub expectation: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp_established: 7440, tcp_transitory: 240, udp: 300, icmp: 60, expectation: 30 }
    }
}

impl Timeouts {
    /// Seconds for `lifetime`.
    pub const fn seconds(&self, lifetime: Lifetime) -> u32 {
        match lifetime {
            Lifetime::TcpTransitory => self.tcp_transitory,
            Lifetime::TcpEstablished => self.tcp_established,
            Lifetime::Udp => self.udp,
            Lifetime::Icmp => self.icmp,
        }
    }
}

/// The class of a flow of `protocol`, by what was seen of it in both directions.
pub const fn lifetime(protocol: u8, original: u8, reply: u8) -> Lifetime {
    match protocol {
        flow::TCP => match tcp::State::of(original, reply) {
            tcp::State::Established => Lifetime::TcpEstablished,
            tcp::State::SynSent
            | tcp::State::SynReceived
            | tcp::State::HalfClosed
            | tcp::State::TimeWait
            | tcp::State::Closed => Lifetime::TcpTransitory,
        },
        flow::ICMP => Lifetime::Icmp,
        _ => Lifetime::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_follow_protocol_and_state_and_the_defaults_are_those_of_the_rfcs() {
        let open = tcp::SYN | tcp::ACK;
        let timeouts = Timeouts::default();
        for (protocol, original, reply, class, seconds) in [
            (flow::TCP, tcp::SYN, 0, Lifetime::TcpTransitory, 240),
            (flow::TCP, open, open, Lifetime::TcpEstablished, 7440),
            (flow::TCP, open | tcp::FIN, open, Lifetime::TcpTransitory, 240),
            (flow::TCP, open, open | tcp::RST, Lifetime::TcpTransitory, 240),
            (flow::UDP, 0, 0, Lifetime::Udp, 300),
            (flow::ICMP, 0, 0, Lifetime::Icmp, 60),
        ] {
            assert_eq!(lifetime(protocol, original, reply), class);
            assert_eq!(timeouts.seconds(class), seconds);
        }
    }
}
