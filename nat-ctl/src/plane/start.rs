//! The start of a data plane, fresh or taken over from a predecessor.
//!
//! Invariant: the state file tells of a change before it is made; a fresh start that fails leaves
//! nothing, a failed takeover leaves the data plane as it was.

use std::collections::BTreeSet;

use nat_common::{
    layout,
    port::Port,
    settings::{CONTROL_PORTS, Settings},
};

use super::{
    Plane,
    attach::{self, Place},
    clock::{self, Now},
    down,
    error::{PlaneError, Result},
    features, flow_memory,
    forwarding::{self, Forwarding},
    gone::Gone,
    grow::{
        Growth,
        need::{self, Gauge},
        tables,
    },
    hook::{self, Choice, Device},
    hops::Hops,
    lifetimes::Lifetimes,
    links::{Layer, Link, Netlink},
    maps::Maps,
    netns::Namespace,
    object::{Needed, Object, Sizes, Table},
    pins::{self, Pinned},
    ports, six,
    sockets::Sockets,
    state::{Attached, Lock, Side, State},
    sweep::Sweeper,
    uplinks::Uplinks,
};
use crate::{
    config::Config,
    options::{Instance, Mode, RunOptions},
    rules::RuleSet,
};

/// Whether this agent has a predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// All maps are new.
    Fresh,
    /// Maps and links are there already.
    Takeover,
}

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
        let links = find_links(&netlink, options).await?;
        let others = State::all()?;
        refuse_taken(instance, namespace, &links, &others)?;
        refuse_absent(options)?;
        pins::mount_bpffs()?;
        let start = look(instance, namespace)?;
        let state = plan(instance, namespace, &links, options, now)?;
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
        let routes_others6 = u16::from(six::forwards(&state)?);
        let settings = Settings { routes_others6, ..settings(config, forwarded, now)? };
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
            needed.native |= !matches!(choice(options.mode, link, *side)?, Choice::Tc(_));
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
        let choice = choice(self.mode, link, side)?;
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

/// The hook that an interface gets.
fn choice(mode: Mode, link: &Link, side: Side) -> Result<Choice> {
    let (kind, bare, one_armed) = (link.kind.clone(), link.is_bare(), side == Side::Both);
    let device = Device { kind, bare, one_armed, features: features::of(link.index)? };
    Ok(hook::choose(mode, &device))
}

async fn find_links(netlink: &Netlink, options: &RunOptions) -> Result<Vec<(Link, Side)>> {
    let mut links: Vec<(Link, Side)> = vec![];
    let RunOptions { wan, lan, .. } = options;
    let outside = |name| if lan.contains(name) { Side::Both } else { Side::Wan };
    let outer = wan.iter().map(|name| (name, outside(name)));
    let inner = lan.iter().filter(|name| !wan.contains(name)).map(|name| (name, Side::Lan));
    for (name, side) in outer.chain(inner) {
        let link = netlink.link(name).await?;
        if side == Side::Both && link.is_bare() {
            return Err(PlaneError::Refused {
                what: format!("have '{name}' as WAN and LAN in one"),
                why: "its packets have no Ethernet header, which such an interface needs: name \
                      another one with --lan"
                    .to_owned(),
            });
        }
        if link.layer == Layer::Other {
            return Err(PlaneError::Refused {
                what: format!("attach to interface '{name}'"),
                why:
                    "its packets have a header that is not Ethernet's, which is not supported: name \
                      another one"
                        .to_owned(),
            });
        }
        if links.iter().any(|(other, _)| other.index == link.index) {
            return Err(PlaneError::Conflict(format!(
                "attach to interface '{name}': another name of it was given, too: name it once"
            )));
        }
        links.push((link, side));
    }
    Ok(links)
}

/// A prefix is translated at a WAN.
fn refuse_absent(options: &RunOptions) -> Result<()> {
    match options.config.prefix.iter().find(|pair| !options.wan.contains(&pair.wan().to_owned())) {
        Some(pair) => Err(PlaneError::NotFound(format!(
            "translate a prefix at '{}': that is none of the WANs: name it with --wan, too",
            pair.wan()
        ))),
        None => Ok(()),
    }
}

