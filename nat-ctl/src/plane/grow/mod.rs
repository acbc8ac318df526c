//! The flow table grows while it is in use.
//!
//! ```text
//!   [thread]  make the larger table, load programs with both tables, and with it alone
//!   then      pins shifted -> programs with both -> all flows moved -> programs with it alone
//! ```
//!
//! Invariant: programs that look at both tables never make a flow in the smaller one, and those that
//! know it alone are gone before the last flow is moved out. The sweep stands still while flows move:
//! it would take a port for unused whose flow it does not see. After a death at any point the pins
//! say what is left to do ([`tables`]).

pub mod moving;
pub mod need;
pub mod tables;

use std::{
    path::Path,
    thread::{self, JoinHandle},
};

use nat_common::{counter::Counter, flow_table, layout::Geometry, reason::Reason};
use nix::net::if_::if_nametoindex;

use super::{
    Attached, Plane, attach,
    clock::{self, Now},
    error::{PlaneError, Result},
    flow_memory::{self, FlowMemory},
    hook::Choice,
    object::{Object, Sizes, Table},
    pins,
    sweep::Sweeper,
};
use crate::output::InterfaceMode;
use need::Gauge;

/// Seconds after a failure, before the next try.
const PAUSE: u32 = 30;

/// How far it has come.
#[derive(Debug)]
pub enum Growth {
    /// There is room, as far as is known.
    Rest(Gauge),
    /// The larger table and its programs are being made.
    Loading(JoinHandle<Result<Ready>>),
    /// They are there.
    Switching(Box<Ready>),
    /// It was refused, at this time.
    Refused(Now),
}

/// What is needed for a growth.
#[derive(Debug)]
pub struct Ready {
    /// Programs with both tables, and with the larger one alone, until they are in use.
    both: Option<Object>,
    alone: Option<Object>,
    geometry: Geometry,
    from: u32,
}

impl Plane {
    /// Sees to it that the flow table has room; once a second. Gives a line for the log when it has
    /// grown.
    ///
    /// # Errors
    /// Where the kernel refuses; it is tried again later.
    pub fn grow_step(&mut self, now: Now) -> Result<Option<String>> {
        match &mut self.growth {
            Growth::Rest(gauge) => {
                let homes = flow_table::homes(self.maps.flows.places());
                let room = need::room(homes);
                let Some(larger) = need::larger(room, self.state.flows) else { return Ok(None) };
                let made = self.maps.counted(Counter::Flows)?;
                let refused = self.maps.dropped(Reason::TableFull)?;
                let count = || self.maps.flows.used().div_ceil(2);
                if gauge.needs(made, refused, room, count) {
                    self.growth = Growth::Loading(self.begin_growth(larger)?);
                }
                Ok(None)
            }
            Growth::Loading(thread) if !thread.is_finished() => Ok(None),
            Growth::Loading(_) => match self.loaded() {
                Some(Ok(ready)) => self.switch(Box::new(ready)).map(Some),
                Some(Err(error)) => {
                    self.growth = Growth::Refused(now);
                    pins::unlink(&self.instance.pins().join(tables::NEXT))?;
                    Err(error)
                }
                None => Ok(None),
            },
            Growth::Switching(_) => {
                let rest = Growth::Rest(Gauge::default());
                match std::mem::replace(&mut self.growth, rest) {
                    Growth::Switching(ready) => self.switch(ready).map(Some),
                    _ => Ok(None),
                }
            }
            Growth::Refused(then) => {
                if now.since(then.seconds()) >= PAUSE {
                    self.growth = Growth::Rest(self.gauge()?);
                }
                Ok(None)
            }
        }
    }

    /// What a table is measured against from now on.
    pub(super) fn gauge(&self) -> Result<Gauge> {
        Ok(Gauge::behind(self.maps.dropped(Reason::TableFull)?))
    }

    /// Waits for the thread of a growth that has not been seen yet, and undoes it.
    pub(super) fn abandon_growth(&mut self) -> Result<()> {
        if let Some(loaded) = self.loaded() {
            drop(loaded);
            tables::recover(&self.instance.pins())?;
        }
        Ok(())
    }

    fn loaded(&mut self) -> Option<Result<Ready>> {
        let rest = Growth::Rest(Gauge::default());
        match std::mem::replace(&mut self.growth, rest) {
            Growth::Loading(thread) => Some(thread.join().unwrap_or_else(|_| {
                Err(PlaneError::Refused {
                    what: "make a larger flow table".to_owned(),
                    why: "its thread has ended".to_owned(),
                })
            })),
            other => {
                self.growth = other;
                None
            }
        }
    }

