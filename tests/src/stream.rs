//! Numbered datagrams at a steady pace, to count what a change of the network costs.
//!
//! Invariant: a datagram counts once; what has not come by the end, some time after the last one was
//! sent, is lost.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::wait;

/// Datagrams a second.
pub const PER_SECOND: u64 = 1000;
/// After so long without one, none comes any more.
const QUIET: Duration = Duration::from_millis(300);
/// Bytes of a number.
const NUMBER: usize = 8;

/// A stream from one socket to another.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    sending: AtomicBool,
    receiving: AtomicBool,
    sent: AtomicU64,
    arrived: Mutex<Arrived>,
}

#[derive(Debug, Default)]
struct Arrived {
    /// By number.
    seen: Vec<bool>,
    peer: Option<SocketAddr>,
}

/// What has become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Those that have not arrived.
    pub lost: u64,
    /// Most of them in a row.
    pub gap: u64,
}

impl Stream {
    /// Starts to send datagrams of `size` bytes `to` where `receiver` waits for them.
    pub fn start(
        sender: UdpSocket,
        to: SocketAddrV4,
        receiver: UdpSocket,
        size: usize,
    ) -> Result<Self> {
        receiver.set_read_timeout(Some(Duration::from_millis(20))).context("limit reads")?;
        let shared = Arc::new(Shared::default());
        shared.sending.store(true, Ordering::Relaxed);
        shared.receiving.store(true, Ordering::Relaxed);
        let (ours, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || theirs.receive(&receiver)),
            thread::spawn(move || ours.send(&sender, to, size.max(NUMBER))),
        ];
        Ok(Self { shared, threads })
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Datagrams that have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.shared.arrived(|arrived| arrived.seen.iter().filter(|seen| **seen).count() as u64)
    }

    /// Waits until `count` datagrams have arrived of those that are sent from now on.
    pub fn flows(&self, count: u64, limit: Duration) -> Result<()> {
        let from = usize::try_from(self.sent()).unwrap_or(usize::MAX);
        wait::until_true(limit, &format!("{count} datagrams from number {from} on"), || {
            Ok(self.shared.arrived(|arrived| {
                let later = arrived.seen.get(from..).unwrap_or_default();
                later.iter().filter(|seen| **seen).count() as u64 >= count
            }))
        })
    }

    /// Waits until `count` more datagrams are sent, whatever becomes of them.
    pub fn sends(&self, count: u64, limit: Duration) -> Result<()> {
        let from = self.sent();
        wait::until_true(limit, "the sender", || Ok(self.sent() >= from + count))
    }

    /// Where the datagrams come from, as the receiver sees it; once one has arrived.
    pub fn peer(&self, limit: Duration) -> Result<SocketAddrV4> {
        wait::until(limit, "the first datagram", || {
            match self.shared.arrived(|arrived| arrived.peer) {
                Some(SocketAddr::V4(peer)) => Ok(Some(peer)),
                Some(peer) => bail!("{peer} is no IPv4 peer"),
                None => Ok(None),
            }
        })
    }

    /// Ends it, and counts.
    pub fn finish(mut self) -> Result<Outcome> {
        self.shared.sending.store(false, Ordering::Relaxed);
        let mut last = (self.arrived(), Instant::now());
        wait::until_true(Duration::from_secs(10), "the last datagram", || {
            let arrived = self.arrived();
            if arrived != last.0 {
                last = (arrived, Instant::now());
            }
            Ok(arrived == self.sent() || last.1.elapsed() > QUIET)
        })?;
        self.stop();
        let sent = self.sent();
        let (mut lost, mut gap, mut row) = (0, 0, 0);
        self.shared.arrived(|arrived| {
            let seen = arrived.seen.iter().copied().chain(std::iter::repeat(false));
            for seen in (0..sent).zip(seen).map(|(_, seen)| seen) {
                row = if seen { 0 } else { row + 1 };
                lost += u64::from(!seen);
                gap = gap.max(row);
            }
        });
        Ok(Outcome { sent, lost, gap })
    }

    fn stop(&mut self) {
        self.shared.sending.store(false, Ordering::Relaxed);
        self.shared.receiving.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn arrived<T>(&self, look: impl FnOnce(&mut Arrived) -> T) -> T {
        look(&mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Late datagrams are made up for, so that the pace is the same on a busy machine.
    fn send(&self, socket: &UdpSocket, to: SocketAddrV4, size: usize) {
        let start = Instant::now();
        let mut datagram = vec![0; size];
        while self.sending.load(Ordering::Relaxed) {
            let due = start.elapsed().as_micros() * u128::from(PER_SECOND) / 1_000_000;
            let number = self.sent.load(Ordering::Relaxed);
            if u128::from(number) >= due {
                thread::sleep(Duration::from_micros(500));
                continue;
            }
            if let Some(place) = datagram.get_mut(..NUMBER) {
                place.copy_from_slice(&number.to_be_bytes());
            }
            // What the own host refuses is lost like what others lose.
            let _ = socket.send_to(&datagram, to);
            self.sent.store(number + 1, Ordering::Relaxed);
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while self.receiving.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            let Some(number) = buffer[..length].first_chunk::<NUMBER>() else { continue };
            let Ok(number) = usize::try_from(u64::from_be_bytes(*number)) else { continue };
            self.arrived(|arrived| {
                arrived.peer = Some(peer);
                if arrived.seen.len() <= number {
                    arrived.seen.resize(number + 1, false);
                }
                if let Some(seen) = arrived.seen.get_mut(number) {
                    *seen = true;
                }
            });
        }
    }
}
