//! The bench's own programs and their maps, loaded once for each topology.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, TestRunAttrs, Xdp, XdpMode},
    util::nr_cpus,
};
use nat_common::bench::{ANSWERED, FRAME, Order, Tally, frame, mode};

use crate::netns::Namespace;

/// Frames that the kernel makes at a time in a live run.
const BATCH: u32 = 64;
/// Flows that the sink knows by number.
pub const FLOWS: u32 = 1 << 22;
/// Flows among which the list of favourites is drawn; see `maps.rs` of the programs.
pub const FAVOURITES: u32 = 1 << 20;
/// Size of `struct xdp_md`, and where it has the end of the frame and the interface.
const XDP_MD: usize = 24;
const DATA_END: usize = 4;
const INGRESS_IFINDEX: usize = 12;
/// Size of `struct __sk_buff`, and where it has the interface.
const SKB: usize = 192;
const SKB_IFINDEX: usize = 40;

/// Kind of a program that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

/// Which of the two orders: where only one side sends it is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// The one that the sink looks at.
    Forth = 0,
    /// The one of those who send at the same time from the other side.
    Back = 1,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Forth, Self::Back];
}

/// The programs, and the maps through which they are told and asked.
pub struct Kit {
    ebpf: Ebpf,
    orders: Mutex<Array<MapData, Order>>,
    position: PerCpuArray<MapData, u64>,
    tallies: PerCpuArray<MapData, Tally>,
    popular: Array<MapData, u32>,
    seen: Array<MapData, u32>,
    cpus: usize,
}

