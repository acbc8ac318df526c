//! What this machine is like, as far as it can be seen without changing it.
//!
//! Invariant: what can't be read, or belongs to a program that isn't here, is absent from the facts;
//! looking never fails as a whole.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
};

use aya::util::KernelVersion;
use ipnet::Ipv4Net;
use nat_common::layout;
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use super::{
    Subject, hooks, host,
    nft::Ruleset,
    prefixes::{self, Route6},
    public_address,
};
use crate::{
    output::{Role, RuleView},
    plane::{here, is_station, route},
    rules::PublicAddress,
};

/// Facts about the machine and about the interfaces of a gateway.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Version and name of the kernel.
    pub kernel: Option<(KernelVersion, String)>,
    /// What bpffs is to be mounted at, where it isn't.
    pub bpffs_missing: bool,
    /// `net.core.bpf_jit_enable`; only the first network namespace has it.
    pub jit: Option<u32>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: Option<u32>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwarding6: Option<u32>,
    /// The routes of IPv6; empty where they can't be read.
    pub routes6: Vec<Route6>,
    /// Facts by the name of the interface.
    pub interfaces: BTreeMap<String, InterfaceFacts>,
    /// Every IPv4 address of this namespace in its network, with its interface.
    pub addresses: Vec<(Ipv4Net, String)>,
    /// Interfaces of this namespace.
    pub links: Vec<String>,
    /// The interface that packets to an inside host of a rule leave by; `None`: there is no way.
    pub ways: BTreeMap<Ipv4Addr, Option<String>>,
    /// What nft has.
    pub nft: Option<Ruleset>,
    /// Tables of iptables-legacy.
    pub legacy_tables: Vec<String>,
    /// Rules of its nat table, as iptables-save writes them.
    pub legacy_rules: Vec<String>,
    /// `net.netfilter.nf_conntrack_helper`.
    pub helpers: Option<u32>,
}

/// Facts about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// `rp_filter`, the stricter of its own and that of all.
    pub rp_filter: Option<u32>,
    /// `forwarding` of this interface.
    pub forwarding: Option<u32>,
    /// Whether segments are merged on receipt.
    pub lro: bool,
    /// Programs of others on its hooks, one phrase each.
    pub programs: Vec<String>,
}

impl Facts {
    /// Looks at the machine.
    pub fn gather(subject: &Subject) -> Self {
        let kernel = KernelVersion::current().ok();
        let name = uname().ok().map(|uname| uname.release().to_string_lossy().into_owned());
        // Hosts of IPv6 are their own public addresses, whatever the route.
        let ways = subject.rules.iter().filter_map(|rule| match host(rule) {
            IpAddr::V4(host) => Some((host, route::interface_to(host.into()))),
            IpAddr::V6(_) => None,
        });
        Self {
            kernel: kernel.zip(name),
            bpffs_missing: statfs(Path::new(layout::BPFFS))
                .map_or(true, |found| found.filesystem_type() != BPF_FS_MAGIC),
            jit: sysctl("net/core/bpf_jit_enable"),
            forwarding: sysctl("net/ipv4/ip_forward"),
            forwarding6: sysctl("net/ipv6/conf/all/forwarding"),
            routes6: fs::read_to_string("/proc/thread-self/net/ipv6_route")
                .map(|text| prefixes::routes(&text))
                .unwrap_or_default(),
            interfaces: subject
                .interfaces
                .iter()
                .map(|(name, _)| (name.clone(), InterfaceFacts::gather(name)))
                .collect(),
            links: links(),
            addresses: here::addresses(),
            ways: ways.collect(),
            nft: Ruleset::read(),
            legacy_tables: lines(&fs::read_to_string("/proc/net/ip_tables_names")),
            legacy_rules: said("iptables-legacy-save", &["-t", "nat"])
                .map(|text| {
                    text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
                })
                .unwrap_or_default(),
            helpers: sysctl("net/netfilter/nf_conntrack_helper"),
        }
    }
}

impl Facts {
    /// The first address of an interface.
    pub(super) fn address_of(&self, interface: &str) -> Option<Ipv4Addr> {
        self.addresses.iter().find(|(_, of)| of == interface).map(|(network, _)| network.addr())
    }

    /// The addresses that hosts are hidden behind on the way by a WAN.
    pub(super) fn hiding(&self, subject: &Subject, wan: &str) -> Vec<Ipv4Addr> {
        let own = self.addresses.iter().filter(|(_, of)| of == wan).map(|(own, _)| own.addr());
        let shared: Vec<_> = own.filter(|address| subject.addresses.contains(address)).collect();
        if shared.is_empty() { self.address_of(wan).into_iter().collect() } else { shared }
    }

    /// The WAN of a gateway in whose network an address lies.
    pub(super) fn home_of(&self, subject: &Subject, address: Ipv4Addr) -> Option<&str> {
        let mut wans =
            self.addresses.iter().filter(|(_, of)| subject.side(Role::Wan).any(|wan| wan == of));
        let found = wans.find(|(network, _)| is_station(network, address));
        found.map(|(_, name)| name.as_str())
    }

    /// The public address of a rule, where it has one now.
    pub(super) fn address_of_rule(&self, rule: &RuleView) -> Option<Ipv4Addr> {
        match public_address(rule)? {
            PublicAddress::Address(IpAddr::V4(address)) => Some(address),
            PublicAddress::Address(IpAddr::V6(_)) => None,
            PublicAddress::Interface(name) => self.address_of(&name),
        }
    }
}

impl InterfaceFacts {
    fn gather(name: &str) -> Self {
        let of = |whose: &str, key: &str| sysctl(&format!("net/ipv4/conf/{whose}/{key}"));
        let features = said("ethtool", &["-k", name]).unwrap_or_default();
        Self {
            // The kernel takes the larger of the two (Documentation/networking/ip-sysctl.rst).
            rp_filter: of("all", "rp_filter").into_iter().chain(of(name, "rp_filter")).max(),
            forwarding: of(name, "forwarding"),
            lro: merges(&features),
            programs: hooks::others(name),
        }
    }
}

/// Whether the lines of `ethtool -k` say that LRO is on.
pub(super) fn merges(features: &str) -> bool {
    let mut lines = features.lines().map(str::trim);
    lines.any(|line| line.starts_with("large-receive-offload: on"))
}

/// What a program says; `None` where there is none, or it fails.
pub(super) fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn sysctl(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

fn links() -> Vec<String> {
    // Of the thread's own namespace, whatever /sys shows.
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    text.lines().filter_map(name).collect()
}

fn lines(text: &std::io::Result<String>) -> Vec<String> {
    text.as_ref().map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}
