//! The life of a session over IPv6 in the bridge: it begins with its first segment, or where a predecessor
//! has left it, and ends with its flow.
//!
//! Invariant: engine and flow speak of the same connection; one that began anew with the same ends is told
//! by the second of its making, or by what the data plane has forgotten with its SYN.

use std::{collections::btree_map::Entry, net::Ipv6Addr, ops::Bound};

use nat_common::{
    layout::SESSIONS,
    reason::Reason,
    session::SessionId,
    six::{Flow6, Flow6Key},
    tcp::wire,
};

use super::{
    Bridge, Kernel, Passing, Stateless, Tracked, control_flow, public_of, send, unexpect, unknown,
};
use crate::{
    agent::report::{self, Said},
    alg::{self, Command},
    plane::Prefixes,
};

/// Flows that are looked at in one step of the sweep.
const SWEEP_STEP: usize = 512;

impl Bridge {
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

    /// The number of the session of a flow, which begins with its first segment, or goes on where a
    /// predecessor stood.
    pub(super) fn track(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
    ) -> Result<u32, Reason> {
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

    pub(super) fn remember(
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

    /// With RST, or the second FIN, what the session has announced goes. The engine stays for segments that
    /// come again.
    pub(super) fn note_end(&mut self, kernel: &mut impl Kernel, passing: &Passing<'_>) {
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
    pub(super) fn end(&mut self, kernel: &mut impl Kernel, key: &Flow6Key) {
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
