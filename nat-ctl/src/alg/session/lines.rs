//! What a session does with a line: one that is complete, and one that is not yet.
//!
//! Invariant: either all of it takes effect, or nothing ([`NoRoom`]), so that a line that is sent
//! again is read as if for the first time.

use std::net::Ipv4Addr;

use super::{NoRoom, Placed, Session, announce::refused};
use crate::alg::{
    Command,
    announcement::{self, Reading},
    dialogue::Effect,
    expect::Gateway,
    flow::Side,
    keyword::{self, Form, Verb},
    opening::{self, Promise},
    pinhole::Kind,
    refusal::{End, Refusal},
};

impl Session {
    /// Bytes of an argument whose new text has left already do not leave.
    pub(super) fn swallow(&mut self, side: Side, bytes: &[u8]) {
        if side != self.flow.inside {
            return;
        }
        let Some(promise) = self.promise.as_mut().filter(|promise| promise.grows) else { return };
        let swallowed = promise.swallows(bytes);
        promise.grows = swallowed == bytes.len();
        if self.stream_mut(side).extend_edit(swallowed).is_err()
            && let Some(promise) = &mut self.promise
        {
            promise.grows = false;
        }
    }

    pub(super) fn complete(
        &mut self,
        placed: &Placed<'_>,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Result<(), NoRoom> {
        let text = &placed.line.text;
        let reading = match placed.side {
            _ if placed.line.truncated => Reading::Nothing,
            Side::Client => announcement::of_command(text),
            Side::Server => announcement::of_reply(text),
        };
        if reading != Reading::Nothing && self.promise.is_none() {
            self.need_room(placed.side)?;
        }
        match placed.side {
            Side::Client => self.command(placed, reading, gateway, out),
            Side::Server => self.reply(placed, reading, gateway, out),
        }
        Ok(())
    }

    fn command(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) {
        let Some(command) = keyword::command(&placed.line.text) else { return };
        if self.dialogue.is_first_command() && command.name.is_none() {
            self.stop(End::NotFtp);
            return;
        }
        let pinhole = self.announce(placed, reading, gateway, out);
        let replaced = match command.verb {
            Verb::Active(_) => self.pinholes.replaced(Kind::Active, pinhole),
            Verb::Passive => self.pinholes.replaced(Kind::Passive, None),
            Verb::Transfer => {
                self.pinholes.bind();
                Vec::new()
            }
            _ => Vec::new(),
        };
        out.extend(replaced.into_iter().map(Command::Unexpect));
        self.dialogue.command(&command, pinhole);
    }

    fn reply(
        &mut self,
        placed: &Placed<'_>,
        reading: Reading,
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) {
        let reply = keyword::reply(&placed.line.text);
        if !self.dialogue.is_inside_other(reply) {
            self.announce(placed, reading, gateway, out);
        } else if reading != Reading::Nothing {
            // Text of another reply, perhaps one that repeats what a client was made to send
            // (VU#328867). It is never rewritten.
            out.push(refused(placed, Refusal::Unsolicited));
        }
        let gone = match self.dialogue.reply(reply) {
            Effect::None => Vec::new(),
            Effect::Revoke(pinhole) => self.pinholes.revoke(pinhole),
            Effect::RevokeAll => self.pinholes.revoke_all(),
            Effect::TransferDone => self.pinholes.transfer_done(),
            Effect::TransferFailed => {
                self.pinholes.transfer_failed();
                Vec::new()
            }
            Effect::Encrypted => {
                self.encrypt();
                self.pinholes.revoke_all()
            }
        };
        out.extend(gone.into_iter().map(Command::Unexpect));
    }

    /// Looks at a line that does not end in its segment: an address that begins in it is replaced
    /// before the rest has come.
    pub(super) fn incomplete(
        &mut self,
        placed: &Placed<'_>,
        gateway: &mut dyn Gateway,
    ) -> Result<(), NoRoom> {
        let Placed { side, line, start } = *placed;
        if side != self.flow.inside || self.promise.is_some() || line.truncated {
            return Ok(());
        }
        if side == Side::Server && self.dialogue.is_inside_other(keyword::reply(&line.text)) {
            return Ok(());
        }
        let public = *self.flow.public.ip();
        let own: [Ipv4Addr; 2] = [self.flow.address(side), public];
        let Some(opening) = opening::find(side, &line.text, own) else { return Ok(()) };
        if opening.at < line.passed {
            return Ok(());
        }
        self.need_room(side)?;
        let permitted = self.dialogue.forbids(side).or(opening.refusal).is_none();
        let claimed = permitted.then(|| self.claim(opening.port, false, gateway)).flatten();
        if opening.form == Form::Epsv && claimed.is_none() {
            return Ok(());
        }
        let announced = claimed.or(opening.port).unwrap_or(0);
        let mut promise = Promise {
            form: opening.form,
            at: opening.at as u16,
            port: claimed.unwrap_or(0),
            grows: false,
        };
        let span = opening.span(&line.text);
        promise.grows = opening.end.is_none() && span.end == line.text.len();
        let text = opening.text(public, announced);
        let start = start.wrapping_add(span.start as u32);
        match self.stream_mut(side).edit(start, span.len(), text) {
            Ok(()) => self.promise = Some(promise),
            Err(_) => self.release(promise.port, gateway),
        }
        Ok(())
    }

    pub(super) fn need_room(&mut self, side: Side) -> Result<(), NoRoom> {
        if side != self.flow.inside || self.stream_mut(side).has_room() {
            Ok(())
        } else {
            Err(NoRoom)
        }
    }
}
