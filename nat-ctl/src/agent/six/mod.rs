//! FTP control connections over IPv6: segments between the wire, the FTP engine and the data plane.
//!
//! A segment is read, what it announces is let in, and it leaves as it came: with inside addresses, which
//! the data plane translates behind it where a prefix is. Where one is, a line that names an inside address
//! leaves with the public one, and from then on all segments of that connection come here to be shifted.
//!
//! Invariant: what a segment announces is in force before it leaves, in this order: expectation, what the
//! data plane and a successor have to know, segment. Whatever fails before the last step keeps the segment
//! back, and its sender repeats it.
//!
//! ```text
//!   punt -> Segment -> flow -> engine (new, or where a predecessor stood) -> commands
//!                                                                               |
//!               send <- keep <- expect <----------------------------------------+
//! ```

mod ends;
mod kernel;
mod life;
mod segment;
mod successor;
#[cfg(test)]
mod tests;
mod world;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use nat_common::{
    flow::Zone,
    layout::SESSIONS,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
    six::{Expectation6, Flow6, Flow6Key},
    tcp::wire,
};

pub use kernel::Kernel;

use super::{
    history::History,
    report::{self, Said},
};
use crate::{
    alg::{self, Command, DropReason},
    plane::{PlaneError, Prefixes},
};
use ends::{control_flow, expectation_key};
use segment::{Leaving, Segment};

/// Every control connection over IPv6 that the agent has seen a segment of.
#[derive(Debug)]
pub struct Bridge {
    engine: alg::Sessions,
    tracked: BTreeMap<Flow6Key, Tracked>,
    /// The number of the next session: those of IPv4 are the places of their records.
    next: u32,
    /// Seconds that an expectation waits for its connection.
    expectation: u32,
    /// Where the sweep goes on.
    swept: Option<Flow6Key>,
    /// What is to be said when the segment in hand has left.
    said: Vec<(alg::ControlFlow, Said)>,
}

/// What is known of a session beside the engine.
#[derive(Debug, Clone, Copy)]
struct Tracked {
    session: SessionId,
    /// With the key, what tells its flow from another one.
    created: u32,
    rule: RuleId,
    /// Whether something is kept of it, which goes when its flow begins anew.
    kept: bool,
    /// Which sides have ended their stream: the client, then the server.
    ended: [bool; 2],
    /// What the outside knows the inside end as.
    public: Ipv6Addr,
}

/// A segment with all that belongs to it.
struct Passing<'a> {
    key: Flow6Key,
    flow: Flow6,
    side: alg::Side,
    segment: &'a Segment<'a>,
    now: u32,
}

/// What an engine asks for: ports are not translated, and addresses by their prefix.
struct Stateless<'a>(&'a Prefixes);

impl alg::Gateway for Stateless<'_> {
    fn claim(&mut self, request: &alg::PortRequest) -> Option<u16> {
        request.port
    }

    fn release(&mut self, _public: SocketAddr) {}

    fn keeps_ports(&self) -> bool {
        true
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => self.0.public_of(address) != address,
        }
    }
}

impl Bridge {
    /// No session yet. An expectation lives `expectation` seconds.
    pub fn new(policy: alg::Policy, expectation: u32) -> Self {
        Self {
            engine: alg::Sessions::new(policy),
            tracked: BTreeMap::new(),
            next: SESSIONS + 1,
            expectation,
            swept: None,
            said: vec![],
        }
    }

    /// Sessions to come by these rules are held to strict mode, or not.
    pub fn hold(&mut self, rules: &BTreeMap<RuleId, bool>) {
        self.engine.hold(rules);
    }

    /// A segment from `zone` that the data plane has handed over, at `now` (of the monotonic clock).
    pub fn on_punt(&mut self, kernel: &mut impl Kernel, zone: Zone, packet: &[u8], now: Duration) {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        if let Err(reason) = self.pass(kernel, zone, packet, seconds) {
            tracing::debug!("ftp over IPv6: drop a segment of {} bytes: {reason}", packet.len());
            kernel.count(reason);
        }
    }

    /// Says what has happened, and has it kept.
    pub fn tell(&mut self, history: &mut History, now: Duration) {
        for (flow, said) in self.said.drain(..) {
            said.of(&flow);
            history.note(&flow, &said, now);
        }
    }

    /// The sessions that have not ended, each with its rule and the second in which it began.
    pub fn open(&self) -> impl Iterator<Item = (&alg::Session, RuleId, u32)> {
        let by_number: BTreeMap<u32, &Tracked> =
            self.tracked.values().map(|tracked| (tracked.session.number(), tracked)).collect();
        self.engine.iter().filter_map(move |session| {
            let tracked = by_number.get(&session.flow().session)?;
            (!tracked.is_over()).then_some((session, tracked.rule, tracked.created))
        })
    }

