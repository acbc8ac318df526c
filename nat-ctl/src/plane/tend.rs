//! What has to be kept true while the gateway runs: addresses, next hops, redirects, interfaces.
//!
//! Invariant: every change that an operator should know of comes back as one line of text; a failure
//! of one piece of upkeep does not keep the others from being done.

use std::net::Ipv4Addr;

use super::{
    Addresses, Attached, Now, Plane, attach, clock,
    error::{PlaneError, Result},
    features,
    links::{Event, Link, Netlink},
};
use crate::output::InterfaceMode;

impl Plane {
    /// Waits for a change of interfaces, addresses or next hops; hand it to [`Plane::handle`]. Safe to
    /// cancel.
    pub async fn event(&mut self) -> Event {
        tokio::select! {
            () = self.hops.ready() => Event::Hops,
            event = self.netlink.event() => event,
        }
    }

    /// Follows a change. Gives lines for the log.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn handle(&mut self, event: Event) -> Result<Vec<String>> {
        match event {
            Event::Hops => self.follow_hops(),
            Event::Addresses => self.follow_addresses().await,
            Event::Link(link) => self.follow_link(&link).await,
            Event::Gone { index } => self.lose_links(|known| known.index == index),
            Event::Lost => {
                self.netlink = Netlink::open()?;
                let mut lines = vec![];
                let known: Vec<_> =
                    self.state.interfaces.iter().map(|known| known.name.clone()).collect();
                for name in known {
                    match self.netlink.link(&name).await {
                        Ok(link) => lines.extend(self.follow_link(&link).await?),
                        Err(PlaneError::NotFound(_)) => {
                            lines.extend(self.lose_links(|known| known.name == name)?);
                        }
                        Err(error) => return Err(error),
                    }
                }
                lines.extend(self.follow_addresses().await?);
                Ok(lines)
            }
        }
    }

    /// Upkeep that nothing announces: what drivers can do now, ports of forwards that were in use,
    /// interfaces that are back and could not be attached to. Every few seconds. Gives lines for the log.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn tend(&mut self) -> Result<Vec<String>> {
        if !self.waiting.is_empty() {
            let rules = self.rules.clone();
            self.apply(&rules)?;
        }
        let native = |interface: &&Attached| interface.mode == InterfaceMode::Xdp;
        if self.state.interfaces.iter().any(|interface| native(&interface)) {
            self.write_redirects()?;
        }
        self.find_lost().await
    }

    /// Public addresses that are gone for good, told of once: their flows are to end.
    pub fn gone_addresses(&mut self, now: Now) -> Vec<Ipv4Addr> {
        self.gone.over(&self.addresses, now.seconds())
    }

    /// Reads all addresses, and tells the data plane.
    pub(super) async fn read_addresses(&mut self) -> Result<()> {
        let listed = self.netlink.addresses().await?;
        let now = Addresses::of(&self.state.interfaces, &listed, &self.named, &self.inside);
        self.gone.follow(&self.addresses, &now, clock::now().seconds());
        (self.addresses, self.listed) = (now, listed);
        self.note_given()?;
        self.write_addresses()
    }

    /// The interfaces that XDP may redirect to, now.
    pub(super) fn write_redirects(&mut self) -> Result<()> {
        for interface in self.state.interfaces.iter().filter(|interface| !interface.lost) {
            let able = match features::of(interface.index)? {
                Some(features) => features.can_transmit(),
                // Before Linux 6.3 a driver can't say; those with native XDP have both as a rule.
                None => interface.mode == InterfaceMode::Xdp,
            };
            let index = interface.index;
            let present = super::maps::optional(self.maps.redirects.get(index, 0))
                .map_err(PlaneError::refused("read the map redirects"))?
                .is_some();
            let what = "write the map redirects";
            match (present, able) {
                (false, true) => self
                    .maps
                    .redirects
                    .insert(index, index, None, 0)
                    .map_err(PlaneError::refused(what))?,
                (true, false) => {
                    self.maps.redirects.remove(index).map_err(PlaneError::refused(what))?;
                }
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    fn follow_hops(&mut self) -> Result<Vec<String>> {
        if self.hops.work()? {
            self.write_epoch(true)?;
        }
        Ok(vec![])
    }

    async fn follow_addresses(&mut self) -> Result<Vec<String>> {
        let before = self.addresses.clone();
        self.read_addresses().await?;
        if self.addresses == before {
            // One of an interface that is not the gateway's, or the network of one that is.
            self.follow_aliases()?;
            return Ok(vec![]);
        }
        let mut lines = vec![];
        for interface in &self.state.interfaces {
            let now = self.addresses.of_interface(&interface.name);
            if interface.side.is(crate::output::Role::Wan)
                && now != before.of_interface(&interface.name)
            {
                let address = now.map_or("none".to_owned(), |address| address.to_string());
                lines.push(format!("public address of {}: {address}", interface.name));
            }
        }
        let rules = self.rules.clone();
        self.apply(&rules)?;
        Ok(lines)
    }

    /// An interface that came back, as a rule with another number: everything is attached there. Its
    /// addresses are the gateway's before a program of it asks.
    async fn follow_link(&mut self, link: &Link) -> Result<Vec<String>> {
        let mut known = self.state.interfaces.iter_mut();
        let Some(known) = known.find(|known| known.name == link.name) else { return Ok(vec![]) };
        if known.index == link.index && !known.lost {
            return Ok(vec![]);
        }
        let side = known.side;
        (known.index, known.lost) = (link.index, true);
        self.state.write(&self.instance)?;
        self.read_addresses().await?;
        self.attach(link, side)?;
        self.hops.void();
        attach::drop_others(&self.instance, &self.state.interfaces)?;
        self.state.write(&self.instance)?;
        super::six::accept_routers(&self.state)?;
        self.write_uplinks()?;
        self.follow_aliases()?;
        self.write_redirects()?;
        Ok(vec![format!(
            "interface {} is back as number {}: attached again",
            link.name, link.index
        )])
    }

    /// Interfaces that are gone are kept in mind.
    fn lose_links(&mut self, is_gone: impl Fn(&Attached) -> bool) -> Result<Vec<String>> {
        let mut lines = vec![];
        for known in self.state.interfaces.iter_mut().filter(|known| !known.lost && is_gone(known))
        {
            known.lost = true;
            lines.push(format!("interface {} is gone: no packets until it is back", known.name));
        }
        if !lines.is_empty() {
            self.state.write(&self.instance)?;
        }
        Ok(lines)
    }

    /// Tries again what could not be attached when an interface came back. A refusal is told of once.
    async fn find_lost(&mut self) -> Result<Vec<String>> {
        let lost = self.state.interfaces.iter().filter(|known| known.lost);
        let lost: Vec<_> = lost.map(|known| known.name.clone()).collect();
        let mut lines = vec![];
        for name in lost {
            let back = match self.netlink.link(&name).await {
                Ok(link) => self.follow_link(&link).await,
                Err(PlaneError::NotFound(_)) => continue,
                Err(error) => Err(error),
            };
            match back {
                Ok(said) => lines.extend(said),
                Err(error) => {
                    let refusal = error.to_string();
                    if self.refusal != refusal {
                        lines.push(format!("interface {name} is back: {refusal}"));
                        self.refusal = refusal;
                    }
                }
            }
        }
        Ok(lines)
    }
}
