//! The addresses that this network namespace has.
//!
//! Invariant: read anew at each call; nothing is remembered.

use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;

/// The first address of an interface.
pub fn address_of(interface: &str) -> Option<Ipv4Addr> {
    let addresses = getifaddrs().ok()?;
    addresses.filter(|entry| entry.interface_name == interface).find_map(|entry| {
        let address = entry.address?;
        Some(address.as_sockaddr_in()?.ip())
    })
}
