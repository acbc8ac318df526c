//! Veth pairs between namespaces and what their devices may leave to one another.

use anyhow::Result;

use crate::{netns::Namespace, process};

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub name: &'a str,
    /// Its addresses, with prefix length; the first one is the primary.
    pub addresses: &'a [&'a str],
}

/// Whether devices compute checksums and cut segments in place of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// As a veth comes: checksums are left to the device, segments have up to 64 KB.
    On,
    /// Every frame is complete on its own, as on the plainest of NICs.
    Off,
}

/// Joins two ends and brings them up.
pub fn connect(near: End<'_>, far: End<'_>) -> Result<()> {
    near.namespace.ip(&format!(
        "link add {} type veth peer name {} netns {}",
        near.name,
        far.name,
        far.namespace.name()
    ))?;
    for end in [near, far] {
        for address in end.addresses {
            end.namespace.ip(&format!("address add {address} dev {}", end.name))?;
        }
        end.namespace.ip(&format!("link set {} up", end.name))?;
    }
    Ok(())
}

/// Turns the offloads of a device on or off.
pub fn set_offloads(namespace: &Namespace, device: &str, offloads: Offloads) -> Result<()> {
    let state = match offloads {
        Offloads::On => "on",
        Offloads::Off => "off",
    };
    let mut command = namespace.command("ethtool");
    command.args(["-K", device]);
    for feature in ["tx", "tso", "gso"] {
        command.args([feature, state]);
    }
    process::must(&mut command).map(drop)
}

/// Gives a device the NAPI context without which a frame that XDP redirects to its peer vanishes.
pub fn receive_redirected(namespace: &Namespace, device: &str) -> Result<()> {
    process::must(namespace.command("ethtool").args(["-K", device, "gro", "on"])).map(drop)
}
