//! Which command a reply answers, and what users want to know of a session.
//!
//! Invariant: a reply never announces anything unless a passive command waits for it, and a command
//! never while the server has not greeted or encryption is being negotiated.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    keyword::{self, Command, Form, Reply, Verb},
    pinhole::PinholeId,
    refusal::Refusal,
};

/// Commands that are remembered until their reply.
pub const WAITING: usize = 64;

/// Bytes kept of a user's or a file's name.
const NAME_BYTES: usize = 96;

/// A command that waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    /// PASV and its like.
    Passive,
    /// PORT and its like, and the pinhole made for it.
    Active(Option<PinholeId>),
    /// A transfer.
    Transfer,
    /// AUTH.
    Auth,
    /// REIN.
    Reinitialise,
    /// QUIT.
    Quit,
    /// Another.
    Other,
}

/// What a reply does beside passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The command that made this pinhole was refused.
    Revoke(PinholeId),
    /// The session starts anew, or ends.
    RevokeAll,
    /// A transfer is under way.
    TransferBegun,
    /// A transfer is over; the pinhole made for it has had its use.
    TransferDone,
    /// A transfer was refused; the next may use its pinhole.
    TransferFailed,
    /// Encryption begins behind this reply.
    Encrypted,
}

/// The state of the dialogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialogue {
    waiting: VecDeque<Waiting>,
    /// How many of them, from the last one back, this agent has read and not its predecessor.
    #[serde(skip)]
    heard: usize,
    /// Commands that came when `waiting` was full.
    unlisted: u32,
    greeted: bool,
    spoken: bool,
    logged_in: bool,
    transferring: bool,
    /// What the client has asked last may not be known, and be a passive command.
    missed: bool,
    /// The reply of several lines that has not ended (RFC 959, 4.2).
    several: Option<u16>,
    user: Option<String>,
    command: Option<String>,
    file: Option<String>,
    mode: Option<Form>,
}

/// What users see of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who has logged in, or tries to.
    pub user: Option<String>,
    /// The last announcement: `PORT`, `EPRT`, `PASV`, `EPSV`, ...
    pub mode: Option<&'static str>,
    /// The last command.
    pub command: Option<String>,
    /// The file of the last transfer.
    pub file: Option<String>,
    /// `connecting`, `login`, `idle` or `transfer`.
    pub state: &'static str,
}

impl Dialogue {
    /// A dialogue that is joined after it has begun, and is taken to have behaved so far.
    pub fn joined() -> Dialogue {
        Dialogue { greeted: true, spoken: true, ..Dialogue::default() }
    }

    /// Whether encryption may begin with what the client sends next: it has said nothing yet, or waits
    /// for the answer to AUTH.
    pub fn may_encrypt(&self) -> bool {
        !self.spoken || self.waiting.contains(&Waiting::Auth)
    }

    /// Lines come again behind what was encrypted. A server takes CCC only from who has logged in (RFC
    /// 2228, 3), and what comes now has to be FTP as the first line had to.
    pub fn resume(&mut self) {
        self.waiting.clear();
        (self.heard, self.unlisted, self.several) = (0, 0, None);
        (self.greeted, self.logged_in, self.spoken) = (true, true, false);
    }

    /// Whether the client has given a command.
    pub fn has_spoken(&self) -> bool {
        self.spoken
    }

    /// Whether this is the first line of the client. It decides whether the flow is FTP at all.
    pub fn is_first_command(&mut self) -> bool {
        !std::mem::replace(&mut self.spoken, true)
    }

    /// Whether the server has greeted and the client has said its first line.
    pub fn has_begun(&self) -> bool {
        self.greeted && self.spoken
    }

    /// Some lines that a predecessor has read are not known: what it has left is waited for no more.
    /// Nothing among them can have answered what came later, which this agent has read.
    pub fn lose(&mut self) {
        let heard = if self.unlisted > 0 { 0 } else { self.heard };
        self.waiting.drain(..self.waiting.len().saturating_sub(heard));
        self.heard = self.waiting.len();
        (self.unlisted, self.several, self.transferring) = (0, None, false);
    }

