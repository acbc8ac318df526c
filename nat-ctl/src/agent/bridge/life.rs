//! The life of a session in the bridge: it begins with its first segment, or where a predecessor
//! has left it, and ends with its place in the data plane.
//!
//! Invariant: engine and record speak of the same connection; a place that was given to another is
//! told by its tuples and the second of its making.

use std::ops::Bound;

use nat_common::{
    layout::SESSIONS,
    reason::Reason,
    session::{Session, SessionId, Side},
    tcp::wire,
    vouched::Vouched,
};

use super::{Bridge, Passing, Tracked, reset, unexpect, unknown};
use crate::{
    agent::{
        control::{self, Identity},
        journal,
        kernel::Kernel,
        report::{self, Said},
    },
    alg::{self, Command},
};

/// Sessions whose place is looked at in one step of the sweep.
const SWEEP_STEP: usize = 512;

/// What a predecessor has left of a session.
enum Kept {
    /// All of it.
    Resumed,
    /// Nothing.
    Nothing,
    /// Something that no agent of this version understands.
    Unreadable,
}

impl Bridge {
    /// The sessions that have not ended, as the engine knows them.
    pub fn open(&self) -> impl Iterator<Item = (&alg::Session, &Identity)> {
        self.engine.iter().filter_map(|session| {
            let id = SessionId::new(session.flow().session.checked_sub(1)?);
            let tracked = self.tracked.get(&id).filter(|tracked| !tracked.is_over())?;
            Some((session, &tracked.identity))
        })
    }

    /// Goes on with the open sessions that a predecessor has left, so that they are shown before
    /// they speak again.
    pub fn adopt(&mut self, kernel: &mut impl Kernel) {
        for id in (0..SESSIONS).map(SessionId::new) {
            if let Ok(Some(record)) = kernel.session(id)
                && let Ok(false) = kernel.is_closed(&record)
                && let Ok(Some(kept)) = kernel.recall(id)
            {
                // One that can't be read is judged when a segment of it comes.
                self.resume(kernel, id, &record, &kept);
            }
        }
        self.ranges.close_others(kernel);
    }

    /// Looks whether the places of some sessions still have them, and lets those go that have
    /// ended. One call takes a bounded time; `true` when the round is complete.
    pub fn sweep(&mut self, kernel: &mut impl Kernel, now: u32) -> bool {
        self.engine.tidy(now);
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let step: Vec<SessionId> = self
            .tracked
            .range((from, Bound::Unbounded))
            .map(|(id, _)| *id)
            .take(SWEEP_STEP)
            .collect();
        for &id in &step {
            let known = self.tracked.get(&id).map(|tracked| tracked.identity);
            match kernel.session(id) {
                Ok(record) if record.as_ref().map(Identity::of) == known => {}
                Ok(_) => self.end(kernel, id),
                Err(error) => report::failed(&error),
            }
        }
        self.swept = step.last().copied().filter(|_| step.len() == SWEEP_STEP);
        self.swept.is_none()
    }

    /// The place of a session is free, or another's: what it has announced goes with it.
    pub fn end(&mut self, kernel: &mut impl Kernel, id: SessionId) {
        let tracked = self.tracked.remove(&id);
        self.ranges.close(kernel, id);
        let Some(flow) = self.engine.find(id.number()).map(|session| *session.flow()) else {
            return;
        };
        if tracked.is_some_and(|tracked| !tracked.is_over()) {
            self.said.push((flow, Said::Over));
        }
        for command in self.engine.end(id.number(), kernel) {
            if let Command::Unexpect(key) = command {
                unexpect(kernel, &flow, &key);
            }
        }
    }

    /// Makes sure that engine and record speak of the same session.
    pub(super) fn track(
        &mut self,
        kernel: &mut impl Kernel,
        passing: &Passing<'_>,
    ) -> Result<(), Reason> {
        let Passing { id, record, segment, .. } = *passing;
        if self.tracked.get(&id).is_some_and(|known| known.identity == Identity::of(record)) {
            return Ok(());
        }
        self.end(kernel, id);
        let kept = match kernel.recall(id).map_err(unknown)? {
            Some(kept) => self.resume(kernel, id, record, &kept),
            None => Kept::Nothing,
        };
        let flow = control::flow(id, record);
        let has_edits = Side::ALL.iter().any(|side| !record.corrections(*side).is_identity());
        let was_read = record.vouched.iter().any(|word| *word != Vouched::NONE.word());
        match kept {
            Kept::Resumed => return Ok(()),
            // Its edits are known to nobody any more: what comes must not leave shifted wrongly.
            Kept::Nothing | Kept::Unreadable if has_edits => {
                return Err(reset_unknown(kernel, passing));
            }
            Kept::Nothing if !was_read => {
                let session = self.engine.start(flow, record.rule());
                if segment.has(wire::ACK) {
                    // No payload has passed before the first segment, so the other begins here.
                    session.starts_at(passing.side.other().into(), segment.acknowledgement());
                }
            }
            Kept::Nothing | Kept::Unreadable => {
                self.engine.pick_up(flow, record.rule());
                let name = report::name(&flow);
                tracing::warn!("{name}: its state is lost: read again from the next line on");
            }
        }
        self.tracked.insert(id, Tracked::new(record));
        self.said.push((flow, Said::Begun));
        Ok(())
    }

