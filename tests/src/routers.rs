//! A host outside that is only reached through others: for changes of routes.
//!
//! ```text
//!   wan0 ---- out0 203.0.113.10 --.
//!         '-- out1 203.0.113.12 --+-- lo 198.51.100.7
//! ```
//!
//! Invariant: each of the two devices answers for its own address only.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::lab::{Lab, OUTSIDE, OUTSIDE_DEVICE, WAN_DEVICE};

/// The host behind the routers.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The second way to it.
pub const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);

/// Makes both, and a route through the first one.
pub fn two_routers(lab: &Lab) -> Result<()> {
    let outside = &lab.outside;
    for (name, value) in
        [("all.arp_ignore", "1"), ("all.arp_announce", "2"), ("all.rp_filter", "0")]
    {
        outside.sysctl(&format!("net.ipv4.conf.{name}"), value)?;
    }
    for words in [
        &format!("link add link {OUTSIDE_DEVICE} name out1 type macvlan mode bridge"),
        &format!("address add {SECOND_ROUTER}/24 dev out1 noprefixroute"),
        "link set out1 up",
        &format!("address add {REMOTE}/32 dev lo"),
    ] {
        outside.ip(words)?;
    }
    outside.sysctl("net.ipv4.conf.out1.rp_filter", "0")?;
    lab.gateway.ip(&format!("route add {REMOTE}/32 via {OUTSIDE} dev {WAN_DEVICE}")).map(drop)
}

/// Leads the route through the second one.
pub fn take_the_second(lab: &Lab) -> Result<()> {
    let route = format!("route replace {REMOTE}/32 via {SECOND_ROUTER} dev {WAN_DEVICE}");
    lab.gateway.ip(&route).map(drop)
}

/// With this the host outside says so when its link address changes, as a fail-over does.
pub fn announce_changes(lab: &Lab) -> Result<()> {
    lab.outside.sysctl(&format!("net.ipv4.conf.{OUTSIDE_DEVICE}.arp_notify"), "1")
}
