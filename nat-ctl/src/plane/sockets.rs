//! The gateway's own sockets, from /proc/net of its namespace.
//!
//! Invariant: what can't be read as a socket is skipped, never taken for another port.

use std::{collections::BTreeSet, fs};

use nat_common::{
    flow::{TCP, UDP},
    port::{Endpoint, Port},
};

use super::error::{PlaneError, Result};

/// State of a socket that waits for connections (net/tcp_states.h, in hexadecimal).
const LISTEN: &str = "0A";

/// The files, the protocol of each, and whether one may be absent (no IPv6 in this kernel).
const FILES: [(&str, u8); 4] = [
    ("/proc/thread-self/net/tcp", TCP),
    ("/proc/thread-self/net/tcp6", TCP),
    ("/proc/thread-self/net/udp", UDP),
    ("/proc/thread-self/net/udp6", UDP),
];

/// A place that a socket holds: protocol, address (`None`: every address) and port.
type Place = (u8, Option<[u8; 4]>, u16);

/// Sockets that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets {
    open: BTreeSet<Place>,
    listening: BTreeSet<Place>,
}

impl Sockets {
    /// Those of this namespace.
    ///
    /// # Errors
    /// Where /proc can't be read.
    pub fn read() -> Result<Self> {
        let mut sockets = Self::default();
        for (path, protocol) in FILES {
            match fs::read_to_string(path) {
                Ok(text) => sockets.add(protocol, &text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(PlaneError::file("read", path)(error)),
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, protocol: u8, text: &str) {
        for (place, state) in text.lines().skip(1).filter_map(|line| parse(protocol, line)) {
            self.open.insert(place);
            // A UDP socket takes whatever comes to its port.
            if protocol == UDP || state == LISTEN {
                self.listening.insert(place);
            }
        }
    }

    /// Whether a socket uses the port on that address.
    pub fn uses(&self, endpoint: &Endpoint) -> bool {
        let (protocol, port) = (endpoint.protocol(), endpoint.port().number());
        [None, Some(endpoint.address())]
            .into_iter()
            .any(|address| self.open.contains(&(protocol, address, port)))
    }

    /// The ports that wait for others, on each of `addresses` where they do.
    pub fn listening(&self, addresses: &[[u8; 4]]) -> Vec<Endpoint> {
        let mut endpoints = vec![];
        for &(protocol, bound, port) in &self.listening {
            let matching = addresses.iter().filter(|own| bound.is_none_or(|bound| bound == **own));
            endpoints.extend(matching.map(|own| Endpoint::new(protocol, *own, Port::new(port))));
        }
        endpoints
    }
}

/// Whether a socket waits for packets from `remote` to `local`: one that is connected to it, or to
/// nobody.
pub fn waits(local: &Endpoint, remote: &Endpoint) -> bool {
    let matches = |end: Place, wanted: &Endpoint| {
        let (_, address, port) = end;
        port == wanted.port().number() && address.is_none_or(|bound| bound == wanted.address())
    };
    FILES.iter().filter(|(_, protocol)| *protocol == local.protocol()).any(|(path, protocol)| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let far = line.split_whitespace().nth(2).unwrap_or_default();
            let is_far = far.ends_with(":0000")
                || end(*protocol, far).is_some_and(|far| matches(far, remote));
            is_far && parse(*protocol, line).is_some_and(|(near, _)| matches(near, local))
        })
    })
}

/// `  0: 0100007F:0277 00000000:0000 0A ...` (proc(5)); the address in the order of the machine.
fn parse(protocol: u8, line: &str) -> Option<(Place, &str)> {
    let mut words = line.split_whitespace().skip(1);
    let place = end(protocol, words.next()?)?;
    Some((place, words.nth(1)?))
}

/// `0100007F:0277`.
fn end(protocol: u8, text: &str) -> Option<Place> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)?;
    // The last word of an IPv6 address is the IPv4 address where it is mapped, and all of it is 0
    // where it stands for every address.
    let (prefix, last) = address.split_at_checked(address.len().checked_sub(8)?)?;
    let mapped = ["", "0000000000000000FFFF0000", "000000000000000000000000"].contains(&prefix);
    let bytes = u32::from_str_radix(last, 16).ok()?.to_ne_bytes();
    let bound = match (mapped, bytes) {
        (false, _) => return None,
        (true, [0, 0, 0, 0]) => None,
        (true, bytes) => Some(bytes),
    };
    Some((protocol, bound, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP4: &str = "  sl  local_address rem_address   st tx_queue\n\
           0: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
           1: 0100007F:0277 00000000:0000 0A 00000000:00000000\n\
           2: 017100CB:9C40 076433C6:0015 01 00000000:00000000\n";
    const TCP6: &str = "  sl  local_address rem_address st\n\
           0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n\
           1: 000080FE00000000000000000100000A:1F91 00000000000000000000000000000000:0000 0A 0\n\
           2: 0000000000000000FFFF0000017100CB:1F92 00000000000000000000000000000000:0000 0A 0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_are_told_by_address_and_state() {
        let mut sockets = Sockets::default();
        sockets.add(TCP, TCP4);
        sockets.add(TCP, TCP6);
        let public = [203, 0, 113, 1];
        let at = |port| Endpoint::new(TCP, public, Port::new(port));
        assert_eq!(sockets.listening(&[public]), [at(22), at(8080), at(8082)]);
        assert!(sockets.uses(&at(40000)) && sockets.uses(&at(22)));
        assert!(!sockets.uses(&at(631)) && !sockets.uses(&at(8081)));
    }

    #[test]
    fn a_line_that_is_no_socket_is_skipped() {
        for line in ["", "0:", "0: xyz", "0: 0:0 0:0 0A", "0: 00000000:0000 00000000:0000 0A"] {
            assert_eq!(parse(TCP, line), None, "{line}");
        }
    }
}
