//! What the agent tells the data plane: one record in the map `settings`.

use crate::port::{Pool, Port};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Places for control ports.
pub const CONTROL_PORTS: usize = 8;

/// How long an inside endpoint keeps its public port (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Mapping {
    /// One for all remote ends.
    EndpointIndependent = 0,
    /// One for each remote address and port.
    AddressAndPortDependent = 1,
}

/// Who may send to the public port of an inside endpoint (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Filtering {
    /// Remote ends that it has sent to.
    AddressAndPortDependent = 0,
    /// Anybody.
    EndpointIndependent = 1,
    /// Remote addresses that it has sent to, from any port.
    AddressDependent = 2,
}

/// Settings of the data plane.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// Seconds of the monotonic clock at the agent's last beat; 0 after an orderly end.
    pub heartbeat: u32,
    /// Whether inside hosts are masqueraded at all: 1 or 0.
    pub masquerade: u8,
    /// Whether networks are exempt from NAT: 1 or 0. They are in the map `allowed`, as those of the filter
    /// [`crate::rule::AllowedKey::EXEMPT`].
    pub exempt: u8,
    /// Whether interfaces that are not ours were routed before the gateway came: 1 or 0. Where they
    /// were not, forwarding is on for the gateway's sake only, and nothing of theirs passes a WAN.
    pub routes_others: u16,
    /// Moves on when the kernel's routing changes: what flows know of next hops is void then.
    pub epoch: u32,
    /// A [`Mapping`].
    pub mapping: u16,
    /// A [`Filtering`].
    pub filtering: u16,
    /// The largest MSS that a TCP connection may announce, however wide its path is; 0 leaves each as
    /// it is.
    pub mss_most: u16,
    /// An MSS up to this fits every interface of the gateway.
    pub mss_fits: u16,
    /// Whether IPv6 is filtered: 1 or 0.
    pub ipv6: u8,
    /// Whether an echo request of IPv6 from outside may begin a flow without a rule: 1 or 0.
    pub echo6: u8,
    /// The same as `routes_others`, for IPv6.
    pub routes_others6: u8,
    /// Whether unique local addresses (RFC 4193) pass a WAN as they are: 1 or 0.
    pub unique_local6: u8,
    /// Whether the map `uplinks` has an entry: 1 or 0.
    pub uplinks: u8,
    /// Whether a UDP endpoint with an even port gets an even public port, and one with an odd port an odd
    /// one, while there is one (RFC 4787 REQ-4): 1 or 0.
    pub parity: u8,
    /// Whether the map `prefixes` has an entry: 1 or 0.
    pub prefixes: u16,
    /// Ports for masquerade and expectations.
    pub pool: Pool,
    /// TCP ports whose outbound connections are FTP control connections; 0 where unused.
    pub control_ports: [Port; CONTROL_PORTS],
    /// Most flows that an inside host may open; 0 is no limit.
    pub flows_per_host: u32,
    /// Most public ports that the mappings of an inside host may take; 0 is no limit.
    pub ports_per_host: u32,
}

const _: () = assert!(size_of::<Settings>() == 68);

impl Settings {
    /// The largest MSS that fits packets of `mtu` bytes (RFC 6691 section 2).
    pub const fn mss_of(mtu: u32) -> u16 {
        let mss = mtu.saturating_sub(40);
        if mss > u16::MAX as u32 { u16::MAX } else { mss as u16 }
    }

    /// Whether outbound TCP to `port` is an FTP control connection.
    #[inline(always)]
    pub const fn is_control_port(&self, port: Port) -> bool {
        let [a, b, c, d, e, f, g, h] = &self.control_ports;
        let wanted = port.number();
        wanted != 0
            && (wanted == a.number()
                || wanted == b.number()
                || wanted == c.number()
                || wanted == d.number()
                || wanted == e.number()
                || wanted == f.number()
                || wanted == g.number()
                || wanted == h.number())
    }

    /// Whether each remote end sees an inside endpoint at a port of its own.
    #[inline(always)]
    pub const fn maps_by_remote_end(&self) -> bool {
        self.mapping == Mapping::AddressAndPortDependent as u16
    }

    /// Whether anybody may send to the public port of an inside endpoint.
    #[inline(always)]
    pub const fn lets_anybody_in(&self) -> bool {
        self.filtering == Filtering::EndpointIndependent as u16
    }

    /// Whether remote addresses may send to it from any port that it has sent to.
    #[inline(always)]
    pub const fn filters_by_address(&self) -> bool {
        self.filtering == Filtering::AddressDependent as u16
    }

    /// Whether the agent was at work within the last [`crate::layout::HEARTBEAT_STALE`] seconds.
    ///
    /// The data plane's clock ([`crate::clock::seconds`]) is a little late: as a second begins, the
    /// heartbeat may be of the one after `now`.
    #[inline(always)]
    pub const fn agent_alive(&self, now: u32) -> bool {
        let ago = now.wrapping_add(1).wrapping_sub(self.heartbeat);
        self.heartbeat != 0 && ago <= crate::layout::HEARTBEAT_STALE + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, layout::HEARTBEAT_STALE};

    #[test]
    fn the_agent_lives_from_its_heartbeat_until_that_is_stale() {
        let settings = Settings { heartbeat: 100, ..Settings::default() };
        assert!(settings.agent_alive(100));
        assert!(settings.agent_alive(100 + HEARTBEAT_STALE));
        assert!(!settings.agent_alive(100 + HEARTBEAT_STALE + 1));
        assert!(!Settings::default().agent_alive(0));
    }

    #[test]
    fn the_agent_lives_while_the_clock_of_the_data_plane_is_late() {
        for second in [1, 100, 86_400, 365 * 86_400] {
            let now = clock::seconds(u64::from(second) * 1_000_000_000);
            assert_eq!(now, second - 1);
            let settings = Settings { heartbeat: second, ..Settings::default() };
            assert!(settings.agent_alive(now), "{second}");
        }
    }
}
