//! What a NAT is called from outside: a prober after RFC 5780, by UDP and by TCP (RFC 5382), and the class
//! that it finds for each choice of mapping and filtering; and what the distribution's STUN client calls it.
//!
//! ```text
//!   inside socket -- gateway -- 203.0.113.10:7000   :7001     first address
//!                               203.0.113.12:7000   :7001     second address
//! ```

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, OUTSIDE_DEVICE},
    netns::{Lifetime, Namespace},
    process::{self, Process},
    requirements,
    traffic::{udp_socket, udp_socket_at},
    wait,
};
use socket2::{Domain, Socket, Type};

const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
/// Inside sockets of a probe: two ports that are the same by chance are not so every time.
const SOCKETS: usize = 4;
/// How long a connection may take: longer than it takes to send a second SYN.
const PATIENCE: Duration = Duration::from_millis(1500);
/// For what has to happen.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the STUN client may take: silence takes it a second.
const CLIENT: Duration = Duration::from_secs(20);
/// Both ports of the STUN server, each with the option that says it.
const STUN_PORTS: [(&str, u16); 2] = [("-p", 3478), ("-o", 3479)];

/// Of what a behaviour depends (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DependsOn {
    Nothing,
    Address,
    AddressAndPort,
}

/// The first one, its other port, and both ports of another address.
const REMOTES: [SocketAddrV4; 4] = [
    SocketAddrV4::new(OUTSIDE, 7000),
    SocketAddrV4::new(OUTSIDE, 7001),
    SocketAddrV4::new(SECOND, 7000),
    SocketAddrV4::new(SECOND, 7001),
];

/// By which of the remote ends a public end is the same: by all, and by both ports of the first address.
fn mapping(mut same: impl FnMut(&[usize]) -> bool) -> DependsOn {
    match (same(&[0, 1, 2, 3]), same(&[0, 1])) {
        (true, _) => DependsOn::Nothing,
        (false, true) => DependsOn::Address,
        (false, false) => DependsOn::AddressAndPort,
    }
}

/// Which of the remote ends get through to an end that has sent to the first one alone.
fn filtering(through: &HashSet<usize>) -> DependsOn {
    match (through.contains(&3) && through.contains(&2), through.contains(&1)) {
        (true, true) => DependsOn::Nothing,
        (false, true) => DependsOn::Address,
        (false, false) => DependsOn::AddressAndPort,
        (true, false) => panic!("another address is let in and another port is not"),
    }
}

/// A prober by UDP: a socket at each remote end.
struct Remotes([UdpSocket; 4]);

impl Remotes {
    fn new(lab: &Lab) -> Self {
        Self(REMOTES.map(|at| udp_socket_at(&lab.outside, at).expect("a socket")))
    }

    /// Where the datagram comes from that `inside` sends to one of them.
    fn seen_by(&self, remote: usize, inside: &UdpSocket) -> SocketAddr {
        let remote = &self.0[remote];
        inside.send_to(b"who am I?", remote.local_addr().expect("an address")).expect("a datagram");
        remote.recv_from(&mut [0; 20]).expect("a datagram outside").1
    }

    /// RFC 5780 section 4.3.
    fn mapping(&self, lab: &Lab) -> DependsOn {
        mapping(|remotes| {
            (0..SOCKETS).all(|_| {
                let inside = udp_socket(&lab.inside, 0).expect("a socket");
                let seen: HashSet<SocketAddr> =
                    remotes.iter().map(|remote| self.seen_by(*remote, &inside)).collect();
                seen.len() == 1
            })
        })
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
                through.insert(usize::from(byte[0]));
            }
        }
        filtering(&through)
    }
}

/// A prober by TCP: somebody who listens at each remote end.
struct Listeners([Socket; 4]);

impl Listeners {
    fn new(lab: &Lab) -> Self {
        Self(REMOTES.map(|at| listen(&lab.outside, at).expect("a listener")))
    }

    /// A connection from an inside end to one of them, and where it comes from.
    fn seen_by(&self, remote: usize, lab: &Lab, from: SocketAddrV4) -> (Socket, SocketAddr) {
        let near = connect(&lab.inside, from, REMOTES[remote]).expect("a connection");
        let (_far, public) = accept(&self.0[remote]).expect("a connection outside");
        (near, public.as_socket().expect("an address"))
    }

