//! Data connections that a control flow has announced.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{flow::Side, refusal::Refusal};

/// One announced data connection: the exact pinhole, and what becomes of who comes through it.
///
/// The source port is never part of it: of seven servers two dial from port 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Who may dial what.
    pub key: ExpectationKey,
    /// What is done with that connection.
    pub translation: Translation,
}

/// Who may dial what, as its packets look on arrival at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExpectationKey {
    /// Who dials: the peer of the control flow.
    pub from: IpAddr,
    /// What it dials.
    pub to: SocketAddr,
}

/// The translation of an expected data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Translation {
    /// It comes from outside, to a claimed public port, and goes to this inside endpoint.
    Inbound(SocketAddr),
    /// It comes from inside and leaves with this public address; its source port (20, with a server
    /// that dials from there) is kept where that is free.
    Outbound(IpAddr),
    /// It comes from inside, to a claimed public port, and goes to an inside endpoint, as the session
    /// that has announced it does.
    Turned {
        /// Who opens it.
        dials: Side,
        /// The inside endpoint.
        to: SocketAddr,
        /// The public address that it is seen there to come from.
        public: IpAddr,
    },
}

/// A public port that the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The session that asks.
    pub session: u32,
    /// The public address.
    pub public: IpAddr,
    /// The inside host that a connection to the port will go to.
    pub inside: IpAddr,
    /// Its port there, which is also the public port that is wanted most. `None` where a line is
    /// being announced before it is complete: any port will do.
    pub port: Option<u16>,
    /// Whether the line states the public address by itself, so that with this very port all of its
    /// bytes stay as they are.
    pub stated: bool,
}

/// What the engine asks of the rest of the gateway while it reads a line.
pub trait Gateway {
    /// Claims a public port, at once and for good. `None`: none is free.
    ///
    /// Must give the same port again while that very inside endpoint holds one in this session, and
    /// never one below 1024, one that a socket of the gateway uses, or one that a forward leads to
    /// another host. A forward that leads to that very host and port is a claim that is granted.
    fn claim(&mut self, request: &PortRequest) -> Option<u16>;

    /// Whether a client may have one connection more announced; it counts as announced then. Where nobody
    /// counts, every client may.
    fn admit(&mut self, _client: IpAddr) -> Result<(), Refusal> {
        Ok(())
    }

    /// Gives a port back that was claimed for nothing.
    fn release(&mut self, public: SocketAddr);

    /// Whether a public port is always the inside one, so that none has to be claimed.
    fn keeps_ports(&self) -> bool {
        false
    }

    /// Whether an address is one that must not be seen outside.
    fn is_inside(&self, address: IpAddr) -> bool;
}
