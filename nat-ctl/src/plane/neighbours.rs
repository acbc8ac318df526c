//! Neighbours kept true while XDP uses them.
//!
//! Invariant: a stale neighbour of a managed interface is probed by the kernel within one round.
//! `bpf_fib_lookup` gives its address without the use that would make the kernel check it.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
};
use rtnetlink::Handle;

use super::error::{PlaneError, Result};

/// Pokes all stale neighbours of these interfaces, so that the kernel probes them; gives back how
/// many.
///
/// # Errors
/// Where the kernel refuses to list them.
pub async fn refresh(handle: &Handle, interfaces: &[u32]) -> Result<usize> {
    let listed: Vec<_> = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet)
        .execute()
        .try_collect()
        .await
        .map_err(PlaneError::refused("list neighbours"))?;
    let mut poked = 0;
    for neighbour in listed {
        let index = neighbour.header.ifindex;
        if neighbour.header.state != NeighbourState::Stale || !interfaces.contains(&index) {
            continue;
        }
        let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let Some(address) = address else { continue };
        // NTF_USE lets the kernel go on as if a packet had used the entry (neigh_event_send).
        let request = handle
            .neighbours()
            .add(index, IpAddr::V4(address))
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        // It may have gone in between, and then there is nothing to keep true.
        if request.execute().await.is_ok() {
            poked += 1;
        }
    }
    Ok(poked)
}
