//! The gateway of the tests, as the path and the kernel are told of it.
//!
//! ```text
//!   10.0.1.0/24 --[2]-- gateway --[3]-- 203.0.113.0/24 and all else
//!                 10.0.1.254    203.0.113.1, .2
//!                         --[4]-- 192.168.9.0/24, not managed
//! ```

use super::six;
use nat_common::{
    flow::{TCP, UDP},
    hop::Link,
    interface::{Interface, Paired},
    port::{Endpoint, Owner, Pool, Port, PortOwner, PortRange},
    rule::{self, AllowedKey, OneToOne, RuleId},
    settings::{Filtering, Mapping, Settings},
};
use nat_ebpf::{
    host::{HostRoute, Limits, Memory, State, World},
    packet::{NextHop, Route},
};

pub const LAN: u32 = 2;
pub const WAN: u32 = 3;
pub const OTHER: u32 = 4;
pub const PUBLIC: [u8; 4] = [203, 0, 113, 1];
pub const OWN: [u8; 4] = [203, 0, 113, 2];
pub const HOST: [u8; 4] = [10, 0, 1, 2];
pub const SERVER: [u8; 4] = [10, 0, 1, 7];
pub const ONE_TO_ONE: [u8; 4] = [10, 0, 1, 9];
pub const REMOTE: [u8; 4] = [198, 51, 100, 1];
pub const FAR: [u8; 4] = [192, 0, 2, 7];
pub const NOWHERE: [u8; 4] = [100, 64, 0, 1];
pub const START: u32 = 1000;
/// Longest packet that its interfaces take.
pub const MTU: u32 = 1500;
/// Number of [`PUBLIC`] in the map `ports`; [`OWN`] has none.
pub const NUMBER: u16 = 3;
/// Another public address, where hosts are shared out among several, and its number.
pub const SECOND: [u8; 4] = [203, 0, 113, 3];
pub const SECOND_NUMBER: u16 = 4;
/// Where hosts are shared out: by threes, as a host with a turn that nobody has would show.
pub const PAIRED: [[u8; 4]; 3] = [SECOND, PUBLIC, SECOND];
/// What places and lots are drawn with.
pub const SEEDS: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
/// The epoch of the routes, about to outgrow the half of it that a reference has.
pub const EPOCH: u32 = 0xffff;
/// Public ports for masquerade: few, and the last one of all.
pub const POOL: [u16; 4] = [40000, 40001, 40002, 65535];

/// A forward: protocol (or all), public end, inside end, rule, filter, FTP inspection.
pub type Rule = (Option<u8>, ([u8; 4], u16), ([u8; 4], u16), u32, Option<u32>, bool);

pub const RULES: [Rule; 6] = [
    (Some(TCP), (PUBLIC, 8080), ([10, 0, 1, 5], 80), 1, None, false),
    (Some(UDP), (PUBLIC, 5353), ([10, 0, 1, 6], 53), 2, Some(1), false),
    (Some(TCP), (PUBLIC, 21), (SERVER, 21), 3, None, true),
    // Leads to the same inside end as the first one: their answers cannot be told apart.
    (Some(TCP), (PUBLIC, 8081), ([10, 0, 1, 5], 80), 4, None, false),
    (Some(TCP), (OWN, 0), (ONE_TO_ONE, 0), 5, Some(2), false),
    (None, (OWN, 0), (ONE_TO_ONE, 0), 5, None, false),
];

/// Networks that filters let in.
pub const FILTERS: [(u32, [u8; 4], u32); 4] = [
    (1, [198, 51, 100, 0], 24),
    (2, [192, 0, 2, 7], 32),
    (2, [198, 51, 100, 2], 31),
    // Only where the settings say that any are exempt.
    (AllowedKey::EXEMPT, EXEMPT.0, EXEMPT.1),
];

/// The network that may be exempt from NAT.
pub const EXEMPT: ([u8; 4], u32) = ([198, 51, 100, 0], 30);

fn hop(ifindex: u32, neighbour: [u8; 4]) -> Route {
    let own = [2, 0, 0, 0, 0, ifindex as u8];
    let link = Some(Link::new([2, 0, 0, 0, 1, ifindex as u8], own));
    Route::Forward(NextHop { ifindex, neighbour, link }, MTU)
}

