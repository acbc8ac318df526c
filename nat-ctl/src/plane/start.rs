//! The start of a data plane, fresh or taken over from a predecessor.
//!
//! Invariant: the state file tells of a change before it is made; a fresh start that fails leaves
//! nothing, a failed takeover leaves the data plane as it was.

use std::collections::BTreeSet;

use nat_common::{layout, settings::Settings};

use super::{
    Plane,
    attach::{self, Place},
    clock::{self, Now},
    down,
    error::{PlaneError, Result},
    flow_memory,
    forwarding::{self, Forwarding},
    gone::Gone,
    grow::{
        Growth,
        need::{self, Gauge},
        tables,
    },
    hook::Choice,
    hops::Hops,
    links::{Link, Netlink},
    maps::Maps,
    netns::Namespace,
    object::{Needed, Object, Sizes, Table},
    outset::{self, Start},
    pins, ports, six,
    sockets::Sockets,
    state::{Attached, Lock, Side, State},
    sweep::Sweeper,
    uplinks::Uplinks,
};
use crate::{options::RunOptions, rules::RuleSet};

impl Plane {
    /// Brings the data plane up, or takes over the one that a predecessor left. Packets flow when
    /// this returns. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] for an interface that is not there, [`PlaneError::Conflict`] where
    /// another instance or program is in the way, [`PlaneError::Permission`] without root.
    pub async fn start(options: &RunOptions) -> Result<Self> {
        Self::start_with(options, need::FIRST).await
    }

    /// The same with a flow table that has room for `first` flows until it grows.
    ///
    /// # Errors
    /// As [`Plane::start`].
    #[doc(hidden)]
    pub async fn start_with(options: &RunOptions, first: u32) -> Result<Self> {
        let instance = &options.instance;
        let now = clock::now();
        let lock = Lock::take(instance)?;
        let namespace = Namespace::current()?;
        let netlink = Netlink::open()?;
        let links = outset::find_links(&netlink, options).await?;
        let others = State::all()?;
        outset::refuse_taken(instance, namespace, &links, &others)?;
        outset::refuse_absent(options)?;
        pins::mount_bpffs()?;
        let start = outset::look(instance, namespace)?;
        let state = outset::plan(instance, namespace, &links, options, now)?;
        let preparing = Preparing { options, lock, netlink, state, now, start, first };
        match preparing.finish(&links).await {
            Ok(plane) => Ok(plane),
            Err(error) => {
                if start == Start::Fresh {
                    // The first error is what the operator has to know; `down` repeats the rest.
                    let mut state = State::read(instance)?;
                    let _removed = down::remove(instance, state.as_mut());
                    let _gone = State::remove(instance);
                }
                Err(error)
            }
        }
    }
}

/// What has been found before anything is changed.
struct Preparing<'a> {
    options: &'a RunOptions,
    lock: Lock,
    netlink: Netlink,
    state: State,
    now: Now,
    start: Start,
    /// Flows that a fresh table has room for.
    first: u32,
}

