//! The gateway between the two sides: ours in one of its modes, Linux's own NAT as the oracle, or a router
//! that translates nothing.
//!
//! Invariant: a gateway that `start` gives back forwards; nothing of it is left after its guard.

use std::{
    fmt::{self, Display},
    net::Ipv4Addr,
    path::Path,
};

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::{lab::Lab, netns::Namespace};

mod attached;
mod linux;
mod nat_ctl;
mod router;

pub use attached::attached;
pub use linux::Linux;
pub use nat_ctl::NatCtl;
pub use router::Router;

/// Where our data plane hooks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The TC programs alone.
    Tc,
    /// XDP first, TC behind it.
    Xdp,
}

impl Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        })
    }
}

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nft masquerade with `nf_nat_ftp`.
    Linux,
    /// `nat-ctl run --mode ...`.
    NatCtl(Mode),
    /// The kernel's forwarding alone.
    Router,
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux => formatter.pad("linux"),
            Self::NatCtl(mode) => mode.fmt(formatter),
            Self::Router => formatter.pad("none"),
        }
    }
}

/// How a server inside is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The control port of an FTP server, and whatever data connections its sessions ask for.
    ForwardFtp {
        /// Name of the rule.
        name: String,
        /// Address outside.
        public: Ipv4Addr,
        /// Host inside.
        to: Ipv4Addr,
    },
    /// A public address of its own, of which only port 21 is open from outside.
    OneToOne {
        /// Name of the rule.
        name: String,
        /// Address outside.
        public: Ipv4Addr,
        /// Host inside.
        to: Ipv4Addr,
    },
}

impl Rule {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ForwardFtp { name, .. } | Self::OneToOne { name, .. } => name,
        }
    }
}

/// Packets translated so far, by the hook that finished them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Packets {
    /// In XDP.
    pub xdp: u64,
    /// In TC.
    pub tc: u64,
}

impl Packets {
    /// What came since an earlier reading.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { xdp: self.xdp.saturating_sub(earlier.xdp), tc: self.tc.saturating_sub(earlier.tc) }
    }

    /// Percentage finished in XDP; nothing where there was nothing.
    #[must_use]
    pub fn share_in_xdp(self) -> Option<f64> {
        let all = self.xdp + self.tc;
        // Counts of one transfer are far below 2^52.
        #[expect(clippy::cast_precision_loss)]
        (all > 0).then(|| self.xdp as f64 * 100.0 / all as f64)
    }
}

/// A gateway at work in the lab's gateway namespace.
#[derive(Debug)]
pub enum Gateway<'lab> {
    /// The kernel's own.
    Linux(Linux<'lab>),
    /// Ours.
    NatCtl(NatCtl<'lab>),
    /// None.
    Router(Router<'lab>),
}

impl<'lab> Gateway<'lab> {
    /// Starts a gateway; `binary` is our `nat-ctl`.
    pub fn start(lab: &'lab Lab, kind: Kind, binary: &Path) -> Result<Self> {
        Self::start_in(&lab.gateway, lab, kind, binary)
    }

    /// The same in another namespace of the lab, whose devices have the names of the gateway's.
    pub fn start_in(
        namespace: &'lab Namespace,
        lab: &'lab Lab,
        kind: Kind,
        binary: &Path,
    ) -> Result<Self> {
        match kind {
            Kind::Linux => Linux::start_in(namespace).map(Self::Linux),
            Kind::NatCtl(mode) => {
                let mut gateway = NatCtl::prepare_in(namespace, lab, mode, binary)?;
                gateway.run(&[])?;
                Ok(Self::NatCtl(gateway))
            }
            Kind::Router => Router::start_in(namespace).map(Self::Router),
        }
    }

    /// Adds a rule.
    pub fn add(&mut self, rule: &Rule) -> Result<()> {
        match self {
            Self::Linux(gateway) => gateway.add(rule),
            Self::NatCtl(gateway) => gateway.add(rule),
            Self::Router(_) => bail!("a router has no rules"),
        }
    }

    /// Takes a rule away.
    pub fn remove(&mut self, rule: &Rule) -> Result<()> {
        match self {
            Self::Linux(gateway) => gateway.remove(rule),
            Self::NatCtl(gateway) => gateway.remove(rule),
            Self::Router(_) => bail!("a router has no rules"),
        }
    }

    /// Packets by hook, where there are hooks.
    pub fn packets(&self) -> Result<Option<Packets>> {
        match self {
            Self::Linux(_) | Self::Router(_) => Ok(None),
            Self::NatCtl(gateway) => gateway.packets().map(Some),
        }
    }

    /// What helps to understand a failure.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        match self {
            Self::Linux(gateway) => gateway.diagnosis(),
            Self::NatCtl(gateway) => gateway.diagnosis(),
            Self::Router(_) => String::new(),
        }
    }

    /// Ends it in good order, and says so if it had to be forced or left something.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Linux(gateway) => gateway.stop(),
            Self::NatCtl(gateway) => gateway.stop(),
            // Dropping does all there is to do.
            Self::Router(_) => Ok(()),
        }
    }

    /// Lets it work on after this program's end.
    pub fn leave(self) {
        match self {
            Self::Linux(gateway) => gateway.leave(),
            Self::NatCtl(gateway) => gateway.leave(),
            Self::Router(gateway) => gateway.leave(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_in_xdp_counts_only_what_came_since() {
        let earlier = Packets { xdp: 100, tc: 50 };
        let later = Packets { xdp: 290, tc: 60 };
        assert_eq!(later.since(earlier).share_in_xdp(), Some(95.0));
        assert_eq!(later.since(later).share_in_xdp(), None);
    }
}
