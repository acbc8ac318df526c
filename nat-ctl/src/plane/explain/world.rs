//! What the kernel knows beside the maps: routes to where the packet may go, and its sockets.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use nat_common::{flow::FlowKey, port::Endpoint, rule};
use nat_ebpf::{
    host::{HostRoute, State, World},
    packet::{NextHop, Route},
};

use crate::plane::{
    links::mtu_of,
    route::{Way, of_packet},
    sockets,
};

/// Longest packet of an interface that doesn't say.
const LONGEST: u32 = 65_535;

/// The world of a packet with `key` that comes in by the interface with that number.
pub fn of(state: &State, key: &FlowKey, interface: u32) -> World {
    let source = Ipv4Addr::from(key.src()).into();
    let routes = destinations(state, key).into_iter().map(|to| {
        let (route, mtu) = match of_packet(Ipv4Addr::from(to).into(), source, interface) {
            Way::Local => (Route::Local, LONGEST),
            Way::None => (Route::Unreachable, LONGEST),
            Way::Forward { index, router, mtu } => {
                let mtu = mtu.or_else(|| mtu_of(index)).unwrap_or(LONGEST);
                let neighbour = match router {
                    Some(IpAddr::V4(router)) => router.octets(),
                    // A route of IPv4 by a neighbour of IPv6 has no place in the path.
                    Some(IpAddr::V6(_)) | None => to,
                };
                (Route::Forward(NextHop { ifindex: index, neighbour, link: None }, mtu), mtu)
            }
        };
        HostRoute { network: (to, 32), route, mtu: mtu as usize }
    });
    let local = key.destination();
    let waits = sockets::waits(&local, &key.source());
    World {
        routes: routes.collect(),
        sockets: waits.then_some(local).into_iter().collect::<HashSet<Endpoint>>(),
        ..World::default()
    }
}

/// Everywhere that the packet may be led to.
fn destinations(state: &State, key: &FlowKey) -> BTreeSet<[u8; 4]> {
    let mut all = BTreeSet::from([key.dst(), key.src()]);
    let public = key.destination();
    let forwards = rule::forward_keys(&public);
    all.extend(forwards.iter().filter_map(|key| state.forwards.get(key)).map(|found| found.to()));
    all.extend(state.expectations.values().map(|expected| expected.address()));
    all.extend(state.ports.get(&public).map(|owner| owner.inside()));
    all.extend(state.flows().values().map(|record| record.flow().rewrite().dst()));
    all.remove(&[0; 4]);
    all
}
