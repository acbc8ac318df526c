//! The addresses that this network namespace has.
//!
//! Invariant: read anew at each call; nothing is remembered.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// The first address of an interface.
pub fn address_of(interface: &str) -> Option<Ipv4Addr> {
    let mut all = addresses().into_iter();
    all.find_map(|(network, of)| (of == interface).then_some(network.addr()))
}

/// Every address with the length of its network's prefix, and the interface that has it.
pub fn addresses() -> Vec<(Ipv4Net, String)> {
    let Ok(entries) = getifaddrs() else { return vec![] };
    let network = |entry: InterfaceAddress| {
        let [address, mask] =
            [entry.address?, entry.netmask?].map(|it| Some(it.as_sockaddr_in()?.ip()));
        Some((Ipv4Net::with_netmask(address?, mask?).ok()?, entry.interface_name))
    };
    entries.filter_map(network).collect()
}