    fn begin_growth(&self, flows: u32) -> Result<JoinHandle<Result<Ready>>> {
        let pins = self.instance.pins();
        let now = flow_memory::geometry(&pins)?;
        let homes = flow_table::homes(flow_table::places(flows.saturating_mul(2)));
        let next = Geometry { homes, ..now };
        let (sizes, native) = (self.sizes, self.is_native());
        thread::Builder::new()
            .name("grow".to_owned())
            .spawn(move || load(&pins, &sizes, native, now, next))
            .map_err(PlaneError::refused("make a larger flow table"))
    }

    /// The larger table takes over. Where it fails, what is left is done with the next step.
    fn switch(&mut self, mut ready: Box<Ready>) -> Result<String> {
        let begun = clock::moment();
        match self.try_switch(&mut ready) {
            Ok(lost) => {
                self.growth = Growth::Rest(self.gauge()?);
                let to = need::room(ready.geometry.homes);
                let time = clock::moment().saturating_sub(begun).as_millis();
                let lost = if lost == 0 { String::new() } else { format!(", {lost} records lost") };
                Ok(format!("flow table grown from {} to {to} flows in {time} ms{lost}", ready.from))
            }
            Err(error) => {
                self.growth = Growth::Switching(ready);
                Err(error)
            }
        }
    }

    fn try_switch(&mut self, ready: &mut Ready) -> Result<u64> {
        let pins = self.instance.pins();
        self.sweeper.settle();
        tables::shift(&pins)?;
        flow_memory::set_geometry(&pins, &ready.geometry)?;
        if let Some(both) = ready.both.take() {
            self.object = both;
        }
        self.attach_again()?;
        let lost = self.move_flows(|_| Ok(ready.alone.take()))?;
        self.maps.flows = FlowMemory::open(&pins)?;
        self.hops.follow_flows(&pins)?;
        self.sweeper = Sweeper::after(&mut self.sweeper, &pins, self.timeouts)?;
        Ok(lost)
    }

    /// Brings a growth to its end, when the programs of this agent look at both tables.
    pub(super) fn end_growth(&mut self) -> Result<u64> {
        let geometry = flow_memory::geometry(&self.instance.pins())?;
        let now = Table { pin: tables::NOW, geometry };
        self.move_flows(|plane| {
            Object::load(&plane.instance.pins(), &plane.sizes, &now, None).map(Some)
        })
    }

    /// Moves the flows; then those programs take over that know the larger table alone.
    fn move_flows(&mut self, alone: impl FnOnce(&Self) -> Result<Option<Object>>) -> Result<u64> {
        let pins = self.instance.pins();
        let before = FlowMemory::named(&pins, tables::BEFORE)?;
        moving::wait_for_programs();
        let lost = moving::move_all(&mut self.object, &before)?;
        if let Some(alone) = alone(self)? {
            self.object = alone;
        }
        self.attach_again()?;
        pins::unlink(&pins.join(tables::BEFORE))?;
        Ok(lost)
    }

    fn is_native(&self) -> bool {
        self.state.interfaces.iter().any(|interface| interface.mode == InterfaceMode::Xdp)
    }

    /// The programs of the object take the place of those that are attached. An interface that is
    /// gone gets them when it is back.
    fn attach_again(&mut self) -> Result<()> {
        let there = |known: &&Attached| if_nametoindex(known.name.as_str()) == Ok(known.index);
        for known in self.state.interfaces.iter().filter(there) {
            let choice = match known.mode {
                InterfaceMode::Xdp => Choice::Must(known.reason.clone()),
                InterfaceMode::Tc => Choice::Tc(known.reason.clone()),
            };
            let (name, index) = (known.name.as_str(), known.index);
            attach::attach(&mut self.object, &self.instance, name, index, known.role, choice)?;
        }
        Ok(())
    }
}

/// Makes the table and loads both sets of programs; nothing of that is in use yet.
fn load(pins: &Path, sizes: &Sizes, native: bool, now: Geometry, next: Geometry) -> Result<Ready> {
    let next_table = Table { pin: tables::NEXT, geometry: next };
    let before = Table { pin: tables::NOW, geometry: now };
    let mut both = Object::load(pins, sizes, &next_table, Some(&before))?;
    both.prepare(native)?;
    both.xdp(Object::MOVER)?;
    let mut alone = Object::load(pins, sizes, &next_table, None)?;
    alone.prepare(native)?;
    Ok(Ready { both: Some(both), alone: Some(alone), geometry: next, from: need::room(now.homes) })
}
