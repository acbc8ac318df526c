//! Everything between the agent and the kernel: maps, programs, interfaces, forwarding.
//!
//! Invariant: programs are attached before forwarding is turned on, and forwarding is put back
//! before they are detached; what is pinned outlives the agent, and `down` removes it after any
//! death.
//!
//! ```text
//!   start:  lock -> namespace -> maps (made or taken over) -> addresses, rules, own ports
//!           -> programs (links pinned at once) -> forwarding on -> addresses of rules
//!   run:    beat (1 s) | grow_step, sweep_step (1 s) | tend (3 s) | event -> handle (netlink, next hops)
//!   stop:   forwarding and addresses back -> links -> maps   (with persist: the heartbeat alone stops)
//! ```

mod addresses;
mod aliases;
mod announce;
pub mod ask;
mod attach;
pub mod clock;
mod difference;
pub mod down;
mod dump;
mod error;
mod explain;
mod features;
pub mod flow_memory;
mod forwarding;
mod gone;
mod grow;
pub mod here;
mod hook;
mod hops;
pub mod host_memory;
pub mod inspect;
mod lifetimes;
mod links;
mod mapped;
pub mod maps;
mod neighbours;
mod netns;
mod numbers;
mod object;
mod outset;
pub mod owners;
mod pair;
mod paired;
mod pins;
mod ports;
pub mod route;
mod rules;
pub mod session_memory;
mod six;
mod sockets;
mod start;
mod state;
mod sweep;
mod tend;
mod uplinks;
mod whole;

use std::{collections::BTreeSet, net::Ipv4Addr};

use aya::maps::{MapData, RingBuf};
use nat_common::{lifetime::Timeouts, port::Endpoint, settings::Settings};

pub use addresses::Addresses;
pub use aliases::is_station;
pub use attach::{
    BARE_CLASSIFIERS, CLASSIFIERS, ONE_ARMED_CLASSIFIERS, PRIORITY as OWN_FILTER, XDP_PROGRAMS,
};
pub use clock::Now;
pub use down::{Removed, down};
pub use error::{PlaneError, Result};
pub use inspect::Inspector;
pub use links::Event;
pub use mapped::Mapped;
pub use maps::Maps;
pub use pair::Pair;
pub use ports::pool;
pub use six::Prefixes;
pub use state::Attached;
pub use sweep::{DataLine, Report};

use crate::{
    options::{Instance, Mode},
    rules::{Cidr, Prefix, Rule, RuleSet},
};
use aliases::Alias;
use gone::Gone;
use grow::Growth;
use hops::Hops;
use links::{Address, Netlink};
use object::{Object, Sizes};
use state::{Lock, Side, State};
use sweep::Sweeper;
use uplinks::Uplinks;

/// A data plane at work, and the agent's hold of it.
#[derive(Debug)]
pub struct Plane {
    instance: Instance,
    mode: Mode,
    state: State,
    maps: Maps,
    object: Object,
    netlink: Netlink,
    hops: Hops,
    sweeper: Sweeper,
    sizes: Sizes,
    growth: Growth,
    settings: Settings,
    timeouts: Timeouts,
    addresses: Addresses,
    uplinks: Uplinks,
    /// All addresses of the machine, as they were read last.
    listed: Vec<Address>,
    /// Public addresses that the configuration names to hide hosts behind.
    named: Vec<Ipv4Addr>,
    /// Whether public addresses that nobody has are added.
    adds_addresses: bool,
    /// Those of the rules in force, and those to hide hosts behind.
    public: BTreeSet<Ipv4Addr>,
    /// Those among them that another station has.
    taken: BTreeSet<Alias>,
    /// Addresses whose flows end unless they come back.
    gone: Gone,
    rules: RuleSet,
    /// Networks to which packets leave as they are.
    exempt: Vec<Cidr>,
    /// Networks of inside hosts, where an interface is on both sides.
    inside: Vec<Cidr>,
    /// Prefixes of IPv6 that are translated.
    prefixes: Vec<Prefix>,
    /// The same as they are in force.
    translated: Prefixes,
    /// Public ports of forwards that something else still uses.
    waiting: Vec<Endpoint>,
    /// What the kernel has last said of an interface that is back and could not be attached to.
    refusal: String,
    _lock: Lock,
}

impl Plane {
    /// All maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// All maps, to write to.
    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Prefixes of IPv6 that are translated now.
    pub fn prefixes(&self) -> &Prefixes {
        &self.translated
    }

    /// What the data plane is told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Lifetimes of flows.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The interfaces, the hook of each and why.
    pub fn interfaces(&self) -> &[Attached] {
        &self.state.interfaces
    }

