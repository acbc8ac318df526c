//! A contender with traffic: its topology, the programs of the bench, the flows that are open.
//!
//! ```text
//!   client --generate--> c ----> l  contender  w ----> s sink (counts, drops)
//!   c sink <------------------------------------------ s <--generate-- server     (answers)
//! ```

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nat_common::bench::{Order, Tally, mode};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, gettid},
};

use super::{
    contender::{Contender, Running, Sizes},
    kit::{Kit, Way},
    load::Threads,
    population::{self, Popularity, Population},
    topology::{ENDS_CORE, Topology, WAN, hardware_address},
};
use crate::{interrupt, netns::Namespace, process};

/// Packets of one call of the generator: it costs 20 to 30 ms by itself.
const CALL: u32 = 1 << 21;
/// Passes over all flows after which those that still don't open are given up.
const PASSES: u32 = 400;

/// Where packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Inside,
    /// The server.
    Outside,
}

/// One contender, ready for packets.
pub struct Field<'t> {
    /// Who works here.
    pub contender: Contender,
    /// Its guard.
    pub running: Running<'t>,
    /// Where.
    pub topology: &'t Topology,
    /// The bench's programs.
    pub kit: Kit,
    /// How long it took to start.
    pub start: Duration,
    gateway: Threads,
    open: u32,
    inside: Port,
    outside: Port,
}

/// A device from which the generator sends.
#[derive(Clone, Copy, Debug)]
struct Port {
    ifindex: u32,
    links: [u8; 12],
}

/// What happened within a length of time.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Run time of the gateway's NAPI threads.
    pub gateway: Duration,
    /// What arrived.
    pub tally: Tally,
    /// How long it was.
    pub length: Duration,
}

impl Reading {
    /// Nanoseconds of the gateway for each packet that arrived.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.gateway.as_secs_f64() * 1e9 / count(self.tally.packets)
    }

    /// Packets that arrived in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        count(self.tally.packets) / self.length.as_secs_f64()
    }
}

/// A count as a number to calculate with.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub fn count(number: u64) -> f64 {
    number as f64
}

impl<'t> Field<'t> {
    /// Starts the contender, and puts a sink on both ends.
    pub fn new(contender: &Contender, topology: &'t Topology, sizes: Sizes<'_>) -> Result<Self> {
        let mut kit = Kit::load(sizes.object)?;
        kit.attach_sink(&topology.client, &topology.devices.client)?;
        kit.attach_sink(&topology.server, &topology.devices.server)?;
        let devices = &topology.devices;
        let inside =
            Port::new((&topology.client, &devices.client), (&topology.gateway, &devices.lan))?;
        let outside =
            Port::new((&topology.server, &devices.server), (&topology.gateway, &devices.wan))?;
        let begun = Instant::now();
        let running = contender.start(topology, sizes)?;
        let start = begun.elapsed();
        let gateway = Threads::of_gateway(topology)?;
        let contender = contender.clone();
        Ok(Self { contender, running, topology, kit, start, gateway, open: 0, inside, outside })
    }

    /// An order for this topology.
    #[must_use]
    pub fn order(&self, side: Side, mode: u32, flows: u32) -> Order {
        let public = if self.contender.translates() { WAN.octets() } else { [0; 4] };
        Order { mode, flows, first: flows, interval: 0, public, links: self.port(side).links }
    }

    /// Number of the gateway's device towards the client, in its namespace.
    pub fn lan_ifindex(&self) -> Result<u32> {
        ifindex(&self.topology.gateway, &self.topology.devices.lan)
    }

    /// Opens flows until there are so many: a packet of each has arrived outside, and an answer
    /// inside.
    pub fn open(&mut self, flows: u32) -> Result<()> {
        self.running.hold(flows)?;
        for (side, mode) in [(Side::Inside, mode::OPEN), (Side::Outside, mode::ANSWER)] {
            self.kit.order(self.order(side, mode, flows))?;
            let before = self.arrived(mode)?;
            let missing = u64::from(flows - self.open);
            for _ in 0..PASSES {
                self.send(side, flows)?;
                interrupt::check()?;
                if self.arrived(mode)? - before >= missing {
                    break;
                }
            }
            let arrived = self.arrived(mode)? - before;
            ensure!(
                arrived >= missing,
                "{}: {arrived} of {missing} flows came through ({side:?})",
                self.contender.name()
            );
        }
        self.open = flows;
        Ok(())
    }

    /// Sends answers of the first `flows` flows, which were open, until no more of them come through;
    /// gives the number of those whose answers don't.
    pub fn lost(&mut self, flows: u32) -> Result<u64> {
        self.kit.forget_answers(flows)?;
        self.kit.order(self.order(Side::Outside, mode::ANSWER, flows))?;
        let before = self.arrived(mode::ANSWER)?;
        let (mut arrived, mut in_vain) = (0, 0);
        while arrived < u64::from(flows) && in_vain < 10 {
            self.send(Side::Outside, flows)?;
            let now = self.arrived(mode::ANSWER)? - before;
            in_vain = if now > arrived { 0 } else { in_vain + 1 };
            arrived = now;
        }
        Ok(u64::from(flows) - arrived)
    }

    fn arrived(&self, mode: u32) -> Result<u64> {
        let tally = self.kit.tally()?;
        Ok(if mode == mode::OPEN { tally.opened } else { tally.answered })
    }

    /// Flows that are open.
    #[must_use]
    pub const fn flows(&self) -> u32 {
        self.open
    }

