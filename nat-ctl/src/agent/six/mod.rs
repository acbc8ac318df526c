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
mod segment;
mod successor;
#[cfg(test)]
mod tests;
mod world;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Bound,
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

/// Flows that are looked at in one step of the sweep.
const SWEEP_STEP: usize = 512;

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

    /// Goes on with the sessions that a predecessor has left.
    pub fn adopt(&mut self, kernel: &mut impl Kernel) {
        let kept = kernel.controls().unwrap_or_else(|error| {
            report::failed(&error);
            vec![]
        });
        for (key, control) in kept {
            self.next = self.next.max(control.session().number().saturating_add(1));
            if let Ok(Some(flow)) = kernel.flow(&key)
                && flow.created() == control.created()
                && !control.is_unread()
                && let Err(reason) = self.rejoin(kernel, &key, &flow, &control)
            {
                // It is judged again when a segment of it comes.
                tracing::debug!("ftp session {}: {reason}", control.session().number());
            }
        }
    }

    /// Looks whether some flows are still there, and lets the sessions go whose flow is not. One call takes
    /// a bounded time.
    pub fn sweep(&mut self, kernel: &mut impl Kernel, now: u32) {
        self.engine.tidy(now);
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let step: Vec<(Flow6Key, u32)> = self
            .tracked
            .range((from, Bound::Unbounded))
            .map(|(key, tracked)| (*key, tracked.created))
            .take(SWEEP_STEP)
            .collect();
        for (key, created) in &step {
            match kernel.flow(key) {
                Ok(flow) if flow.is_some_and(|flow| flow.created() == *created) => {}
                Ok(_) => self.end(kernel, key),
                Err(error) => report::failed(&error),
            }
        }
        self.swept = step.last().map(|(key, _)| *key).filter(|_| step.len() == SWEEP_STEP);
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

    /// The number of the session of a flow, which begins with its first segment, or goes on where a
    /// predecessor stood.
    fn track(&mut self, kernel: &mut impl Kernel, passing: &Passing<'_>) -> Result<u32, Reason> {
        let Passing { key, flow, side, segment, .. } = passing;
        let kept = kernel.control(key).map_err(unknown)?;
        if let Some(known) = self.tracked.get(key) {
            // A flow that began anew in the same second is told by what the data plane has forgotten.
            let is_anew = known.kept && kept.is_none();
            if known.created == flow.created() && !is_anew {
                return Ok(known.session.number());
            }
            self.end(kernel, key);
        }
        if self.tracked.len() >= SESSIONS as usize {
            return Err(Reason::AlgSessionsFull);
        }
        if let Some(kept) = kept.filter(|kept| kept.created() == flow.created()) {
            let rejoined = self.rejoin(kernel, key, flow, &kept);
            return rejoined.inspect_err(|reason| {
                if *reason == Reason::AlgReset {
                    // The other end hears of it with its next segment.
                    let _told = send(kernel, kept.session().number(), &[segment.reset_sender()]);
                }
            });
        }
        let session = SessionId::from_number(self.next);
        self.next = self.next.saturating_add(1);
        let public = public_of(kernel, key);
        let control = control_flow(session, key, flow, public);
        let begun = self.engine.start(control, flow.rule());
        if segment.has(wire::ACK) {
            // No payload has passed before the first segment, so the other begins here.
            begun.starts_at(side.other(), segment.acknowledgement());
        }
        self.remember(key, flow, session, public, false);
        self.said.push((control, Said::Begun));
        Ok(session.number())
    }

    fn remember(
        &mut self,
        key: &Flow6Key,
        flow: &Flow6,
        session: SessionId,
        public: Ipv6Addr,
        kept: bool,
    ) {
        let (created, rule) = (flow.created(), flow.rule());
        let ended = [false; 2];
        self.tracked.insert(*key, Tracked { session, created, rule, kept, ended, public });
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

    /// With RST, or the second FIN, what the session has announced goes. The engine stays for segments that
    /// come again.
    fn note_end(&mut self, kernel: &mut impl Kernel, passing: &Passing<'_>) {
        let Passing { key, flow, side, segment, .. } = passing;
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        let was_over = tracked.is_over();
        let [client, server] = &mut tracked.ended;
        match side {
            alg::Side::Client => *client |= segment.has(wire::FIN),
            alg::Side::Server => *server |= segment.has(wire::FIN),
        }
        if segment.has(wire::RST) {
            tracked.ended = [true; 2];
        }
        if tracked.is_over() && !was_over {
            let (session, public) = (tracked.session, tracked.public);
            let control = control_flow(session, key, flow, public);
            let gone = self.engine.finish(session.number(), &mut Stateless(&Prefixes::default()));
            self.take_back(kernel, control, gone);
        }
    }

    /// The flow of a session is gone, or another one: what it has announced goes with it.
    fn end(&mut self, kernel: &mut impl Kernel, key: &Flow6Key) {
        let Entry::Occupied(entry) = self.tracked.entry(*key) else { return };
        let tracked = entry.remove();
        let number = tracked.session.number();
        let Some(control) = self.engine.find(number).map(|session| *session.flow()) else { return };
        let gone = self.engine.end(number, &mut Stateless(&Prefixes::default()));
        if let Err(error) = kernel.forget(tracked.session) {
            report::failed(&error);
        }
        if tracked.is_over() {
            return;
        }
        self.take_back(kernel, control, gone);
    }

    fn take_back(
        &mut self,
        kernel: &mut impl Kernel,
        control: alg::ControlFlow,
        commands: Vec<Command>,
    ) {
        for command in commands {
            if let Command::Unexpect(gone) = command {
                unexpect(kernel, &control, &gone);
            }
        }
        self.said.push((control, Said::Over));
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
