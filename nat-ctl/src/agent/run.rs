//! The event loop.
//!
//! Invariant: one thread changes the gateway, and nothing that it does waits for longer than a
//! request to the kernel; whatever reads a whole table does so elsewhere.
//!
//! ```text
//!   signals -+                     +-> bridge -> maps, wire
//!   punts ---+-> select -> Agent --+-> plane: beat, sweep, addresses, neighbours
//!   API -----+                     +-> rules
//!   clock ---+
//! ```

use std::{io, time::Duration};

use nat_common::punt::{Punt, PuntHeader};
use socket2::Socket;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    answer::Answer,
    bridge::Bridge,
    error::AgentError,
    fragments::{self, Fragments},
    gateway::{Agent, expectation_seconds, policy},
    gone, log, notify,
    overload::Overload,
    prohibited,
    punts::Punts,
    report,
    scrape::{self, Scrape},
    send::RawSender,
    six,
    world::World,
};
use crate::{
    api::{Call, Server},
    options::RunOptions,
    output::{InterfaceMode, OverloadView},
    plane::{Plane, Report, clock},
};

/// Between two looks at the room in the flow table: a tenth of the time in which a growth is prepared.
const LOOK: Duration = Duration::from_millis(50);

/// Beats between two rounds of upkeep.
const TEND: u64 = 3;

/// Runs a gateway until SIGTERM or Ctrl-C.
///
/// # Errors
/// Where it can't start, or leaves something behind at its end.
pub fn run(options: RunOptions) -> Result<(), AgentError> {
    let _log = log::start(options.verbose).map_err(AgentError::system("start the log"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(AgentError::system("start the event loop"))?;
    runtime.block_on(run_until_told(options))
}

async fn run_until_told(options: RunOptions) -> Result<(), AgentError> {
    let mut signals = Signals::new().map_err(AgentError::system("wait for signals"))?;
    let metrics = options.metrics.map(scrape::listen).transpose();
    let metrics = metrics.map_err(AgentError::system("listen for --metrics"))?;
    let plane = Plane::start(&options).await?;
    let persist = options.persist;
    let sockets = RawSender::open().and_then(|sender| Ok((sender, Fragments::open()?)));
    let (sender, fragments) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            plane.stop(persist)?;
            return Err(AgentError::system("open a raw socket")(error));
        }
    };
    let expectation = expectation_seconds(&options.config.timeouts);
    let bridge = Bridge::new(policy(&options.config), expectation);
    let six = six::Bridge::new(policy(&options.config), expectation);
    let mut agent = Agent {
        instance: options.instance,
        config_file: options.config_file,
        config: options.config,
        rules: options.rules,
        world: World::new(plane, sender),
        bridge,
        six,
        overload: Overload::default(),
        trial: None,
        fragments,
    };
    let ended = agent.work(&mut signals, metrics).await;
    notify::stopping();
    let stopped = agent.world.plane.stop(persist);
    ended?;
    stopped?;
    tracing::info!("ended{}", if persist { "; the data plane works on" } else { "" });
    Ok(())
}

