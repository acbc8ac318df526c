//! Where the kernel's routing sends a packet, by rtnetlink.
//!
//! Invariant: asks and changes nothing; it is the routing that the data plane asks, without its
//! answer about neighbours.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType},
};
use nix::{libc, net::if_::if_indextoname};

use super::ask::{Scope, ask};

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By this interface.
    Forward {
        /// Its number.
        index: u32,
        /// The router, where there is one.
        router: Option<IpAddr>,
        /// Longest packet of the route, where it says one.
        mtu: Option<u32>,
    },
    /// To this machine itself.
    Local,
    /// Nowhere.
    None,
}

/// Where a packet to `to` goes that arrives from `from` on the interface with that number.
pub fn of_packet(to: IpAddr, from: IpAddr, interface: u32) -> Way {
    let arrives = [RouteAttribute::Source(address(from)), RouteAttribute::Iif(interface)];
    match look_up(to, &arrives) {
        // A source that the kernel would not take by this interface: the data plane does not ask that.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EINVAL)) => {
            of_own(to)
        }
        found => found.unwrap_or(Way::None),
    }
}

/// Where a packet from the public address `from` to `to` goes by the interface with that number; none
/// where no route leads there, whatever the kernel would assume of the link.
pub fn by_uplink(to: Ipv4Addr, from: Ipv4Addr, interface: u32) -> Way {
    let leaves = [RouteAttribute::Source(RouteAddress::Inet(from)), RouteAttribute::Oif(interface)];
    look_up(to.into(), &leaves).unwrap_or(Way::None)
}

/// Where a packet of this machine to `to` goes.
pub fn of_own(to: IpAddr) -> Way {
    look_up(to, &[]).unwrap_or(Way::None)
}

/// Name of the interface that packets to `to` leave by; that of the loopback for an own address.
pub fn interface_to(to: IpAddr) -> Option<String> {
    match of_own(to) {
        Way::Forward { index, .. } => name(index),
        Way::Local => Some("lo".to_owned()),
        Way::None => None,
    }
}

/// The name of an interface.
pub fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

fn look_up(to: IpAddr, more: &[RouteAttribute]) -> std::io::Result<Way> {
    let mut question = RouteMessage::default();
    let (family, bits) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question.attributes.push(RouteAttribute::Destination(address(to)));
    for attribute in more {
        match attribute {
            RouteAttribute::Source(_) => question.header.source_prefix_length = bits,
            // The route itself is asked for: without one the kernel takes the destination for a
            // neighbour.
            RouteAttribute::Oif(_) => question.header.flags |= RouteFlags::FibMatch,
            _ => {}
        }
        question.attributes.push(attribute.clone());
    }
    let answers = ask(RouteNetlinkMessage::GetRoute(question), Scope::One)?;
    let route = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    Ok(route.as_ref().map_or(Way::None, way))
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn way(route: &RouteMessage) -> Way {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast => return Way::Local,
        _ => return Way::None,
    }
    let (mut index, mut router, mut mtu) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(found) => index = Some(*found),
            RouteAttribute::Gateway(RouteAddress::Inet(found)) => router = Some((*found).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(found)) => router = Some((*found).into()),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    index.map_or(Way::None, |index| Way::Forward { index, router, mtu })
}