    /// Goes on with what a predecessor has kept.
    fn resume(
        &mut self,
        kernel: &mut impl Kernel,
        id: SessionId,
        record: &Session,
        kept: &[u8],
    ) -> Kept {
        let Some(image) = journal::open(kept, record) else { return Kept::Nothing };
        let session = match self.engine.resume(image, &control::flow(id, record), record.rule()) {
            Ok(Some(session)) => session,
            Ok(None) => return Kept::Nothing,
            Err(error) => {
                tracing::warn!("ftp session {}: {error}", id.number());
                return Kept::Unreadable;
            }
        };
        tracing::debug!("{}: goes on where its last agent ended", report::name(session.flow()));
        if session.ended() == Some(alg::End::Encrypted) {
            self.ranges.open(kernel, id, record);
        }
        self.tracked.insert(id, Tracked { resumed: [true; 2], ..Tracked::new(record) });
        Kept::Resumed
    }

    /// Goes on behind what a predecessor has read, and died over before it has kept that: copies of
    /// lines, whose end is where the segment starts, or what the data plane is vouched for.
    pub(super) fn rejoin(&mut self, passing: &Passing<'_>) {
        let Passing { id, side, record, segment, .. } = *passing;
        let (Some(tracked), Some(session)) =
            (self.tracked.get_mut(&id), self.engine.find(id.number()))
        else {
            return;
        };
        let [before, _] = tracked.resumed;
        let Some(resumed) = tracked.resumed.get_mut(side.index()) else { return };
        let [client, _] = record.vouched.map(|word| Vouched::from_word(word).number());
        if let Some(passed) = client.filter(|_| side == Side::Responder && before) {
            session.passed_without(passed);
        }
        let (side, sequence) = (alg::Side::from(side), segment.sequence());
        let word = record.vouched.get(passing.side.index()).copied().unwrap_or_default();
        let vouched = Vouched::from_word(word).number();
        let passed = |to: &u32| *resumed && to.wrapping_sub(sequence) < 1 << 31;
        let known = match passing.is_at_line {
            true => Some(sequence),
            false => vouched.filter(passed),
        };
        if !session.has_read(side, sequence)
            && let Some(known) = known
            && session.resume_at(side, known)
        {
            let name = report::name(session.flow());
            tracing::warn!("{name}: goes on at a line, without what the last agent has read last");
        }
        *resumed &= vouched.is_some_and(|to| !session.has_read(side, to));
    }

    /// With RST, or the second FIN, what the session has announced goes. The engine stays for
    /// segments that come again.
    pub(super) fn note_end(&mut self, kernel: &mut impl Kernel, passing: &Passing<'_>) {
        let Passing { id, side, segment, record, .. } = *passing;
        let Some(tracked) = self.tracked.get_mut(&id) else { return };
        let (was_over, reset) = (tracked.is_over(), segment.has(wire::RST));
        if segment.has(wire::FIN) || reset {
            if let Some(ended) = tracked.ended.get_mut(side.index()) {
                *ended = true;
            }
            if reset {
                tracked.ended = [true; 2];
            }
            if tracked.is_over() {
                let flow = control::flow(id, record);
                for command in self.engine.finish(id.number(), kernel) {
                    if let Command::Unexpect(key) = command {
                        unexpect(kernel, &flow, &key);
                    }
                }
                self.ranges.close(kernel, id);
                if !was_over {
                    self.said.push((flow, Said::Over));
                }
            }
        }
    }
}

/// Ends a connection of which only the shift is known any more. That says what the receiver expects.
fn reset_unknown(kernel: &mut impl Kernel, passing: &Passing<'_>) -> Reason {
    let Passing { side, record, segment, .. } = *passing;
    let sequence = record.corrections(side).map_seq(segment.sequence());
    let back = record.corrections(side.other());
    report::lost(passing.id);
    reset(kernel, passing, sequence, back.map_ack(segment.acknowledgement()))
}
