//! Links without Ethernet headers: two TUN devices, and threads that carry packets from one to the other.
//! WireGuard and PPP look the same to whoever is attached to them, and need modules that not every
//! kernel has.

use std::{sync::Arc, thread};

use anyhow::{Context as _, Result};
use tappers::{Interface, Tun};

use crate::link::End;

/// The longest packet that a device hands out.
const LONGEST: usize = 1 << 16;

/// Joins two ends and brings them up; they are there for as long as their namespaces.
pub fn connect(near: End<'_>, far: End<'_>) -> Result<()> {
    let [near_device, far_device] = [make(near)?, make(far)?];
    carry(Arc::clone(&near_device), Arc::clone(&far_device));
    carry(far_device, near_device);
    for end in [near, far] {
        for address in end.addresses {
            end.namespace.ip(&format!("address add {address} dev {}", end.name))?;
        }
        end.namespace.ip(&format!("link set {} up", end.name))?;
    }
    Ok(())
}

/// A device that is neither up nor has an address.
pub(crate) fn make(end: End<'_>) -> Result<Arc<Tun>> {
    let name = Interface::new(end.name).with_context(|| format!("name a device {}", end.name))?;
    let device = end.namespace.enter(|| Tun::new_named(name))?;
    device.map(Arc::new).with_context(|| format!("make the TUN device {}", end.name))
}

/// Until one of them is gone.
fn carry(from: Arc<Tun>, to: Arc<Tun>) {
    thread::spawn(move || {
        let mut packet = vec![0; LONGEST];
        while let Ok(length) = from.recv(&mut packet) {
            // One that is down takes none, as a wire that is cut.
            let _sent = to.send(packet.get(..length).unwrap_or_default());
        }
    });
}
