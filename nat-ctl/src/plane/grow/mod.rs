//! The flow table grows while it is in use.
//!
//! ```text
//!   [thread grow]  make the larger table, load programs with both tables
//!   switch         pins shifted -> programs with both attached
//!   [thread move]  all flows moved -> load programs with the larger table alone
//!   finish         those attached -> the smaller table given back
//! ```
//!
//! Invariant: programs that look at both tables never make a flow in the smaller one, and those that
//! know it alone are gone before the last flow is moved out; the smaller table goes only when it is
//! empty. The sweep stands still while flows move: it would take a port for unused whose flow it does
//! not see. After a death at any point the pins say what is left to do ([`tables`]).

mod haste;
pub mod moving;
pub mod need;
pub mod tables;

use std::{
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use nat_common::{counter::Counter, flow_table, layout::Geometry, reason::Reason};
use nix::net::if_::if_nametoindex;

use super::{
    Attached, Plane,
    attach::{self, Place},
    clock::{self, Now},
    error::{PlaneError, Result},
    flow_memory,
    hook::Choice,
    object::{Needed, Object, Sizes, Table},
    pins,
    state::Side,
    sweep::Sweeper,
};
use crate::output::InterfaceMode;
use haste::Haste;
use moving::{Moving, Work};
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
    /// Programs with both tables are at work, and flows on their way.
    Moving(Moving, Course),
    /// That was refused, at this time; packets go on with both tables.
    Halted(Now, Course),
    /// All flows have moved, and programs with the larger table alone take over.
    Ending(Course),
    /// It was refused, at this time.
    Refused(Now),
}

impl Growth {
    /// Whether flows may be in two tables.
    pub const fn has_two_tables(&self) -> bool {
        match self {
            Self::Switching(_) | Self::Moving(..) | Self::Halted(..) | Self::Ending(_) => true,
            Self::Rest(_) | Self::Loading(_) | Self::Refused(_) => false,
        }
    }
}

/// What is needed for a growth.
#[derive(Debug)]
pub struct Ready {
    /// Programs with both tables, until they are in use.
    both: Option<Object>,
    geometry: Geometry,
    course: Course,
}

/// What is told of a growth at its end.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Flows that there was room for.
    from: u32,
    /// When it began.
    begun: Duration,
}

