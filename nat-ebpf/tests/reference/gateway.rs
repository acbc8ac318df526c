//! The gateway of the tests, with the model of it.

pub use crate::common::gateway::*;
use crate::model::{self, Forward, Holder, Model, Owned, Place};
use nat_common::{
    flow::{TCP, UDP},
    settings::{Filtering, Mapping, Settings},
};
use nat_ebpf::host::{Limits, Memory, World};

pub struct Gateway {
    pub world: World,
    pub memory: Memory,
    pub model: Model,
}

/// The gateway with room for `flows` records of flows; `masquerade` or not.
pub fn gateway(flows: usize, masquerade: bool, public: Option<[u8; 4]>) -> Gateway {
    let memory = memory(Limits { flows, ..Limits::default() }, masquerade, public);
    let forwards: Vec<Forward> = RULES
        .into_iter()
        .map(|(protocol, public, to, rule, filter, ftp)| Forward {
            protocol,
            public,
            to,
            rule,
            filter,
            ftp,
        })
        .collect();
    let owned = forwards
        .iter()
        .filter(|forward| forward.public.1 != 0)
        .filter_map(|forward| {
            let (public, inside) = (forward.public, forward.to);
            let (protocol, holder) = (forward.protocol?, Holder::Forward);
            Some(Owned { protocol, public, holder, inside, idle: false })
        })
        .collect();
    let model = Model {
        now: START,
        heartbeat: START,
        masquerade,
        by_remote_end: false,
        anybody: false,
        by_address: false,
        contacts: vec![],
        public,
        paired: vec![],
        pool: POOL.to_vec(),
        parity: false,
        control_ports: vec![21, 2121],
        places: vec![
            ([0, 0, 0, 0], 0, Place::Wan),
            ([10, 0, 1, 0], 24, Place::Inside),
            ([192, 168, 9, 0], 24, Place::Elsewhere),
            ([100, 64, 0, 0], 10, Place::Nowhere),
            ([10, 0, 1, 254], 32, Place::Gateway),
            (PUBLIC, 32, Place::Gateway),
            (OWN, 32, Place::Gateway),
        ],
        sockets: vec![(TCP, (PUBLIC, 22)), (UDP, (PUBLIC, 53))],
        forwards,
        filters: FILTERS.to_vec(),
        one_to_one: vec![(ONE_TO_ONE, OWN, 5)],
        exempt: vec![],
        expectations: Vec::new(),
        connections: Vec::new(),
        owned,
        numbered: vec![PUBLIC],
        epoch: EPOCH,
        hops: Vec::new(),
        datagrams: Vec::new(),
        identified: 0,
        copied: false,
        named: 0,
        narrow: usize::MAX,
        inside_mtu: MTU as usize,
        capacity: flows,
        made: false,
        used: false,
    };
    Gateway { world: world(), memory, model }
}

impl Gateway {
    /// The inside takes no longer packets than this.
    pub fn narrow_inside(&mut self, mtu: usize) {
        for route in self.world.routes.iter_mut().filter(|it| it.network == ([10, 0, 1, 0], 24)) {
            route.mtu = mtu;
        }
        self.memory.state().settings.mss_fits = Settings::mss_of(mtu as u32);
        self.model.inside_mtu = mtu;
    }

    /// Nothing is translated to and from [`EXEMPT`].
    pub fn exempting(mut self) -> Self {
        self.memory.state().settings.exempt = 1;
        self.model.exempt.push(EXEMPT);
        self
    }

    /// Public ports of UDP are odd or even as inside ports are.
    pub fn keeping_parity(mut self) -> Self {
        self.memory.state().settings.parity = 1;
        self.model.parity = true;
        self
    }

    /// Hosts are shared out among [`PAIRED`].
    pub fn pairing(mut self) -> Self {
        pair(&mut self.memory.state());
        self.world.routes.push(SECOND_IS_LOCAL);
        self.model.places.push((SECOND, 32, Place::Gateway));
        self.model.numbered.push(SECOND);
        self.model.paired = PAIRED.to_vec();
        self
    }

    /// The same with another behaviour.
    pub fn behaving(mut self, mapping: Mapping, filtering: Filtering) -> Self {
        let mut state = self.memory.state();
        (state.settings.mapping, state.settings.filtering) = (mapping as u16, filtering as u16);
        drop(state);
        self.model.by_remote_end = mapping == Mapping::AddressAndPortDependent;
        self.model.anybody = filtering == Filtering::EndpointIndependent;
        self.model.by_address = filtering == Filtering::AddressDependent;
        self
    }
}

/// The interface that packets to a place leave by.
pub fn interface(place: model::Place) -> u32 {
    match place {
        Place::Inside => LAN,
        Place::Wan => WAN,
        Place::Elsewhere => OTHER,
        Place::Gateway | Place::Nowhere | Place::TooBig => 0,
    }
}