    fn pass(
        &mut self,
        kernel: &mut impl Kernel,
        zone: Zone,
        packet: &[u8],
        now: u32,
    ) -> Result<(), Reason> {
        let segment = &Segment::parse(packet)?;
        // A SYN with payload (RFC 7413) comes again without.
        if segment.has(wire::SYN) {
            return Err(Reason::AlgMalformed);
        }
        let key = segment.key(zone);
        let flow = kernel.flow(&key).map_err(unknown)?;
        let flow = flow.filter(Flow6::is_control).ok_or(Reason::AlgUnknown)?;
        let side = if flow.begun() == zone { alg::Side::Client } else { alg::Side::Server };
        let passing = Passing { key, flow, side, segment, now };
        let number = self.track(kernel, &passing)?;
        self.follow(kernel, &passing, number)?;
        if segment.payload().is_empty() {
            let session = self.engine.find(number).ok_or(Reason::AlgUnknown)?;
            // It must not overtake payload.
            if segment.has(wire::FIN) && !session.has_read(side, segment.sequence()) {
                return Err(Reason::AlgGap);
            }
            let leaving =
                segment.shifted(session.corrections(side), session.corrections(side.other()));
            send(kernel, number, &segment.packets(&leaving)?)?;
        } else {
            let read = alg::Segment {
                side,
                seq: segment.sequence(),
                ack: segment.has(wire::ACK).then(|| segment.acknowledgement()),
                payload: segment.payload(),
                fin: segment.has(wire::FIN),
                urgent: segment.urgent(),
            };
            let mut gateway = Stateless(kernel.prefixes());
            let commands = self.engine.on_segment(number, &read, &mut gateway, now);
            for command in commands.ok_or(Reason::AlgUnknown)? {
                self.carry_out(kernel, &passing, number, command)?;
            }
        }
        self.note_end(kernel, &passing);
        Ok(())
    }

    fn carry_out(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
        number: u32,
        command: Command,
    ) -> Result<(), Reason> {
        let Passing { key, flow, side, segment, now } = passing;
        let session = SessionId::from_number(number);
        let public = self.tracked.get(key).ok_or(Reason::AlgUnknown)?.public;
        let control = control_flow(session, key, flow, public);
        match command {
            Command::Expect(expectation) => {
                let expires = now.saturating_add(self.expectation);
                let value = Expectation6::new(session, flow.rule(), expires);
                // Without it only the data connection fails; the dialogue can go on.
                match kernel.expect(&expectation_key(&control, &expectation.key), &value) {
                    Ok(()) => self.said.push((control, Said::Expected(expectation))),
                    Err(error) => report::failed(&error),
                }
            }
            Command::Unexpect(gone) => unexpect(kernel, &control, &gone),
            Command::Emit(emit) => {
                self.keep(kernel, key, number)?;
                let session = self.engine.find(number).ok_or(Reason::AlgUnknown)?;
                let leaving = Leaving {
                    sequence: emit.seq,
                    acknowledgement: emit.ack.unwrap_or_default(),
                    acknowledged: session.corrections(side.other()),
                    payload: &emit.payload,
                    fin: emit.fin,
                    urgent: emit.urgent,
                };
                send(kernel, number, &segment.packets(&leaving)?)?;
            }
            Command::Drop { reason: DropReason::Gap, .. } => return Err(Reason::AlgGap),
            Command::Drop { reason: DropReason::EditsFull, .. } => {
                return Err(Reason::AlgEditsFull);
            }
            Command::Reset { seq, ack, .. } => {
                if let Some(tracked) = self.tracked.get_mut(key).filter(|it| !it.is_over()) {
                    tracked.ended = [true; 2];
                    self.said.push((control, Said::Over));
                }
                // Whether they are sent or not, what comes next is answered so again.
                let receiver = segment.reset_receiver(seq, ack.unwrap_or_default());
                let _told = send(kernel, number, &[receiver, segment.reset_sender()]);
                if let Err(error) = kernel.close(key) {
                    report::failed(&error);
                }
                return Err(Reason::AlgReset);
            }
            Command::Log(event) => self.said.push((control, Said::Event(event))),
            Command::EndInspection(end) => self.said.push((control, Said::Ended(end))),
            Command::Watch { side, watch } => {
                // Without it the data plane goes on handing over what it did before.
                if let Err(error) = kernel.watch(key, zone_of(flow, side), watch) {
                    report::failed(&error);
                }
            }
            Command::ResumeInspection => self.said.push((control, Said::Resumed)),
            // The engine has them.
            Command::SetCorrections { .. } => {}
        }
        Ok(())
    }

    /// Tells the engine of the records that have passed without it.
    fn follow(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
        number: u32,
    ) -> Result<(), Reason> {
        let Passing { key, flow, .. } = passing;
        let session = self.engine.find(number).ok_or(Reason::AlgUnknown)?;
        if session.ended() != Some(alg::End::Encrypted) {
            return Ok(());
        }
        for side in [alg::Side::Client, alg::Side::Server] {
            let watch = kernel.watched(key, zone_of(flow, side)).map_err(unknown)?;
            if let Some(boundary) = watch.and_then(|watch| watch.next_record()) {
                session.followed(side, boundary);
            }
        }
        Ok(())
    }
}

impl Tracked {
    fn is_over(&self) -> bool {
        self.ended == [true; 2]
    }
}

fn unexpect(kernel: &mut impl Kernel, control: &alg::ControlFlow, gone: &alg::ExpectationKey) {
    if let Err(error) = kernel.unexpect(&expectation_key(control, gone)) {
        report::failed(&error);
    }
}

fn send(kernel: &mut impl Kernel, number: u32, packets: &[Vec<u8>]) -> Result<(), Reason> {
    packets.iter().try_for_each(|packet| kernel.send(packet)).map_err(|error| {
        report::not_sent(SessionId::from_number(number), &error);
        Reason::AlgSend
    })
}

/// From where what an end says arrives.
fn zone_of(flow: &Flow6, side: alg::Side) -> Zone {
    match side {
        alg::Side::Client => flow.begun(),
        alg::Side::Server => flow.begun().other(),
    }
}

/// What the outside knows the inside end of a flow as.
fn public_of(kernel: &impl Kernel, key: &Flow6Key) -> Ipv6Addr {
    kernel.prefixes().public_of(Ipv6Addr::from(key.inside()))
}

fn unknown(error: PlaneError) -> Reason {
    report::failed(&error);
    Reason::AlgUnknown
}
