//! Who takes part in a step: addresses and ports that no other step has, so that all steps are under way
//! at once and what comes out still says whose it is.
//!
//! ```text
//!   host 10.0.2.N            gateway                        remote   198.51.100.N
//!          |                                                another  198.51.101.N
//!   inner router -- in0   lan0   wan0   out0 -- router ---- distant  198.51.102.N, by 1,300 bytes
//!          |                                     203.0.113.10
//!   server 10.0.2.250, and 10.0.3.250, by 1,300 bytes
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use nat_tests::{
    lab::{INSIDE, LAN, OUTSIDE, WAN},
    packet::{ICMP, TCP, UDP},
};

use super::told::Read;

/// Whom the forwards lead to.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 250);
/// The same behind a narrow way.
pub const NARROW_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 250);
/// The public ends of the forwards: TCP and UDP to [`SERVER`], UDP to [`NARROW_SERVER`].
pub const WEB: SocketAddrV4 = SocketAddrV4::new(WAN, 8080);
/// See [`WEB`].
pub const NAMES: SocketAddrV4 = SocketAddrV4::new(WAN, 8053);
/// See [`WEB`].
pub const NARROW: SocketAddrV4 = SocketAddrV4::new(WAN, 8054);
/// The ports that they lead to.
pub const WEB_PORT: u16 = 80;
/// See [`WEB_PORT`].
pub const NAMES_PORT: u16 = 53;

const HOSTS: [u8; 3] = [10, 0, 2];
const REMOTES: [[u8; 3]; 3] = [[198, 51, 100], [198, 51, 101], [198, 51, 102]];
const NEAR: u16 = 10_000;
const FAR: u16 = 7000;
/// Numbers of steps, and of their last octets.
const NUMBERS: std::ops::Range<u8> = 1..250;

/// Those of the step with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast(pub u8);

impl Cast {
    /// Address and port inside.
    pub fn host(self) -> SocketAddrV4 {
        SocketAddrV4::new(below(HOSTS, self.0), NEAR + u16::from(self.0))
    }

    /// Those outside.
    pub fn remote(self) -> SocketAddrV4 {
        self.outside(0)
    }

    /// Another address outside with the same port.
    pub fn another(self) -> SocketAddrV4 {
        self.outside(1)
    }

    /// One that takes 1,300 bytes alone.
    pub fn distant(self) -> SocketAddrV4 {
        self.outside(2)
    }

    /// The public end of the host, where its port is kept.
    pub fn public(self) -> SocketAddrV4 {
        SocketAddrV4::new(WAN, self.host().port())
    }

    fn outside(self, network: usize) -> SocketAddrV4 {
        SocketAddrV4::new(below(REMOTES[network], self.0), FAR + u16::from(self.0))
    }

    /// Whose packet it is: by its addresses, by those in what it quotes, by its ports.
    pub fn of(packet: &Read<'_>) -> Option<Self> {
        let quoted = packet.quoted();
        let all = [Some(packet), quoted.as_ref()];
        let all = || all.into_iter().flatten();
        let addressed = all().find_map(|it| number_in(it.source).or(number_in(it.destination)));
        addressed.or_else(|| all().find_map(|it| it.ports().and_then(number_at))).map(Self)
    }

    /// What an address is to the step.
    pub fn name(self, address: Ipv4Addr) -> String {
        let names = [
            (*self.host().ip(), "host"),
            (*self.remote().ip(), "remote"),
            (*self.another().ip(), "another"),
            (*self.distant().ip(), "distant"),
            (WAN, "public"),
            (LAN, "gateway"),
            (SERVER, "server"),
            (NARROW_SERVER, "server"),
            (INSIDE, "inner router"),
            (OUTSIDE, "router"),
        ];
        let known = names.into_iter().find(|(it, _)| *it == address);
        known.map_or_else(|| address.to_string(), |(_, name)| name.to_owned())
    }

    /// What a port is, where it is not the one that is thought of.
    pub fn port(self, port: u16) -> Option<&'static str> {
        let expected = [self.host(), self.remote(), WEB, NAMES, NARROW].map(|it| it.port());
        match port {
            0 => Some("port 0"),
            WEB_PORT | NAMES_PORT => None,
            port if expected.contains(&port) => None,
            _ => Some("another port"),
        }
    }
}

fn below(network: [u8; 3], number: u8) -> Ipv4Addr {
    let [a, b, c] = network;
    Ipv4Addr::new(a, b, c, number)
}

fn number_in(address: Ipv4Addr) -> Option<u8> {
    let [a, b, c, number] = address.octets();
    let is_ours = [a, b, c] == HOSTS || REMOTES.contains(&[a, b, c]);
    (is_ours && NUMBERS.contains(&number)).then_some(number)
}

fn number_at(ports: [u16; 2]) -> Option<u8> {
    let number = |port: u16, first: u16| {
        let number = port.checked_sub(first).and_then(|number| u8::try_from(number).ok());
        number.filter(|number| NUMBERS.contains(number))
    };
    ports.into_iter().find_map(|port| number(port, NEAR).or(number(port, FAR)))
}

/// Name of a protocol.
pub fn protocol(number: u8) -> String {
    match number {
        ICMP => "ICMP".to_owned(),
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        132 => "SCTP".to_owned(),
        number => format!("protocol {number}"),
    }
}
