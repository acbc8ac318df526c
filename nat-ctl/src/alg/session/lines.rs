//! What a session does with a line: one that is complete, and one that is not yet.
//!
//! Invariant: either all of it takes effect, or nothing ([`Halt::NoRoom`]), so that a line that is sent
//! again is read as if for the first time.

use super::{Halt, Placed, Session, announce::refused};
use crate::alg::{
    Command, Event,
    announcement::{self, Reading},
    dialogue::{self, Effect},
    expect::Gateway,
    flow::Side,
    keyword::{self, Form, Verb},
    opening::{self, Promise, Promised},
    pinhole::Kind,
    refusal::{End, Refusal},
};

impl Session {
    /// Bytes of an argument whose new text has left already do not leave.
    pub(super) fn swallow(&mut self, side: Side, bytes: &[u8]) {
        let stream = self.stream_mut(side);
        let Some(promise) = stream.promise.as_mut().filter(|promise| promise.grows) else { return };
        let swallowed = promise.swallows(bytes);
        promise.grows = swallowed == bytes.len();
        if stream.extend_edit(swallowed).is_err()
            && let Some(promise) = &mut stream.promise
        {
            promise.grows = false;
        }
    }

    pub(super) fn complete(
        &mut self,
        placed: &Placed<'_>,
        bytes: &[u8],
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Result<(), Halt> {
        let text = &placed.line.text;
        let reading = match placed.side {
            _ if placed.line.truncated => Reading::Nothing,
            Side::Client => announcement::of_command(text),
            Side::Server => announcement::of_reply(text),
        };
        if reading != Reading::Nothing && self.stream(placed.side).promise.is_none() {
            self.need_room(placed.side)?;
        }
        let before = out.len();
        if !self.is_broken_by(placed, &reading, bytes, out) {
            match placed.side {
                Side::Client => self.command(placed, reading, gateway, out),
                Side::Server => self.reply(placed, reading, gateway, out),
            }
        }
        if self.is_unforgiven(out.get(before..).unwrap_or_default()) {
            self.break_off(gateway, out);
            return Err(Halt::Reset);
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
        let line = keyword::masked(&placed.line.text);
        out.push(Command::Log(Event::Command { name: command.name, line }));
        let pinhole = self.announce(placed, reading, gateway, out);
        let replaced = match command.verb {
            Verb::Active(_) => self.pinholes.replaced(Kind::Active, pinhole),
            Verb::Passive => self.pinholes.replaced(Kind::Passive, None),
            Verb::Transfer => {
                let file = dialogue::name(command.argument);
                let asked = command.name.map(|command| Event::TransferAsked { command, file });
                out.extend(asked.map(Command::Log));
                self.pinholes.bind();
                Vec::new()
            }
            _ => Vec::new(),
        };
        out.extend(self.take_back(replaced));
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
        let effect = self.dialogue.reply(reply);
        let code = reply.map_or(0, |reply| reply.code);
        let event = match effect {
            Effect::TransferBegun => Some(Event::TransferBegun),
            Effect::TransferDone | Effect::TransferFailed => Some(Event::TransferEnded { code }),
            Effect::None | Effect::Revoke(_) | Effect::RevokeAll | Effect::Encrypted => None,
        };
        out.extend(event.map(Command::Log));
        let gone = match effect {
            Effect::None | Effect::TransferBegun => Vec::new(),
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
        out.extend(self.take_back(gone));
    }

    /// Looks at a line that does not end in its segment: an address that begins in it is replaced
    /// before the rest has come.
    pub(super) fn incomplete(
        &mut self,
        placed: &Placed<'_>,
        bytes: &[u8],
        gateway: &mut dyn Gateway,
        out: &mut Vec<Command>,
    ) -> Result<(), Halt> {
        if self.is_broken_by_part(placed, bytes, out) {
            self.break_off(gateway, out);
            return Err(Halt::Reset);
        }
        let Placed { side, line, start } = *placed;
        let is_hidden = self.flow.is_inside(side) && self.flow.is_translated(side);
        if !is_hidden || self.stream(side).promise.is_some() || line.truncated {
            return Ok(());
        }
        if side == Side::Server && self.dialogue.is_inside_other(keyword::reply(&line.text)) {
            return Ok(());
        }
        let public = self.flow.seen(side).ip();
        let own = self.own(side);
        let Some(opening) = opening::find(side, &line.text, &own) else { return Ok(()) };
        if opening.at < line.passed {
            return Ok(());
        }
        self.need_room(side)?;
        let permitted = self.dialogue.forbids(side).or(opening.refusal(public)).is_none()
            && gateway.admit(self.flow.client.ip()).is_ok();
        let port = match permitted {
            false => Promised::Nothing,
            true if gateway.keeps_ports() && opening.is_address_apart() => Promised::Own,
            true => {
                let inside = self.flow.address(side);
                let claimed = self.claim(side, inside, opening.port, false, gateway);
                claimed.map_or(Promised::Nothing, Promised::Port)
            }
        };
        if opening.form == Form::Epsv && port == Promised::Nothing {
            return Ok(());
        }
        let span = opening.span(&line.text, port);
        let text = match port {
            Promised::Own => public.to_string().into_bytes(),
            Promised::Port(port) => opening.text(public, port),
            Promised::Nothing => opening.text(public, opening.port.unwrap_or(0)),
        };
        let grows = opening.end.is_none() && span.end == line.text.len();
        let promise = Promise { form: opening.form, at: opening.at as u16, port, grows };
        let start = start.wrapping_add(span.start as u32);
        match self.stream_mut(side).edit(start, span.len(), text) {
            Ok(()) => self.stream_mut(side).promise = Some(promise),
            Err(_) => self.give_back(side, port, gateway),
        }
        Ok(())
    }

    pub(super) fn need_room(&mut self, side: Side) -> Result<(), Halt> {
        if !self.flow.is_inside(side) || self.stream_mut(side).has_room() {
            Ok(())
        } else {
            Err(Halt::NoRoom)
        }
    }
}
