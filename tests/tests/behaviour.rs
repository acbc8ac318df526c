//! What a NAT is called from outside: a prober after RFC 5780, and the class that it finds for each
//! choice of mapping and filtering.
//!
//! ```text
//!   inside socket -- gateway -- 203.0.113.10:7000   :7001     first address
//!                               203.0.113.12:7000   :7001     second address
//! ```

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, OUTSIDE_DEVICE},
    netns::Lifetime,
    requirements,
    traffic::{udp_socket, udp_socket_at},
};

const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
/// Inside sockets of a probe: two ports that are the same by chance are not so every time.
const SOCKETS: usize = 4;

/// Of what a behaviour depends (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DependsOn {
    Nothing,
    Address,
    AddressAndPort,
}

/// Remote ends: the first one, its other port, and both ports of another address.
struct Remotes([UdpSocket; 4]);

impl Remotes {
    fn new(lab: &Lab) -> Self {
        lab.outside
            .ip(&format!("address add {SECOND}/24 dev {OUTSIDE_DEVICE}"))
            .expect("an address");
        let at = |address, port| {
            udp_socket_at(&lab.outside, SocketAddrV4::new(address, port)).expect("a socket")
        };
        Self([at(OUTSIDE, 7000), at(OUTSIDE, 7001), at(SECOND, 7000), at(SECOND, 7001)])
    }

    /// Where the datagram comes from that `inside` sends to one of them.
    fn seen_by(&self, remote: usize, inside: &UdpSocket) -> SocketAddr {
        let remote = &self.0[remote];
        inside.send_to(b"who am I?", remote.local_addr().expect("an address")).expect("a datagram");
        remote.recv_from(&mut [0; 20]).expect("a datagram outside").1
    }

    /// RFC 5780 section 4.3.
    fn mapping(&self, lab: &Lab) -> DependsOn {
        let same = |remotes: &[usize]| {
            (0..SOCKETS).all(|_| {
                let inside = udp_socket(&lab.inside, 0).expect("a socket");
                let seen: HashSet<SocketAddr> =
                    remotes.iter().map(|remote| self.seen_by(*remote, &inside)).collect();
                seen.len() == 1
            })
        };
        match (same(&[0, 1, 2, 3]), same(&[0, 1])) {
            (true, _) => DependsOn::Nothing,
            (false, true) => DependsOn::Address,
            (false, false) => DependsOn::AddressAndPort,
        }
    }

    /// RFC 5780 section 4.4: who gets through to a socket that has sent to the first one alone.
    fn filtering(&self, lab: &Lab) -> DependsOn {
        let inside = udp_socket(&lab.inside, 0).expect("a socket");
        let public = self.seen_by(0, &inside);
        for (number, remote) in self.0.iter().enumerate().skip(1) {
            remote.send_to(&[number as u8], public).expect("a datagram");
        }
        // What was sent before the first answer is there before the second, or not at all.
        let mut through = HashSet::new();
        for answer in [100, 101] {
            self.0[0].send_to(&[answer], public).expect("an answer");
            let mut byte = [0; 1];
            while byte[0] != answer {
                inside.recv(&mut byte).expect("the answer");
                through.insert(byte[0]);
            }
        }
        match (through.contains(&3) && through.contains(&2), through.contains(&1)) {
            (true, true) => DependsOn::Nothing,
            (false, true) => DependsOn::Address,
            (false, false) => DependsOn::AddressAndPort,
            (true, false) => panic!("another address is let in and another port is not"),
        }
    }
}

#[test]
fn each_choice_of_mapping_and_filtering_is_the_class_that_a_prober_finds() {
    use DependsOn::{Address, AddressAndPort, Nothing};
    let Some(binary) = requirements::met_with_binary("behaviour") else { return };
    let choices = [
        ("endpoint-independent", "address-and-port-dependent", Nothing, AddressAndPort),
        ("endpoint-independent", "endpoint-independent", Nothing, Nothing),
        (
            "address-and-port-dependent",
            "address-and-port-dependent",
            AddressAndPort,
            AddressAndPort,
        ),
    ];
    // XDP notes which addresses the inside has sent to, and TC lets them in.
    let by_address = [("endpoint-independent", "address-dependent", Nothing, Address)];
    for (mode, more) in [(Mode::Tc, &by_address[..0]), (Mode::Xdp, &by_address[..])] {
        for (mapping, filtering, mapped, filtered) in choices.iter().chain(more).copied() {
            let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
            let remotes = Remotes::new(&lab);
            let mut gateway = NatCtl::prepare(&lab, mode, &binary).expect("a gateway");
            gateway
                .configure(&format!(
                    "[masquerade]\nmapping = \"{mapping}\"\nfiltering = \"{filtering}\"\n"
                ))
                .expect("a configuration");
            gateway.run(&[]).expect("a start");
            let found = (remotes.mapping(&lab), remotes.filtering(&lab));
            println!("{mode}: mapping {mapping}, filtering {filtering}: found {found:?}");
            assert_eq!(found, (mapped, filtered), "{mode}\n{}", gateway.diagnosis());
            gateway.stop().expect("an end");
        }
    }
}
