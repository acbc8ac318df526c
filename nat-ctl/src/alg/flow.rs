//! What the data plane knows of a control flow, in the words of FTP: a client and a server, one of
//! them inside, or both.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Who sent a segment, and so the name of a direction. The client is who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The FTP client: commands.
    Client,
    /// The FTP server: replies.
    Server,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

impl From<nat_common::session::Side> for Side {
    fn from(side: nat_common::session::Side) -> Side {
        match side {
            nat_common::session::Side::Originator => Side::Client,
            nat_common::session::Side::Responder => Side::Server,
        }
    }
}

impl From<Side> for nat_common::session::Side {
    fn from(side: Side) -> nat_common::session::Side {
        match side {
            Side::Client => nat_common::session::Side::Originator,
            Side::Server => nat_common::session::Side::Responder,
        }
    }
}

/// The way of an announced connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// From outside to an inside end.
    Inward,
    /// From inside to an outside end.
    Outward,
    /// From inside, by a public address, to an inside end.
    Turned,
}

/// The ends of a control flow. `client` and `server` are the addresses that the hosts have
/// themselves; the inside one of them is known outside as `public`.
///
/// Where both are inside, the client has dialled a public address of the gateway. Then `inside` is the
/// server, `public` what the client has dialled, and `client_public` what the server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFlow {
    /// Number of the session, as users see it.
    pub session: u32,
    /// Which end is inside; the server where both are.
    pub inside: Side,
    /// The client's own address and port.
    pub client: SocketAddr,
    /// The server's own address and port.
    pub server: SocketAddr,
    /// What the other end sees of the inside end.
    pub public: SocketAddr,
    /// What the server sees of a client that is inside as it is itself.
    pub client_public: Option<SocketAddr>,
}

impl ControlFlow {
    /// The own address of an end.
    pub const fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Client => self.client.ip(),
            Side::Server => self.server.ip(),
        }
    }

    /// What the other end sees of an end.
    pub fn seen(&self, side: Side) -> SocketAddr {
        match side {
            _ if side == self.inside => self.public,
            Side::Client => self.client_public.unwrap_or(self.client),
            Side::Server => self.server,
        }
    }

    /// Whether an end is inside.
    pub fn is_inside(&self, side: Side) -> bool {
        side == self.inside || self.client_public.is_some()
    }

    /// Whether the other end knows an end by another address or port. One of IPv6 is known as it is.
    pub fn is_translated(&self, side: Side) -> bool {
        let own = match side {
            Side::Client => self.client,
            Side::Server => self.server,
        };
        own != self.seen(side)
    }

    /// Whether an address is of the family that the flow is of.
    pub fn is_of_family(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.public.is_ipv6()
    }

    /// Who opens an expected connection: from an address of the client's, or from one of the server's.
    pub fn dials(&self, from: IpAddr) -> Side {
        if from == self.client.ip() { Side::Client } else { Side::Server }
    }

    /// The way of a connection that is expected from this address.
    pub fn course(&self, from: IpAddr) -> Course {
        let dials = self.dials(from);
        match [dials, dials.other()].map(|side| self.is_inside(side)) {
            [true, true] => Course::Turned,
            [true, false] => Course::Outward,
            [false, _] => Course::Inward,
        }
    }
}