impl Preparing<'_> {
    async fn finish(self, links: &[(Link, Side)]) -> Result<Plane> {
        let Self { options, lock, netlink, state, now, start, first } = self;
        let instance = options.instance.clone();
        let config = &options.config;
        let forwarded = state.forwarding.map_or_else(Forwarding::read, Ok)?;
        let six = config.ipv6.enabled;
        let routes_others6 = u8::from(six::forwards(&state)?);
        let settings = Settings { routes_others6, ..outset::settings(config, forwarded, now)? };
        let sizes = Sizes::of(&config.limits);
        let (table, before) = match start {
            Start::Fresh => {
                let flows = need::first(config.limits.flows.get(), first);
                (Table { pin: tables::NOW, geometry: sizes.geometry(flows)? }, None)
            }
            Start::Takeover => {
                let before = tables::recover(&instance.pins())?.then_some(tables::BEFORE);
                pins::check_sizes(&instance, &sizes)?;
                let table = |pin| Table::pinned(&instance.pins(), pin);
                (table(tables::NOW)?, before.map(table).transpose()?)
            }
        };
        state.write(&instance)?;
        pins::make(&instance)?;
        let mut object = Object::load(&instance.pins(), &sizes, &table, before.as_ref())?;
        let mut needed = Needed::default();
        for (link, side) in links {
            needed.native |= !matches!(outset::choice(options.mode, link, *side)?, Choice::Tc(_));
            needed.bare |= link.is_bare();
            needed.one_armed |= *side == Side::Both;
        }
        object.prepare(needed)?;
        flow_memory::set_geometry(&instance.pins(), &table.geometry)?;
        let maps = Maps::open(&instance.pins())?;
        let timeouts = state.timeouts.into();
        let sweeper = Sweeper::start(&instance.pins(), timeouts)?;
        let left = maps.settings.get(&0, 0).map_err(PlaneError::refused("read the settings"))?;
        let hops = Hops::open(&instance.pins(), left.epoch)?;
        // Those of a predecessor hold until addresses and rules are there.
        let uplinks = maps.uplinks.iter().collect::<std::result::Result<Uplinks, _>>();
        let uplinks = uplinks.map_err(PlaneError::refused("read the map uplinks"))?;
        let settings =
            Settings { epoch: hops.epoch(), uplinks: u8::from(!uplinks.is_empty()), ..settings };
        let mut plane = Plane {
            instance,
            mode: options.mode,
            state,
            maps,
            object,
            netlink,
            hops,
            sweeper,
            sizes,
            growth: Growth::Rest(Gauge::default()),
            settings,
            timeouts,
            addresses: super::Addresses::default(),
            uplinks,
            listed: vec![],
            named: config.masquerade.addresses.to_vec(),
            adds_addresses: config.gateway.add_addresses,
            public: BTreeSet::new(),
            taken: BTreeSet::new(),
            gone: Gone::default(),
            rules: RuleSet::default(),
            exempt: config.masquerade.exempt.clone(),
            inside: config.gateway.inside.clone(),
            prefixes: config.prefix.clone(),
            translated: six::Prefixes::default(),
            waiting: vec![],
            refusal: String::new(),
            _lock: lock,
        };
        plane.fill(options.rules.rules()).await?;
        for (link, side) in links {
            plane.attach(link, *side)?;
        }
        plane.let_go(links)?;
        plane.growth = Growth::Rest(plane.gauge()?);
        if let Some(before) = before {
            plane.go_on_growing(&before.geometry)?;
        }
        plane.state.write(&plane.instance)?;
        plane.write_redirects()?;
        forwarding::turn_on(&plane.instance, &mut plane.state)?;
        match six {
            true => six::turn_on(&plane.instance, &mut plane.state)?,
            false => six::put_back(&plane.instance, &mut plane.state)?,
        }
        plane.follow_aliases()?;
        Ok(plane)
    }
}

impl Plane {
    /// Everything that the programs read, before they run.
    async fn fill(&mut self, rules: &RuleSet) -> Result<()> {
        self.write_settings()?;
        let known = self.state.numbers.clone();
        self.read_addresses().await?;
        let seconds = clock::now().seconds();
        self.gone = Gone::meanwhile(known.addresses(), &self.addresses, seconds);
        self.check_numbers()?;
        self.write_rules(rules)?;
        if !self.named.is_empty() {
            // No host leaves with another one before they are there.
            self.follow_aliases()?;
            self.read_addresses().await?;
            self.check_numbers()?;
        }
        let outside: Vec<_> = self.addresses.outside().collect();
        let pool = self.settings.pool;
        ports::claim_own(&mut self.maps, &pool, &Sockets::read()?, &outside)
            .map_err(PlaneError::refused("claim the gateway's own ports"))?;
        self.maps
            .layout
            .set(0, layout::VERSION, 0)
            .map_err(PlaneError::refused("write the version of the layout"))
    }

    /// Detaches what a predecessor had and this agent was not asked for.
    fn let_go(&mut self, links: &[(Link, Side)]) -> Result<()> {
        let asked = |known: &Attached| links.iter().any(|(link, _)| link.index == known.index);
        let (kept, others) =
            std::mem::take(&mut self.state.interfaces).into_iter().partition(asked);
        self.state.interfaces = kept;
        attach::drop_others(&self.instance, &self.state.interfaces)?;
        let others: Vec<Attached> = others;
        for other in &others {
            attach::detach_filters(other)?;
        }
        self.write_addresses()?;
        self.write_uplinks()
    }

    /// Attaches one interface and notes it, in the place of one of the same name.
    pub(super) fn attach(&mut self, link: &Link, side: Side) -> Result<()> {
        let choice = outset::choice(self.mode, link, side)?;
        let (object, instance) = (&mut self.object, &self.instance);
        let bare = link.is_bare();
        let to = Place { name: &link.name, index: link.index, side, bare };
        let attached = attach::attach(object, instance, to, choice)?;
        match self.state.interfaces.iter_mut().find(|known| known.name == link.name) {
            Some(known) => *known = attached,
            None => self.state.interfaces.push(attached),
        }
        Ok(())
    }
}
