//! How full the tables are, and what the programs have done so far.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use aya::maps::MapError;
use nat_common::{
    counter::Counter,
    port::{Owner, Pool, PortOwner},
};

use super::{Inspector, refused};
use crate::output::{InterfaceView, MetricsView, PacketsView, StatusView, Usage};
use crate::plane::{addresses, clock, error::Result};

/// Protocols that have ports or identifiers.
const PROTOCOLS: u64 = 3;

impl Inspector {
    /// One screen; how many FTP sessions are open, and whether new flows
    /// are refused, only the agent can tell.
    ///
    /// # Errors
    /// Where a map can't be read; the same goes for everything here.
    pub fn status(&self, ftp_sessions: u64) -> Result<StatusView> {
        let now = clock::now();
        let settings = self.maps.settings.get(&0, 0).map_err(refused("settings"))?;
        let uptime =
            if settings.agent_alive(now.seconds()) { now.since(self.state.started) } else { 0 };
        let interfaces = self.state.interfaces.iter().flat_map(|interface| {
            interface.side.roles().map(|role| InterfaceView {
                name: interface.name.clone(),
                role,
                mode: interface.mode,
                reason: match interface.lost {
                    true => "gone: its programs are attached when it is back".to_owned(),
                    false => interface.reason.clone(),
                },
                gone: interface.lost,
            })
        });
        let expectations = count(self.maps.expectations.keys())
            .and_then(|four| Ok(four + count(self.maps.expectations6.keys())?))
            .map_err(refused("expectations"))?;
        let counted = |counter| self.maps.counted(counter);
        Ok(StatusView {
            instance: self.instance.as_str().to_owned(),
            // Forwarding is turned on last, and put back first.
            ready: self.state.forwarding.is_some(),
            uptime_s: uptime.into(),
            interfaces: interfaces.collect(),
            flows: Usage { used: self.maps.flows.used().div_ceil(2), max: self.state.flows.into() },
            flows6: Usage { used: self.maps.flows6.used()?, max: self.maps.flows6.room() },
            ports: self.ports(u64::from(settings.pool.len()))?,
            expectations: Usage { used: expectations, max: self.room("expectations")? },
            ftp_sessions,
            drops: self.drops_view()?.total(),
            overload: vec![],
            packets: PacketsView {
                xdp: counted(Counter::Xdp)?,
                tc: counted(Counter::Tc)?,
                stack: counted(Counter::Stack)?,
                punted: counted(Counter::Punted)?,
                copied: counted(Counter::Copied)?,
                ipv6: counted(Counter::Six)?,
            },
        })
    }

    /// Everything that is measured; how many FTP sessions are open only the agent can tell.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn metrics(&self, ftp_sessions: u64) -> Result<MetricsView> {
        let settings = self.maps.settings.get(&0, 0).map_err(refused("settings"))?;
        let counter =
            |counter: &Counter| Ok((counter.name().to_owned(), self.maps.counted(*counter)?));
        Ok(MetricsView {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat_age_s: (settings.heartbeat != 0)
                .then(|| clock::now().since(settings.heartbeat).into()),
            status: self.status(ftp_sessions)?,
            drops: self.drops_view()?,
            counters: Counter::ALL.iter().map(counter).collect::<Result<_>>()?,
        })
    }

    /// The public ports of masquerade.
    ///
    /// # Errors
    /// See [`Inspector::status`].
    pub fn pool(&self) -> Result<Pool> {
        Ok(self.maps.settings.get(&0, 0).map_err(refused("settings"))?.pool)
    }

    fn ports(&self, pool: u64) -> Result<Usage> {
        let owned = |owner: &PortOwner| owner.owner() != Some(Owner::Forward);
        let others = self.maps.ports.others().map_err(refused("other ports"))?;
        let mut used = others.iter().filter(|(_, owner)| owned(owner)).count();
        for numbered in self.maps.ports.numbered().map_err(refused("addresses"))? {
            let words = self.maps.ports.taken(numbered).map(|(_, _, word)| word);
            used += words
                .filter(|word| owned(&PortOwner::from_word(word.load(Ordering::Acquire))))
                .count();
        }
        let mut public = BTreeSet::new();
        for entry in self.maps.addresses.iter() {
            let (address, code) = entry.map_err(refused("addresses"))?;
            if addresses::is_outside(code) {
                public.insert(address);
            }
        }
        let max = pool * PROTOCOLS * (public.len() as u64).max(1);
        Ok(Usage { used: used as u64, max })
    }

    fn room(&self, name: &str) -> Result<u64> {
        let info = aya::maps::MapInfo::from_pin(self.instance.pins().join(name));
        Ok(info.map_err(refused("size"))?.max_entries().into())
    }
}

fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>) -> Result<u64, MapError> {
    let mut counted = 0;
    for key in keys {
        key?;
        counted += 1;
    }
    Ok(counted)
}
