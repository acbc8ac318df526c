//! TCP at full rate from the client to the server, counted where it arrives.
//!
//! Senders and with them the gateway's packets are on one core, receivers on the other.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    super::{
        names, schedule,
        topology::{ENDS_CORE, GATEWAY_CORE, SERVER, Topology},
    },
    Options, PATIENCE, Sample, core, play, rounds, sample,
};
use crate::{session, wait};

/// Of a write and of a read.
const CHUNK: usize = 256 << 10;
/// Each stream has its window open by then.
const WARM_UP: Duration = Duration::from_millis(150);

/// One stream and sixteen.
pub(in crate::bench) fn measure(options: &Options) -> Result<Vec<Sample>> {
    let (rounds, window) = if options.quick { (3, 250) } else { (rounds(options), 700) };
    let window = Duration::from_millis(window);
    play(options, false, |mut players| {
        schedule::rounds(&mut players, rounds, |player, round| {
            [("1 stream", 1), ("16 streams", 16)]
                .into_iter()
                .map(|(case, streams)| {
                    let rate = rate(player.topology, streams, window)?;
                    Ok(sample(player, round, names::BULK_TCP, case, rate, "Gbit/s"))
                })
                .collect()
        })
    })
}

/// Gigabits of payload that arrive in a second.
fn rate(topology: &Topology, streams: usize, window: Duration) -> Result<f64> {
    let pairs = (0..streams).map(|_| pair(topology)).collect::<Result<Vec<_>>>()?;
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (near, far) in pairs {
            workers.push(scope.spawn(|| receive(far, &arrived)));
            workers.push(scope.spawn(|| send(near, &stop)));
        }
        let counted = count(&arrived, window);
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        counted
    })
}

/// Both ends of a connection through the gateway.
fn pair(topology: &Topology) -> Result<(TcpStream, TcpStream)> {
    let listener = topology
        .server
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
        .context("listen on the server")?;
    let port = listener.local_addr().context("ask for the server's port")?.port();
    let near = topology
        .client
        .enter(|| TcpStream::connect_timeout(&(SERVER, port).into(), PATIENCE))?
        .context("connect through the gateway")?;
    near.set_write_timeout(Some(PATIENCE)).context("limit writes")?;
    let far = session::accept(&listener)?;
    Ok((near, far))
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    core::pin(GATEWAY_CORE)?;
    let chunk = vec![b'x'; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&chunk).context("send into a stream")?;
    }
    stream.shutdown(Shutdown::Write).context("end a stream")
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> Result<()> {
    core::pin(ENDS_CORE)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).context("receive from a stream")? {
            0 => return Ok(()),
            length => arrived.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
}

/// Looks at the count at both ends of the window; the looks are timed, so a late one does no harm.
fn count(arrived: &AtomicU64, window: Duration) -> Result<f64> {
    let pass = |time: Duration| {
        let start = Instant::now();
        wait::until_true(2 * time + PATIENCE, "the end of a window", || Ok(start.elapsed() >= time))
    };
    pass(WARM_UP)?;
    let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
    pass(window)?;
    let (bytes, time) = (arrived.load(Ordering::Relaxed) - before, start.elapsed());
    // A run carries less than 2^52 bytes.
    #[expect(clippy::cast_precision_loss)]
    let bits = bytes as f64 * 8.0;
    Ok(bits / time.as_secs_f64() / 1e9)
}
