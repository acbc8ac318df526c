//! Interfaces, addresses and their changes, by rtnetlink.
//!
//! Invariant: the socket stays in the namespace in which it was opened; /sys is not asked, for it
//! may show another one.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressScope},
    link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use super::ask::{Scope, ask};
use super::error::{PlaneError, Result};

type Messages = futures_channel::mpsc::UnboundedReceiver<(
    NetlinkMessage<RouteNetlinkMessage>,
    netlink_sys::SocketAddr,
)>;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, where it is not a NIC: `veth`, `bridge`, ...
    pub kind: Option<String>,
    /// What stands before the IP header of its packets.
    pub layer: Layer,
}

impl Link {
    /// Whether its packets have no header before that of IP.
    pub fn is_bare(&self) -> bool {
        self.layer == Layer::Bare
    }
}

/// What stands before the IP header of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// Nothing, as the programs see it: PPP, TUN, WireGuard, tunnels (`dev_is_mac_header_xmit` of
    /// include/linux/if_arp.h).
    Bare,
    /// Something else.
    Other,
}

impl Layer {
    fn of(layer: LinkLayerType) -> Self {
        match layer {
            LinkLayerType::Ether => Self::Ethernet,
            LinkLayerType::None
            | LinkLayerType::Ppp
            | LinkLayerType::Rawip
            | LinkLayerType::Tunnel
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre => Self::Bare,
            _ => Self::Other,
        }
    }
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Number of the interface.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the prefix of its network.
    pub prefix: u8,
    /// Whether it may be used off the link (scope global).
    pub global: bool,
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Addresses of some interface.
    Addresses,
    /// An interface came, or changed.
    Link(Link),
    /// Routing, neighbours or devices, as far as next hops follow them.
    Hops,
    /// An interface is gone.
    Gone {
        /// Its number.
        index: u32,
    },
    /// Events were lost, or the socket was closed: all has to be read again.
    Lost,
}

/// An open socket.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    messages: Messages,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens a socket in the namespace of this thread; needs a tokio runtime.
    ///
    /// # Errors
    /// Where the kernel refuses one.
    pub fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let (connection, handle, messages) = new_multicast_connection(&groups)
            .map_err(PlaneError::refused("open a netlink socket"))?;
        Ok(Self { handle, messages, task: tokio::spawn(connection) })
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where there is none.
    pub async fn link(&self, name: &str) -> Result<Link> {
        let answer = self.handle.link().get().match_name(name).execute();
        let found = Box::pin(answer).try_next().await.map_err(|error| {
            if super::error::Kernel::code(&error) == Some(nix::libc::ENODEV) {
                return no_interface(name);
            }
            PlaneError::refused(format!("look up interface {name}"))(error)
        })?;
        found.as_ref().and_then(link).ok_or_else(|| no_interface(name))
    }

    /// All IPv4 addresses, in the order of the kernel: the primary one of an interface first.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let mut answer = Box::pin(request.execute());
        let mut addresses = vec![];
        while let Some(message) =
            answer.try_next().await.map_err(PlaneError::refused("list addresses"))?
        {
            // IFA_LOCAL is the own address, IFA_ADDRESS the peer's on a point-to-point link.
            let own = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            };
            addresses.extend(message.attributes.iter().find_map(own).map(|address| Address {
                index: message.header.index,
                address,
                prefix: message.header.prefix_len,
                global: message.header.scope == AddressScope::Universe,
            }));
        }
        Ok(addresses)
    }

    /// Waits for the next change. Safe to cancel.
    pub async fn event(&mut self) -> Event {
        loop {
            let Some((message, _)) = self.messages.next().await else { return Event::Lost };
            match message.payload {
                NetlinkPayload::InnerMessage(message) => match message {
                    RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                        return Event::Addresses;
                    }
                    RouteNetlinkMessage::NewLink(message) => {
                        if let Some(link) = link(&message) {
                            return Event::Link(link);
                        }
                    }
                    // What leaves a bridge is gone as a port of it, and is there still.
                    RouteNetlinkMessage::DelLink(message) if is_of_no_family(&message) => {
                        return Event::Gone { index: message.header.index };
                    }
                    _ => {}
                },
                NetlinkPayload::Overrun(_) => return Event::Lost,
                _ => {}
            }
        }
    }
}

/// Longest packet that an interface takes, from the IP header on.
pub fn mtu_of(index: u32) -> Option<u32> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let answers = ask(RouteNetlinkMessage::GetLink(question), Scope::One).ok()?;
    answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => {
            link.attributes.iter().find_map(|found| match found {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
        }
        _ => None,
    })
}

fn no_interface(name: &str) -> PlaneError {
    PlaneError::NotFound(format!(
        "attach to interface '{name}': there is none of that name: `ip link` lists them"
    ))
}

/// A bridge reports its ports with a family of its own; those are not new interfaces.
fn is_of_no_family(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn link(message: &LinkMessage) -> Option<Link> {
    if !is_of_no_family(message) {
        return None;
    }
    let mut name = None;
    let mut kind = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found.clone()),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let layer = Layer::of(message.header.link_layer_type);
    Some(Link { index: message.header.index, name: name?, kind, layer })
}
