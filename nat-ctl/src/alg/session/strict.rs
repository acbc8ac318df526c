//! Strict mode, after the checks of `inspect ftp strict` of Cisco ASA: what a line must not be, and how
//! the session ends that has sent one.
//!
//! Invariant: the line that breaks a rule does not leave, nor does anything behind it; both ends are
//! told by RST, whatever comes later.

use super::{Placed, Session, announce::refused};
use crate::alg::{
    Command, Event,
    announcement::Reading,
    expect::Gateway,
    flow::Side,
    keyword::{self, Verb, is_blank},
    policy::Strict,
    refusal::{End, Refusal},
};

/// Longest command, without its end. RFC 959 has no bound; the longest path of Linux is 4,096 bytes,
/// but what lines of the data plane count as harmless have no more than this either.
const LONGEST_COMMAND: usize = 512;

/// Most bytes behind the numbers of a reply: the constant of Cisco ASA.
const TRAILING_BYTES: usize = 8;

impl Session {
    /// Refuses a line that breaks a rule of strict mode. Whether the session is over with it: that is
    /// so too where something else has refused it, and is no shortage of the gateway's.
    pub(super) fn is_broken_by(
        &mut self,
        placed: &Placed<'_>,
        reading: &Reading,
        bytes: &[u8],
        out: &mut Vec<Command>,
    ) -> bool {
        let Some(strict) = &self.policy.strict else { return false };
        let breach = match placed.side {
            Side::Client => self.breach_of_client(strict, placed, reading, bytes),
            Side::Server => self.breach_of_server(placed, reading),
        };
        let Some(reason) = breach else { return false };
        out.push(refused(placed, reason));
        true
    }

    /// Whether one of these commands is a refusal that strict mode does not forgive.
    pub(super) fn is_unforgiven(&self, commands: &[Command]) -> bool {
        self.policy.strict.is_some()
            && commands.iter().any(|command| match command {
                Command::Log(Event::Refused { reason, .. }) => reason.ends_strict_sessions(),
                _ => false,
            })
    }

    /// The rest of a command has not come; is it too long already, or has it a line feed in it?
    pub(super) fn is_broken_by_part(
        &mut self,
        placed: &Placed<'_>,
        bytes: &[u8],
        out: &mut Vec<Command>,
    ) -> bool {
        if self.policy.strict.is_none() || placed.side == Side::Server {
            return false;
        }
        let Some(reason) = self.breach_of_form(placed, bytes) else { return false };
        out.push(refused(placed, reason));
        true
    }

    /// The client begins with TLS where nobody may ask for it.
    pub(super) fn is_denied_encryption(&self) -> bool {
        let Some(auth) = keyword::command(b"AUTH") else { return false };
        self.policy.strict.as_ref().is_some_and(|strict| strict.denies(&auth))
    }

    /// Ends the session: what it has announced is taken back.
    pub(super) fn break_off(&mut self, gateway: &mut dyn Gateway, out: &mut Vec<Command>) {
        self.end = Some(End::Reset);
        out.extend(self.on_flow_end(gateway));
    }

    fn breach_of_client(
        &self,
        strict: &Strict,
        placed: &Placed<'_>,
        reading: &Reading,
        bytes: &[u8],
    ) -> Option<Refusal> {
        let text = &placed.line.text;
        if let Some(reason) = self.breach_of_form(placed, bytes) {
            return Some(reason);
        }
        if keyword::reply(text).is_some_and(|reply| matches!(reply.code, 227..=229)) {
            return Some(Refusal::Spoofed);
        }
        let command = keyword::command(text)?;
        if strict.denies(&command) {
            return Some(Refusal::DeniedCommand);
        }
        if command.name.is_none() && !self.dialogue.has_spoken() {
            return Some(Refusal::NotFtp);
        }
        if self.dialogue.is_pipelined(&command) {
            return Some(Refusal::Pipelined);
        }
        let active = matches!(command.verb, Verb::Active(_));
        match reading {
            Reading::Nothing if active => Some(Refusal::Truncated),
            Reading::Announced(_) if text.last().is_some_and(|byte| is_blank(*byte)) => {
                Some(Refusal::TrailingBytes)
            }
            Reading::Nothing | Reading::Refused(..) | Reading::Announced(_) => None,
        }
    }

    fn breach_of_server(&self, placed: &Placed<'_>, reading: &Reading) -> Option<Refusal> {
        let text = &placed.line.text;
        let reply = keyword::reply(text);
        if self.dialogue.is_in_text(reply) {
            return None;
        }
        if keyword::command(text).is_some_and(|it| matches!(it.verb, Verb::Active(_))) {
            return Some(Refusal::Spoofed);
        }
        let announces = reply.is_some_and(|reply| matches!(reply.code, 227..=229));
        match reading {
            Reading::Nothing if announces && self.dialogue.is_passive_waiting() => {
                Some(Refusal::Truncated)
            }
            Reading::Announced(found) if text.len() - found.span.end > TRAILING_BYTES => {
                Some(Refusal::TrailingBytes)
            }
            Reading::Nothing | Reading::Refused(..) | Reading::Announced(_) => None,
        }
    }

    fn breach_of_form(&self, placed: &Placed<'_>, bytes: &[u8]) -> Option<Refusal> {
        let line = placed.line;
        // Of a line whose beginning was not seen nothing is kept.
        let long = line.truncated && !line.text.is_empty();
        if long || line.text.len() > LONGEST_COMMAND {
            return Some(Refusal::TooLong);
        }
        self.client.line.has_bare_feed(bytes).then_some(Refusal::LineEnd)
    }
}