    /// Orders packets of a population.
    pub fn ask_for(&mut self, population: Population) -> Result<()> {
        let mode = match population.popularity {
            Popularity::Uniform => mode::UNIFORM,
            Popularity::Zipf => {
                self.kit.favour(population::favourites(population.flows))?;
                mode::POPULAR
            }
        };
        self.kit.order(self.order(Side::Inside, mode, population.flows))
    }

    /// Sends `repeat` packets of the order from a side, on the core of the ends.
    pub fn send(&self, side: Side, repeat: u32) -> Result<()> {
        let port = self.port(side);
        self.namespace(side).enter(|| {
            pin(ENDS_CORE)?;
            go_first()?;
            self.kit.send(Way::Forth, port.ifindex, repeat)
        })?
    }

    /// Lets the generator run while `work` looks on.
    pub fn under_load<T>(&self, side: Side, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.under_loads(&[(Way::Forth, side)], work)
    }

    /// The same with a generator for each order, all of them on the core of the ends.
    fn under_loads<T>(&self, loads: &[(Way, Side)], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let generate = |&(way, side): &(Way, Side)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    self.namespace(side).enter(|| {
                        pin(ENDS_CORE)?;
                        go_first()?;
                        while !is_over.load(Ordering::Relaxed) {
                            self.kit.send(way, self.port(side).ifindex, CALL)?;
                        }
                        Ok(())
                    })?
                })
            };
            let generators: Vec<_> = loads.iter().map(generate).collect();
            let result = work();
            is_over.store(true, Ordering::Relaxed);
            let ended = self.kit.hush(|| {
                let join = |generator: thread::ScopedJoinHandle<'_, Result<()>>| {
                    generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                generators.into_iter().map(join).collect::<Result<Vec<()>>>()
            });
            ended.flatten().and(result)
        })
    }

    /// Counts for `length` under load, after `warm_up`.
    pub fn read(&self, side: Side, warm_up: Duration, length: Duration) -> Result<Reading> {
        let reading = self.under_load(side, || {
            thread::sleep(warm_up);
            self.observe(|| thread::sleep(length))
        })?;
        self.check(&reading)?;
        Ok(reading)
    }

    /// Counts under load from both sides at once: packets of the hosts and answers to them, of flows
    /// that are open, chosen at random.
    pub fn read_both_ways(&mut self, warm_up: Duration, length: Duration) -> Result<Reading> {
        let (forth, back) = (
            self.order(Side::Inside, mode::UNIFORM, self.open),
            self.order(Side::Outside, mode::BACK, self.open),
        );
        self.kit.order(forth)?;
        self.kit.order_back(back)?;
        let loads = [(Way::Forth, Side::Inside), (Way::Back, Side::Outside)];
        let reading = self.under_loads(&loads, || {
            thread::sleep(warm_up);
            self.observe(|| thread::sleep(length))
        })?;
        self.check(&reading)?;
        Ok(reading)
    }

    /// What happens while `work` is done.
    pub fn observe(&self, work: impl FnOnce()) -> Result<Reading> {
        let start = Instant::now();
        let (tally, gateway) = (self.kit.tally()?, self.gateway.time()?);
        work();
        let gateway = self.gateway.time()? - gateway;
        let tally = self.kit.tally()?.since(tally);
        Ok(Reading { gateway, tally, length: start.elapsed() })
    }

    /// Refuses a reading without packets, or with wrong ones.
    pub fn check(&self, reading: &Reading) -> Result<()> {
        let Tally { packets, sampled, wrong, .. } = reading.tally;
        let name = self.contender.name();
        if packets == 0 {
            bail!("{name}: no packet came through");
        }
        ensure!(wrong == 0, "{name}: {wrong} of {sampled} packets that were looked at are wrong");
        Ok(())
    }

    const fn port(&self, side: Side) -> Port {
        match side {
            Side::Inside => self.inside,
            Side::Outside => self.outside,
        }
    }

    const fn namespace(&self, side: Side) -> &Namespace {
        match side {
            Side::Inside => &self.topology.client,
            Side::Outside => &self.topology.server,
        }
    }
}

impl Port {
    fn new(from: (&Namespace, &str), to: (&Namespace, &str)) -> Result<Self> {
        let links = links(from, to)?;
        Ok(Self { ifindex: ifindex(from.0, from.1)?, links })
    }
}

/// Hardware addresses of a frame from a device to another: the receiver's, the sender's.
pub(super) fn links(from: (&Namespace, &str), to: (&Namespace, &str)) -> Result<[u8; 12]> {
    let mut links = [0; 12];
    let text = [hardware_address(to.0, to.1)?, hardware_address(from.0, from.1)?].join(":");
    for (byte, digits) in links.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).context("read a hardware address")?;
    }
    Ok(links)
}

/// Number of a device in its namespace.
pub(super) fn ifindex(namespace: &Namespace, device: &str) -> Result<u32> {
    let shown = namespace.ip(&format!("-o link show dev {device}"))?;
    let number = shown.split(':').next().unwrap_or_default();
    number.parse().with_context(|| format!("number of {device} in {shown}"))
}

/// Keeps the calling thread on a core.
pub fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core).context("name a core")?;
    sched_setaffinity(Pid::from_raw(0), &cores).with_context(|| format!("go to core {core}"))
}

/// Gives the calling thread the best place behind real-time ones, until its end.
fn go_first() -> Result<()> {
    let thread = gettid().to_string();
    process::must(Command::new("renice").args(["-n", "-20", "-p", &thread])).map(drop)
}

/// Lets nothing come between the calling thread and its work, until its end.
pub fn go_real_time() -> Result<()> {
    let thread = gettid().to_string();
    process::must(Command::new("chrt").args(["-f", "-p", "10", &thread])).map(drop)
}
