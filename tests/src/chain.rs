//! Routers on both sides of the gateway, and a host behind each of them.
//!
//! ```text
//!   deep           inside             gateway                 outside              far
//!   deep0 --------- in1     in0 ----- lan0   wan0 ----- out0        out1 -------- far0
//!   10.0.2.2   10.0.2.1   10.0.1.2  10.0.1.1 203.0.113.1, .11    198.51.100.1  198.51.100.7
//! ```
//!
//! Invariant: nobody outside has a route to the inside.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    lab::{INSIDE, LAN, LAN_DEVICE, Lab, OUTSIDE, WAN_DEVICE},
    link::{self, End},
    netns::{Lifetime, Namespace},
};

/// The host behind the router inside.
pub const DEEP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The router inside, as that host knows it.
pub const INNER_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// The host behind the router outside.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The router outside, as that host knows it.
pub const OUTER_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A lab with both of them.
#[derive(Debug)]
pub struct Chain {
    /// Where [`DEEP`] lives.
    pub deep: Namespace,
    /// Where [`FAR`] lives.
    pub far: Namespace,
    /// The rest.
    pub lab: Lab,
}

impl Chain {
    /// A chain that ends with its guard.
    pub fn new() -> Result<Self> {
        Self::with(1000)
    }

    /// The same with a file of `size` bytes.
    pub fn with(size: usize) -> Result<Self> {
        let lab = Lab::with(Lifetime::Run, size)?;
        let deep = Namespace::new(lab.name(), "deep", Lifetime::Run)?;
        let far = Namespace::new(lab.name(), "far", Lifetime::Run)?;
        for (near, name, address, end, end_name, end_address) in [
            (&lab.inside, "in1", INNER_ROUTER, &deep, "deep0", DEEP),
            (&lab.outside, "out1", OUTER_ROUTER, &far, "far0", FAR),
        ] {
            let [address, end_address] = [address, end_address].map(|it| format!("{it}/24"));
            link::connect(
                End { namespace: near, name, addresses: &[&address] },
                End { namespace: end, name: end_name, addresses: &[&end_address] },
            )?;
            near.sysctl("net.ipv4.ip_forward", "1")?;
        }
        deep.ip(&format!("route add default via {INNER_ROUTER}"))?;
        far.ip(&format!("route add default via {OUTER_ROUTER}"))?;
        lab.gateway.ip(&format!("route add 10.0.2.0/24 via {INSIDE} dev {LAN_DEVICE}"))?;
        lab.gateway.ip(&format!("route add 198.51.100.0/24 via {OUTSIDE} dev {WAN_DEVICE}"))?;
        lab.inside.ip(&format!("route replace default via {LAN}"))?;
        Ok(Self { deep, far, lab })
    }

    /// Makes the link to the host inside narrower than all others.
    pub fn narrow_inside(&self, mtu: u16) -> Result<()> {
        self.lab.inside.ip(&format!("link set in1 mtu {mtu}"))?;
        self.deep.ip(&format!("link set deep0 mtu {mtu}")).map(drop)
    }

    /// The same for the link to the host outside.
    pub fn narrow_outside(&self, mtu: u16) -> Result<()> {
        self.lab.outside.ip(&format!("link set out1 mtu {mtu}"))?;
        self.far.ip(&format!("link set far0 mtu {mtu}")).map(drop)
    }
}
