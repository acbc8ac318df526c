//! Why a packet was dropped: one number from the failing line to the operator.
//!
//! A [`Reason`] is the error of the packet path, the index of a counter in the `drops` map, the
//! word in `nat-ctl drops` and the label of a metric. Every drop counts exactly one.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $todo:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Reason {
            /// All of them, in the order of the `drops` map.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in output and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// What an operator may do about it.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $todo,)+ }
            }
        }
    };
}

reasons! {
    /// The frame ends before the headers that it announces.
    Truncated = 0, "truncated", "A few come from broken senders. Many point to a cable, a driver or an MTU set differently on the two ends.";
    /// The IP header is not valid: version, header length or total length.
    BadHeader = 1, "bad-header", "Look at the sender: `tcpdump -vv` names the field.";
    /// A packet from outside for which there is no flow, no expectation, no forward and no socket of the gateway.
    Unsolicited = 2, "unsolicited", "Scans from the Internet are normal. For a service behind the NAT add a forward.";
    /// The rule exists, but the remote address is not among those that it allows; or holds no encrypted control session, to which alone the passive range of a rule is open; or is none that an answer would go out to: one of the gateway or of its inside, or one that no route leads to.
    NotAllowed = 3, "not-allowed", "If the sender is wanted, add its network to `--allow` of the rule or to the `@CIDR` of its inbound entry. For a passive range see `nat-ctl ftp sessions`.";
    /// A TCP packet without SYN from inside that belongs to no flow: the connection began before the gateway did, or has expired.
    NoSyn = 4, "no-syn", "Connections that were open before the gateway started have to be opened again. If idle ones are lost, raise `timeouts.tcp_established`.";
    /// A fragment of a control connection, of what cannot be translated as a whole either, one that would overwrite the flags of a TCP header (RFC 3128), or one that ends beyond the longest packet there is.
    Fragment = 5, "fragment", "Harmless when rare. Many: somebody tries to get round a filter; `tcpdump -vv` shows from where.";
    /// A packet of a protocol without ports that cannot be translated: its host shares its public address with others, or its checksum is over addresses (DCCP, AH, UDP-Lite).
    Protocol = 6, "protocol", "GRE, ESP, SCTP and others need a one-to-one rule for the host, or a network in `masquerade.exempt`.";
    /// An ICMP message other than echo and errors that would have to be translated.
    IcmpType = 7, "icmp-type", "Only echo and errors about translated packets pass: types 0, 3, 8, 11 and 12.";
    /// The time to live ran out on an ICMP error, about which no other one is sent.
    TtlExpired = 8, "ttl-expired", "Look for a routing loop.";
    /// An ICMP error that is larger than the MTU of the interface it has to leave by, or a segment of a control connection without DF.
    TooBig = 9, "too-big", "Give the inside interface at least the MTU of the outside one.";
    /// There is no route to the destination of a translated packet.
    NoRoute = 10, "no-route", "`ip route get ADDRESS` on the gateway says what is missing.";
    /// The flow table is full.
    TableFull = 11, "table-full", "Raise `limits.flows`, of IPv6 `limits.flows6`, or shorten the timeouts; `nat-ctl flows list` shows who holds the flows.";
    /// No public port was found for a new flow: those of the pool that were tried have flows to the same remote end.
    PortsExhausted = 12, "ports-exhausted", "Widen `masquerade.ports`.";
    /// The kernel was about to forward a packet of the inside to a WAN without translation.
    Untranslated = 13, "untranslated", "Rare packets that the path leaves to the kernel end here. Many of one kind: see which with `tcpdump` on the inside interface.";
    /// A program on the gateway sent a packet with an inside address to a WAN.
    InsideSource = 14, "inside-source", "Bind the program to the public address, or to none.";
    /// The packet could not be written to; the kernel refused the helper call.
    WriteFailed = 15, "write-failed", "The kernel was short of memory, or the driver gave a packet that cannot be written. See dmesg.";
    /// Payload of a control connection while the ring buffer to the agent is full. The sender repeats it.
    AlgRingFull = 16, "alg-ring-full", "The agent cannot keep up or is stopped; see `nat-ctl status`.";
    /// Payload of a control connection while no agent is at work. The sender repeats it.
    AlgNoAgent = 17, "alg-no-agent", "Start `nat-ctl run` again. Until then FTP sessions wait, all else goes on.";
    /// A segment of a control connection that is larger than the ring buffer takes. The sender repeats it in smaller ones.
    AlgTooLong = 18, "alg-too-long", "Harmless when rare.";
    /// No place for another control connection that is inspected.
    AlgSessionsFull = 19, "alg-sessions-full", "Too many FTP sessions at once; see `nat-ctl ftp sessions`.";
    /// A packet of a control connection came while its corrections were being written. The sender repeats it.
    AlgBusy = 20, "alg-busy", "Harmless when rare.";
    /// A segment of a control connection with a wrong checksum.
    AlgChecksum = 21, "alg-checksum", "Look for a broken link or NIC.";
    /// A segment of a control connection with earlier bytes missing. The sender repeats both.
    AlgGap = 22, "alg-gap", "Loss on the network between the gateway and the sender.";
    /// More rewritten lines under way in a session than can be corrected at once. The sender repeats the last.
    AlgEditsFull = 23, "alg-edits-full", "Harmless when rare: a client that pipelines many PORT commands.";
    /// A segment of a control connection that the agent knows nothing of.
    AlgUnknown = 24, "alg-unknown", "The session was opened before the maps were made anew. It has to be opened again.";
    /// The agent could not send a segment on.
    AlgSend = 25, "alg-send", "The log of the agent says why: no route, or a local firewall in the OUTPUT chain.";
    /// The agent read a segment that is not TCP over IPv4, or one that contradicts itself.
    AlgMalformed = 26, "alg-malformed", "Look at the sender: `tcpdump -vv` names the field.";
    /// The outside interface has no IPv4 address to hide inside hosts behind.
    NoPublicAddress = 27, "no-public-address", "Give the outside interface an address, or wait for DHCP.";
    /// The answers of a new flow that may not leave by another port could not be told from those of another flow.
    TupleTaken = 28, "tuple-taken", "Two rules lead to the same inside port and the remote host uses one source port for both; it will try again with another.";
    /// Masquerade is turned off and no rule gives the inside host a public address.
    NotMasqueraded = 29, "not-masqueraded", "Turn `masquerade` on, or add a one-to-one rule for the host.";
    /// The flow was being made or removed by another CPU or the agent at the same instant. The sender repeats it.
    FlowBusy = 30, "flow-busy", "Harmless when rare.";
    /// The program that goes on with the packet was not in its place in the map `stages`.
    NoStage = 31, "no-stage", "Packets of the moment in which the gateway starts. Later ones: restart `nat-ctl run`.";
    /// An ICMP error whose quote does not say which flow it is about: too short, a later fragment, or of another ICMP message; or one that is damaged.
    IcmpQuote = 32, "icmp-quote", "Harmless. `tcpdump -vv icmp` shows what is quoted.";
    /// An ICMP error about a packet of no flow that there is, or for another host than the one that has sent that packet.
    IcmpUnrelated = 33, "icmp-unrelated", "A few come late, after the end of a flow. Many are forged, or go round the gateway.";
    /// TCP flags that no sender combines, as port scanners do: SYN with FIN, none at all.
    TcpFlags = 34, "tcp-flags", "Harmless. `tcpdump 'tcp[13] & 23 != 16'` shows who sends them.";
    /// A RST or FIN of a known connection whose numbers its receiver would not take (RFC 5961): forged, or very late.
    TcpWindow = 35, "tcp-window", "A few come late. Many to one connection: somebody tries to break it.";
    /// A segment of a control connection that the agent has ended by RST: one that broke a rule of strict mode, or whose rewritten lines nobody knows any more.
    AlgReset = 36, "alg-reset", "See `nat-ctl ftp refusals` and the log of the agent.";
    /// A later fragment whose first one did not come in time, or whose flow has ended.
    FragmentAlone = 37, "fragment-alone", "Loss on the network, or a flood of forged ones. Without an agent none waits for its first one.";
    /// A fragment that came before its first one, or a packet that has to be cut, with too many of them there already.
    FragmentsFull = 38, "fragments-full", "A flood of fragments; `tcpdump -n 'ip[6:2]&0x3fff!=0'` shows from where.";
    /// The agent could not send a fragment on, or the pieces of a packet that it has cut.
    FragmentSend = 39, "fragment-send", "The log of the agent says why: no route, or a local firewall in the OUTPUT chain.";
    /// IPv6 extension headers that are not followed: more than 8, or a routing header of type 0 (RFC 5095).
    Extension = 40, "extension", "Harmless when rare. `tcpdump -vv ip6` shows who sends them.";
    /// The inside host has as many flows as one host may open, and this packet would begin another one; or as many public ports as it may have, and this packet would need another one.
    HostLimit = 41, "host-limit", "`nat-ctl hosts list` names the host. If it is not infected, raise `limits.flows_per_host`, or `limits.ports_per_host`.";
    /// An address whose prefix is translated and that has no word left that could be adjusted: its subnet, or under a prefix longer than /48 its interface identifier, is all ones (RFC 6296).
    PrefixOnes = 42, "prefix-ones", "Give the subnet of the inside host another number than ffff.";
    /// A packet of IPv6 from inside that would begin a flow, with a source address that no route leads back to an inside interface for: one of another network, or the gateway's own (RFC 6092, REC-5).
    ForeignSource = 43, "foreign-source", "`ip -6 route get ADDRESS` on the gateway has to name an inside interface: add a route to the network of that host. Many addresses: a host inside forges them.";
    /// A packet of IPv6 that would begin a flow through a WAN, with a unique local address (`fc00::/7`) that is not translated there (RFC 6092, REC-7).
    UniqueLocal = 44, "unique-local", "Give the host a global address, or translate its prefix (`[[prefix]]`). Where the outside has such addresses, too, say `[ipv6] unique_local = true`.";
}

/// Number of reasons: the size of the `drops` map.
pub const REASONS: usize = Reason::ALL.len();

impl Reason {
    /// The reason with this word.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.name() == name)
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Reason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::by_name(reason.name()), Some(*reason));
            assert!(reason.meaning().trim().ends_with('.') && reason.advice().ends_with('.'));
        }
        assert_eq!(Reason::by_name("nothing"), None);
    }
}