impl Kit {
    /// Loads the object.
    pub fn load(object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("seen", FLOWS);
        let mut ebpf = loader.load(&bytes).context("load the object of the bench")?;
        for name in ["generate", "generate_back", "sink", "pass", "rekey"] {
            let program: &mut Xdp = program_mut(&mut ebpf, name)?.try_into()?;
            program.load().with_context(|| format!("load the program {name}"))?;
        }
        for name in ["rekey_tc", "pass_tc"] {
            let program: &mut SchedClassifier = program_mut(&mut ebpf, name)?.try_into()?;
            program.load().with_context(|| format!("load the program {name}"))?;
        }
        let mut taken = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            orders: Mutex::new(taken("orders")?.try_into()?),
            position: taken("position")?.try_into()?,
            tallies: taken("tallies")?.try_into()?,
            popular: taken("popular")?.try_into()?,
            seen: taken("seen")?.try_into()?,
            cpus: nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?,
            ebpf,
        })
    }

    /// Puts the sink on a device; it stays there as long as the kit.
    pub fn attach_sink(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        let program: &mut Xdp = program_mut(&mut self.ebpf, "sink")?.try_into()?;
        let attached = namespace.enter(|| program.attach(device, XdpMode::Driver).map(drop))?;
        attached.with_context(|| format!("attach the sink to {device}"))
    }

    /// Tells the generator what to send, from the start of its sequence.
    pub fn order(&mut self, order: Order) -> Result<()> {
        self.order_from(order, 0)
    }

    /// Tells it what to send, from a place in the sequence on.
    pub fn order_from(&mut self, order: Order, position: u64) -> Result<()> {
        self.position
            .set(0, PerCpuValues::try_from(vec![position; self.cpus])?, 0)
            .context("set the place in the sequence")?;
        self.write_order(Way::Forth, order)
    }

    /// The order that is in force.
    pub fn ordered(&self) -> Result<Order> {
        self.read_order(Way::Forth)
    }

    /// Tells the other generator what to send at the same time.
    pub fn order_back(&mut self, order: Order) -> Result<()> {
        self.write_order(Way::Back, order)
    }

    /// Lets generators that are at work make no more packets while `wait` waits for their end, which
    /// comes at once then.
    pub fn hush<T>(&self, wait: impl FnOnce() -> T) -> Result<T> {
        let orders = [self.read_order(Way::Forth)?, self.read_order(Way::Back)?];
        for (way, order) in Way::BOTH.into_iter().zip(orders) {
            self.write_order(way, Order { mode: mode::STOP, interval: 0, ..order })?;
        }
        let waited = wait();
        for (way, order) in Way::BOTH.into_iter().zip(orders) {
            self.write_order(way, order)?;
        }
        Ok(waited)
    }

    fn read_order(&self, way: Way) -> Result<Order> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.get(&(way as u32), 0).context("read the order")
    }

    fn write_order(&self, way: Way, order: Order) -> Result<()> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.set(way as u32, order, 0).context("order packets")
    }

    /// What has arrived so far.
    pub fn tally(&self) -> Result<Tally> {
        let cpus = self.tallies.get(&0, 0).context("read what has arrived")?;
        Ok(cpus.iter().copied().fold(Tally::default(), Tally::and))
    }

    /// Makes the first `flows` flows ones that wait for an answer.
    pub fn forget_answers(&mut self, flows: u32) -> Result<()> {
        for flow in 0..flows {
            let seen = self.seen.get(&flow, 0).context("read what was seen")?;
            self.seen.set(flow, seen & !ANSWERED, 0).context("forget an answer")?;
        }
        Ok(())
    }

    /// Sets the flows that favourites are.
    pub fn favour(&mut self, flows: impl Iterator<Item = u32>) -> Result<()> {
        for (place, flow) in (0..FAVOURITES).zip(flows) {
            self.popular.set(place, flow, 0).context("write the favourites")?;
        }
        Ok(())
    }

    /// Sends `repeat` packets of an order out of the interface, from the namespace of this thread.
    pub fn send(&self, way: Way, ifindex: u32, repeat: u32) -> Result<()> {
        let frame = [0; FRAME];
        let name = match way {
            Way::Forth => "generate",
            Way::Back => "generate_back",
        };
        let program: &Xdp = program(&self.ebpf, name)?.try_into()?;
        program
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&xdp_context(ifindex)?),
                repeat,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })
            .context("run the generator")
            .map(drop)
    }

    /// Mean nanoseconds of a program on packets of the order, with what it takes to make them; of
    /// the making alone where there is no program. Runs in the namespace of this thread.
    pub fn time(
        &mut self,
        hook: Hook,
        callee: Option<&ProgramFd>,
        ifindex: u32,
        repeat: u32,
    ) -> Result<(f64, u32)> {
        let (caller, nothing, map) = match hook {
            Hook::Xdp => ("rekey", "pass", "callee"),
            Hook::Tc => ("rekey_tc", "pass_tc", "callee_tc"),
        };
        let nothing = program(&self.ebpf, nothing)?.fd()?.try_clone().context("share a program")?;
        let callee = callee.unwrap_or(&nothing);
        let map = self.ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        ProgramArray::try_from(map)?.set(0, callee, 0).context("set the program to call")?;
        let mut out = [0; 256];
        // Whether a socket buffer is for this machine is found out before the first program.
        let first = frame(self.ordered()?.links, ([0; 4], 0), ([0; 4], 0), 0);
        let options = TestRunOptions {
            data_in: Some(&first),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let program = program(&self.ebpf, caller)?;
        let result = match hook {
            Hook::Xdp => {
                let program: &Xdp = program.try_into()?;
                let context = xdp_context(ifindex)?;
                program.test_run(TestRunOptions { ctx_in: Some(&context), ..options })
            }
            Hook::Tc => {
                let program: &SchedClassifier = program.try_into()?;
                let context = skb_context(ifindex);
                program.test_run(TestRunOptions { ctx_in: Some(&context), ..options })
            }
        };
        let result = result.with_context(|| format!("run {caller}"))?;
        Ok((result.duration.as_secs_f64() * 1e9, result.return_value))
    }
}

fn program<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e Program> {
    ebpf.program(name).with_context(|| format!("no program {name}"))
}

fn program_mut<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program {name}"))
}

/// A frame of the bench that arrives on an interface.
fn xdp_context(ifindex: u32) -> Result<[u8; XDP_MD]> {
    let mut context = [0; XDP_MD];
    let length = u32::try_from(FRAME).context("a frame beyond 4 GB")?;
    context[DATA_END..DATA_END + 4].copy_from_slice(&length.to_ne_bytes());
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    Ok(context)
}

/// The same as a socket buffer.
fn skb_context(ifindex: u32) -> [u8; SKB] {
    let mut context = [0; SKB];
    context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}
