//! The gateway around an engine: which ports are claimed, and who may announce.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use nat_ctl::alg::{Gateway, PortRequest, Refusal};

/// Public ports; the one that is asked for, or the lowest from here on.
const ANY: u16 = 50000;

/// Ports that are claimed.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// Claimed, and not given back.
    pub claimed: BTreeSet<u16>,
    /// Whether no other is to be had.
    pub none: bool,
    /// Whether nobody may announce.
    pub full: bool,
    /// Whether a claim may be of a state that nobody has made.
    pub is_lenient: bool,
}

impl Gateway for Ports {
    fn claim(&mut self, request: &PortRequest) -> Option<u16> {
        if self.none {
            return None;
        }
        let port = request.port.or_else(|| (ANY..).find(|port| !self.claimed.contains(port)))?;
        self.claimed.insert(port);
        Some(port)
    }

    fn admit(&mut self, _client: IpAddr) -> Result<(), Refusal> {
        if self.full { Err(Refusal::ClientFull) } else { Ok(()) }
    }

    fn release(&mut self, public: SocketAddr) {
        let was_claimed = self.claimed.remove(&public.port());
        assert!(was_claimed || self.is_lenient, "{public} was not claimed");
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.is_private())
    }
}