    /// RFC 5382 REQ-1: the connections of one inside end, which are there at the same time.
    fn mapping(&self, lab: &Lab) -> DependsOn {
        let mut ends = (0..).map(|number| SocketAddrV4::new(INSIDE, 33_000 + number));
        mapping(|remotes| {
            ends.by_ref().take(SOCKETS).all(|from| {
                let seen = remotes.iter().map(|remote| self.seen_by(*remote, lab, from));
                let (_near, public): (Vec<_>, HashSet<_>) = seen.unzip();
                public.len() == 1
            })
        })
    }

    /// RFC 5382 REQ-3: whose SYN gets through to who listens where it has connected from.
    fn filtering(&self, lab: &Lab) -> DependsOn {
        let inside = SocketAddrV4::new(INSIDE, 34_000);
        let (_near, public) = self.seen_by(0, lab, inside);
        let SocketAddr::V4(public) = public else { panic!("{public} is no IPv4 address") };
        let listener = listen(&lab.inside, inside).expect("a listener inside");
        let through = thread::scope(|scope| {
            let dials = [1, 2, 3].map(|number| {
                let dial = move || connect(&lab.outside, REMOTES[number], public);
                (number, scope.spawn(dial))
            });
            dials
                .into_iter()
                .filter_map(|(number, dial)| {
                    match dial.join().expect("a dial") {
                        Ok(_connection) => {
                            let (_inside, from) = accept(&listener).expect("who was let in");
                            let from = from.as_socket().expect("an address");
                            assert!(REMOTES.map(SocketAddr::V4).contains(&from), "from {from}");
                            Some(number)
                        }
                        // Not refused: nothing answers for whom nobody has sent to (REQ-4).
                        Err(error) => {
                            let io = error.downcast_ref::<std::io::Error>();
                            let is_silence = io.is_some_and(|it| it.kind() == ErrorKind::TimedOut);
                            assert!(is_silence, "{error:#}");
                            None
                        }
                    }
                })
                .collect()
        });
        filtering(&through)
    }
}

/// A socket at an end that others have, too.
fn shared(namespace: &Namespace, at: SocketAddrV4) -> Result<Socket> {
    let open = || -> Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&at.into())?;
        Ok(socket)
    };
    namespace.enter(open)?.with_context(|| format!("open {at} in {}", namespace.name()))
}

fn listen(namespace: &Namespace, at: SocketAddrV4) -> Result<Socket> {
    let socket = shared(namespace, at)?;
    socket.listen(8).context("listen")?;
    socket.set_nonblocking(true).context("wait for nobody")?;
    Ok(socket)
}

fn connect(namespace: &Namespace, from: SocketAddrV4, to: SocketAddrV4) -> Result<Socket> {
    let socket = shared(namespace, from)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

fn accept(listener: &Socket) -> Result<(Socket, socket2::SockAddr)> {
    wait::until(LIMIT, "a connection", || match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        accepted => accepted.context("accept").map(Some),
    })
}

/// What the configuration says of mapping and of filtering, and of what they depend then.
type Choice = (&'static str, &'static str, DependsOn, DependsOn);

const CHOICES: [Choice; 3] = [
    (
        "endpoint-independent",
        "address-and-port-dependent",
        DependsOn::Nothing,
        DependsOn::AddressAndPort,
    ),
    ("endpoint-independent", "endpoint-independent", DependsOn::Nothing, DependsOn::Nothing),
    (
        "address-and-port-dependent",
        "address-and-port-dependent",
        DependsOn::AddressAndPort,
        DependsOn::AddressAndPort,
    ),
];

/// XDP notes which addresses the inside has sent to, and TC lets them in.
const BY_ADDRESS: [Choice; 1] =
    [("endpoint-independent", "address-dependent", DependsOn::Nothing, DependsOn::Address)];