/// An interface belongs to one instance.
fn refuse_taken(
    instance: &Instance,
    namespace: Namespace,
    links: &[(Link, Side)],
    states: &[State],
) -> Result<()> {
    let others = states.iter().filter(|state| {
        state.instance != instance.as_str()
            && state.namespace == namespace
            && state.instance.parse::<Instance>().is_ok_and(|other| other.pins().exists())
    });
    for other in others {
        for (link, _) in links {
            if other.interfaces.iter().any(|taken| taken.index == link.index) {
                return Err(PlaneError::Conflict(format!(
                    "attach to interface '{}': instance '{}' has it: stop that one, or remove what \
                     it left with `nat-ctl --instance {} down`",
                    link.name, other.instance, other.instance
                )));
            }
        }
    }
    Ok(())
}

/// Makes room for a start, or finds what is to be taken over.
fn look(instance: &Instance, namespace: Namespace) -> Result<Start> {
    let mut state = State::read(instance)?;
    let elsewhere = state.as_ref().map(|state| state.namespace).filter(|there| *there != namespace);
    if let Some(there) = elsewhere {
        if let Some(path) = there.find()
            && instance.pins().exists()
        {
            return Err(PlaneError::Conflict(format!(
                "start instance '{instance}': it is at work in another network namespace ({}): \
                 choose another name with --instance",
                path.display()
            )));
        }
        // Links into a namespace that is gone lead nowhere, and its flows can't go on.
        down::remove(instance, None)?;
        State::remove(instance)?;
        return Ok(Start::Fresh);
    }
    match pins::look(instance)? {
        Pinned::Whole => Ok(Start::Takeover),
        Pinned::Nothing => Ok(Start::Fresh),
        Pinned::Partly => {
            down::remove(instance, state.as_mut())?;
            Ok(Start::Fresh)
        }
    }
}

/// The state file before anything is attached: enough for `down` to find every place.
fn plan(
    instance: &Instance,
    namespace: Namespace,
    links: &[(Link, Side)],
    options: &RunOptions,
    now: Now,
) -> Result<State> {
    let mut state = State::new(instance, namespace, now.seconds());
    if let Some(before) = State::read(instance)? {
        state.forwarding = before.forwarding;
        state.ipv6 = before.ipv6;
        state.aliases = before.aliases;
        state.given = before.given;
        state.rules = before.rules;
        state.interfaces = before.interfaces;
        state.numbers = before.numbers;
    }
    for (link, side) in links {
        let planned = Attached::planned(&link.name, link.index, *side);
        let planned = Attached { bare: link.is_bare(), ..planned };
        state.interfaces.retain(|known| known.name != link.name);
        state.interfaces.push(planned);
    }
    state.flows = options.config.limits.flows.get();
    state.timeouts = Lifetimes::from(&options.config.timeouts);
    Ok(state)
}

/// What the data plane is told; `forwarded` is what the kernel did before the gateway came.
fn settings(config: &Config, forwarded: Forwarding, now: Now) -> Result<Settings> {
    let asked = &config.ftp.control_ports;
    if asked.len() > CONTROL_PORTS {
        return Err(PlaneError::Refused {
            what: "set up ftp.control_ports".to_owned(),
            why: format!("{} ports, and {CONTROL_PORTS} is the most", asked.len()),
        });
    }
    let mut control_ports = [Port::NONE; CONTROL_PORTS];
    for (place, port) in control_ports.iter_mut().zip(asked) {
        *place = Port::new(port.get());
    }
    Ok(Settings {
        heartbeat: now.seconds().max(1),
        masquerade: u8::from(config.masquerade.enabled),
        exempt: u8::from(!config.masquerade.exempt.is_empty()),
        routes_others: u16::from(forwarded == Forwarding::On),
        // That of the next hops, which are looked up later.
        epoch: 0,
        mapping: config.masquerade.mapping.into(),
        filtering: config.masquerade.filtering.into(),
        mss_most: config.masquerade.clamp_mss.into(),
        // That of the interfaces, which are looked at as it is written.
        mss_fits: 0,
        ipv6: u16::from(config.ipv6.enabled),
        // What the kernel did before the gateway came is looked at with the state.
        routes_others6: 0,
        // They follow from addresses and rules.
        uplinks: 0,
        parity: u8::from(config.masquerade.parity),
        prefixes: u16::from(!config.prefix.is_empty()),
        pool: ports::pool(&config.masquerade.ports)?,
        control_ports,
        flows_per_host: config.limits.flows_per_host,
    })
}
