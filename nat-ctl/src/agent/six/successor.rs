//! What outlives the agent of a control connection over IPv6: kept before a segment leaves, and gone on
//! with by the next one. Where the next line starts is enough, but for what was rewritten or is encrypted:
//! of that all that the engine knows.

use nat_common::{
    reason::Reason,
    six::{Control6, Flow6, Flow6Key},
};

use super::{Bridge, Kernel, control_flow, public_of, unknown};
use crate::{agent::report, alg};

impl Bridge {
    /// Goes on where a predecessor stood: at a line, or where lines were rewritten with all that it knew.
    ///
    /// # Errors
    /// [`Reason::AlgReset`] where that is known to nobody any more.
    pub(super) fn rejoin(
        &mut self,
        kernel: &mut impl Kernel,
        key: &Flow6Key,
        flow: &Flow6,
        kept: &Control6,
    ) -> Result<u32, Reason> {
        let public = public_of(kernel, key);
        let control = control_flow(kept.session(), key, flow, public);
        if kept.is_shifted() || kept.is_watched() {
            let image = kernel.recall(kept.session()).map_err(unknown)?;
            let resumed = image.and_then(|image| {
                let created = image.split_first_chunk::<4>()?;
                let is_it = u32::from_be_bytes(*created.0) == kept.created();
                is_it.then(|| {
                    self.engine.resume(created.1, &control, flow.rule()).ok().flatten().is_some()
                })
            });
            if resumed != Some(true) && kept.is_shifted() {
                report::lost(kept.session());
                return Err(Reason::AlgReset);
            }
            if resumed != Some(true) {
                // Where its records begin nobody knows any more, so that nothing in it can be told from a
                // line: from here on it passes.
                let control = Control6::new(kept.session(), kept.created(), [None; 2]).unread();
                kernel.keep(key, &control).map_err(unknown)?;
                return Err(Reason::AlgUnknown);
            }
        } else {
            self.engine.rejoin(control, flow.rule(), kept.lines());
        }
        self.remember(key, flow, kept.session(), public, true);
        tracing::debug!("{}: goes on where its last agent ended", report::name(&control));
        Ok(kept.session().number())
    }

    /// Keeps what the data plane and a successor have to know: without it only they are worse off, but
    /// where a line was rewritten, whose segments would leave with numbers of the other side.
    ///
    /// # Errors
    /// [`Reason::AlgBusy`] where that can't be kept.
    pub(super) fn keep(
        &mut self,
        kernel: &mut impl Kernel,
        key: &Flow6Key,
        number: u32,
    ) -> Result<(), Reason> {
        let (Some(session), Some(tracked)) = (self.engine.find(number), self.tracked.get_mut(key))
        else {
            return Ok(());
        };
        let sides = [alg::Side::Client, alg::Side::Server];
        let is_shifted = sides.iter().any(|side| !session.corrections(*side).is_identity());
        let lines = sides.map(|side| session.line_starts(side));
        let control = Control6::new(tracked.session, tracked.created, lines);
        let (control, is_whole) = match session.ended() {
            _ if is_shifted => (control.shifted(), true),
            Some(alg::End::Encrypted) if session.is_followed() => (control.watched(), true),
            Some(alg::End::Encrypted | alg::End::NotFtp) => (control.unread(), false),
            Some(alg::End::Reset) | None => (control, false),
        };
        match kernel.keep(key, &control) {
            Ok(()) => tracked.kept = true,
            Err(error) => {
                report::failed(&error);
                return if is_shifted { Err(Reason::AlgBusy) } else { Ok(()) };
            }
        }
        if is_whole {
            match session.to_bytes() {
                Ok(image) => {
                    let state = [&control.created().to_be_bytes()[..], &image].concat();
                    kernel.remember(control.session(), &state).unwrap_or_else(|error| {
                        report::failed(&error);
                    });
                }
                Err(error) => tracing::warn!("{}: {error}", report::name(session.flow())),
            }
        }
        Ok(())
    }
}