/// Has a gateway of each choice probed, in each mode that has it.
fn with_each_choice(binary: &Path, probe: impl Fn(&Lab, &NatCtl, &str, (DependsOn, DependsOn))) {
    for (mode, more) in [(Mode::Tc, &BY_ADDRESS[..0]), (Mode::Xdp, &BY_ADDRESS[..])] {
        for (mapping, filtering, mapped, filtered) in CHOICES.iter().chain(more).copied() {
            let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
            lab.outside
                .ip(&format!("address add {SECOND}/24 dev {OUTSIDE_DEVICE}"))
                .expect("an address");
            let mut gateway = NatCtl::prepare(&lab, mode, binary).expect("a gateway");
            gateway
                .configure(&format!(
                    "[masquerade]\nmapping = \"{mapping}\"\nfiltering = \"{filtering}\"\n"
                ))
                .expect("a configuration");
            gateway.run(&[]).expect("a start");
            let choice = format!("{mode}, mapping {mapping}, filtering {filtering}");
            probe(&lab, &gateway, &choice, (mapped, filtered));
            gateway.stop().expect("an end");
        }
    }
}

/// The server of Debian's `stun-server`: it answers from both ports of both addresses.
fn stun_server(lab: &Lab) -> Result<Process> {
    let mut command = lab.outside.command("stund");
    command.args(["-h", &OUTSIDE.to_string(), "-a", &SECOND.to_string()]);
    for (option, port) in STUN_PORTS {
        command.args([option, &port.to_string()]);
    }
    let log = lab.folder("stund")?.join("log");
    let mut server = Process::spawn(&mut command, "stund", &log)?;
    server.ready(LIMIT, "at its four ends", |_| {
        let table = process::must(lab.outside.command("cat").arg("/proc/net/udp"))?;
        let is_one = |line: &&str| {
            STUN_PORTS.iter().any(|(_, port)| line.contains(&format!(":{port:04X} 00000000:0000")))
        };
        Ok(table.lines().filter(is_one).count() == 4)
    })?;
    Ok(server)
}

/// How the client of Debian's `stun-client` calls it. It has one word for mappings that are not the
/// same for everybody, and says nothing of their filter.
const fn in_words_of_stun(found: (DependsOn, DependsOn)) -> &'static str {
    match found {
        (DependsOn::Nothing, DependsOn::Nothing) => "Independent Mapping, Independent Filter",
        (DependsOn::Nothing, DependsOn::Address) => "Independent Mapping, Address Dependent Filter",
        (DependsOn::Nothing, DependsOn::AddressAndPort) => {
            "Independent Mapping, Port Dependent Filter"
        }
        (DependsOn::Address | DependsOn::AddressAndPort, _) => "Dependent Mapping",
    }
}

#[test]
fn each_choice_of_mapping_and_filtering_is_the_class_that_a_prober_finds() {
    let Some(binary) = requirements::met_with_binary("behaviour") else { return };
    with_each_choice(&binary, |lab, gateway, choice, wanted| {
        let (udp, tcp) = (Remotes::new(lab), Listeners::new(lab));
        for (protocol, found) in [
            ("UDP", (udp.mapping(lab), udp.filtering(lab))),
            ("TCP", (tcp.mapping(lab), tcp.filtering(lab))),
        ] {
            println!("{choice}: {protocol}: found {found:?}");
            assert_eq!(found, wanted, "{choice}: {protocol}\n{}", gateway.diagnosis());
        }
    });
}

#[test]
fn each_choice_of_mapping_and_filtering_is_the_class_that_a_stun_client_prints() {
    let tools = ["stun", "stund"];
    let Some(binary) = requirements::met_with_tools("STUN", &tools) else { return };
    with_each_choice(&binary, |lab, gateway, choice, wanted| {
        let server = stun_server(lab).expect("a STUN server");
        let mut client = lab.inside.command("stun");
        // Its exit status is the class as a number.
        let said = process::run(client.arg(OUTSIDE.to_string()), CLIENT).expect("a STUN client");
        let class = said.stdout.lines().find_map(|line| line.strip_prefix("Primary: "));
        println!("{choice}: {class:?}");
        let words = in_words_of_stun(wanted);
        assert!(
            class.is_some_and(|class| class.starts_with(&format!("{words}, "))),
            "{choice}: {words}, not {}\n{}\n{}",
            said.stdout,
            server.output(),
            gateway.diagnosis()
        );
    });
}
