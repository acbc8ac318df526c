//! IPv6 beside IPv4 in a [`Chain`]: the same hosts with addresses of their own, which everybody has a
//! route to, since nothing of it is translated.
//!
//! ```text
//!   deep            inside             gateway              outside              far
//!   2:: :2 ------ 2:: :1   1:: :2 --- 1:: :1  f:: :1 --- f:: :a   99:: :1 ----- 99:: :7
//! ```
//!
//! (each below 2001:db8:)

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    chain::Chain,
    lab::{INSIDE_DEVICE, LAN_DEVICE, OUTSIDE_DEVICE, WAN_DEVICE},
    netns::Namespace,
    process, session, wait,
};

const fn address(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host)
}

/// The host behind the router inside.
pub const DEEP6: Ipv6Addr = address(2, 2);
/// The router inside, as that host knows it.
pub const INNER_ROUTER6: Ipv6Addr = address(2, 1);
/// The router inside.
pub const INSIDE6: Ipv6Addr = address(1, 2);
/// The gateway, as the inside knows it.
pub const LAN6: Ipv6Addr = address(1, 1);
/// The gateway, as the outside knows it.
pub const WAN6: Ipv6Addr = address(0xf, 1);
/// The router outside, as the gateway knows it.
pub const OUTSIDE6: Ipv6Addr = address(0xf, 0xa);
/// The same, as the host behind it knows it.
pub const OUTER_ROUTER6: Ipv6Addr = address(0x99, 1);
/// The host behind the router outside.
pub const FAR6: Ipv6Addr = address(0x99, 7);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long none is waited for where none may come.
const SILENCE: Duration = Duration::from_millis(500);

/// Gives every host of a chain its addresses and routes. Forwarding of the gateway stays off.
pub fn turn_on(chain: &Chain) -> Result<()> {
    let Chain { deep, far, lab } = chain;
    let places: [(&Namespace, &[(&str, Ipv6Addr)]); 5] = [
        (deep, &[("deep0", DEEP6)]),
        (&lab.inside, &[("in1", INNER_ROUTER6), (INSIDE_DEVICE, INSIDE6)]),
        (&lab.gateway, &[(LAN_DEVICE, LAN6), (WAN_DEVICE, WAN6)]),
        (&lab.outside, &[(OUTSIDE_DEVICE, OUTSIDE6), ("out1", OUTER_ROUTER6)]),
        (far, &[("far0", FAR6)]),
    ];
    for (namespace, devices) in places {
        for name in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "0")?;
        }
        for (device, address) in devices {
            // Until a link-local address is known to be nobody else's, a second or two, no neighbour is asked.
            namespace.sysctl(&format!("net.ipv6.conf.{device}.accept_dad"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
            namespace.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "0")?;
            namespace.ip(&format!("address add {address}/64 dev {device} nodad"))?;
        }
    }
    for router in [&lab.inside, &lab.outside] {
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    for (namespace, route) in [
        (deep, format!("default via {INNER_ROUTER6}")),
        (&lab.inside, format!("default via {LAN6}")),
        (&lab.gateway, format!("2001:db8:2::/64 via {INSIDE6}")),
        (&lab.gateway, format!("default via {OUTSIDE6}")),
        (&lab.outside, format!("2001:db8:1::/64 via {WAN6}")),
        (&lab.outside, format!("2001:db8:2::/64 via {WAN6}")),
        (far, format!("default via {OUTER_ROUTER6}")),
    ] {
        namespace.ip(&format!("-6 route add {route}"))?;
    }
    Ok(())
}

/// Both ends of a connection from `client` to `server`, which has the address `at`, on some port: the
/// client's end, then the server's, over which a question and an answer went.
pub fn connection(
    client: &Namespace,
    server: &Namespace,
    at: Ipv6Addr,
    port: u16,
) -> Result<[TcpStream; 2]> {
    let listener = listen(server, at, port)?;
    let end = listener.local_addr().context("ask a listener for its port")?;
    let near = client
        .enter(|| TcpStream::connect_timeout(&end, PATIENCE))?
        .with_context(|| format!("connect from {} to {end}", client.name()))?;
    near.set_read_timeout(Some(PATIENCE)).context("limit reads")?;
    let mut ends = [near, session::accept(&listener)?];
    exchange(&mut ends)?;
    Ok(ends)
}

/// A question and an answer over a connection.
pub fn exchange(ends: &mut [TcpStream; 2]) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        ends[from].write_all(b"a few bytes").context("write")?;
        let mut buffer = [0; 11];
        ends[to].read_exact(&mut buffer).context("read")?;
        ensure!(&buffer == b"a few bytes", "{buffer:?}");
    }
    Ok(())
}

/// Listens at an end. A program that another test starts at this very moment holds what this process had
/// open for as long as it takes to begin: a listener before this one, too.
fn listen(server: &Namespace, at: Ipv6Addr, port: u16) -> Result<TcpListener> {
    wait::until(PATIENCE, "a port to listen on", || {
        match server.enter(|| TcpListener::bind((at, port)))? {
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            bound => bound.context("listen").map(Some),
        }
    })
}

/// Whether a connection to an end that listens fails, because nothing of it comes through.
pub fn is_shut(client: &Namespace, server: &Namespace, at: Ipv6Addr, port: u16) -> Result<bool> {
    let listener = listen(server, at, port)?;
    let end = listener.local_addr().context("ask a listener for its port")?;
    let said = client.enter(|| TcpStream::connect_timeout(&end, SILENCE))?;
    Ok(said.is_err_and(|error| error.kind() == ErrorKind::TimedOut))
}

/// A datagram socket of a namespace.
pub fn udp_socket(namespace: &Namespace, at: Ipv6Addr, port: u16) -> Result<UdpSocket> {
    let socket = namespace.enter(|| UdpSocket::bind((at, port)))?.context("open a UDP socket")?;
    socket.set_read_timeout(Some(PATIENCE)).context("limit reads")?;
    Ok(socket)
}

/// A datagram of so many bytes from one socket to the other, whole; where it came from.
pub fn datagram(from: &UdpSocket, to: &UdpSocket, size: usize) -> Result<SocketAddr> {
    let at = to.local_addr().context("ask a socket for its port")?;
    from.send_to(&vec![7; size], at).context("send a datagram")?;
    let mut buffer = vec![0; size + 1];
    let (length, source) = to.recv_from(&mut buffer).context("receive a datagram")?;
    ensure!(length == size, "{length} bytes came of {size}");
    Ok(source)
}

/// `ping -6`, one request; an error if no reply comes.
pub fn echo(from: &Namespace, to: Ipv6Addr) -> Result<()> {
    let mut command = from.command("ping");
    process::must(command.args(["-6", "-n", "-c", "1", "-W", "2", &to.to_string()])).map(drop)
}
