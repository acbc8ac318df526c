//! What the data plane counts beside drops: the index is the place in the `counters` map.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// A counter of the data plane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Counter {
            /// All of them, in the order of the `counters` map.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in output and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// Packets translated and redirected by XDP.
    Xdp = 0, "xdp";
    /// Packets translated and redirected by TC (a GSO super-packet counts as one).
    Tc = 1, "tc";
    /// Packets that were given to the kernel's stack as they came.
    Stack = 2, "stack";
    /// Packets handed to the agent, which sends them on: segments of control connections, fragments before their first one, packets to be cut.
    Punted = 3, "punted";
    /// Flows made.
    Flows = 4, "flows";
    /// Expectations that a connection has used.
    Expected = 5, "expected";
    /// Ports of the gateway's own sockets that the pool had already given away.
    PortClash = 6, "port-clash";
    /// Lines of control connections that have passed at once, a copy of them handed to the agent.
    Copied = 7, "copied";
    /// Packets of IPv6 of a flow, or about one, that the kernel was left to forward.
    Six = 8, "ipv6";
}

/// Number of counters: the size of the `counters` map.
pub const COUNTERS: usize = Counter::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(Counter::ALL[..index].iter().all(|other| other.name() != counter.name()));
        }
    }
}
