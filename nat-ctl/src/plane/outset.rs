//! What there is at the outset of a start: interfaces, other instances, what a predecessor has left; and
//! what the data plane is to be told.
//!
//! Invariant: nothing is changed here but what is left of an instance that is gone, or was never whole.

use nat_common::{
    port::Port,
    settings::{CONTROL_PORTS, Settings},
};

use super::{
    clock::Now,
    down,
    error::{PlaneError, Result},
    features,
    forwarding::Forwarding,
    hook::{self, Choice, Device},
    lifetimes::Lifetimes,
    links::{Layer, Link, Netlink},
    netns::Namespace,
    pins::{self, Pinned},
    ports,
    state::{Attached, Side, State},
};
use crate::{
    config::Config,
    options::{Instance, Mode, RunOptions},
};

/// Whether this agent has a predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// All maps are new.
    Fresh,
    /// Maps and links are there already.
    Takeover,
}

/// The hook that an interface gets.
pub(super) fn choice(mode: Mode, link: &Link, side: Side) -> Result<Choice> {
    let (kind, bare, one_armed) = (link.kind.clone(), link.is_bare(), side == Side::Both);
    let device = Device { kind, bare, one_armed, features: features::of(link.index)? };
    Ok(hook::choose(mode, &device))
}

/// The interfaces that were asked for, each with its side.
pub(super) async fn find_links(
    netlink: &Netlink,
    options: &RunOptions,
) -> Result<Vec<(Link, Side)>> {
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
pub(super) fn refuse_absent(options: &RunOptions) -> Result<()> {
    match options.config.prefix.iter().find(|pair| !options.wan.contains(&pair.wan().to_owned())) {
        Some(pair) => Err(PlaneError::NotFound(format!(
            "translate a prefix at '{}': that is none of the WANs: name it with --wan, too",
            pair.wan()
        ))),
        None => Ok(()),
    }
}

/// An interface belongs to one instance.
pub(super) fn refuse_taken(
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
pub(super) fn look(instance: &Instance, namespace: Namespace) -> Result<Start> {
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
pub(super) fn plan(
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
pub(super) fn settings(config: &Config, forwarded: Forwarding, now: Now) -> Result<Settings> {
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
        ipv6: u8::from(config.ipv6.enabled),
        echo6: u8::from(config.ipv6.echo),
        unique_local6: u8::from(config.ipv6.unique_local),
        // What the kernel did before the gateway came is looked at with the state.
        routes_others6: 0,
        // They follow from addresses and rules.
        uplinks: 0,
        parity: u8::from(config.masquerade.parity),
        prefixes: u16::from(!config.prefix.is_empty()),
        pool: ports::pool(&config.masquerade.ports)?,
        control_ports,
        flows_per_host: config.limits.flows_per_host,
        ports_per_host: config.limits.ports_per_host,
    })
}
