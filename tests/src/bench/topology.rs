//! Client, gateway and server, joined by veth pairs, with the cores that each of them works on.
//!
//! ```text
//!   client                     gateway                          server
//!   c 10.0.1.2/24 -------- l 10.0.1.1/24
//!   (10.64.0.0/16 behind it)   w 203.0.113.1/24 ------- s 203.0.113.10/24
//!                                                       (198.18.0.0/15 behind it)
//! ```
//!
//! Invariant: devices have names that no other run uses, for the kernel's NAPI threads are told
//! apart by nothing else; each contender has a topology of its own, so that none finds what another
//! one left.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    link::{self, End},
    netns::{self, Lifetime, Namespace},
    process,
};

/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// The gateway as the inside knows it.
pub const LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The gateway's public address.
pub const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Core of the client and the server: generator, sink, and whatever isn't the gateway's packets.
pub const ENDS_CORE: usize = 0;
/// Core of the gateway's NAPI threads.
pub const GATEWAY_CORE: usize = 1;

/// How packets are carried from device to device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// As a veth comes. For sockets; whoever measures pins what he starts.
    Plain,
    /// Every device has NAPI in a real-time thread of its own, the gateway's on [`GATEWAY_CORE`], the
    /// others on [`ENDS_CORE`]. For packets by live frames.
    Threaded,
}

/// Names of the four devices.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The client's.
    pub client: String,
    /// The gateway's towards the client.
    pub lan: String,
    /// The gateway's towards the server.
    pub wan: String,
    /// The server's.
    pub server: String,
}

/// Three namespaces, removed with this guard.
#[derive(Debug)]
pub struct Topology {
    /// Where [`CLIENT`] lives.
    pub client: Namespace,
    /// Where the contender works.
    pub gateway: Namespace,
    /// Where [`SERVER`] lives.
    pub server: Namespace,
    /// Their devices.
    pub devices: Devices,
    /// The wiring that was asked for.
    pub wiring: Wiring,
    name: String,
    folder: tempfile::TempDir,
}

impl Topology {
    /// Makes one.
    pub fn new(wiring: Wiring) -> Result<Self> {
        let name = netns::unique_name(Lifetime::Run);
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()
            .context("create a folder for a topology")?;
        let topology = Self {
            client: Namespace::new(&name, "client", Lifetime::Run)?,
            gateway: Namespace::new(&name, "gateway", Lifetime::Run)?,
            server: Namespace::new(&name, "server", Lifetime::Run)?,
            devices: Devices::named(&name)?,
            wiring,
            name,
            folder,
        };
        topology.connect()?;
        if wiring == Wiring::Threaded {
            topology.thread()?;
        }
        Ok(topology)
    }

    /// The unique name with which its namespaces begin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for logs and configuration files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder's file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&self) -> Result<()> {
        let Devices { client, lan, wan, server } = &self.devices;
        let [client_address, lan_address, wan_address, server_address] =
            [CLIENT, LAN, WAN, SERVER].map(|address| format!("{address}/24"));
        link::connect(
            End { namespace: &self.gateway, name: lan, addresses: &[&lan_address] },
            End { namespace: &self.client, name: client, addresses: &[&client_address] },
        )?;
        link::connect(
            End { namespace: &self.gateway, name: wan, addresses: &[&wan_address] },
            End { namespace: &self.server, name: server, addresses: &[&server_address] },
        )?;
        self.client.ip(&format!("route add default via {LAN}"))?;
        // Plain forwarding needs a way back; what should have been translated is counted apart.
        self.server.ip(&format!("route add default via {WAN}"))?;
        self.gateway.ip(&format!("route add 10.64.0.0/16 via {CLIENT}"))?;
        self.gateway.ip(&format!("route add 198.18.0.0/15 via {SERVER}"))?;
        // An address resolution in the middle of a measure would be a hole in it.
        for (namespace, device, far, far_device, address) in [
            (&self.gateway, lan, &self.client, client, CLIENT),
            (&self.gateway, wan, &self.server, server, SERVER),
            (&self.client, client, &self.gateway, lan, LAN),
            (&self.server, server, &self.gateway, wan, WAN),
        ] {
            let link = hardware_address(far, far_device)?;
            namespace.ip(&format!(
                "neighbour replace {address} lladdr {link} dev {device} nud permanent"
            ))?;
        }
        Ok(())
    }

    /// Gives each device a NAPI thread and puts the threads where they belong.
    fn thread(&self) -> Result<()> {
        let Devices { client, lan, wan, server } = &self.devices;
        for (namespace, device, core) in [
            (&self.client, client, ENDS_CORE),
            (&self.gateway, lan, GATEWAY_CORE),
            (&self.gateway, wan, GATEWAY_CORE),
            (&self.server, server, ENDS_CORE),
        ] {
            link::receive_redirected(namespace, device)?;
            // `ip netns exec` for once: it shows the /sys of the namespace.
            let file = format!("/sys/class/net/{device}/threaded");
            process::must(Command::new("ip").args([
                "netns",
                "exec",
                namespace.name(),
                "sh",
                "-c",
                &format!("echo 1 > {file}"),
            ]))?;
            let threads = napi_threads(device)?;
            ensure!(!threads.is_empty(), "{device} has no NAPI thread");
            for thread in threads {
                let thread = thread.to_string();
                process::must(Command::new("taskset").args(["-pc", &core.to_string(), &thread]))?;
                // Before all else on their cores: what others do on this machine must not come in
                // between, nor the generator keep the sink from its ring, where the gateway's work
                // would be lost.
                process::must(Command::new("chrt").args(["-f", "-p", "10", &thread]))?;
            }
        }
        Ok(())
    }
}

impl Devices {
    /// Four letters each: the name of a NAPI thread has room for no more.
    fn named(run: &str) -> Result<Self> {
        let tag = run.get(run.len().saturating_sub(3)..).context("the name of a run is short")?;
        let named = |role: char| format!("{role}{tag}");
        let devices =
            Self { client: named('c'), lan: named('l'), wan: named('w'), server: named('s') };
        for device in [&devices.client, &devices.lan, &devices.wan, &devices.server] {
            ensure!(
                napi_threads(device)?.is_empty(),
                "another run has a device {device}: try again"
            );
        }
        Ok(devices)
    }
}

/// Process ids of a device's NAPI threads.
pub fn napi_threads(device: &str) -> Result<Vec<i32>> {
    let wanted = format!("napi/{device}-");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let entry = entry.context("list processes")?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the two looks.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&wanted) {
            found.push(id);
        }
    }
    Ok(found)
}

/// The hardware address of a device.
pub fn hardware_address(namespace: &Namespace, device: &str) -> Result<String> {
    let shown = namespace.ip(&format!("-o link show dev {device}"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).with_context(|| format!("{device} has no hardware address"))
}
