//! TCP connections from open to close: SYN, SYN-ACK, ACK, FIN both ways.
//!
//! One thread holds both ends, and its core does everything: the ends' stacks and the gateway. So
//! the time that passes is the whole cost. The gateway's own part is what is above that of
//! forwarding. With a thread on each core, one sees what cores that make flows at the same time cost
//! one another.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use super::{
    super::{
        names, schedule,
        topology::{ENDS_CORE, GATEWAY_CORE, Topology},
    },
    Options, PATIENCE, Sample,
    core::first_on_core,
    play, rounds, sample,
};

/// Addresses that the server answers for, by turns: one address alone runs out of ports, as those of
/// a closed connection rest.
const DESTINATIONS: u32 = 4096;
/// The first of them; the gateway has a route to 198.18.0.0/15 (RFC 2544).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Connections before those that count.
const WARM_UP: u32 = 200;

/// The cost of one, and how many there are in a second on two cores.
pub(in crate::bench) fn measure(options: &Options) -> Result<Vec<Sample>> {
    let connections: u32 = if options.quick { 1500 } else { 4000 };
    play(options, false, |mut players| {
        for player in &players {
            prepare(player.topology)?;
        }
        schedule::rounds(&mut players, rounds(options), |player, round| {
            // Each round begins with other destinations: none meets what the last one left.
            let first = round * 3 * (connections + WARM_UP);
            let one = first_on_core(GATEWAY_CORE, || cycle(player.topology, first, connections))?;
            let cost = one.as_secs_f64() * 1e6 / f64::from(connections);
            let rate = on_both(player.topology, first + connections + WARM_UP, connections)?;
            Ok(vec![
                sample(player, round, names::TCP_CONNECTION, "open to close", cost, "µs"),
                sample(player, round, names::TCP_CONNECTIONS, "two cores", rate, "/s"),
            ])
        })
    })
}

/// Lets the server answer for all destinations, and the client forget closed connections at once.
fn prepare(topology: &Topology) -> Result<()> {
    topology.server.ip("route add local 198.18.0.0/15 dev lo")?;
    topology.client.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
    // A connection through a gateway that loses packets fails within seconds.
    topology.client.sysctl("net.ipv4.tcp_syn_retries", "2")
}

/// Connections in a second, with a thread on each core.
fn on_both(topology: &Topology, first: u32, connections: u32) -> Result<f64> {
    let start_of_second = first + connections + WARM_UP;
    let times = thread::scope(|scope| {
        let threads = [(ENDS_CORE, first), (GATEWAY_CORE, start_of_second)].map(|(core, first)| {
            scope.spawn(move || first_on_core(core, || cycle(topology, first, connections)))
        });
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut rate = 0.0;
    for time in times {
        rate += f64::from(connections) / time?.as_secs_f64();
    }
    Ok(rate)
}

/// Opens and closes connections one after the other, and gives the time from the first of those that
/// count to the last.
fn cycle(topology: &Topology, first: u32, connections: u32) -> Result<Duration> {
    let listener = topology
        .server
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
        .context("listen on the server")?;
    let port = listener.local_addr().context("ask for the server's port")?.port();
    // It holds for what is accepted, too.
    let patience = TimeVal::new(PATIENCE.as_secs().try_into().context("a long time")?, 0);
    setsockopt(&listener, sockopt::ReceiveTimeout, &patience).context("limit waiting")?;
    // The thread that `enter` makes is on the core of this one.
    topology.client.enter(|| {
        for number in 0..WARM_UP {
            connection(&listener, destination(first + number, port))?;
        }
        let start = Instant::now();
        for number in WARM_UP..WARM_UP + connections {
            connection(&listener, destination(first + number, port))?;
        }
        Ok(start.elapsed())
    })?
}

/// One connection. The client closes first, as most do.
fn connection(listener: &TcpListener, to: SocketAddrV4) -> Result<()> {
    let near = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    let (mut far, _) = listener.accept().context("accept a connection")?;
    drop(near);
    let length = far.read(&mut [0]).context("wait for the end of a connection")?;
    ensure!(length == 0, "a connection that said nothing brought {length} bytes");
    Ok(())
}

fn destination(number: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(FIRST.to_bits() + 1 + number % DESTINATIONS), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_stay_in_the_network_that_the_gateway_has_a_route_to() {
        for number in [0, DESTINATIONS - 1, DESTINATIONS, u32::MAX / 2] {
            let address = *destination(number, 1).ip();
            assert!(
                matches!(address.octets(), [198, 18 | 19, ..]) && address != FIRST,
                "{address}"
            );
        }
    }
}
