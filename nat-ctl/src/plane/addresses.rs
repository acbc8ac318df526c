//! The maps `interfaces` and `addresses`: what the gateway's own addresses are, now.
//!
//! Invariant: the public address of a WAN is its first global address; an address that was just
//! added is in the map before one that was removed is taken out.

use std::{collections::BTreeMap, net::Ipv4Addr};

use nat_common::interface::Interface;

use super::error::{PlaneError, Result};
use super::links::Address;
use super::maps::Maps;
use super::state::Attached;
use crate::output::Role;

/// Code of an address in the map `addresses`, by the interface that it is on.
const ON_LAN: u32 = 1;
pub(super) const ON_WAN: u32 = 2;

/// Addresses of the managed interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    public: BTreeMap<String, Ipv4Addr>,
    own: BTreeMap<[u8; 4], u32>,
}

impl Addresses {
    /// Sorts what the kernel has listed by what the interfaces are for.
    pub fn of(interfaces: &[Attached], listed: &[Address]) -> Self {
        let mut this = Self::default();
        for found in listed {
            let Some(interface) = interfaces.iter().find(|known| known.index == found.index) else {
                continue;
            };
            let code = match interface.role {
                Role::Lan => ON_LAN,
                Role::Wan => ON_WAN,
            };
            this.own.insert(found.address.octets(), code);
            if found.global {
                this.public.entry(interface.name.clone()).or_insert(found.address);
            }
        }
        this
    }

    /// First global address of an interface: what a rule that names the interface means.
    pub fn of_interface(&self, name: &str) -> Option<Ipv4Addr> {
        self.public.get(name).copied()
    }

    /// The gateway's own addresses on its WANs.
    pub fn outside(&self) -> impl Iterator<Item = [u8; 4]> {
        self.own.iter().filter(|(_, code)| **code == ON_WAN).map(|(address, _)| *address)
    }

    /// Writes both maps by difference.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn write(&self, maps: &mut Maps, interfaces: &[Attached]) -> Result<()> {
        let what = "write the map interfaces";
        let records: BTreeMap<u32, Interface> = interfaces
            .iter()
            .map(|interface| {
                let public = self.of_interface(&interface.name);
                let record = match interface.role {
                    Role::Lan => Interface::LAN,
                    Role::Wan => Interface::wan(public.map_or([0; 4], |public| public.octets())),
                };
                (interface.index, record)
            })
            .collect();
        super::difference::apply(&mut maps.interfaces, &records)
            .map_err(PlaneError::refused::<aya::maps::MapError>(what))?;
        super::difference::apply(&mut maps.addresses, &self.own)
            .map_err(PlaneError::refused("write the map addresses"))
    }
}