impl Agent {
    async fn work(
        &mut self,
        signals: &mut Signals,
        metrics: Option<Socket>,
    ) -> Result<(), AgentError> {
        let ring = self.world.plane.ring()?;
        let mut punts = Punts::new(ring).map_err(AgentError::system("wait for segments"))?;
        self.hold_sessions();
        self.bridge.adopt(&mut self.world);
        self.six.adopt(&mut self.world);
        let mut server = Server::bind(&self.instance.socket())?;
        let scrape = metrics.map(|socket| Scrape::start(socket, server.asker())).transpose();
        let _scrape = scrape.map_err(AgentError::system("serve --metrics"))?;
        let mut beats = beats();
        let mut looks = every(LOOK);
        let mut fragment_looks = every(fragments::LOOK);
        self.introduce();
        notify::ready();
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::End => return Ok(()),
                    Told::Reload => {
                        if let Err(error) = self.reload() {
                            tracing::error!("reload: {error}");
                        }
                    }
                },
                ready = punts.wait() => {
                    let ready = ready.map_err(AgentError::system("wait for segments"))?;
                    ready.read(|header, packet| self.on_punt(header, packet));
                    self.bridge.settle(&mut self.world);
                }
                call = server.next() => {
                    self.read_copies(&mut punts);
                    self.take_call(call);
                }
                beat = beats.next() => {
                    self.read_copies(&mut punts);
                    self.beat(beat).await;
                }
                _ = looks.tick() => {
                    self.read_copies(&mut punts);
                    self.grow();
                }
                _ = fragment_looks.tick(), if self.fragments.wait() => {
                    self.fragments.look(self.world.plane.maps_mut());
                }
                event = self.world.plane.event() => {
                    match self.world.plane.handle(event).await {
                        Ok(lines) => lines.iter().for_each(|line| tracing::info!("{line}")),
                        Err(error) => report::failed(&error),
                    }
                }
            }
        }
    }

    /// Reads the lines that nobody was woken for.
    fn read_copies(&mut self, punts: &mut Punts) {
        punts.read(|header, packet| self.on_punt(header, packet));
        self.bridge.settle(&mut self.world);
    }

    /// The time is that of each record: an agent that is stopped in the middle of many must not make
    /// expectations that are over.
    fn on_punt(&mut self, header: &PuntHeader, packet: &[u8]) {
        match header.kind() {
            Punt::Segment => {
                self.bridge.on_punt(&mut self.world, header, packet, clock::moment());
            }
            Punt::Six(zone) => {
                let now = clock::moment();
                self.six.on_punt(&mut self.world, zone, packet, now);
                self.six.tell(self.bridge.history(), now);
            }
            Punt::Refused => {
                // One that cannot be sent was not promised: who rushes loses most of them anyway.
                let _ = prohibited::tell(&self.world.sender, packet);
            }
            Punt::Fragment(_) | Punt::Long(_) => {
                self.fragments.on_punt(self.world.plane.maps_mut(), header, packet);
            }
        }
    }

    fn introduce(&self) {
        for interface in self.world.plane.interfaces() {
            let mode = match interface.mode {
                InterfaceMode::Xdp => "xdp",
                InterfaceMode::Tc => "tc",
            };
            tracing::info!("{}: {mode}: {}", interface.name, interface.reason);
        }
    }

    fn take_call(&mut self, call: Call) {
        match self.answer(call.request()) {
            mut ready @ Answer::Ready(_) => call.answer(&mut ready),
            mut read @ Answer::Read(..) => {
                tokio::task::spawn_blocking(move || call.answer(&mut read));
            }
        }
    }

    fn grow(&mut self) {
        match self.world.plane.grow_step(clock::now()) {
            Ok(line) => line.iter().for_each(|line| tracing::info!("{line}")),
            Err(error) => report::failed(&error),
        }
    }

    /// Once a second.
    async fn beat(&mut self, beat: u64) {
        let now = clock::now();
        if let Err(error) = self.world.plane.beat(now) {
            report::failed(&error);
        }
        match self.world.plane.sweep_step(now) {
            Ok(report) => {
                if let Some(report) = report {
                    if self.overload.make_room(report.hurried, now.seconds()) {
                        tracing::warn!(
                            "overload: {}: a flow table is nearly full, and flows that nobody \
                             answers end early; `nat-ctl hosts list` and `nat-ctl flows list \
                             --state unreplied` show whose they are",
                            OverloadView::PRESSURE
                        );
                    }
                    self.end_sessions(report);
                }
            }
            Err(error) => report::failed(&error),
        }
        for address in self.world.plane.gone_addresses(now) {
            let instance = self.instance.clone();
            tokio::task::spawn_blocking(move || gone::end_flows(&instance, address));
        }
        self.bridge.sweep(&mut self.world, now.seconds());
        let moment = clock::moment();
        self.six.sweep(&mut self.world, now.seconds());
        self.bridge.tell(moment);
        self.six.tell(self.bridge.history(), moment);
        self.bridge.history().give_up(moment).iter().for_each(report::transferred);
        self.end_trial(now.seconds());
        let dropped = |reason| self.world.plane.maps().dropped(reason).ok();
        for reason in self.overload.look(now.seconds(), dropped) {
            tracing::warn!("overload: {reason}: new flows are refused; {}", reason.advice());
        }
        if beat.is_multiple_of(TEND) {
            match self.world.plane.tend().await {
                Ok(lines) => lines.iter().for_each(|line| tracing::info!("{line}")),
                Err(error) => report::failed(&error),
            }
        }
    }

    /// What a pass over the tables has found.
    fn end_sessions(&mut self, report: Report) {
        for id in report.ended {
            self.bridge.end(&mut self.world, id);
        }
        let complete = self.bridge.history().measure(&report.data, clock::moment());
        complete.iter().for_each(report::transferred);
    }
}

/// Seconds, counted.
struct Beats {
    interval: Interval,
    count: u64,
}

fn beats() -> Beats {
    Beats { interval: every(Duration::from_secs(1)), count: 0 }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

impl Beats {
    async fn next(&mut self) -> u64 {
        self.interval.tick().await;
        self.count += 1;
        self.count
    }
}

/// What a signal asks for.
enum Told {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