    /// A line of the client has passed that is not known. Until its next one a reply may announce.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    /// Notes a command. `pinhole` is what its announcement has made.
    pub fn command(&mut self, command: &Command<'_>, pinhole: Option<PinholeId>) {
        self.missed = false;
        let waiting = match command.verb {
            // Answered twice, or once, or not: to wait for it would shift all that follow.
            Verb::Abort => None,
            Verb::Passive => Some(Waiting::Passive),
            Verb::Active(_) => Some(Waiting::Active(pinhole)),
            Verb::Transfer => Some(Waiting::Transfer),
            Verb::Auth => Some(Waiting::Auth),
            Verb::Reinitialise => Some(Waiting::Reinitialise),
            Verb::Quit => Some(Waiting::Quit),
            Verb::User | Verb::Secret | Verb::Other => Some(Waiting::Other),
        };
        if let Some(waiting) = waiting {
            if self.unlisted > 0 || self.waiting.len() >= WAITING {
                self.unlisted = self.unlisted.saturating_add(1);
            } else {
                self.waiting.push_back(waiting);
                self.heard += 1;
            }
        }
        self.command = Some(command.name.unwrap_or("?").to_owned());
        match command.verb {
            Verb::User => self.user = name(command.argument),
            Verb::Transfer => self.file = name(command.argument),
            _ => {}
        }
    }

    /// Whether a command comes before the answer to what was asked before it. While a transfer is under
    /// way it may be ended, or asked about (RFC 959, 4.1.3).
    pub fn is_pipelined(&self, command: &Command<'_>) -> bool {
        let waits = !self.greeted || self.unlisted > 0 || !self.waiting.is_empty();
        let interrupts = match command.verb {
            Verb::Abort | Verb::Quit => true,
            _ => command.name == Some("STAT"),
        };
        waits && !(self.transferring && interrupts)
    }

    /// Whether a line is within a reply of several lines, and not its last.
    pub fn is_in_text(&self, reply: Option<Reply>) -> bool {
        self.is_inside_other(reply) || self.several.is_some() && reply.is_none()
    }

    /// Whether a passive command waits for its reply.
    pub fn is_passive_waiting(&self) -> bool {
        self.waiting.contains(&Waiting::Passive)
    }

    /// Whether somebody has logged in.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// Whether the line belongs to the text of a reply that began with another code, where
    /// whatever a client made a server repeat may stand.
    pub fn is_inside_other(&self, reply: Option<Reply>) -> bool {
        self.several.is_some_and(|code| reply.is_none_or(|reply| reply.code != code))
    }

    /// Why nothing may be announced now; `None` when it may.
    pub fn forbids(&self, by: super::flow::Side) -> Option<Refusal> {
        if !self.greeted {
            return Some(Refusal::BeforeGreeting);
        }
        if self.waiting.contains(&Waiting::Auth) {
            return Some(Refusal::AfterAuth);
        }
        let passive = self.waiting.contains(&Waiting::Passive);
        match by {
            _ if self.unlisted > 0 => Some(Refusal::TooManyCommands),
            super::flow::Side::Server if !passive && !self.missed => Some(Refusal::Unsolicited),
            _ => None,
        }
    }

    /// Something was announced in this form.
    pub fn announced(&mut self, form: Form) {
        self.mode = Some(form);
    }

    /// Whether a transfer command waits for its reply.
    pub fn transfer_waits(&self) -> bool {
        self.waiting.contains(&Waiting::Transfer)
    }

    /// Notes a line of the server, and finds the command that it answers.
    pub fn reply(&mut self, reply: Option<Reply>) -> Effect {
        let Some(reply) = reply.filter(|_| !self.is_inside_other(reply)) else {
            return Effect::None;
        };
        if reply.continues {
            self.several = Some(reply.code);
            return Effect::None;
        }
        self.several = None;
        let announces = matches!(reply.code, 227..=229);
        match reply.code {
            100..=199 => {
                if matches!(reply.code, 125 | 150) {
                    self.transferring = true;
                    return Effect::TransferBegun;
                }
                return Effect::None;
            }
            200..=299 if !self.greeted && !announces => {
                self.greeted = true;
                return Effect::None;
            }
            230 | 232 | 202 => self.logged_in = true,
            _ => {}
        }
        if reply.code < 300 && !announces && self.waiting.front() == Some(&Waiting::Passive) {
            // The end of a transfer whose command has been answered: 226 before 227.
            return Effect::None;
        }
        if announces {
            // Whatever stands before it was never answered; and one that is not known came last.
            let passive = self.waiting.iter().position(|it| *it == Waiting::Passive);
            let missed = self.missed.then_some(self.waiting.len());
            self.waiting.drain(..passive.or(missed).unwrap_or(0));
            self.missed = false;
        }
        let answered = self.waiting.pop_front();
        self.heard = self.heard.min(self.waiting.len());
        if answered.is_none() {
            self.unlisted = self.unlisted.saturating_sub(1);
        }
        let accepted = reply.code < 400;
        match answered {
            Some(Waiting::Active(Some(pinhole))) if !accepted => Effect::Revoke(pinhole),
            Some(Waiting::Auth) if reply.code == 234 => Effect::Encrypted,
            Some(Waiting::Reinitialise) if accepted => {
                (self.logged_in, self.user) = (false, None);
                Effect::RevokeAll
            }
            Some(Waiting::Quit) if accepted => Effect::RevokeAll,
            Some(Waiting::Transfer) => {
                self.transferring = false;
                if accepted { Effect::TransferDone } else { Effect::TransferFailed }
            }
            _ => Effect::None,
        }
    }

