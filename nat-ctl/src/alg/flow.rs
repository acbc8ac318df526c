//! What the data plane knows of a control flow, in the words of FTP: a client and a server, one of
//! them inside.

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

/// The ends of a control flow. `client` and `server` are the addresses that the hosts have
/// themselves; the inside one of them is known outside as `public`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFlow {
    /// Number of the session, as users see it.
    pub session: u32,
    /// Which end is inside.
    pub inside: Side,
    /// The client's own address and port.
    pub client: SocketAddr,
    /// The server's own address and port.
    pub server: SocketAddr,
    /// What the outside end sees of the inside end.
    pub public: SocketAddr,
}

impl ControlFlow {
    /// The own address of an end.
    pub const fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Client => self.client.ip(),
            Side::Server => self.server.ip(),
        }
    }

    /// Whether the outside knows the inside end by another address or port. One of IPv6 is known as it is.
    pub fn is_translated(&self) -> bool {
        let inside = match self.inside {
            Side::Client => self.client,
            Side::Server => self.server,
        };
        inside != self.public
    }

    /// Whether an address is of the family that the flow is of.
    pub fn is_of_family(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.public.is_ipv6()
    }

    /// Who opens an expected connection: from an address of the client's, or from one of the server's.
    pub fn dials(&self, from: IpAddr) -> Side {
        if from == self.client.ip() { Side::Client } else { Side::Server }
    }
}
