//! A datagram there and one back.
//!
//! One thread on one core holds both ends. A packet passes the gateway and reaches the far socket
//! while it is being sent, so a round trip is four system calls and the way of two packets, and
//! nothing waits for a scheduler.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        names, schedule, stats,
        topology::{GATEWAY_CORE, SERVER, Topology},
    },
    Options, Sample,
    core::first_on_core,
    play, rounds, sample,
};
use crate::traffic;

/// As a DNS query may have.
const LENGTH: usize = 40;
/// Round trips before the first one that counts: flow and caches are warm then.
const WARM_UP: usize = 500;

/// `p50` and `p99` of many round trips.
pub(in crate::bench) fn measure(options: &Options) -> Result<Vec<Sample>> {
    let trips = if options.quick { 10_000 } else { 40_000 };
    play(options, false, |mut players| {
        schedule::rounds(&mut players, rounds(options), |player, round| {
            let ends = Ends::new(player.topology)?;
            let times = first_on_core(GATEWAY_CORE, || ends.times(trips))?;
            [("p50", 0.5), ("p99", 0.99)]
                .into_iter()
                .map(|(case, share)| {
                    let time = stats::quantile(&times, share).context("no round trip")?;
                    Ok(sample(player, round, names::REQUEST_RESPONSE, case, time, "µs"))
                })
                .collect()
        })
    })
}

/// The sockets of a client and of a server.
struct Ends {
    client: UdpSocket,
    server: UdpSocket,
}

impl Ends {
    fn new(topology: &Topology) -> Result<Self> {
        let server = traffic::udp_socket(&topology.server, 0)?;
        let port = server.local_addr().context("ask for the server's port")?.port();
        let client =
            traffic::udp_socket_at(&topology.client, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        client.connect((SERVER, port)).context("name the server")?;
        Ok(Self { client, server })
    }

    /// Microseconds of each of so many round trips.
    fn times(&self, trips: usize) -> Result<Vec<f64>> {
        for _ in 0..WARM_UP {
            self.trip()?;
        }
        let mut times = Vec::with_capacity(trips);
        for _ in 0..trips {
            let start = Instant::now();
            self.trip()?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    }

    fn trip(&self) -> Result<()> {
        let mut room = [0; 2 * LENGTH];
        self.client.send(&[b'q'; LENGTH]).context("send a request")?;
        let (length, from) = self.server.recv_from(&mut room).context("wait for a request")?;
        self.server.send_to(&room[..length], from).context("send an answer")?;
        let length = self.client.recv(&mut room).context("wait for an answer")?;
        ensure!(room[..length] == [b'q'; LENGTH], "an answer of {length} bytes is not the request");
        Ok(())
    }
}