    /// What users see.
    pub fn facts(&self) -> Facts {
        let state = match (self.greeted, self.logged_in, self.transferring) {
            (false, _, _) => "connecting",
            (true, _, true) => "transfer",
            (true, false, false) => "login",
            (true, true, false) => "idle",
        };
        Facts {
            user: self.user.clone(),
            mode: self.mode.map(Form::name),
            command: self.command.clone(),
            file: self.file.clone(),
            state,
        }
    }
}

/// The name in an argument, as far as it is kept.
pub fn name(argument: &[u8]) -> Option<String> {
    let argument = argument.trim_ascii();
    let mut text = keyword::printable(argument.get(..NAME_BYTES).unwrap_or(argument));
    while text.len() > NAME_BYTES {
        text.pop();
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::flow::Side;

    fn say(dialogue: &mut Dialogue, line: &str) {
        dialogue.command(&keyword::command(line.as_bytes()).expect("a command"), None);
    }

    fn answer(dialogue: &mut Dialogue, line: &str) -> Effect {
        dialogue.reply(keyword::reply(line.as_bytes()))
    }

    #[test]
    fn a_client_that_speaks_before_the_greeting_keeps_its_order() {
        let mut dialogue = Dialogue::default();
        say(&mut dialogue, "AUTH TLS");
        assert_eq!(answer(&mut dialogue, "220 hello"), Effect::None);
        assert_eq!(answer(&mut dialogue, "234 go on"), Effect::Encrypted);
    }

    #[test]
    fn the_end_of_a_transfer_does_not_answer_a_passive_command() {
        let mut dialogue = Dialogue::joined();
        say(&mut dialogue, "PASV");
        answer(&mut dialogue, "226 done");
        assert_eq!(dialogue.forbids(Side::Server), None);
        answer(&mut dialogue, "227 x");
        assert_eq!(dialogue.forbids(Side::Server), Some(Refusal::Unsolicited));
    }

    #[test]
    fn past_the_bound_nothing_is_announced_until_the_replies_have_caught_up() {
        let mut dialogue = Dialogue::joined();
        for _ in 0..WAITING + 3 {
            say(&mut dialogue, "NOOP");
        }
        assert_eq!(dialogue.forbids(Side::Client), Some(Refusal::TooManyCommands));
        for _ in 0..WAITING + 3 {
            answer(&mut dialogue, "200 ok");
        }
        assert_eq!(dialogue.forbids(Side::Client), None);
    }

    #[test]
    fn a_login_shows() {
        let mut dialogue = Dialogue::default();
        assert_eq!(dialogue.facts().state, "connecting");
        answer(&mut dialogue, "220 hello");
        say(&mut dialogue, "USER anna");
        assert_eq!(dialogue.facts().state, "login");
        answer(&mut dialogue, "230 in");
        say(&mut dialogue, "RETR a b");
        answer(&mut dialogue, "150 go");
        let facts = dialogue.facts();
        assert_eq!((facts.user.as_deref(), facts.file.as_deref()), (Some("anna"), Some("a b")));
        assert_eq!(facts.state, "transfer");
        assert_eq!(answer(&mut dialogue, "226 done"), Effect::TransferDone);
        assert_eq!(dialogue.facts().state, "idle");
    }
}