    /// Which hook was asked for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Why an address is no single host's, in words: it is that of a WAN, or the configuration hides hosts
    /// behind it.
    pub fn shares(&self, address: Ipv4Addr) -> Option<String> {
        if self.named.contains(&address) {
            return Some("one of masquerade.addresses, which hosts share".to_owned());
        }
        let wan = self.addresses.hides_behind(address)?;
        Some(format!("the address of {wan} itself, which masquerade shares"))
    }

    /// First global address of a managed interface.
    pub fn address_of(&self, interface: &str) -> Option<Ipv4Addr> {
        self.addresses.of_interface(interface)
    }

    /// The ring buffer from the data plane; to be opened once.
    ///
    /// # Errors
    /// Where it can't be mapped.
    pub fn ring(&self) -> Result<RingBuf<MapData>> {
        maps::ring(&self.instance.pins())
    }

    /// Puts these rules in force, by difference. Gives back the public ports that are still in use
    /// by something else; they are tried again with [`Plane::tend`].
    ///
    /// # Errors
    /// Where an address of an interface makes rules clash, or the kernel refuses.
    pub fn apply(&mut self, rules: &RuleSet) -> Result<&[Endpoint]> {
        self.write_rules(rules)?;
        self.follow_aliases()?;
        Ok(&self.waiting)
    }

    fn is_one_armed(&self) -> bool {
        self.state.interfaces.iter().any(|interface| interface.side == Side::Both)
    }

    fn write_rules(&mut self, rules: &RuleSet) -> Result<()> {
        let resolve = |name: &str| self.addresses.of_interface(name);
        let entries = rules
            .entries(&resolve)
            .map_err(|error| PlaneError::Conflict(format!("put the rules in force: {error}")))?;
        let hosts = rules.hosts();
        let wanted = rules::Wanted::of(&entries, &hosts).exempting(&self.exempt);
        let wanted = if self.is_one_armed() { wanted.within(&self.inside) } else { wanted };
        let name = |rule: &Rule| (rules.number(rule.name()), rule.name().to_string());
        let names = rules.iter().map(name).collect();
        if self.state.rules != names {
            self.state.rules = names;
            self.state.write(&self.instance)?;
        }
        six::Openings::of(&rules.openings()).write(&mut self.maps)?;
        self.waiting = wanted.write(&mut self.maps)?;
        let public = entries.iter().map(|entry| entry.public);
        let hosts = hosts.iter().map(|host| host.public);
        self.public = public.chain(hosts).chain(self.named.iter().copied()).collect();
        self.rules = rules.clone();
        self.write_uplinks()
    }

    /// Tells the data plane that the agent lives, and that next hops are as the kernel has them; once
    /// a second.
    ///
    /// # Errors
    /// Where the kernel refuses; then the data plane is not told so.
    pub fn beat(&mut self, now: Now) -> Result<()> {
        let moved = self.hops.beat()?;
        self.settings.heartbeat = now.seconds().max(1);
        self.write_epoch(moved)
    }

    /// One step of the sweep; once a second. Never waits.
    ///
    /// # Errors
    /// Where the last pass met a refusal of the kernel; the next one tries again.
    pub fn sweep_step(&mut self, now: Now) -> Result<Option<Report>> {
        if self.growth.has_two_tables() {
            return Ok(None);
        }
        self.sweeper.step(now)
    }

    /// Ends the agent's hold. Without `persist` everything is removed; with it the data plane works
    /// on without an agent, until the next one takes it over.
    ///
    /// # Errors
    /// Where the kernel refuses; what could be removed is.
    pub fn stop(mut self, persist: bool) -> Result<()> {
        self.settings.heartbeat = 0;
        let told = self.abandon_growth().and(self.write_settings());
        if persist {
            return told;
        }
        down::remove(&self.instance, Some(&mut self.state))?;
        State::remove(&self.instance)
    }

    /// Writes the settings, with the epoch in which next hops are true now.
    fn write_epoch(&mut self, moved: bool) -> Result<()> {
        self.settings.epoch = self.hops.epoch();
        self.write_settings()?;
        if moved {
            self.hops.moved();
        }
        Ok(())
    }

    fn write_settings(&mut self) -> Result<()> {
        let mtus = self.state.interfaces.iter().filter_map(|it| self.hops.mtu(it.index));
        self.settings.mss_fits = Settings::mss_of(mtus.min().unwrap_or_default());
        self.maps
            .settings
            .set(0, self.settings, 0)
            .map_err(PlaneError::refused("write the settings of the data plane"))
    }
}
