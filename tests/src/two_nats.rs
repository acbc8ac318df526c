//! Two gateways in a row: one before the client, one before the server, and both sides with the same
//! private addresses.
//!
//! ```text
//!   inside            gateway             outside                second                behind
//!   in0 ------------- lan0   wan0 ------- out0       out1 ------ wan0          lan0 -- in0
//!   10.0.1.2      10.0.1.1   203.0.113.1  203.0.113.10           198.51.100.7          10.0.1.2
//!                                                  198.51.100.1            10.0.1.1
//! ```
//!
//! Invariant: the host outside is a router and nothing else, and knows neither private network.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    lab::{INSIDE, INSIDE_DEVICE, LAN, LAN_DEVICE, Lab, OUTSIDE, WAN_DEVICE},
    link::{self, End},
    netns::{Lifetime, Namespace},
};

/// The second gateway's public address.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The router outside, as the second gateway knows it.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A lab with a second gateway.
#[derive(Debug)]
pub struct TwoNats {
    /// Where the second gateway works.
    pub second: Namespace,
    /// Where the host behind it lives: [`INSIDE`] there too.
    pub behind: Namespace,
    /// The rest.
    pub lab: Lab,
}

impl TwoNats {
    /// Both sides with routes; no gateway runs yet.
    pub fn new(size: usize) -> Result<Self> {
        let lab = Lab::with(Lifetime::Run, size)?;
        let second = Namespace::new(lab.name(), "second", Lifetime::Run)?;
        let behind = Namespace::new(lab.name(), "behind", Lifetime::Run)?;
        let [router, public, lan, inside] =
            [ROUTER, SECOND, LAN, INSIDE].map(|address| format!("{address}/24"));
        link::connect(
            End { namespace: &lab.outside, name: "out1", addresses: &[&router] },
            End { namespace: &second, name: WAN_DEVICE, addresses: &[&public] },
        )?;
        link::connect(
            End { namespace: &second, name: LAN_DEVICE, addresses: &[&lan] },
            End { namespace: &behind, name: INSIDE_DEVICE, addresses: &[&inside] },
        )?;
        lab.outside.sysctl("net.ipv4.ip_forward", "1")?;
        lab.gateway.ip(&format!("route add default via {OUTSIDE}"))?;
        second.ip(&format!("route add default via {ROUTER}"))?;
        behind.ip(&format!("route add default via {LAN}"))?;
        Ok(Self { second, behind, lab })
    }
}
