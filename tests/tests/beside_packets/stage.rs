//! The lab that steps are played in, and a step: what it does first, what it then sends at the same time
//! as all others, and what is to come out.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nat_tests::{
    lab::{INSIDE, INSIDE_DEVICE, LAN_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN_DEVICE},
    link::Offloads,
    packet::Packet,
    wait,
    wire::Wire,
};

use super::{
    cast::Cast,
    told::{self, Read},
};

/// For what has to come out; it takes microseconds, or milliseconds where the agent has a part in it.
const LIMIT: Duration = Duration::from_secs(5);
/// How long all steps are watched at least, for what must not come out.
const QUIET: Duration = Duration::from_millis(250);
/// Between outcomes of rounds.
pub const THEN: &str = "; then ";

/// Where a packet is sent from, or comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Inside,
    Outside,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }
}

impl Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Inside => "inside",
            Self::Outside => "outside",
        })
    }
}

/// A step of the script.
#[derive(Clone, Copy)]
pub struct Step {
    /// Its name, as docs/rfc.md has it where Linux differs.
    pub name: &'static str,
    /// What ours does, a round after the other.
    pub ours: &'static str,
    /// What leads there, and the rounds.
    pub play: fn(&mut Scene<'_>) -> Result<()>,
}

/// Packets that are sent at once, and where from.
type Round = Vec<(Side, Vec<u8>)>;

/// A step at play.
pub struct Scene<'a> {
    /// Who takes part.
    pub cast: Cast,
    wires: &'a mut Wires,
    rounds: Vec<Round>,
}

impl Scene<'_> {
    /// Sends a packet at once, which has to come out on the other side; as it comes out.
    pub fn through(&mut self, from: Side, packet: &Packet) -> Result<Vec<u8>> {
        self.wires.send(from, &packet.bytes())?;
        self.wires.take(self.cast, from.other())
    }

    /// Sends a packet in this round.
    pub fn send(&mut self, from: Side, packet: &Packet) {
        self.send_bytes(from, packet.bytes());
    }

    /// Sends in this round what may be no packet at all.
    pub fn send_bytes(&mut self, from: Side, bytes: Vec<u8>) {
        if self.rounds.is_empty() {
            self.then();
        }
        self.rounds.last_mut().expect("a round").push((from, bytes));
    }

    /// What follows is sent in another round, once this one has come out.
    pub fn then(&mut self) {
        self.rounds.push(Vec::new());
    }
}

/// Both sides, and what has come out and is nobody's yet.
struct Wires {
    inside: Wire,
    outside: Wire,
    seen: BTreeMap<u8, Vec<(Side, Vec<u8>)>>,
}

impl Wires {
    fn send(&self, from: Side, packet: &[u8]) -> Result<()> {
        match from {
            Side::Inside => self.inside.send(packet),
            Side::Outside => self.outside.send(packet),
        }
    }

    /// Sorts what has come out since the last look.
    fn look(&mut self) -> Result<()> {
        for (side, wire) in [(Side::Inside, &self.inside), (Side::Outside, &self.outside)] {
            while let Some(packet) = wire.receive()? {
                let cast = Read::new(&packet).and_then(|packet| Cast::of(&packet));
                let cast = cast.with_context(|| format!("{side}: of no step: {packet:02x?}"))?;
                self.seen.entry(cast.0).or_default().push((side, packet));
            }
        }
        Ok(())
    }

    /// The next packet of a step to come out on a side, and the only one.
    fn take(&mut self, cast: Cast, side: Side) -> Result<Vec<u8>> {
        let mut seen = wait::until(LIMIT, "a packet that leads to the step", || {
            self.look()?;
            Ok(self.seen.remove(&cast.0))
        })?;
        let only = seen.len() == 1 && seen[0].0 == side;
        ensure!(only, "instead came: {}", told::tell(cast, &seen));
        Ok(seen.swap_remove(0).1)
    }
}

/// Plays all steps through a lab with a gateway; `wanted` are their outcomes as far as they are known. What
/// came out, in the order of the steps.
pub fn play(steps: &[Step], wanted: &[&str], lab: &Lab) -> Result<Vec<String>> {
    let mut wires = Wires {
        inside: Wire::new(&lab.inside, INSIDE_DEVICE, INSIDE, (&lab.gateway, LAN_DEVICE))?,
        outside: Wire::new(&lab.outside, OUTSIDE_DEVICE, OUTSIDE, (&lab.gateway, WAN_DEVICE))?,
        seen: BTreeMap::new(),
    };
    let casts = || (1..).map(Cast);
    let mut scripts = Vec::new();
    for (step, cast) in steps.iter().zip(casts()) {
        let mut scene = Scene { cast, wires: &mut wires, rounds: Vec::new() };
        (step.play)(&mut scene).with_context(|| format!("what leads to `{}`", step.name))?;
        scripts.push(scene.rounds);
    }
    let rounds = scripts.iter().map(Vec::len).max().unwrap_or(0);
    let mut outcomes = vec![String::new(); steps.len()];
    for round in 0..rounds {
        for (from, packet) in scripts.iter().filter_map(|script| script.get(round)).flatten() {
            wires.send(*from, packet)?;
        }
        let has_round = |number: usize| scripts[number].len() > round;
        let told = |wires: &Wires| {
            let seen = |cast: Cast| wires.seen.get(&cast.0).map_or(&[][..], Vec::as_slice);
            let all = casts().take(steps.len());
            all.map(|cast| told::tell(cast, seen(cast))).collect::<Vec<_>>()
        };
        let start = Instant::now();
        let all = loop {
            wires.look()?;
            let all = told(&wires);
            let is_wanted = |(number, told): (usize, &String)| {
                let wanted = wanted.get(number).and_then(|it| it.split(THEN).nth(round));
                !has_round(number) || wanted == Some(told.as_str())
            };
            let waited = start.elapsed();
            if waited > QUIET && (all.iter().enumerate().all(is_wanted) || waited > LIMIT) {
                break all;
            }
            thread::sleep(Duration::from_millis(10));
        };
        for (number, told) in all.into_iter().enumerate() {
            let outcome = &mut outcomes[number];
            if has_round(number) {
                outcome.push_str(if round > 0 { THEN } else { "" });
                outcome.push_str(&told);
            } else if told != "dropped" {
                outcome.push_str(&format!("; and late {told}"));
            }
        }
        wires.seen.clear();
    }
    Ok(outcomes)
}

/// A lab for the steps, without a gateway.
pub fn lab() -> Result<Lab> {
    let lab = Lab::with(nat_tests::netns::Lifetime::Run, 1000)?;
    lab.set_offloads(Offloads::Off)?;
    for route in [
        format!("10.0.2.0/24 via {INSIDE}"),
        format!("10.0.3.0/24 via {INSIDE} mtu lock 1300"),
        format!("198.51.100.0/23 via {OUTSIDE}"),
        format!("198.51.102.0/24 via {OUTSIDE} mtu lock 1300"),
    ] {
        lab.gateway.ip(&format!("route add {route}"))?;
    }
    for device in ["all", LAN_DEVICE, WAN_DEVICE] {
        lab.gateway.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "1")?;
    }
    Ok(lab)
}