impl Plane {
    /// Sees to it that the flow table has room; several times a second. Gives a line for the log when it
    /// has grown.
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
                if gauge.needs(now.seconds(), made, refused, room, count) {
                    self.growth = Growth::Loading(self.begin_growth(larger)?);
                }
                Ok(None)
            }
            Growth::Loading(thread) if !thread.is_finished() => Ok(None),
            Growth::Loading(_) => match self.loaded() {
                Some(Ok(ready)) => self.switch(Box::new(ready)),
                Some(Err(error)) => {
                    self.growth = Growth::Refused(now);
                    pins::unlink(&self.instance.pins().join(tables::NEXT))?;
                    Err(error)
                }
                None => Ok(None),
            },
            Growth::Moving(moving, _) if !moving.is_finished() => Ok(None),
            Growth::Halted(then, _) if now.since(then.seconds()) < PAUSE => Ok(None),
            Growth::Switching(_) | Growth::Moving(..) | Growth::Halted(..) | Growth::Ending(_) => {
                self.go_on(now)
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

    /// Waits for the threads of a growth. One that nobody has seen yet is undone; from any other a
    /// successor goes on.
    pub(super) fn abandon_growth(&mut self) -> Result<()> {
        if let Some(loaded) = self.loaded() {
            drop(loaded);
            tables::recover(&self.instance.pins())?;
        }
        self.growth = Growth::Rest(Gauge::default());
        Ok(())
    }

    /// Takes the next step of a growth that flows are on the way of.
    fn go_on(&mut self, now: Now) -> Result<Option<String>> {
        let rest = Growth::Rest(Gauge::default());
        match std::mem::replace(&mut self.growth, rest) {
            Growth::Switching(ready) => self.switch(ready),
            Growth::Halted(_, course) => self.move_on(course).map(|()| None),
            Growth::Moving(moving, course) => match moving.end() {
                Ok(Some(alone)) => {
                    self.object = alone;
                    self.finish(course).map(Some)
                }
                // Nobody but the end of this agent stops it.
                Ok(None) => Ok(None),
                Err(error) => {
                    self.growth = Growth::Halted(now, course);
                    Err(error)
                }
            },
            Growth::Ending(course) => self.finish(course).map(Some),
            other => {
                self.growth = other;
                Ok(None)
            }
        }
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
        let next = now.with_homes(homes);
        let course = Course { from: need::room(now.homes), begun: clock::moment() };
        let (sizes, needed) = (self.sizes, self.needed());
        thread::Builder::new()
            .name("grow".to_owned())
            .spawn(move || load(&pins, &sizes, needed, now, next, course))
            .map_err(PlaneError::refused("make a larger flow table"))
    }

    /// The larger table takes over. Where that fails, what is left is done with the next step.
    fn switch(&mut self, mut ready: Box<Ready>) -> Result<Option<String>> {
        let _haste = Haste::begin();
        if let Err(error) = self.try_switch(&mut ready) {
            self.growth = Growth::Switching(ready);
            return Err(error);
        }
        self.move_on(ready.course).map(|()| None)
    }

    fn try_switch(&mut self, ready: &mut Ready) -> Result<()> {
        let pins = self.instance.pins();
        self.sweeper.settle();
        tables::shift(&pins)?;
        flow_memory::set_geometry(&pins, &ready.geometry)?;
        if let Some(both) = ready.both.take() {
            self.object = both;
        }
        self.attach_again()?;
        self.hops.follow_flows(&pins)?;
        self.maps.follow_flows(&pins)
    }

    /// Has the flows moved; programs with both tables are attached.
    fn move_on(&mut self, course: Course) -> Result<()> {
        self.growth = Growth::Halted(clock::now(), course);
        let work = Work {
            pins: self.instance.pins(),
            sizes: self.sizes,
            needed: self.needed(),
            epoch: self.hops.epoch(),
        };
        self.growth = Growth::Moving(Moving::start(work)?, course);
        Ok(())
    }

    /// Goes on with a growth that a predecessor has begun, when the programs of this agent look at both
    /// tables.
    pub(super) fn go_on_growing(&mut self, from: &Geometry) -> Result<()> {
        self.move_on(Course { from: need::room(from.homes), begun: clock::moment() })
    }

    /// The smaller table is empty: the programs that are loaded, which don't know it, take over, and it
    /// is given back. Where that fails, it is tried again with the next step.
    fn finish(&mut self, course: Course) -> Result<String> {
        let _haste = Haste::begin();
        self.growth = Growth::Ending(course);
        let pins = self.instance.pins();
        self.attach_again()?;
        pins::unlink(&pins.join(tables::BEFORE))?;
        self.maps.follow_flows(&pins)?;
        self.sweeper = Sweeper::after(&mut self.sweeper, &pins, self.timeouts)?;
        self.growth = Growth::Rest(self.gauge()?);
        let to = need::room(flow_table::homes(self.maps.flows.places()));
        let time = clock::moment().saturating_sub(course.begun).as_millis();
        Ok(format!("flow table grown from {} to {to} flows in {time} ms", course.from))
    }

    fn needed(&self) -> Needed {
        let interfaces = &self.state.interfaces;
        Needed {
            native: interfaces.iter().any(|interface| interface.mode == InterfaceMode::Xdp),
            bare: interfaces.iter().any(|interface| interface.bare),
            one_armed: interfaces.iter().any(|interface| interface.side == Side::Both),
        }
    }

    /// The programs of the object take the place of those that are attached. An interface that is
    /// gone gets them when it is back.
    fn attach_again(&mut self) -> Result<()> {
        let there = |known: &&Attached| {
            !known.lost && if_nametoindex(known.name.as_str()) == Ok(known.index)
        };
        for known in self.state.interfaces.iter().filter(there) {
            let choice = match known.mode {
                InterfaceMode::Xdp => Choice::Must(known.reason.clone()),
                InterfaceMode::Tc => Choice::Tc(known.reason.clone()),
            };
            let (name, index) = (known.name.as_str(), known.index);
            let to = Place { name, index, side: known.side, bare: known.bare };
            attach::attach(&mut self.object, &self.instance, to, choice)?;
        }
        Ok(())
    }
}

/// Makes the table and loads programs that look at both; nothing of that is in use yet.
fn load(
    pins: &Path,
    sizes: &Sizes,
    needed: Needed,
    now: Geometry,
    next: Geometry,
    course: Course,
) -> Result<Ready> {
    let _haste = Haste::begin();
    let next_table = Table { pin: tables::NEXT, geometry: next };
    let before = Table { pin: tables::NOW, geometry: now };
    let mut both = Object::load(pins, sizes, &next_table, Some(&before))?;
    both.prepare(needed)?;
    Ok(Ready { both: Some(both), geometry: next, course })
}
