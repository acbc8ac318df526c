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
    route::{Way, by_uplink, of_packet},
    sockets,
};

/// Longest packet of an interface that doesn't say.
const LONGEST: u32 = 65_535;

/// The world of a packet with `key` that comes in by the interface with that number.
pub fn of(state: &State, key: &FlowKey, interface: u32) -> World {
    let source = Ipv4Addr::from(key.src()).into();
    let all = destinations(state, key);
    let by_uplink = |to: [u8; 4]| {
        let ways = state.uplinks.iter().map(move |(public, index)| {
            route(to, by_uplink(Ipv4Addr::from(to), Ipv4Addr::from(*public), *index))
        });
        ways.filter(|found| matches!(found.route, Route::Forward(..)))
    };
    // The last one of two counts where no uplink is wanted.
    let mut routes: Vec<HostRoute> = all.iter().copied().flat_map(by_uplink).collect();
    let arrives = |to: &[u8; 4]| of_packet(Ipv4Addr::from(*to).into(), source, interface);
    routes.extend(all.iter().map(|to| route(*to, arrives(to))));
    let local = key.destination();
    let waits = sockets::waits(&local, &key.source());
    World {
        routes,
        uplinks: state.uplinks.clone(),
        sockets: waits.then_some(local).into_iter().collect::<HashSet<Endpoint>>(),
        ..World::default()
    }
}

fn route(to: [u8; 4], way: Way) -> HostRoute {
    let (route, mtu) = match way {
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