pub fn world() -> World {
    let route = |network, route| HostRoute { network, route, mtu: MTU as usize };
    World {
        uplinks: [].into(),
        routes: vec![
            route(([0, 0, 0, 0], 0), hop(WAN, [203, 0, 113, 254])),
            route(([203, 0, 113, 0], 24), hop(WAN, [0; 4])),
            route(([10, 0, 1, 0], 24), hop(LAN, [0; 4])),
            route(([192, 168, 9, 0], 24), hop(OTHER, [0; 4])),
            route(([100, 64, 0, 0], 10), Route::Unreachable),
            route(([10, 0, 1, 254], 32), Route::Local),
            route((PUBLIC, 32), Route::Local),
            route((OWN, 32), Route::Local),
        ],
        routes6: six::ROUTES.to_vec(),
        mtu6: MTU,
        sockets: [
            Endpoint::new(TCP, PUBLIC, Port::new(22)),
            Endpoint::new(UDP, PUBLIC, Port::new(53)),
        ]
        .into(),
        redirects: [LAN, WAN].into(),
        ring_full: false,
        ring_fills: false,
    }
}

pub fn pool() -> Pool {
    Pool::new([
        PortRange::new(40000, 40002).unwrap(),
        PortRange::new(65535, 65535).unwrap(),
        PortRange::default(),
        PortRange::default(),
    ])
}

/// The tables at the start.
pub fn memory(limits: Limits, masquerade: bool, public: Option<[u8; 4]>) -> Memory {
    let memory = Memory::new(limits);
    let mut state = memory.state();
    state.now = START;
    state.seeds = SEEDS;
    let mut control_ports = [Port::NONE; 8];
    control_ports[0] = Port::new(21);
    control_ports[7] = Port::new(2121);
    state.settings = Settings {
        heartbeat: START,
        masquerade: masquerade.into(),
        exempt: 0,
        routes_others: 1,
        epoch: EPOCH,
        mapping: Mapping::EndpointIndependent as u16,
        filtering: Filtering::AddressAndPortDependent as u16,
        mss_most: u16::MAX,
        mss_fits: Settings::mss_of(MTU),
        ipv6: 1,
        echo6: 0,
        routes_others6: 0,
        unique_local6: 0,
        uplinks: 0,
        parity: 0,
        prefixes: 0,
        pool: pool(),
        control_ports,
        flows_per_host: 0,
        ports_per_host: 0,
    };
    let wan = Interface::wan(public.unwrap_or_default(), NUMBER);
    let lan = Interface::lan(public.unwrap_or_default(), NUMBER);
    state.interfaces = [(LAN, lan), (WAN, wan)].into();
    let numbered = 2 | (u32::from(NUMBER) + 1) << 16;
    state.addresses = [([10, 0, 1, 254], 1), (PUBLIC, numbered), (OWN, 2)].into();
    state.allowed = FILTERS.to_vec();
    state.one_to_one = [(ONE_TO_ONE, OneToOne::new(OWN, RuleId::new(5)))].into();
    for (protocol, public, to, rule, filter, ftp) in RULES {
        let key = Endpoint::new(protocol.unwrap_or(0), public.0, Port::new(public.1));
        let port = Port::new(to.1);
        let value = rule::Forward::new(to.0, port, RuleId::new(rule), filter.unwrap_or(0));
        state.forwards.insert(key, if ftp { value.with_ftp() } else { value });
        if public.1 != 0 {
            state.ports.insert(key, PortOwner::new(Owner::Forward, to.0, port));
        }
    }
    drop(state);
    memory
}

pub const SECOND_IS_LOCAL: HostRoute =
    HostRoute { network: (SECOND, 32), route: Route::Local, mtu: MTU as usize };

/// Hosts are hidden behind [`PAIRED`], by whichever interface they leave and turn back.
pub fn pair(state: &mut State) {
    const FIRST: u16 = 5;
    for (place, address) in (u32::from(FIRST)..).zip(PAIRED) {
        let number = number_of(address).unwrap().into();
        state.paired.insert(place, Paired { address, number });
    }
    for interface in state.interfaces.values_mut() {
        *interface = interface.pairing(FIRST, PAIRED.len() as u16);
    }
    state.addresses.insert(SECOND, 2 | (u32::from(SECOND_NUMBER) + 1) << 16);
}

/// Number of a public address in the map `ports`.
pub fn number_of(address: [u8; 4]) -> Option<u16> {
    match address {
        PUBLIC => Some(NUMBER),
        SECOND => Some(SECOND_NUMBER),
        _ => None,
    }
}
